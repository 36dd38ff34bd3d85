"""The generalised Jensen–Shannon divergence, in the form to run.

The plain form makes some twenty tensors as large as the logits, and
most of its time goes into getting that memory. Here a few tokens at a
time are worked on in the cache, padding is left out, and the gradient,
which is known in closed form, is the only large tensor that is made.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from snippets.lab.checks import (
    require_positive,
    require_samples,
    require_share,
    require_true,
    typed,
)
from snippets.lab.fast.rows import generalized_jsd, mean_divergence


@typed
def generalized_jsd_loss(
    student_logits: Float[Tensor, "batch length vocabulary"],
    teacher_logits: Float[Tensor, "batch length vocabulary"],
    mask: Bool[Tensor, "batch length"],
    *,
    beta: float = 0.5,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Compute `snippets.agarwal2024.generalized_jsd_loss` by tokens.

    Arguments, value and errors are those of the plain form. There is
    no second derivative.
    """
    require_share(beta=beta)
    require_positive(temperature=temperature)
    require_samples(student_logits=student_logits)
    require_true(mask=mask)
    return mean_divergence(
        student_logits,
        teacher_logits,
        generalized_jsd(beta),
        temperature=temperature,
        mask=mask,
        plain="snippets.agarwal2024.generalized_jsd_loss",
    )
