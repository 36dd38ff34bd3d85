"""Factor transfer, in the form to run.

The plain form makes a dozen tensors as large as the factors. Here a
few samples at a time are normalised, compared and differentiated while
they are in the cache; only the gradient is kept.
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
def factor_transfer_loss(
    student_factor: Float[Tensor, "batch factors height width"],
    teacher_factor: Float[Tensor, "batch factors height width"],
    *,
    p: float = 1,
    variant: Literal["paper", "code"] = "paper",
) -> Float[Tensor, ""]:
    """Compute `snippets.kim2018.factor_transfer_loss` by samples.

    Arguments, value and errors are those of the plain form. There is
    no second derivative.
    """
    require_at_least(1, p=p)
    require_samples(student_factor=student_factor)
    teacher = teacher_factor.detach()

    def evaluate(
        student: Tensor, *, wanted: tuple[bool, ...]
    ) -> tuple[Tensor, Gradients]:
        gradient = like_in_full(student)
        total = gradient.new_zeros(())
        for some in blocks(student):
            F_S = full_precision(student[some]).flatten(1)  # (b, n)
            F_T = full_precision(teacher[some]).flatten(1)
            unit, norm = _directions(F_S)
            target, _ = _directions(F_T)
            gap = torch.sub(unit, target, out=target)
            if variant == "paper":
                size = lengths(gap, p)  # ‖·‖_p, (b,)
                total += size.sum()
                gap /= torch.where(size == 0, 1, size)[:, None]
            # The slope of |gap|^p / p
            slope = gap.sgn()
            if p != 1:
                slope.mul_(gap.abs().pow_(p - 1))
            if variant == "code":
                each = torch.linalg.vecdot(slope, gap)  # ‖·‖_p^p, (b,)
                total += each.sum() / gap.shape[1]
                norm = norm * (gap.shape[1] / p)
            # What points along the factor changes no direction.
            along = torch.linalg.vecdot(unit, slope)[:, None]
            slope.addcmul_(unit, along, value=-1)
            slope.div_(norm * len(student))
            gradient[some] = slope.view_as(gradient[some])
        return total / len(student), (gradient,)

    return with_gradient(
        evaluate,
        student_factor,
        plain="snippets.kim2018.factor_transfer_loss",
    )


def _directions(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Give vectors (b, n) length 1, and what they were divided by.

    One pass finds the lengths, unless their squares would overflow or
    vanish. A zero vector stays, and has no slope.
    """
    number = torch.finfo(vectors.dtype)
    least = (number.tiny / number.eps) ** 0.5
    norm = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    if ((norm > least) & (norm < number.max**0.5)).all():
        return vectors / norm, norm
    norm = lengths(vectors).unsqueeze(-1)
    return directions(vectors), torch.where(norm == 0, torch.inf, norm)
