"""Small graphs, and a graph convolutional network (GCN) for them."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snippets.lab.models import initialised
from snippets.lab.train import fit


@dataclass(frozen=True)
class Graph:
    """A graph with N nodes, E edges and a class for each node.

    Attributes:
        edge_index: Sources and targets (2, E), each undirected edge
            once in either direction, without loops.
        features: What is known of each node (N, D), float64.
        labels: The classes (N,).
        train: The nodes whose label may be learnt from (N,), boolean.
    """

    edge_index: Tensor
    features: Tensor
    labels: Tensor
    train: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def test(self) -> Tensor:
        """The nodes whose label is kept for testing (N,), boolean."""
        return ~self.train

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.labels.max()) + 1

    def propagation(self) -> Tensor:
        r"""Return what a GCN multiplies with, dense (N, N).

        $$\hat D^{-1/2} (A + I) \hat D^{-1/2}$$

        With A the adjacency matrix and D̂ the degrees of A + I.
        """
        source, target = self.edge_index
        linked = torch.eye(len(self), dtype=torch.float64)
        linked[target, source] = 1.0
        scale = linked.sum(1).rsqrt()
        return scale[:, None] * linked * scale

    def induced(self, kept: Tensor) -> "Graph":
        """Keep the nodes of a mask (N,) and the edges between them."""
        number = kept.cumsum(0) - 1  # a kept node's new number
        inside = kept[self.edge_index].all(0)  # (E,)
        return Graph(
            number[self.edge_index[:, inside]],
            self.features[kept],
            self.labels[kept],
            self.train[kept],
        )


def karate_club(*, per_class: int = 2, seed: int = 0) -> Graph:
    """Load Zachary's karate club, which networkx ships.

    34 members, 78 friendships; the classes are the two clubs after the
    split. Nothing else is known of a member, so the features are the
    identity matrix.

    Args:
        per_class: How many members of each club have a known label.
        seed: Chooses them.
    """
    import networkx  # type: ignore[import-untyped]

    club = networkx.karate_club_graph()
    edges = torch.tensor(list(club.edges)).T  # (2, 78)
    labels = torch.tensor(
        [int(club.nodes[n]["club"] != "Mr. Hi") for n in club]
    )
    return Graph(
        torch.cat([edges, edges.flip(0)], dim=1),
        torch.eye(len(labels), dtype=torch.float64),
        labels,
        _some_of_each(
            labels, per_class, torch.Generator().manual_seed(seed)
        ),
    )


def block_model(
    sizes: Sequence[int],
    *,
    within: float,
    between: float,
    signal: float,
    generator: torch.Generator,
    dimensions: int = 16,
    per_class: int = 10,
) -> Graph:
    """Draw a stochastic block model with Gaussian features.

    Args:
        sizes: The number of nodes in each class.
        within: Probability of an edge between two nodes of a class.
        between: Probability of an edge between nodes of two classes.
        signal: Length of each class's mean feature; the noise around
            it has standard deviation 1 in each of the dimensions.
        generator: Source of edges, features and the labelled nodes.
        dimensions: Size of a node's features; at least the classes.
        per_class: How many nodes of each class have a known label.
    """
    labels = torch.arange(len(sizes)).repeat_interleave(
        torch.tensor(sizes)
    )
    same = labels[:, None] == labels
    chance = torch.where(same, within, between).double()
    draw = torch.rand(
        chance.shape, generator=generator, dtype=torch.float64
    )
    linked = (draw < chance).triu(1)  # each pair once
    noise = torch.randn(
        len(labels),
        dimensions,
        generator=generator,
        dtype=torch.float64,
    )
    means = torch.eye(len(sizes), dimensions, dtype=torch.float64)
    return Graph(
        (linked | linked.T).nonzero().T,
        signal * means[labels] + noise,
        labels,
        _some_of_each(labels, per_class, generator),
    )


def _some_of_each(
    labels: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Choose `count` nodes of each class: a mask (N,)."""
    order = torch.randperm(len(labels), generator=generator)
    one_hot = nn.functional.one_hot(labels[order])  # (N, C)
    rank = one_hot.cumsum(0).gather(1, labels[order, None])[:, 0]
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[order[rank <= count]] = True
    return chosen


class GCN(nn.Module):
    """Linear layers, each followed by a mean over the neighbours.

    Args:
        widths: Sizes of the input, the hidden layers and the output.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(*pair) for pair in itertools.pairwise(widths)
        )

    def hidden(self, features: Tensor, propagation: Tensor) -> Tensor:
        """Return the last hidden layer, after its ReLU (N, H)."""
        for layer in self.layers[:-1]:
            features = (propagation @ layer(features)).relu()
        return features

    def forward(self, features: Tensor, propagation: Tensor) -> Tensor:
        """Return the logits (N, C)."""
        return self.head(
            self.hidden(features, propagation), propagation
        )

    def head(self, hidden: Tensor, propagation: Tensor) -> Tensor:
        """Map the last hidden layer (N, H) to the logits (N, C)."""
        return propagation @ self.layers[-1](hidden)


def gcn(*widths: int, generator: torch.Generator) -> GCN:
    """Build a GCN in float64 with weights drawn from `generator`."""
    return initialised(lambda: GCN(*widths), generator=generator)


def fit_gcn(
    model: GCN,
    graph: Graph,
    *,
    generator: torch.Generator,
    extra: Callable[[Tensor], Tensor] | None = None,
    steps: int = 50,
    learning_rate: float = 2e-2,
) -> GCN:
    """Train `model` on the labels of `graph.train`; then freeze it.

    Args:
        model: What is trained.
        graph: Each step sees the whole of it.
        generator: The training loop's, though no order is drawn.
        extra: Maps the last hidden layer (N, H) to a term that is
            added to the cross-entropy.
        steps: How often the weights change.
        learning_rate: The rate at the start.

    Returns:
        The trained model, in no need of gradients.
    """
    propagation = graph.propagation()

    def loss(_: Tensor) -> Tensor:
        hidden = model.hidden(graph.features, propagation)
        logits = model.head(hidden, propagation)[graph.train]
        known = nn.functional.cross_entropy(
            logits, graph.labels[graph.train]
        )
        return known if extra is None else known + extra(hidden)

    fit(
        model,
        loss,
        len(graph),
        generator=generator,
        epochs=steps,
        batch_size=len(graph),
        learning_rate=learning_rate,
    )
    return model.requires_grad_(False)


def hit_rate(logits: Tensor, labels: Tensor, where: Tensor) -> float:
    """Return the share of the nodes `where` (N,) classified right."""
    hits = logits.argmax(-1) == labels
    return hits[where].double().mean().item()
