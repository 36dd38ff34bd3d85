"""A tiny transformer, a task for it, and the one layer experiment.

The task is *the needle*: each sequence holds one needle among
symbols, and its class is the symbol right behind the needle. Four
papers distil a six-layer teacher into a three-layer student here, each
with a loss of its own; everything else is the same for all of them.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from snippets.lab.data import seeded
from snippets.lab.divergence import kl_divergence
from snippets.lab.models import initialised
from snippets.lab.train import accuracy, fit, fit_classifier

PAD, START, NEEDLE, SYMBOL = 0, 1, 2, 3
"""Token ids; the symbols are SYMBOL, SYMBOL + 1, …"""

SYMBOLS, LENGTH = 4, 8
"""Number of symbols, and length of a sequence with its padding."""

TEACHER_DEPTH, STUDENT_DEPTH = 6, 3

LayerMap = Mapping[int, int]
"""Which teacher layer (value) each student layer (key) follows.

Layers count from 1, as in the papers.
"""

FROM_BELOW: LayerMap = MappingProxyType({1: 1, 2: 2, 3: 3})
"""Where a student starts: at the teacher's first layers."""

MapName = Literal["skip", "last", "first", "reverse"]


@dataclass(frozen=True)
class Sequences:
    """Tokens (n, L), integers, padded behind; labels (n,)."""

    tokens: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@functools.cache
def needles(samples: int, *, seed: int) -> Sequences:
    """Make sequences whose class is the symbol behind the needle.

    A sequence is START, three to seven symbols, one of which is
    replaced by NEEDLE, then PAD up to LENGTH.
    """
    generator = seeded(seed)
    rows = torch.arange(samples)
    tokens = torch.randint(
        SYMBOL,
        SYMBOL + SYMBOLS,
        (samples, LENGTH),
        generator=generator,
    )
    tokens[:, 0] = START
    real = torch.randint(4, LENGTH + 1, (samples,), generator=generator)
    share = torch.rand(samples, generator=generator)
    needle = 1 + (share * (real - 2)).long()  # 1 … real − 2
    tokens[rows, needle] = NEEDLE
    labels = tokens[rows, needle + 1] - SYMBOL
    tokens[torch.arange(LENGTH) >= real[:, None]] = PAD
    return Sequences(tokens, labels)


@dataclass(frozen=True)
class Layer:
    """What one layer shows of itself.

    Attributes:
        hidden: Its output (B, L, d).
        scores: Attention before the softmax (B, h, L, L), −inf where
            the key is padding.
        attention: Their softmax over the keys (B, h, L, L).
        values: What the attention weighs (B, h, L, d / h).
    """

    hidden: Tensor
    scores: Tensor
    attention: Tensor
    values: Tensor

    def of(self, samples: Tensor) -> "Layer":
        """Keep some samples of the batch."""
        return Layer(
            self.hidden[samples],
            self.scores[samples],
            self.attention[samples],
            self.values[samples],
        )


class Block(nn.Module):
    """Self-attention and a two-layer network, each on a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.LayerNorm(width, elementwise_affine=False),
            nn.Linear(width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, width),
        )

    def forward(self, x: Tensor, real: Tensor) -> Layer:
        """Map states (B, L, d) and the mask of real tokens (B, L)."""
        projected = self.query_key_value(self.norm(x))
        query, key, values = projected.unflatten(
            -1, (3, self.heads, -1)
        ).permute(2, 0, 3, 1, 4)  # three of (B, h, L, d / h)
        scores = query @ key.mT / query.shape[-1] ** 0.5  # (B, h, L, L)
        scores = scores.masked_fill(~real[:, None, None, :], -torch.inf)
        attention = scores.softmax(-1)
        x = x + self.mix(
            (attention @ values).transpose(1, 2).flatten(2)
        )
        return Layer(x + self.feed(x), scores, attention, values)


class Encoder(nn.Module):
    """A transformer that reads its class at the first token."""

    def __init__(self, depth: int, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.embed = nn.Embedding(SYMBOL + SYMBOLS, width)
        self.position = nn.Embedding(LENGTH, width)
        self.blocks = nn.ModuleList(
            Block(width, heads) for _ in range(depth)
        )
        self.head = nn.Sequential(
            nn.LayerNorm(width, elementwise_affine=False),
            nn.Linear(width, SYMBOLS),
        )

    def trace(self, tokens: Tensor) -> tuple[Tensor, list[Layer]]:
        """Map tokens (B, L) to logits (B, C) and to every layer."""
        real = tokens != PAD
        positions = self.position.weight[: tokens.shape[1]]
        x = self.embed(tokens) + positions  # (B, L, d)
        layers = []
        for block in self.blocks:
            layers.append(block(x, real))
            x = layers[-1].hidden
        return self.head(x[:, 0]), layers

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, L) to logits (B, C)."""
        return self.trace(tokens)[0]


def encoder(
    depth: int,
    *,
    generator: torch.Generator,
    width: int = 32,
    heads: int = 2,
) -> Encoder:
    """Build an encoder in float64, its weights from `generator`."""
    return initialised(
        lambda: Encoder(depth, width, heads), generator=generator
    )


@functools.cache
def needle_teacher(seed: int = 0) -> Encoder:
    """Train a teacher of six layers; it is right 98 times in 100."""
    generator = seeded(seed)
    train = needles(6144, seed=100)
    teacher = encoder(TEACHER_DEPTH, generator=generator)
    fit_classifier(
        teacher,
        train.tokens,
        train.labels,
        generator=generator,
        epochs=1,
        batch_size=32,
    )
    return teacher


def needle_accuracy(model: nn.Module) -> float:
    """Share of 1,000 fresh sequences that `model` gets right."""
    test = needles(1000, seed=101)
    return accuracy(model, test.tokens, test.labels)


def layer_map(
    name: MapName,
    *,
    aligned: int = STUDENT_DEPTH,
) -> dict[int, int]:
    """Say which teacher layers the first `aligned` layers follow.

    With all three aligned, *skip* takes every second layer (2, 4, 6),
    *last* the top (4, 5, 6), *first* the bottom (1, 2, 3), and
    *reverse* is skip upside down (6, 4, 2). With fewer, the teacher's
    last layer is left to the logits: (2, 4), (4, 5), (1, 2), (4, 2).
    """
    stride = TEACHER_DEPTH // STUDENT_DEPTH
    layers = range(1, aligned + 1)
    top = TEACHER_DEPTH - (aligned < STUDENT_DEPTH)
    follows = {
        "skip": [stride * m for m in layers],
        "last": [top - aligned + m for m in layers],
        "first": [*layers],
        "reverse": [stride * (aligned + 1 - m) for m in layers],
    }[name]
    return dict(zip(layers, follows, strict=True))


def distil_layers(
    teacher: Encoder,
    layer_map: LayerMap,
    layer_loss: Callable[[Layer, Layer, Tensor], Tensor],
    *,
    seed: int,
    weight: float = 1.0,
    copied: LayerMap = FROM_BELOW,
    samples: int = 512,
    epochs: int = 2,
) -> Encoder:
    """Train a student on the teacher's logits and chosen layers.

    It minimises the divergence of its classes from the teacher's, plus
    `weight` times the sum of `layer_loss` over the pairs of the map.

    Args:
        teacher: A trained encoder; it stays as it is.
        layer_map: Pairs of student and teacher layers; an empty map
            leaves the logits alone.
        layer_loss: Maps a student layer, a teacher layer and the mask
            of real tokens (B, L) to a scalar.
        seed: Of the student's weights and of the order of samples.
        weight: Of the layers against the logits.
        copied: Pairs of student and teacher layers; those student
            layers, and the embeddings, start as the teacher's. An
            empty map draws the whole student at random.
        samples: Size of the transfer set.
        epochs: Passes over it.

    Returns:
        The trained student, as wide as the teacher.
    """
    generator = seeded(1000 + seed)
    tokens, log_p, teacher_layers = _view(teacher, samples)
    student = encoder(
        STUDENT_DEPTH,
        generator=generator,
        width=teacher.width,
        heads=teacher.heads,
    )
    if copied:
        student.embed.load_state_dict(teacher.embed.state_dict())
        student.position.load_state_dict(teacher.position.state_dict())
        for m, n in copied.items():
            block = teacher.blocks[n - 1].state_dict()
            student.blocks[m - 1].load_state_dict(block)

    def loss(batch: Tensor) -> Tensor:
        logits, layers = student.trace(tokens[batch])
        total = kl_divergence(
            log_p[batch], logits.log_softmax(-1)
        ).mean()
        for m, n in layer_map.items():
            total = total + weight * layer_loss(
                layers[m - 1],
                teacher_layers[n - 1].of(batch),
                tokens[batch] != PAD,
            )
        return total

    fit(
        student,
        loss,
        samples,
        generator=generator,
        epochs=epochs,
        batch_size=32,
    )
    return student.requires_grad_(False)


@functools.cache
@torch.no_grad()
def _view(
    teacher: Encoder, samples: int
) -> tuple[Tensor, Tensor, list[Layer]]:
    """Show a transfer set to the teacher, once for all students."""
    tokens = needles(samples, seed=102).tokens
    logits, layers = teacher.trace(tokens)
    return tokens, logits.log_softmax(-1), layers
