"""The last linear layer and the divergence of its logits, fused.

A language model's logits are far larger than what they are made of:
2,048 tokens of width 1,024 and a vocabulary of 32,000 are 8 MB of
states and 262 MB of logits, on each side. So the logits are never made
as a whole. A chunk of tokens is taken through the layer, its
divergence and gradient are computed, the gradient is taken back
through the layer at once, and the chunk's logits are forgotten.
"""

from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from snippets.lab.checks import (
    full_precision,
    require_samples,
    require_share,
    require_true,
    typed,
)
from snippets.lab.fast.gradients import (
    Gradients,
    like_in_full,
    with_gradient,
)
from snippets.lab.fast.rows import (
    FORWARD,
    REVERSE,
    ROOM,
    generalized_jsd,
)


@typed
def linear_divergence_loss(
    student_hidden: Float[Tensor, "tokens student_width"],
    student_head: Float[Tensor, "vocabulary student_width"],
    teacher_hidden: Float[Tensor, "tokens teacher_width"],
    teacher_head: Float[Tensor, "vocabulary teacher_width"],
    mask: Bool[Tensor, "tokens"],
    *,
    divergence: Literal["forward", "reverse", "jsd"] = "jsd",
    beta: float = 0.5,
    chunk_tokens: int = 128,
) -> Float[Tensor, ""]:
    r"""Divergence of two language models, from their last states.

    $$\frac1N \sum_n m_n\, D\big(\mathrm{softmax}(W_t t_n),\;
    \mathrm{softmax}(W_s s_n)\big), \qquad N = \sum_n m_n$$

    With p the teacher and q the student, D is KL(p‖q) ("forward"),
    KL(q‖p) ("reverse"), or the generalised Jensen–Shannon divergence
    β KL(p‖M) + (1−β) KL(q‖M), M = β p + (1−β) q ("jsd"), with KL(p‖q)
    in its place at β = 0, and KL(q‖p) at β = 1. No more than
    `chunk_tokens` rows of logits exist at a time.

    Args:
        student_hidden: The student's last states $s$, (N, D).
        student_head: Its last layer $W_s$, without a bias, (V, D).
        teacher_hidden: The teacher's $t$, (N, D'); gets no gradient.
        teacher_head: $W_t$, (V, D'); gets no gradient.
        mask: $m$, (N,); True where there is a real token.
        divergence: What to compare the two distributions by.
        beta: β, the weight of the teacher in M; for "jsd" alone.
        chunk_tokens: How many tokens' logits to hold at a time. The
            value does not depend on it, memory does.

    Returns:
        A scalar in nats per real token; float32 for half precision.

    Raises:
        TypeError: shapes that differ, or tensors of another type.
        ValueError: an empty batch, a mask without a real token, a β
            outside [0, 1], or fewer than 1 token in a chunk.
        NotImplementedError: by a second derivative.

    Source: the losses of kim2016, gu2024 and agarwal2024, at T = 1.
    """
    require_samples(
        student_hidden=student_hidden, teacher_hidden=teacher_hidden
    )
    require_true(mask=mask)
    require_share(beta=beta)
    if chunk_tokens < 1:
        raise ValueError(
            f"chunk_tokens must be at least 1, got {chunk_tokens}"
        )
    measures = {"forward": FORWARD, "reverse": REVERSE}
    measure = measures.get(divergence) or generalized_jsd(beta)
    real = mask.nonzero().squeeze(-1)
    teacher_hidden, teacher_head = (
        teacher_hidden.detach(),
        teacher_head.detach(),
    )

    def evaluate(
        hidden: Tensor, head: Tensor, *, wanted: tuple[bool, ...]
    ) -> tuple[Tensor, Gradients]:
        to_hidden, to_head = (
            like_in_full(x).zero_() if want else None
            for x, want in zip((hidden, head), wanted, strict=True)
        )
        total = full_precision(hidden[:0]).new_zeros(())
        scratch = total.new_empty(
            ROOM + 1, min(chunk_tokens, len(real)), len(head)
        )
        for chunk in real.split(chunk_tokens):
            states = hidden[chunk]  # (n, D)
            z = full_precision(states @ head.T)  # (n, V)
            v = full_precision(teacher_hidden[chunk] @ teacher_head.T)
            room = scratch[:, : len(chunk)]
            out = room[ROOM]
            total += measure(z, v, room, out)
            slope = out.to(hidden.dtype)  # (n, V)
            if to_hidden is not None:
                product = (slope @ head).to(to_hidden.dtype)
                to_hidden[chunk] = product.div_(len(real))
            if to_head is not None:
                _add_product(to_head, slope.T, states, 1 / len(real))
        return total / len(real), (to_hidden, to_head)

    return with_gradient(
        evaluate,
        student_hidden,
        student_head,
        plain="logits and the loss of snippets.kim2016, gu2024 or"
        " agarwal2024",
    )


def _add_product(
    total: Tensor, left: Tensor, right: Tensor, share: float
) -> None:
    """Add a share of a product, whose factors may be in half precision."""
    if left.dtype == total.dtype:
        total.addmm_(left, right, alpha=share)
    else:
        total.add_(left @ right, alpha=share)
