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
            unit = directions(F_S)
            target = directions(
                full_precision(teacher[some]).flatten(1)
            )
            gap = unit - target
            size = lengths(gap, p)  # ‖·‖_p, (b,)
            if variant == "paper":
                total += size.sum() / len(student)
                gap /= torch.where(size == 0, 1, size)[:, None]
                slope = gap.abs().pow_(p - 1).mul_(gap.sgn_())
            else:
                power = gap.abs().pow_(p - 1)
                slope = power.mul_(gap.sgn()).mul_(p / gap.shape[1])
                total += (slope * gap).sum() / (p * len(student))
            # What points along the factor changes no direction.
            along = torch.linalg.vecdot(unit, slope)[:, None]
            slope.sub_(unit.mul_(along))
            norm = lengths(F_S)[:, None] * len(student)
            slope.div_(torch.where(norm == 0, torch.inf, norm))
            gradient[some] = slope.view_as(gradient[some])
        return total, (gradient,)

    return with_gradient(
        evaluate,
        student_factor,
        plain="snippets.kim2018.factor_transfer_loss",
    )
