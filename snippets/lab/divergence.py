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
