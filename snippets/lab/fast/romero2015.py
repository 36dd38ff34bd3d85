"""Hints, in the form to run.

The plain form makes the difference, its square, and on the way back
two more tensors of that size. But the gradient is the difference times
a number. So the difference is made once, a few samples at a time, and
summed up while it is still in the cache.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from snippets.lab.checks import full_precision, require_samples, typed
from snippets.lab.fast.gradients import (
    Gradients,
    blocks,
    like_in_full,
    with_gradient,
)


@typed
def hint_loss(
    student_features: Float[Tensor, "batch *rest"],
    teacher_features: Float[Tensor, "batch *rest"],
    *,
    variant: Literal["paper", "code"] = "paper",
) -> Float[Tensor, ""]:
    """Compute `snippets.romero2015.hint_loss` sample by sample.

    Arguments, value and errors are those of the plain form. There is
    no second derivative.
    """
    require_samples(student_features=student_features)
    u = teacher_features.detach()
    # How often half the squared norm of a sample counts.
    samples, n = len(u), u[0].numel()
    weight = 1 / samples if variant == "paper" else 2 / (samples * n)

    def evaluate(
        student: Tensor, *, wanted: tuple[bool, ...]
    ) -> tuple[Tensor, Gradients]:
        error = like_in_full(student)
        total = error.new_zeros(())
        for some in blocks(student):
            r = full_precision(student[some])
            part = torch.sub(
                r, full_precision(u[some]), out=error[some]
            )
            total += part.flatten() @ part.flatten()
            part.mul_(weight)
        return total * (weight / 2), (error,)

    return with_gradient(
        evaluate,
        student_features,
        plain="snippets.romero2015.hint_loss",
    )
