"""Divergences of rows of logits, with their gradients in closed form.

Written out, a divergence makes a dozen tensors as large as the logits,
and most of its time goes into getting that memory. Here a few rows are
worked on at a time, in scratch memory that stays in the cache. The
gradient is known in closed form, so it is written at once, into the
one large tensor that there is.
"""

from collections.abc import Callable, Iterator
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
    Gradients,
    like_in_full,
    with_gradient,
)

BLOCK = 2**18
"""How many logits are worked on at a time."""

ROOM = 3
"""How many blocks of scratch memory a divergence needs."""

NEAR = 0.02
"""Below which a divergence would have too few digits."""

FAR = 4.0
"""Beyond which logits' common offset would cost digits."""

_OfTwo = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Divergence:
    """A divergence of rows: the form to run, and the plain one.

    Attributes:
        run: From the logits (2, R, V), the student's and the
            teacher's, their largest of each row (2, R, 1), room for one
            more such tensor (R, V), and `out` (R, V): the values (R,).
            Leaves their gradient by the student's logits in `out`, and
            may write into all others: fresh memory would cost more than
            the arithmetic. Where a logit is infinite, so that the short
            formulas fail, a value is not finite.
        plain: From the teacher's logits and the student's (R, V): the
            values (R,).
    """

    run: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    plain: _OfTwo

    def __call__(
        self,
        student: Tensor,
        teacher: Tensor,
        scratch: Tensor,
        out: Tensor,
        temperature: float = 1.0,
    ) -> Tensor:
        """Sum the divergence of rows of logits, divided by T.

        Args:
            student: The student's logits (R, V).
            teacher: The teacher's (R, V).
            scratch: Room to work in (`ROOM`, R, V).
            out: Where to leave the gradient (R, V) by the logits that
                are divided already.
            temperature: T.
        """
        pair = scratch[:2]
        for logits, soft in zip((student, teacher), pair, strict=True):
            # A factor costs no more than a copy.
            torch.mul(full_precision(logits), 1 / temperature, out=soft)
        peaks = pair.amax(-1, keepdim=True)
        if peaks.abs().max() > FAR:
            pair.sub_(peaks)
            peaks = torch.zeros_like(peaks)
        total = self.run(pair, peaks, scratch[2], out).sum()
        if total.isfinite():
            return total
        # Rare: an excluded class, say. The plain form copes with it.
        v, z = (
            _softened(full_precision(logits), temperature)
            for logits in (teacher, student)
        )
        with torch.enable_grad():
            z.requires_grad_()
            total = self.plain(v, z).sum()
            (slope,) = torch.autograd.grad(total, z)
        out.copy_(slope)
        return total.detach()


def _softened(logits: Tensor, temperature: float) -> Tensor:
    """Divide logits whose largest is 0, so that none becomes infinite."""
    logits = logits.detach()
    return (logits - logits.amax(-1, keepdim=True)) / temperature


def softmaxes(pair: Tensor, peaks: Tensor) -> tuple[Tensor, ...]:
    """Make z and v (2, R, V) q and p, in place: a row is read first.

    Args:
        pair: z and v.
        peaks: The largest of each row (2, R, 1).

    Returns:
        q and p (R, V), and log Σ exp of z and of v (R, 1).
    """
    probabilities = torch.softmax(pair, -1, out=pair)
    # For the likeliest class, log p is its logit less log Σ exp.
    largest = probabilities.amax(-1, keepdim=True)
    sums = peaks - largest.log_()
    return *probabilities.unbind(), *sums.unbind()


def expectation(p: Tensor, cost: Tensor) -> Tensor:
    """Sum p · cost over rows (R, V) → (R,), and keep no product."""
    return torch.linalg.vecdot(p, cost)


def _cross_entropy(
    pair: Tensor, peaks: Tensor, room: Tensor, out: Tensor
) -> Tensor:
    z = out.copy_(pair[0])
    q, p, q_sum, _ = softmaxes(pair, peaks)
    values = q_sum.squeeze(-1) - expectation(p, z)
    torch.sub(q, p, out=out)  # ∂/∂z = q − p
    return values


def _forward(
    pair: Tensor, peaks: Tensor, room: Tensor, out: Tensor
) -> Tensor:
    gap = torch.sub(*pair.unbind(), out=out)
    q, p, q_sum, p_sum = softmaxes(pair, peaks)
    mean = expectation(p, gap).unsqueeze(-1)
    values = q_sum - p_sum - mean  # Σ p (log p − log q)
    if values.mean() < NEAR and (gap.sub_(mean).abs() < CLOSE).all():
        return _forward_near(p, gap, room)
    torch.sub(q, p, out=out)  # ∂/∂z
    return values.squeeze(-1)


def _forward_near(p: Tensor, x: Tensor, room: Tensor) -> Tensor:
    """Keep the digits of a small KL, which is log Σ p eˣ if Σ p x = 0.

    See `logit_divergence`. The gradient takes the place of x.
    """
    growth = torch.expm1(x, out=room)
    total = expectation(p, excess(x, growth))  # Σ p eˣ − 1
    # ∂/∂z = q − p, where q = p eˣ / Σ p eˣ
    growth.sub_(total.unsqueeze(-1))
    torch.mul(p, growth, out=x).div_(1 + total.unsqueeze(-1))
    return total.log1p_()


def _reverse(
    pair: Tensor, peaks: Tensor, room: Tensor, out: Tensor
) -> Tensor:
    gap = torch.sub(*pair.unbind(), out=out)
    q, _, q_sum, p_sum = softmaxes(pair, peaks)
    gap.sub_(q_sum - p_sum)  # log q − log p
    values = expectation(q, gap)
    gap.sub_(values.unsqueeze(-1)).mul_(q)  # ∂/∂z
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

    def run(
        pair: Tensor, peaks: Tensor, room: Tensor, out: Tensor
    ) -> Tensor:
        d = torch.sub(*pair.unbind(), out=out)
        q, p, q_sum, p_sum = softmaxes(pair, peaks)
        # d = log q − log p; log m − log p = log(β + (1 − β) eᵈ)
        d.sub_(q_sum - p_sum)
        above = torch.exp(d, out=room)
        above.mul_(1 - beta).add_(beta).log_()
        values = expectation(p, above).mul_(-beta)
        gap = d.sub_(above)  # log q − log m
        from_q = expectation(q, gap)
        values.add_(from_q, alpha=1 - beta)
        gap.sub_(from_q.unsqueeze(-1)).mul_(1 - beta).mul_(q)  # ∂/∂z
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
    weight: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Average a divergence over rows of logits, or the real ones.

    Args:
        student: The student's logits (…, V).
        teacher: The teacher's (…, V); gets no gradient.
        divergence: What to take of each pair of rows.
        plain: The name of the plain form, for an error.
        temperature: What to divide the logits by.
        weight: What to multiply the average by.
        mask: True at the real rows (…); None is all.
    """
    size = student.numel() // student.shape[-1]
    count = size if mask is None else int(mask.sum())
    scale = weight / (temperature * count)  # of the gradient

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
            room = scratch[:, : len(pair[0])]
            out = room[ROOM]
            in_place = gradient is not None and isinstance(rows, slice)
            if gradient is not None and in_place:
                out = gradient[rows]
            total += divergence(*pair, room, out, temperature)
            if gradient is not None:
                out.mul_(scale)
                if not in_place:
                    gradient[rows] = out
        if gradient is not None:
            gradient = gradient.view_as(student)
        return total * (weight / count), (gradient,)

    teacher = teacher.detach()
    return with_gradient(evaluate, student, plain=plain)


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
