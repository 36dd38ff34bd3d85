"""Results of seeds: compared in pairs, and written as rounded text.

Every CPU prints the same, since no rounding error is printed.
"""

import math
from collections.abc import Callable, Sequence
from statistics import mean, stdev
from typing import TypeVar

import torch
from torch import Tensor

W = TypeVar("W")


def below(error: float | Tensor, bound: float) -> str:
    """Hold an error against a bound: `< 1e-9`, or `≥ 1e-9`.

    A rounding error differs from CPU to CPU, so it is never printed.
    """
    limit = f"{bound:.0e}".replace("e-0", "e-")
    return f"{'<' if float(error) < bound else '≥'} {limit}"


def percent(share: float | Tensor, digits: int = 0) -> str:
    """Write a share of 1 as a percentage: `84 %`."""
    return f"{100 * float(share):.{digits}f} %"


def mean_sd(values: Sequence[float], digits: int = 3) -> str:
    """Write the mean and standard deviation of seeds: `0.91 ± 0.02`."""
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def slope(x: Tensor, y: Tensor) -> float:
    """Fit a line to the points (x, y) and return its slope."""
    x, y = x - x.mean(), y - y.mean()
    return (torch.dot(x, y) / torch.dot(x, x)).item()


def gains(
    accuracy: Callable[[W, int], float],
    way: W,
    other: W,
    seeds: Sequence[int],
) -> list[float]:
    """Compare two ways to train, seed by seed.

    What a seed draws for both, such as the images, cancels.

    Args:
        accuracy: Maps a way and a seed to a share of 1.
        way: The way that may gain.
        other: The way that it is held against.
        seeds: The seeds; each gives one pair.

    Returns:
        The points of accuracy that `way` gains over `other`.
    """
    return [
        100 * (accuracy(way, k) - accuracy(other, k)) for k in seeds
    ]


def clear(gain: Sequence[float]) -> bool:
    """Is the mean above twice its standard error?

    Without any true gain, five normal values pass once in 17 times.
    """
    return mean(gain) > 2 * stdev(gain) / math.sqrt(len(gain))
