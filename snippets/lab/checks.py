"""The border of a loss: shapes, types and ranges, checked at the call.

What types can say raises a `TypeError`, what they cannot a
`ValueError`; both name the argument.
"""

import functools
import math
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

# The "tower" lets 4 pass for a float, as everybody expects.
_BEARTYPE = beartype(conf=BeartypeConf(is_pep484_tower=True))


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """Check the annotated shapes and types of `function` at each call.

    One name in several annotations, such as `batch`, must be one size.
    The check costs some 65 µs, and steps aside under `torch.compile`,
    which cannot trace it. `function.__wrapped__` is the bare form.

    Raises:
        TypeError: when called, naming the argument that does not fit.
    """
    checked = jaxtyped(typechecker=_BEARTYPE)(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        return checked(*args, **kwargs)

    return call


def require_positive(**values: float) -> None:
    """Raise a ValueError for a value that is not above 0 and finite."""
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(
                f"{name} must be positive and finite, got {value}"
            )


def require_at_least(least: float, **values: float) -> None:
    """Raise a ValueError for a value below `least`, or not finite."""
    for name, value in values.items():
        if not (value >= least and math.isfinite(value)):
            raise ValueError(
                f"{name} must be at least {least} and finite, got"
                f" {value}"
            )


def require_share(**values: float) -> None:
    """Raise a ValueError for a value outside [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")


def require_samples(at_least: int = 1, **tensors: Tensor) -> None:
    """Raise a ValueError for a tensor with too few or empty samples."""
    for name, tensor in tensors.items():
        if len(tensor) < at_least or tensor.numel() == 0:
            raise ValueError(
                f"{name} must have at least {at_least} non-empty"
                f" sample(s), got shape {tuple(tensor.shape)}"
            )


def require_true(**masks: Tensor) -> None:
    """Raise a ValueError for a mask without a true element."""
    for name, mask in masks.items():
        if not mask.any():
            raise ValueError(
                f"{name} must have at least one true element, got"
                f" shape {tuple(mask.shape)} without any"
            )


def require_range(size: int, **indices: Tensor) -> None:
    """Raise a ValueError for indices that are not in 0 … size − 1."""
    for name, index in indices.items():
        low, high = index.min().item(), index.max().item()
        if low < 0 or high >= size:
            raise ValueError(
                f"{name} must be in 0 … {size - 1}, got {low} … {high}"
            )


def require_labelled(features: Tensor, labels: Tensor) -> None:
    """Raise a ValueError for features not finite, or just one class."""
    if not features.isfinite().all():
        raise ValueError("features must be finite, got inf or nan")
    if (labels == labels[0]).all():
        raise ValueError(
            f"labels must hold two classes, got only {labels[0]}"
        )


def full_precision(tensor: Tensor) -> Tensor:
    """Widen half-precision numbers to float32; leave the others."""
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return tensor.float()
    return tensor
