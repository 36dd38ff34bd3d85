"""Divergences of discrete distributions, from log-probabilities."""

import math

import torch
from torch import Tensor


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    r"""Kullback–Leibler divergence over the last dimension.

    $$\mathrm{KL}(p \,\|\, q) = \sum_c p_c\,(\log p_c - \log q_c)$$

    A class that p excludes ($\log p_c = -\infty$) contributes 0, also
    where q excludes it; one that q alone excludes makes it infinite.

    Args:
        log_p: Log-probabilities (…, C).
        log_q: Log-probabilities of the same shape.

    Returns:
        The divergences in nats (…).
    """
    excluded = log_p == -torch.inf
    # Both branches stay free of NaN, or `where` would pass it back.
    gap = torch.where(excluded, 0, log_p) - torch.where(
        excluded, 0, log_q
    )
    return _expectation(log_p, gap)


def logit_divergence(v: Tensor, z: Tensor) -> Tensor:
    r"""KL(p‖q) of p = softmax(v), q = softmax(z), also if they are close.

    $$\mathrm{KL}(p \,\|\, q) = \log \sum_c p_c\, e^{x_c}, \qquad
    x = (z - v) - \sum_c p_c\, (z_c - v_c)$$

    It is `kl_divergence` of the two log-softmaxes. There large terms
    cancel: two softmaxes at T = 1000 differ by a thousandth, their
    divergence is a millionth, and float32 leaves no digit of it. Here
    every term is positive, since $e^x \ge 1 + x$.

    Args:
        v: Logits (…, C).
        z: Logits of the same shape.

    Returns:
        The divergences in nats (…).
    """
    # A shift changes no softmax, and the gap must not be rounded by it.
    v, z = (x - x.detach().amax(-1, keepdim=True) for x in (v, z))
    p = v.softmax(-1)
    # 0 where both exclude a class; the largest number where one does.
    gap = (z - v).nan_to_num(0)
    mean = (p * gap).sum(-1, keepdim=True)
    apart = gap.detach().abs().amax(-1, keepdim=True) >= CLOSE
    x = torch.where(apart, 0, gap - mean)
    close = (p * excess(x, x.expm1())).sum(-1).log1p()
    far = z.logsumexp(-1) - v.logsumexp(-1) - mean.squeeze(-1)
    # Where p is too small for its dtype, 0 · inf must still be inf.
    endless = gap.detach().amin(-1) == torch.finfo(gap.dtype).min
    far = far + torch.where(endless, torch.inf, 0.0).to(far)
    return torch.where(apart.squeeze(-1), far, close)


CLOSE = 16.0
"""How large a gap may be for its exponential to keep all digits."""


def excess(x: Tensor, growth: Tensor) -> Tensor:
    """Take eˣ − 1 − x from x and eˣ − 1, which leave few digits near 0."""
    series = x.square() * (0.5 + x * (1 / 6 + x / 24))
    small = x.abs() < torch.finfo(x.dtype).eps ** 0.25
    return torch.where(small, series, growth - x)


def cross_entropy(log_p: Tensor, log_q: Tensor) -> Tensor:
    r"""Cross-entropy of q under p over the last dimension.

    $$H(p, q) = -\sum_c p_c \log q_c$$

    It is the divergence plus the entropy of p. Excluded classes count
    as in `kl_divergence`; so do the shapes.
    """
    excluded = log_p == -torch.inf
    return _expectation(log_p, torch.where(excluded, 0, -log_q))


def log_mixture(log_p: Tensor, log_q: Tensor, share: float) -> Tensor:
    """Take the log of share · p + (1 − share) · q, elementwise.

    Args:
        log_p: Log-probabilities (…, C).
        log_q: Log-probabilities of the same shape.
        share: The weight of p, between 0 and 1, both excluded.
    """
    excluded = (log_p == -torch.inf) & (log_q == -torch.inf)
    # Where both are −inf, `logaddexp` has the gradient NaN.
    mixed = torch.logaddexp(
        torch.where(excluded, 0, log_p) + math.log(share),
        torch.where(excluded, 0, log_q) + math.log1p(-share),
    )
    return torch.where(excluded, -torch.inf, mixed)


def _expectation(log_p: Tensor, cost: Tensor) -> Tensor:
    """Sum p · cost over the last dimension."""
    # Where p is too small for its dtype, 0 · inf must still be inf.
    endless = cost == torch.inf
    terms = log_p.exp() * torch.where(endless, 0, cost)
    return torch.where(endless, torch.inf, terms).sum(-1)
