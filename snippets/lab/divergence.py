"""Divergences of discrete distributions, from log-probabilities."""

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
    gap = torch.where(excluded, 0.0, log_p) - torch.where(
        excluded, 0.0, log_q
    )
    # Where p is too small for its dtype, 0 · inf must still be inf.
    terms = torch.where(gap == torch.inf, gap, log_p.exp() * gap)
    return terms.sum(-1)
