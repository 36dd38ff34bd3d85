"""The border of a loss: shapes, types and ranges, checked at the call.

What types can say raises a `TypeError`, what they cannot a
`ValueError`; both name the argument.
"""

import functools
import math
from collections.abc import Callable, Hashable
from typing import ParamSpec, TypeVar

import torch
from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

MOST = 1000
"""How many kinds of calls of a function are remembered."""

# The "tower" lets 4 pass for a float, as everybody expects.
_BEARTYPE = beartype(conf=BeartypeConf(is_pep484_tower=True))


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """Check the annotated shapes and types of `function` at each call.

    One name in several annotations, such as `batch`, must be one size.
    The check costs some 65 µs for shapes that are new, and steps aside
    under `torch.compile`, which cannot trace it. `function.__wrapped__`
    is the bare form.

    Raises:
        TypeError: when called, naming the argument that does not fit.
    """
    checked = jaxtyped(typechecker=_BEARTYPE)(function)
    passed: set[Hashable] = set()

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        values = (*args, *kwargs.values())
        kinds = (len(args), *kwargs.keys(), *map(_kind, values))
        if kinds in passed:
            return function(*args, **kwargs)
        result = checked(*args, **kwargs)
        if object not in kinds and len(passed) < MOST:
            passed.add(kinds)
        return result

    # `torch.compile` counts how often it compiles a piece of code, and
    # gives up beyond a limit: each loss is a piece of its own.
    call.__code__ = call.__code__.replace(co_name=function.__name__)
    return functools.wraps(function)(call)


def _kind(value: object) -> Hashable:
    """Give all that types look at, or `object` where that is unclear."""
    if isinstance(value, Tensor):
        return value.dtype, value.shape
    if isinstance(value, str):
        return value
    return type(value) if isinstance(value, int | float) else object


def require_positive(**values: float) -> None:
    """Raise a ValueError for a value that is not above 0 and finite."""
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(
                f"{name} must be positive and finite, got {value}"
            )


def require_temperature(**values: float) -> None:
    """Raise a ValueError unless T and T² keep their digits in float32."""
    for name, value in values.items():
        if not 1e-15 <= value <= 1e15:
            raise ValueError(
                f"{name} must be positive and from 1e-15 to 1e15, got"
                f" {value}"
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
    """Raise a ValueError for a mask without a true element.

    Like the types, what tensors hold is not looked at while
    `torch.compile` traces.
    """
    if torch.compiler.is_compiling():
        return
    for name, mask in masks.items():
        if not mask.any():
            raise ValueError(
                f"{name} must have at least one true element, got"
                f" shape {tuple(mask.shape)} without any"
            )


def require_range(size: int, **indices: Tensor) -> None:
    """Raise a ValueError for indices that are not in 0 … size − 1.

    While `torch.compile` traces, they are not looked at.
    """
    if torch.compiler.is_compiling():
        return
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
