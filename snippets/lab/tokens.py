"""Sequences with padding: only real tokens count.

A mask (B, L) is True at the real ones. Whatever stands in the padding,
even NaN, changes no value and gets no gradient.
"""

import torch
from torch import Tensor

from snippets.lab.checks import full_precision, require_range


def log_probabilities(logits: Tensor, mask: Tensor) -> Tensor:
    """Take the log-softmax of logits (B, L, V); padding is uniform."""
    real = mask.unsqueeze(-1)
    return torch.where(real, full_precision(logits), 0).log_softmax(-1)


def real_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average values (B, L) over the real tokens."""
    return torch.where(mask, values, 0).sum() / mask.sum()


def negative_log_likelihood(
    logits: Tensor, mask: Tensor, **tokens: Tensor
) -> Tensor:
    """Average −log q(y) over the real tokens.

    Args:
        logits: Unnormalised log-probabilities (B, L, V).
        mask: True at the real tokens (B, L).
        tokens: The tokens y (B, L), under the name for an error.

    Raises:
        ValueError: a real token outside the vocabulary.
    """
    ((name, y),) = tokens.items()
    y = torch.where(mask, y.long(), 0)
    require_range(logits.shape[-1], **{name: y})
    log_q = log_probabilities(logits, mask)  # (B, L, V)
    chosen = log_q.gather(-1, y.unsqueeze(-1)).squeeze(-1)  # (B, L)
    return -real_mean(chosen, mask)
