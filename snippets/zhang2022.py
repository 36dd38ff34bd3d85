# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# Script of the note [papers/zhang2022.md](../papers/zhang2022.md).
#
# # Graph-less Neural Networks: Teaching Old MLPs New Tricks via Distillation
#
# Shichang Zhang, Yozen Liu, Yizhou Sun and Neil Shah, 2022
# ([arXiv:2110.08727](https://arxiv.org/abs/2110.08727)).
#
# A graph network is accurate, and slow to serve: to classify one node
# it must fetch the node's neighbours, and theirs. The paper distils it
# into an MLP that sees the node's own features only (a GLNN). When is
# that enough? This script builds the loss and moves, step by step, from
# labels that the features determine to labels that only the graph does.

# %%
import functools
import math
from collections.abc import Sequence
from statistics import mean

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from snippets.hinton2015 import kd_loss
from snippets.lab.checks import (
    full_precision,
    require_range,
    require_samples,
    require_share,
    require_true,
    typed,
)
from snippets.lab.claims import Evidence, claim
from snippets.lab.data import seeded
from snippets.lab.graphs import (
    Graph,
    block_model,
    fit_gcn,
    gcn,
    hit_rate,
)
from snippets.lab.models import mlp
from snippets.lab.plots import (
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    figure,
    label,
)
from snippets.lab.report import below, percent
from snippets.lab.train import fit

# %% [markdown]
# ## The loss
#
# The teacher has an answer for every node, labelled or not. The student
# matches it on all of them; where labels are known, they may join in.


# %%
@typed
def glnn_loss(
    student_logits: Float[Tensor, "nodes classes"],
    teacher_logits: Float[Tensor, "nodes classes"],
    targets: Int[Tensor, "nodes"],
    labelled: Bool[Tensor, "nodes"],
    *,
    weight: float = 0.0,
) -> Float[Tensor, ""]:
    r"""Labels where they are known, soft targets everywhere.

    $$-\frac{\lambda}{n} \sum_{i=1}^{N} m_i \log q_i[y_i] +
    \frac{1 - \lambda}{N} \sum_{i=1}^{N} \mathrm{KL}\big(p_i \,\|\,
    q_i\big), \qquad n = \sum_i m_i$$

    The paper writes sums over nodes; the authors' code takes these two
    means. With sums the soft term weighs $N / n$ times more.

    Args:
        student_logits: Their softmax is $q$, (N, C).
        teacher_logits: Their softmax is $p$, (N, C); get no gradient.
            Both softmaxes are at temperature 1.
        targets: The labels $y$, (N,); read at labelled nodes only.
        labelled: $m$, true where the label is known, (N,).
        weight: The $\lambda$ of the labels, in [0, 1]. 0 is the default
            of the authors' code: no label is read, and none is needed.

    Returns:
        A scalar in nats.

    Raises:
        TypeError: shapes that differ, targets that are no integers, a
            mask that is not boolean.
        ValueError: a weight outside [0, 1]; no node; with a weight
            above 0, no labelled node or a label that is no class.

    Source: the paper's objective; `distill_run_transductive` in
        snap-research/graphless-neural-networks.
    """
    require_share(weight=weight)
    require_samples(student_logits=student_logits)
    terms = []
    # A term of weight 0 is left out, since 0 · inf would be NaN.
    if weight > 0:
        known = _known(targets, labelled, student_logits.shape[1])
        logits = full_precision(student_logits)[labelled]  # (n, C)
        terms.append(
            weight * nn.functional.cross_entropy(logits, known)
        )
    if weight < 1:
        soft = kd_loss(student_logits, teacher_logits, temperature=1.0)
        terms.append((1 - weight) * soft)
    return torch.stack(terms).sum()


def _known(targets: Tensor, labelled: Tensor, classes: int) -> Tensor:
    """Return the labels of labelled nodes: (N,), (N,) → (n,)."""
    require_true(labelled=labelled)
    known = targets[labelled].long()
    require_range(classes, targets=known)
    return known


# %% [markdown]
# ## Exact checks
#
# **λ = 0 is not "no step".** The authors' code takes two steps in turn:
# one on λ times the label loss, one on (1 − λ) times the soft loss. At
# its default λ = 0 the first has a gradient of exactly zero. But Adam
# moves by its memory of earlier gradients. After one real step, the
# empty one moves each weight by $\frac{0.9 \cdot 0.1}{0.19} \big/
# \sqrt{\frac{0.999 \cdot 0.001}{0.001999}} = 0.67$ of the real one.


# %%
@claim(
    "In the authors' code the label pass at λ = 0 still moves the"
    " weights",
    source="train_mini_batch in the authors' code",
)
def empty_pass_moves() -> Evidence:
    gradient = torch.randn(40, generator=seeded(0), dtype=torch.float64)
    weights = torch.zeros_like(gradient, requires_grad=True)
    optimiser = torch.optim.Adam([weights], lr=0.01)
    places = [weights.detach().clone()]
    for share in (1.0, 0.0):  # the soft pass, then the label pass
        weights.grad = share * gradient
        optimiser.step()
        places.append(weights.detach().clone())
    start, real, empty = places
    ratios = (empty - real) / (real - start)
    return Evidence(
        holds=bool(((ratios - 0.67).abs() < 0.01).all()),
        measured="a step on 0 × loss moves every weight by"
        f" {ratios.mean().item():.2f} of the step before",
        expected="0.67 by Adam's rule, 0 by the formula",
    )


# %% [markdown]
# **What a model without a graph can know.** Let $X$ be a node's own
# features, $E$ its edges, $y$ its label. The chain rule of information
# splits what there is to know:
#
# $$I(X, E;\, y) = I(X;\, y) + I(E;\, y \mid X)$$
#
# An MLP can use the first part. The second is what the graph adds. The
# paper splits the other way round (as reported), and takes $I(X; y \mid
# E) = 0$, no news from the features once the graph is known, as the
# case in which a GLNN must fail. Two worlds of one bit each speak
# against this. *Copy*: feature, graph and label all say the same.
# *XOR*: the label is the exclusive or of feature and graph.


# %%
def entropy(table: Tensor) -> float:
    """Entropy in bits of a table of probabilities."""
    return torch.special.entr(table).sum().item() / math.log(2)


def news(joint: Tensor, axis: int) -> float:
    """Bits that X (axis 0) or E (1) adds to the other, of p(x, e, y).

    Axis 0 is I(X; y | E), axis 1 is I(E; y | X).
    """
    return abs(
        entropy(joint.sum(2))
        + entropy(joint.sum(axis))
        - entropy(joint)
        - entropy(joint.sum((axis, 2)))
    )


@claim(
    "A GLNN must fail where the label is independent of the features"
    " given the graph",
    source="the paper's analysis of when GLNNs fail (as reported)",
    expect=False,
)
def conditional_independence() -> Evidence:
    bit = torch.tensor([0, 1])
    x, e, y = torch.meshgrid(bit, bit, bit, indexing="ij")
    found, refuted = [], False
    for name, possible in {
        "copy": (x == e) & (e == y),
        "XOR": (x ^ e) == y,
    }.items():
        joint = possible.double() / possible.sum()
        features, graph = news(joint, 0), news(joint, 1)
        best = joint.sum(1).max(1).values.sum().item()
        refuted |= features < 1e-12 and best > 0.99
        found.append(
            f"{name}: I(X; y | E) = {features:.0f} bit, I(E; y | X) ="
            f" {graph:.0f} bit, best MLP {percent(best)}"
        )
    return Evidence(
        holds=not refuted,
        measured="; ".join(found),
        expected="where I(X; y | E) = 0, chance: 50 %",
    )


# %% [markdown]
# So look at $I(E; y \mid X)$, what we lose by serving without graph:
# nothing in the first world, all there is in the second.
#
# ## From features to structure
#
# A stochastic block model: four classes of 75 nodes, an edge with
# probability 0.15 within a class and 0.01 between. Each node has 32
# features, Gaussian noise plus `signal` in the direction of its class.
# At signal 0 the features say nothing and only edges tell classes
# apart. At signal 8 the features say it all.
#
# Ten nodes a class have a label. 100 nodes are **unseen**: neither they
# nor their edges are there in training. Of the **seen** nodes, those
# without a label are tested too; the student was trained on what the
# teacher says of them. For unseen nodes the teacher gets the whole
# graph. It is a GCN with a hidden layer of 32; the students are MLPs
# with one of 64.
#
# For these features the best possible rate without a graph is known:
# $\int \varphi(t)\, \Phi(t + \text{signal})^3\, dt$. It is the chance
# that the feature of the right class exceeds the other three.


# %%
CLASSES, WIDTH = 4, 32
SEEDS = (0, 1, 2)
SIGNALS = (0, 1.5, 3, 5, 8)


@functools.cache
def world(signal: float, seed: int) -> tuple[Graph, Tensor, Tensor]:
    """Draw a graph and train the teacher on the part that is seen.

    Returns the graph, the unseen nodes (N,), and the teacher's logits,
    those of seen nodes as in training (N, C).
    """
    generator = seeded(seed)
    graph = block_model(
        (75,) * CLASSES,
        within=0.15,
        between=0.01,
        signal=signal,
        dimensions=WIDTH,
        per_class=10,
        generator=generator,
    )
    spare = graph.test.nonzero()[:, 0]
    order = torch.randperm(len(spare), generator=generator)
    unseen = torch.zeros_like(graph.test)
    unseen[spare[order[:100]]] = True
    seen = graph.induced(~unseen)
    teacher = fit_gcn(
        gcn(WIDTH, 32, CLASSES, generator=generator),
        seen,
        generator=generator,
    )
    answers = teacher(graph.features, graph.propagation())
    answers[~unseen] = teacher(seen.features, seen.propagation())
    return graph, unseen, answers


@functools.cache
def student(
    signal: float, seed: int, weight: float = 0.0, count: int = 200
) -> nn.Module:
    """Train an MLP with `glnn_loss` on `count` seen nodes.

    The labelled nodes come first. A weight of 1 is a plain MLP.
    """
    graph, unseen, answers = world(signal, seed)
    generator = seeded(100 + seed)
    others = (graph.test & ~unseen).nonzero()[:, 0]
    shuffled = others[torch.randperm(len(others), generator=generator)]
    labelled = graph.train.nonzero()[:, 0]
    nodes = torch.cat([labelled, shuffled])[:count]
    model = mlp(WIDTH, 64, CLASSES, generator=generator)

    def loss(_: Tensor) -> Tensor:
        return glnn_loss(
            model(graph.features[nodes]),
            answers[nodes],
            graph.labels[nodes],
            graph.train[nodes],
            weight=weight,
        )

    fit(
        model,
        loss,
        len(nodes),
        generator=generator,
        epochs=60,
        batch_size=len(nodes),
        learning_rate=2e-2,
    )
    return model.requires_grad_(False)


def average(
    signal: float, seeds: Sequence[int] = SEEDS, **options: float
) -> Tensor:
    """Mean share right: teacher and student, seen and unseen (2, 2)."""
    found = []
    for seed in seeds:
        graph, unseen, answers = world(signal, seed)
        logits = student(signal, seed, **options)(graph.features)
        found += [
            hit_rate(guess, graph.labels, where)
            for guess in (answers, logits)
            for where in (graph.test & ~unseen, unseen)
        ]
    return torch.tensor(found).view(-1, 2, 2).mean(0)


def ceiling(signal: float) -> float:
    """Best possible rate of a model that has the features alone."""
    t = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    normal = torch.distributions.Normal(0.0, 1.0)
    density = normal.log_prob(t).exp()
    others = normal.cdf(t + signal) ** (CLASSES - 1)
    return torch.trapezoid(density * others, t).item()


# %% [markdown]
# **Nothing in the features: chance, and it is exact.** At signal 0 the
# features of an unseen node are the same in four worlds: the one in
# which it has class 0, 1, 2 or 3. Whatever an MLP answers is right in
# one of the four. Averaged over them, *every* MLP scores ¼.
#
# And yet the student looks excellent on the nodes of its training: it
# knows the teacher's answers by heart, with the features as names. A
# transductive test alone would not notice.


# %%
@claim(
    "If only the structure tells the classes apart, the GLNN repeats"
    " the teacher on seen nodes and is at chance on unseen ones",
    source="the paper's two settings, transductive and inductive",
)
def structure_only(seeds: Sequence[int] = SEEDS) -> Evidence:
    worst = 0.0
    for seed in seeds:
        graph, unseen, _ = world(0, seed)
        logits = student(0, seed)(graph.features)
        shares = [
            hit_rate(logits, (graph.labels + shift) % CLASSES, unseen)
            for shift in range(CLASSES)
        ]
        worst = max(worst, abs(mean(shares) - 1 / CLASSES))
    found = average(0, seeds).flatten().tolist()
    teacher_seen, teacher_unseen, seen, hidden = found
    return Evidence(
        holds=worst < 1e-12
        and abs(seen - teacher_seen) < 0.05
        and abs(hidden - 0.25) < 0.08
        and teacher_unseen > 0.5,
        measured=f"seen nodes: GCN {percent(teacher_seen)}, GLNN"
        f" {percent(seen)}; unseen: GCN {percent(teacher_unseen)}, GLNN"
        f" {percent(hidden)}; averaged over four worlds, 25 % with an"
        f" error {below(worst, 1e-12)}",
        expected="as the teacher on seen nodes, 25 % on unseen ones",
    )


# %% [markdown]
# **The sweep.** On seen nodes the GLNN follows the teacher, on unseen
# nodes the features. Where these determine the label, it matches the
# GCN, and the simple model will do. (There a plain MLP does as well.)


# %%
@claim(
    "On unseen nodes the GLNN goes from chance to its teacher's rate as"
    " the features come to determine the label",
    source="the paper's analysis; its feature-noise ablation",
)
def sweep(
    signals: Sequence[float] = SIGNALS, seeds: Sequence[int] = SEEDS
) -> Evidence:
    distilled = torch.stack([average(s, seeds) for s in signals])
    plain = torch.stack(
        [average(s, seeds, weight=1.0) for s in signals]
    )
    best = [ceiling(s) for s in signals]
    fig, axes = figure(
        "Seen nodes hide what unseen nodes show",
        alt="Share of nodes classified right against the strength of"
        " the features. Left, seen nodes: GCN and GLNN run together at"
        " the top, the plain MLP climbs from 25 percent. Right, unseen"
        " nodes: only the GCN stays high; the GLNN climbs from 25"
        " percent, between the plain MLP and a dashed ceiling, and"
        " meets the GCN at strength 8.",
        columns=2,
        size=(7.6, 3.6),
    )
    for column, (ax, title) in enumerate(
        zip(axes, ("seen nodes", "unseen nodes"), strict=True)
    ):
        for values, colour in (
            (distilled[:, 0, column], GREEN),
            (distilled[:, 1, column], BLUE),
            (plain[:, 1, column], VERMILLION),
        ):
            ax.plot(signals, 100 * values, "o-", color=colour, ms=4)
        ax.set(title=title, xlabel="signal in the features")
        ax.set(ylim=(15, 105))
    axes[1].plot(signals, [100 * b for b in best], "--", color=GREY)
    axes[0].set(ylabel="right, in %")
    label(axes[0], 4, 62, "GCN and GLNN", BLUE)
    label(axes[0], 4, 53, "plain MLP", VERMILLION)
    label(axes[1], 4, 62, "GCN", GREEN)
    label(axes[1], 4, 53, "ceiling", GREY)
    label(axes[1], 4, 44, "GLNN", BLUE)
    label(axes[1], 4, 35, "plain MLP", VERMILLION)
    gaps = (distilled[:, 0, 1] - distilled[:, 1, 1]).tolist()
    over = (distilled[:, 1, 1] - torch.tensor(best)).max().item()
    return Evidence(
        # 300 nodes: the standard error of a rate is below 0.03.
        holds=over < 0.06 and gaps[0] > 0.3 and gaps[-1] < 0.04,
        measured="points behind the GCN on unseen nodes: "
        + ", ".join(
            f"{100 * gap:.0f} at signal {signal}"
            for gap, signal in zip(gaps, signals, strict=True)
        )
        + f"; at most {100 * over:+.1f} against the ceiling",
        expected="far behind at 0, equal at the end; 0 but for chance",
        figure=fig,
    )


# %% [markdown]
# **Where the gain comes from.** Against an MLP trained on labels alone,
# the GLNN has *more* targets: the teacher labels every seen node. Leave
# its soft targets on the labelled nodes only, and the gain is gone.
# (A gain is one that every seed shows, against the same seed's MLP.)


# %%
@claim(
    "The gain over a plain MLP comes from the teacher's targets on"
    " unlabelled nodes",
    source="not in the paper: an ablation",
)
def more_targets(
    counts: Sequence[int] = (40, 80, 120, 200),
    seeds: Sequence[int] = SEEDS,
) -> Evidence:
    signal = 3

    def rates(**options: float) -> list[float]:
        return [
            average(signal, [seed], **options)[1, 1].item()
            for seed in seeds
        ]

    each = [rates(count=count) for count in counts]
    alone = rates(weight=1.0)
    first, last = (
        [a - b for a, b in zip(row, alone, strict=True)]
        for row in (each[0], each[-1])
    )
    plain, won = mean(alone), [*map(mean, each)]
    fig, ax = figure(
        "The teacher helps by labelling more nodes",
        alt="Share of unseen nodes classified right against the number"
        " of nodes with a soft target. The GLNN starts at or below a"
        " dashed line, the plain MLP, with 40 nodes, and rises above it"
        " as more nodes get a target.",
        size=(6.4, 3.2),
    )
    ax.plot(counts, [100 * w for w in won], "o-", color=BLUE)
    label(ax, counts[-1], 100 * won[-1], "GLNN", BLUE, offset=(8, 0))
    ax.axhline(100 * plain, color=VERMILLION, ls="--", lw=1)
    label(ax, 150, 100 * plain + 1, "plain MLP, 40", VERMILLION)
    ax.set(xlabel="nodes with a soft target", ylabel="right, in %")
    ax.set(xlim=(30, 225), title="unseen nodes, signal 3")
    return Evidence(
        holds=min(last) > 0 and min(first) <= 0,
        measured=f"plain MLP {percent(plain)}; GLNN "
        + ", ".join(
            f"{percent(rate)} with {count} targets"
            for rate, count in zip(won, counts, strict=True)
        ),
        expected="no gain on the 40 labelled nodes, a gain on all",
        figure=fig,
    )


# %% [markdown]
# **What is saved.** The paper reports answers 146 to 273 times faster.
# We count instead of timing: a GCN of two layers must read all nodes
# within two edges, an MLP one.


# %%
@claim(
    "A GCN reads a neighbourhood for one answer, the GLNN one node",
    source="abstract (speed, as reported); counted, not timed",
)
def nodes_read() -> Evidence:
    graph, unseen, _ = world(0, 0)
    near = graph.propagation() > 0  # within one edge, loops included
    within_two = (near.double() @ near.double() > 0).sum(1)
    count = within_two[unseen].double().mean().item()
    return Evidence(
        holds=count > 50,
        measured=f"on average {count:.0f} of {len(graph)} nodes; one",
        expected="many; one",
    )


# %% [markdown]
# ## What we learnt
#
# - A GLNN is right on unseen nodes as far as their own features go. No
#   teacher lifts it above that ceiling.
# - Test on nodes that were not there in training. On seen nodes the
#   student can repeat the teacher from memory, with useless features.
# - The question to ask is how much the graph adds to the features,
#   $I(E; y \mid X)$; not the other way round.
# - Against a plain MLP the gain is real. It comes from the targets on
#   unlabelled nodes.
