"""Attention transfer, in the form to run.

The plain form makes the powers of all features and, on the way back,
several tensors of their size. A map is far smaller than the features,
and its loss costs next to nothing. So the maps are summed up a few
samples at a time, and the map's gradient is multiplied back into the
features the same way: only the gradient is as large as they are.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from snippets.lab.checks import (
    full_precision,
    require_at_least,
    require_samples,
    typed,
)
from snippets.lab.fast.gradients import (
    Gradients,
    blocks,
    like_in_full,
    with_gradient,
)
from snippets.lab.vectors import directions, lengths


@typed
def attention_transfer_loss(
    student_features: Float[Tensor, "batch channels_s height width"],
    teacher_features: Float[Tensor, "batch channels_t height width"],
    *,
    p: float = 2,
    variant: Literal["paper", "code"] = "paper",
) -> Float[Tensor, ""]:
    """Compute `snippets.zagoruyko2017.attention_transfer_loss` by maps.

    Arguments, value and errors are those of the plain form. There is
    no second derivative.
    """
    require_at_least(1, p=p)
    require_samples(
        student_features=student_features,
        teacher_features=teacher_features,
    )
    target = directions(_maps(teacher_features.detach(), p)[0])

    def evaluate(
        student: Tensor, *, wanted: tuple[bool, ...]
    ) -> tuple[Tensor, Gradients]:
        maps, scales = _maps(student, p)  # Q_S, (B, H·W)
        with torch.enable_grad():
            Q = maps.requires_grad_()
            gap = directions(Q) - target
            value = (
                lengths(gap).mean()
                if variant == "paper"
                else gap.square().mean()
            )
            (slope,) = torch.autograd.grad(value, Q)
        slope = p * slope.view(len(Q), 1, *student.shape[2:]) / scales
        gradient = like_in_full(student)
        for some in blocks(student):
            # ∂|A|^p / ∂A = p |A|^(p−1) · sign A
            A = _scaled(student[some], scales, some)
            if p != 2:
                A = A.abs().pow_(p - 1).mul_(A.sgn())
            torch.mul(A, slope[some], out=gradient[some])
        return value.detach(), (gradient,)

    return with_gradient(
        evaluate,
        student_features,
        plain="snippets.zagoruyko2017.attention_transfer_loss",
    )


def _maps(features: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Give the maps (B, H·W) of features / scales, and the scales.

    These are 1, unless powers of a sample's features would overflow,
    or vanish.
    """
    number = torch.finfo(full_precision(features[:0]).dtype)
    scales = torch.ones(()).to(features)
    maps = _powers(features, scales, p)
    largest = maps.amax(1)
    if (largest > number.tiny**0.5).all() and (
        largest < number.max**0.5
    ).all():
        return maps, full_precision(scales)
    peaks = full_precision(features).abs().amax((1, 2, 3), keepdim=True)
    scales = torch.where(peaks == 0, 1, peaks)
    return _powers(features, scales, p), scales


def _powers(features: Tensor, scales: Tensor, p: float) -> Tensor:
    """Sum the powers over the channels (B, H·W), in the cache."""
    maps = []
    for some in blocks(features):
        A = _scaled(features[some], scales, some)
        powers = A * A if p == 2 else A.abs().pow_(p)
        maps.append(powers.sum(1).flatten(1))
    return torch.cat(maps)


def _scaled(features: Tensor, scales: Tensor, some: slice) -> Tensor:
    """Divide some samples by their scales, or all by 1, for nothing."""
    A = full_precision(features)
    return A / scales[some] if scales.dim() else A
