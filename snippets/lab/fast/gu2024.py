"""The reverse divergence of MiniLLM, in the form to run.

The plain form makes a dozen tensors as large as the logits, and most
of its time goes into getting that memory. Here a few tokens at a time
are worked on in the cache, padding is left out, and the gradient,
which is known in closed form, is the only large tensor that is made.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from snippets.lab.checks import require_samples, require_true, typed
from snippets.lab.fast.rows import REVERSE, mean_divergence


@typed
def reverse_kl_loss(
    student_logits: Float[Tensor, "batch length vocabulary"],
    teacher_logits: Float[Tensor, "batch length vocabulary"],
    mask: Bool[Tensor, "batch length"],
) -> Float[Tensor, ""]:
    """Compute `snippets.gu2024.reverse_kl_loss` token by token.

    Arguments, value and errors are those of the plain form. There is
    no second derivative.
    """
    require_samples(student_logits=student_logits)
    require_true(mask=mask)
    return mean_divergence(
        student_logits,
        teacher_logits,
        REVERSE,
        mask=mask,
        plain="snippets.gu2024.reverse_kl_loss",
    )
