"""Losses whose gradient is computed along with their value."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from snippets.lab.checks import full_precision

BLOCK = 2**20
"""How many numbers of features are worked on at a time."""

Gradients = tuple[Tensor | None, ...]
"""One for each learned tensor, None where none is wanted."""

Evaluate = Callable[..., tuple[Tensor, Gradients]]
"""From the learned tensors, and whether each wants a gradient: the
value and the gradients."""


@torch.compiler.disable
def with_gradient(
    evaluate: Evaluate, *learned: Tensor, plain: str
) -> Tensor:
    """Make a loss of a function that computes its own gradient.

    The gradient is kept from the forward to the backward pass, which
    scales it in place and hands it on. A second backward pass through
    the same loss computes it anew.

    Args:
        evaluate: See `Evaluate`.
        learned: The tensors that may get a gradient.
        plain: The name of the plain form, for an error.

    Raises:
        NotImplementedError: by a second derivative.
    """
    wanted = tuple(
        torch.is_grad_enabled() and tensor.requires_grad
        for tensor in learned
    )
    value: Tensor = _WithGradient.apply(
        evaluate, plain, wanted, *learned
    )
    return value


class _WithGradient(Function):
    @staticmethod
    def forward(
        ctx: Any,
        evaluate: Evaluate,
        plain: str,
        wanted: tuple[bool, ...],
        *learned: Tensor,
    ) -> Tensor:
        value, ctx.gradients = evaluate(*learned, wanted=wanted)
        ctx.save_for_backward(*learned)
        ctx.evaluate, ctx.plain, ctx.wanted = evaluate, plain, wanted
        return value

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        learned = ctx.saved_tensors
        with torch.no_grad():
            if gradients is None:
                _, gradients = ctx.evaluate(*learned, wanted=ctx.wanted)
            # On a GPU, looking at the number would mean to wait for it.
            if not (slope.is_cpu and slope == 1):
                gradients = tuple(
                    g if g is None else g.mul_(slope) for g in gradients
                )
        if torch.is_grad_enabled():
            gradients = tuple(
                g
                if g is None
                else _FirstOrder.apply(ctx.plain, g, *learned)
                for g in gradients
            )
        return None, None, None, *gradients


class _FirstOrder(Function):
    """A gradient that has no derivative of its own here."""

    @staticmethod
    def forward(
        ctx: Any, plain: str, gradient: Tensor, *learned: Tensor
    ) -> Tensor:
        ctx.plain = plain
        return gradient

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, ...]:
        raise NotImplementedError(
            "the form to run has no second derivative; take"
            f" {ctx.plain}, the plain form"
        )


def blocks(tensor: Tensor) -> Iterator[slice]:
    """Cut the samples of a tensor (B, …) into pieces for the cache."""
    count = max(1, BLOCK // max(1, tensor[0].numel()))
    for start in range(0, len(tensor), count):
        yield slice(start, start + count)


def like_in_full(tensor: Tensor) -> Tensor:
    """Make room for a tensor's gradient, float32 for half precision.

    Autograd rounds it to the tensor's type at the very end.
    """
    return torch.empty_like(
        tensor, dtype=full_precision(tensor[:0]).dtype
    )
