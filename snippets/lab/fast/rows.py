"""Divergences of rows of logits, with their gradients in closed form.

Written out, a divergence makes a dozen tensors as large as the logits,
and most of its time goes into getting that memory. Here a few rows are
worked on at a time, in scratch memory that stays in the cache. The
gradient is known in closed form, so it is written at once, into the
one large tensor that there is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snippets.lab.checks import full_precision
from snippets.lab.divergence import (
    CLOSE,
    cross_entropy,
    excess,
    kl_divergence,
    log_mixture,
    logit_divergence,
)
from snippets.lab.fast.gradients import (
    BLOCK,
    Gradients,
    like_in_full,
    with_gradient,
)

ROOM = 3
"""How many blocks of scratch memory a divergence needs."""

NEAR = 0.02
"""Below which a divergence would have too few digits."""

_OfTwo = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Divergence:
    """A divergence of rows: the form to run, and the plain one.

    Attributes:
        run: From the student's logits (R, V), the teacher's, each
            row's largest being 0, room for one more such tensor, and
            `out`: the values (R,). Leaves their gradient by the
            student's logits in `out`, and may write into all others.
            Where a logit is infinite, so that the short formulas fail,
            a value is not finite.
        plain: From the teacher's logits and the student's (R, V): the
            values (R,).
    """

    run: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    plain: _OfTwo

    def __call__(
        self,
        student: Tensor,
        teacher: Tensor,
        scratch: Sequence[Tensor],
        out: Tensor,
        temperature: float = 1.0,
    ) -> Tensor:
        """Sum the divergence of rows of logits, divided by T.

        Args:
            student: The student's logits (R, V).
            teacher: The teacher's (R, V).
            scratch: Room to work in, `ROOM` times (R, V).
            out: Where to leave the gradient (R, V) by the logits that
                are divided already.
            temperature: T.
        """
        z, v = (
            _softened(full_precision(logits), temperature, room)
            for logits, room in zip(
                (student, teacher), scratch, strict=False
            )
        )
        total = self.run(z, v, scratch[2], out).sum()
        if total.isfinite():
            return total
        # Rare: an excluded class, say. The plain form copes with it.
        z = _softened(full_precision(student), temperature, z)
        v = _softened(full_precision(teacher), temperature, v)
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            total = self.plain(v, z).sum()
            (slope,) = torch.autograd.grad(total, z)
        out.copy_(slope)
        return total.detach()


def _softened(
    logits: Tensor, temperature: float, out: Tensor
) -> Tensor:
    """Divide logits whose largest is 0, so that none becomes infinite.

    Nor does a common offset cost the softmax any digit.
    """
    torch.sub(logits, logits.amax(-1, keepdim=True), out=out)
    return out if temperature == 1 else out.mul_(1 / temperature)


def softmax(logits: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Give the probabilities (R, V), and log Σ exp (R, 1)."""
    p = torch.softmax(logits, -1, out=out)
    # For the likeliest class, of logit 0, log p is minus that log.
    return p, p.amax(-1, keepdim=True).log_().neg_()


def expectation(p: Tensor, cost: Tensor) -> Tensor:
    """Sum p · cost over rows (R, V) → (R,), and keep no product."""
    return torch.linalg.vecdot(p, cost)


def _cross_entropy(
    z: Tensor, v: Tensor, room: Tensor, out: Tensor
) -> Tensor:
    q, log_sum = softmax(z, out)
    p = torch.softmax(v, -1, out=room)
    q.sub_(p)  # ∂/∂z = q − p
    return log_sum.squeeze(-1) - expectation(p, z)


def _forward(z: Tensor, v: Tensor, room: Tensor, out: Tensor) -> Tensor:
    q, q_sum = softmax(z, out)
    p, p_sum = softmax(v, room)
    gap = z.sub_(v)
    mean = expectation(p, gap).unsqueeze(-1)
    values = q_sum - p_sum - mean  # Σ p (log p − log q)
    if values.mean() < NEAR and (gap.sub_(mean).abs() < CLOSE).all():
        return _forward_near(p, gap, out)
    q.sub_(p)  # ∂/∂z
    return values.squeeze(-1)


def _forward_near(p: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """Keep the digits of a small KL, which is log Σ p eˣ if Σ p x = 0.

    See `logit_divergence`.
    """
    growth = torch.expm1(x, out=out)
    total = expectation(p, excess(x, growth))  # Σ p eˣ − 1
    # ∂/∂z = q − p, where q = p eˣ / Σ p eˣ
    growth.sub_(total.unsqueeze(-1)).mul_(p)
    growth.div_(1 + total.unsqueeze(-1))
    return total.log1p_()


def _reverse(z: Tensor, v: Tensor, room: Tensor, out: Tensor) -> Tensor:
    q, q_sum = softmax(z, out)
    _, p_sum = softmax(v, room)
    gap = z.sub_(v).sub_(q_sum - p_sum)
    values = expectation(q, gap)  # Σ q (log q − log p)
    q.mul_(gap.sub_(values.unsqueeze(-1)))  # ∂/∂z
    return values


def _of_logits(divergence: _OfTwo) -> _OfTwo:
    """Let a divergence of log-probabilities take logits."""

    def plain(v: Tensor, z: Tensor) -> Tensor:
        return divergence(v.log_softmax(-1), z.log_softmax(-1))

    return plain


CROSS_ENTROPY = Divergence(_cross_entropy, _of_logits(cross_entropy))
FORWARD = Divergence(_forward, logit_divergence)
REVERSE = Divergence(
    _reverse, _of_logits(lambda p, q: kl_divergence(q, p))
)


def generalized_jsd(beta: float) -> Divergence:
    """Give the generalised Jensen–Shannon divergence, β in [0, 1].

    At β = 0 it is KL(p‖q), and at β = 1 KL(q‖p), by definition.
    """
    if beta == 0:
        return FORWARD
    if beta == 1:
        return REVERSE

    def run(z: Tensor, v: Tensor, room: Tensor, out: Tensor) -> Tensor:
        q, q_sum = softmax(z, out)
        p, p_sum = softmax(v, room)
        # d = log q − log p; log m − log p = log(β + (1 − β) eᵈ)
        d = z.sub_(v).sub_(q_sum - p_sum)
        above = torch.exp(d, out=v)
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

    return Divergence(run, _of_logits(plain))


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
    count = int(student[..., 0].numel() if mask is None else mask.sum())

    def evaluate(
        student: Tensor, *, wanted: tuple[bool, ...]
    ) -> tuple[Tensor, Gradients]:
        z, v = (x.reshape(-1, x.shape[-1]) for x in (student, teacher))
        height = min(max(1, BLOCK // z.shape[-1]), count)
        scratch = full_precision(z[:0]).new_empty(
            ROOM + 1, height, z.shape[-1]
        )
        gradient = like_in_full(z) if wanted[0] else None
        if gradient is not None and count < len(z):
            gradient.zero_()
        total = scratch.new_zeros(())
        for rows in _blocks(len(z), height, mask):
            pair = z[rows], v[rows]
            *room, out = scratch[:, : len(pair[0])]
            in_place = gradient is not None and isinstance(rows, slice)
            if gradient is not None and in_place:
                out = gradient[rows]
            total += divergence(*pair, room, out, temperature)
            if gradient is not None and not in_place:
                gradient[rows] = out
        if gradient is not None:
            gradient = gradient.view_as(student)
        # So, the gradient by the logits is as large as by logits / T.
        return temperature * total, (gradient,)

    teacher = teacher.detach()
    total = with_gradient(evaluate, student, plain=plain)
    return total / (temperature * count)


def _blocks(
    count: int, height: int, mask: Tensor | None
) -> Iterator[slice | Tensor]:
    """Cut the real rows into blocks; neighbours are a slice, no copy."""
    if mask is None or mask.all():
        for start in range(0, count, height):
            yield slice(start, min(start + height, count))
        return
    for block in mask.flatten().nonzero().squeeze(-1).split(height):
        first, last = int(block[0]), int(block[-1])
        whole = last - first + 1 == len(block)
        yield slice(first, last + 1) if whole else block
