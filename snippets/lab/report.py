"""Numbers as text, rounded so that every CPU prints the same."""

from collections.abc import Sequence
from statistics import mean, stdev

import torch
from torch import Tensor


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
