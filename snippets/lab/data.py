"""Data that every machine has: scikit-learn's digits, and made data."""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

TRAIN, VALID, TEST = 1000, 297, 500
"""How the 1,797 digits are split."""


def seeded(seed: int) -> torch.Generator:
    """Return a generator of its own; no seed here is global."""
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Split:
    """Images (n, 1, 8, 8) in [0, 1], float64, and labels (n,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, chosen: Tensor) -> "Split":
        """Keep the samples that a mask or an index chooses."""
        return Split(self.images[chosen], self.labels[chosen])

    def drawn(self, count: int, *, seed: int) -> "Split":
        """Draw `count` samples, as for a student of few labels."""
        order = torch.randperm(len(self), generator=seeded(seed))
        return self.where(order[:count])


@dataclass(frozen=True)
class Digits:
    """The digits in three parts that share no image."""

    train: Split
    valid: Split
    test: Split


@functools.cache
def digits() -> Digits:
    """Load scikit-learn's 8×8 digits, always split the same way."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    order = np.random.default_rng(0).permutation(len(raw.target))
    images = torch.from_numpy(raw.images[order] / 16).unsqueeze(1)
    labels = torch.from_numpy(raw.target[order]).long()
    parts = zip(
        images.split([TRAIN, VALID, TEST]),
        labels.split([TRAIN, VALID, TEST]),
        strict=True,
    )
    return Digits(*(Split(*part) for part in parts))


def jitter(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Move each image by up to one pixel in each direction, at random.

    What leaves on one side comes back on the other; the digits' rims
    are mostly empty.
    """
    _, _, height, width = images.shape
    moves = torch.randint(
        -1, 2, (2, len(images), 1), generator=generator
    )
    rows = (torch.arange(height) + moves[0]) % height  # (B, H)
    columns = (torch.arange(width) + moves[1]) % width  # (B, W)
    sample = torch.arange(len(images))[:, None, None]
    moved = images[:, 0][sample, rows[:, :, None], columns[:, None, :]]
    return moved.unsqueeze(1)  # (B, 1, H, W)
