"""Lengths and directions of vectors, of any scale.

A plain norm squares its entries: 1e-30 becomes 0 in float32, 1e30
becomes infinite. Divided by its largest entry first, a vector has none
of these troubles, and no `eps` changes the value of a small one.
"""

import torch
from torch import Tensor


def peaks(vectors: Tensor) -> Tensor:
    """Find the largest absolute entry of each vector, 1 for a zero one.

    Args:
        vectors: Vectors (…, d).

    Returns:
        Positive numbers to divide by, (…, 1). They carry no gradient:
        where they divide and multiply, they cancel.
    """
    largest = vectors.detach().abs().amax(-1, keepdim=True)
    return torch.where(largest == 0, 1, largest)


def lengths(vectors: Tensor, p: float = 2) -> Tensor:
    r"""Take the p-norm of each vector, $(\sum_i |v_i|^p)^{1/p}$.

    Args:
        vectors: Vectors (…, d).
        p: At least 1; 2 is the Euclidean length.

    Returns:
        The lengths (…). At a zero vector the gradient is zero.
    """
    scale = peaks(vectors)
    powers = (vectors / scale).abs().pow(p).sum(-1)
    zero = powers == 0
    # Both branches stay finite, or `where` would pass a NaN back.
    roots = torch.where(zero, 1, powers).pow(1 / p)
    return torch.where(zero, 0, scale.squeeze(-1) * roots)


def directions(vectors: Tensor) -> Tensor:
    """Give each vector (…, d) length 1; zero stays, without slope."""
    scaled = vectors / peaks(vectors)
    squares = scaled.square().sum(-1, keepdim=True)
    zero = squares == 0
    return torch.where(zero, 0, scaled / squares.where(~zero, 1).sqrt())
