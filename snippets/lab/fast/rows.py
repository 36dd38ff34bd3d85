"""Divergences of rows of logits, with their gradients in closed form.

Written out, a divergence makes a dozen tensors as large as the logits,
and most of its time goes into getting that memory. Here a few rows are
worked on at a time, in scratch memory that stays in the cache. The
gradient is known in closed form, so it is written at once, into the
one large tensor that there is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from snippets.lab.checks import full_precision
from snippets.lab.divergence import (
    cross_entropy,
    kl_divergence,
    log_mixture,
)
from snippets.lab.fast.gradients import (
    BLOCK,
    Gradients,
    like_in_full,
    with_gradient,
)

ROOM = 6
"""How many blocks of scratch memory a divergence needs."""


@dataclass(frozen=True)
class Divergence:
    """A divergence of rows: the form to run, and the plain one.

    Attributes:
        run: From the student's logits (R, V), the teacher's, and
            scratch (`ROOM`, R, V): the values (R,). Leaves their gradient
            in scratch[0]. Where a logit is infinite, so that the short
            formulas fail, a value is not finite.
        plain: From log p and log q (R, V): the values (R,).
    """

    run: Callable[[Tensor, Tensor, Tensor], Tensor]
    plain: Callable[[Tensor, Tensor], Tensor]

    def __call__(
        self,
        student: Tensor,
        teacher: Tensor,
        scratch: Tensor,
        temperature: float = 1.0,
    ) -> Tensor:
        """Give the values of rows of logits, divided by a temperature.

        Args:
            student: The student's logits (R, V).
            teacher: The teacher's (R, V).
            scratch: Room to work in, `ROOM` times (R, V). In its first
                part the values' gradient is left, by the logits that
                are divided already.
            temperature: What to divide by.
        """
        z, v = full_precision(student), full_precision(teacher)
        if temperature != 1:
            z = torch.mul(z, 1 / temperature, out=scratch[-1])
            v = torch.mul(v, 1 / temperature, out=scratch[-2])
        values = self.run(z, v, scratch)
        if values.isfinite().all():
            return values
        # Rare: an excluded class, say. The plain form copes with it.
        z, v = (_softened(x, temperature) for x in (student, teacher))
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            values = self.plain(v.log_softmax(-1), z.log_softmax(-1))
            (slope,) = torch.autograd.grad(values.sum(), z)
        scratch[0] = slope
        return values.detach()


def _softened(logits: Tensor, temperature: float) -> Tensor:
    # With the largest at 0, a tiny temperature makes none infinite.
    logits = full_precision(logits)
    return (logits - logits.amax(-1, keepdim=True)) / temperature


def softmax(logits: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Give the probabilities (R, V), and the log of their sum (R, 1)."""
    p = torch.softmax(logits, -1, out=out)
    # For the likeliest class, log p is its logit less that log.
    peak = logits.amax(-1, keepdim=True)
    return p, peak - p.amax(-1, keepdim=True).log()


def expectation(p: Tensor, cost: Tensor) -> Tensor:
    """Sum p · cost over rows (R, V) → (R,), and keep no product."""
    return torch.linalg.vecdot(p, cost)


def _cross_entropy(z: Tensor, v: Tensor, scratch: Tensor) -> Tensor:
    q, log_sum = softmax(z, scratch[0])
    p = torch.softmax(v, -1, out=scratch[1])
    q.sub_(p)  # ∂/∂z = q − p
    return log_sum.squeeze(-1) - expectation(p, z)


def _forward(z: Tensor, v: Tensor, scratch: Tensor) -> Tensor:
    q, q_sum = softmax(z, scratch[0])
    p, p_sum = softmax(v, scratch[1])
    q.sub_(p)  # ∂/∂z = q − p
    gap = torch.sub(v, z, out=scratch[2]).sub_(p_sum - q_sum)
    return expectation(p, gap)  # Σ p (log p − log q)


def _reverse(z: Tensor, v: Tensor, scratch: Tensor) -> Tensor:
    q, q_sum = softmax(z, scratch[0])
    _, p_sum = softmax(v, scratch[1])
    gap = torch.sub(z, v, out=scratch[2]).sub_(q_sum - p_sum)
    values = expectation(q, gap)  # Σ q (log q − log p)
    q.mul_(gap.sub_(values.unsqueeze(-1)))  # ∂/∂z
    return values


CROSS_ENTROPY = Divergence(_cross_entropy, cross_entropy)
FORWARD = Divergence(_forward, kl_divergence)
REVERSE = Divergence(_reverse, lambda p, q: kl_divergence(q, p))


def generalized_jsd(beta: float) -> Divergence:
    """Give the generalised Jensen–Shannon divergence, β in [0, 1].

    At β = 0 it is KL(p‖q), and at β = 1 KL(q‖p), by definition.
    """
    if beta == 0:
        return FORWARD
    if beta == 1:
        return REVERSE

    def run(z: Tensor, v: Tensor, scratch: Tensor) -> Tensor:
        q, q_sum = softmax(z, scratch[0])
        p, p_sum = softmax(v, scratch[1])
        # d = log q − log p; log m − log p = log(β + (1 − β) eᵈ)
        d = torch.sub(z, v, out=scratch[2]).sub_(q_sum - p_sum)
        above = torch.exp(d, out=scratch[3])
        above.mul_(1 - beta).add_(beta).log_()
        values = expectation(p, above).mul_(-beta)
        gap = d.sub_(above)  # log q − log m
        mean = expectation(q, gap)
        values.add_(mean, alpha=1 - beta)
        # ∂/∂z = (1 − β) q (log q − log m − mean)
        q.mul_(gap.sub_(mean.unsqueeze(-1)).mul_(1 - beta))
        return values

    def plain(log_p: Tensor, log_q: Tensor) -> Tensor:
        log_m = log_mixture(log_p, log_q, beta)
        from_p = kl_divergence(log_p, log_m)
        return beta * from_p + (1 - beta) * kl_divergence(log_q, log_m)

    return Divergence(run, plain)


def mean_divergence(
    student: Tensor,
    teacher: Tensor,
    divergence: Divergence,
    *,
    plain: str,
    temperature: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Average a divergence over rows of logits, or the real ones.

    Args:
        student: The student's logits (…, V).
        teacher: The teacher's (…, V); gets no gradient.
        divergence: What to take of each pair of rows.
        plain: The name of the plain form, for an error.
        temperature: What to divide the logits by.
        mask: True at the real rows (…); None is all.
    """

    def evaluate(
        student: Tensor, *, wanted: tuple[bool, ...]
    ) -> tuple[Tensor, Gradients]:
        z, v = (x.reshape(-1, x.shape[-1]) for x in (student, teacher))
        real = torch.arange(len(z), device=z.device)
        if mask is not None:
            real = real[mask.flatten()]
        gradient = like_in_full(z) if wanted[0] else None
        if gradient is not None and len(real) < len(z):
            gradient.zero_()
        height = min(max(1, BLOCK // z.shape[-1]), len(real))
        scratch = full_precision(z[:0]).new_empty(
            ROOM, height, z.shape[-1]
        )
        total = scratch.new_zeros(())
        for block in real.split(height):
            rows = _side_by_side(block)
            room = scratch[:, : len(block)]
            total += divergence(
                z[rows], v[rows], room, temperature
            ).sum()
            if gradient is not None:
                gradient[rows] = room[0].mul_(
                    1 / (len(real) * temperature)
                )
        if gradient is not None:
            gradient = gradient.view_as(student)
        return total / len(real), (gradient,)

    teacher = teacher.detach()
    return with_gradient(evaluate, student, plain=plain)


def _side_by_side(rows: Tensor) -> Tensor | slice:
    """Make neighbouring rows a slice, which copies nothing."""
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows):
        return slice(first, last + 1)
    return rows
