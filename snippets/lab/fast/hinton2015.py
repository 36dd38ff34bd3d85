"""Soft targets, in the form to run.

The plain form makes a dozen tensors as large as the logits. Here a few
samples at a time are worked on in the cache, and the gradient, which
is known in closed form, is written at once.
"""

from jaxtyping import Float
from torch import Tensor

from snippets.lab.checks import (
    require_samples,
    require_temperature,
    typed,
)
from snippets.lab.fast.rows import FORWARD, mean_divergence


@typed
def kd_loss(
    student_logits: Float[Tensor, "batch classes"],
    teacher_logits: Float[Tensor, "batch classes"],
    *,
    temperature: float = 4.0,
) -> Float[Tensor, ""]:
    """Compute `snippets.hinton2015.kd_loss` sample by sample.

    Arguments, value and errors are those of the plain form. There is
    no second derivative.
    """
    require_temperature(temperature=temperature)
    require_samples(student_logits=student_logits)
    return mean_divergence(
        student_logits,
        teacher_logits,
        FORWARD,
        temperature=temperature,
        weight=temperature**2,
        plain="snippets.hinton2015.kd_loss",
    )
