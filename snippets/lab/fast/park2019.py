"""Relational knowledge distillation, in the form to run.

The plain form makes the differences of all pairs of embeddings,
(B, B, D), several times over. But lengths and angles of differences
are made of inner products of the points themselves, (B, B): with G
their Gram matrix, ⟨i − j, k − j⟩ = G_ik − G_ij − G_jk + G_jj. The
points are centred first, for far from the origin the four terms would
cancel and take all digits with them. The gradient, too, is a matrix
(B, B) times the points. So the angles, B³ of them, are worked through
in slices that stay in the cache.

Two points that nearly coincide cancel wherever the origin is. Where a
batch has such a pair, the differences are made after all, in slices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from snippets.lab.checks import full_precision, require_samples, typed
from snippets.lab.fast.gradients import BLOCK, Gradients, with_gradient
from snippets.lab.vectors import directions, peaks

CLOSE = 0.01
"""Points are close if the square of their distance is below this share
of their two squared norms: then two digits are lost, or more."""


@typed
def distance_loss(
    student: Float[Tensor, "batch student_width"],
    teacher: Float[Tensor, "batch teacher_width"],
    *,
    variant: Literal["paper", "code"] = "paper",
) -> Float[Tensor, ""]:
    """Compute `snippets.park2019.distance_loss` from Gram matrices.

    Arguments, value and errors are those of the plain form. There is
    no second derivative.
    """
    require_samples(2, student=student, teacher=teacher)
    b = len(student)
    count = b * (b - 1) if variant == "paper" else b**2
    return _relational(
        student,
        teacher,
        _distances,
        _exact_distances,
        count,
        "distance",
    )


@typed
def angle_loss(
    student: Float[Tensor, "batch student_width"],
    teacher: Float[Tensor, "batch teacher_width"],
    *,
    variant: Literal["paper", "code"] = "paper",
) -> Float[Tensor, ""]:
    """Compute `snippets.park2019.angle_loss` from Gram matrices.

    Arguments, value and errors are those of the plain form. There is
    no second derivative.
    """
    require_samples(3, student=student, teacher=teacher)
    b = len(student)
    count = b * (b - 1) * (b - 2) if variant == "paper" else b**3
    return _relational(
        student, teacher, _angles, _exact_angles, count, "angle"
    )


@dataclass(frozen=True)
class _Points:
    """Points (B, D), their Gram matrix and distances (B, B)."""

    x: Tensor
    gram: Tensor
    apart: Tensor
    close: bool

    @classmethod
    def of(cls, points: Tensor) -> "_Points":
        gram = points @ points.mT
        norms = gram.diagonal()
        sums = norms[:, None] + norms
        squares = sums - 2 * gram
        close = squares <= CLOSE * sums
        squares.fill_diagonal_(0)
        return cls(
            points, gram, squares.sqrt(), int(close.sum()) > len(points)
        )


def _relational(
    student: Tensor,
    teacher: Tensor,
    short: Callable[[_Points, _Points], tuple[Tensor, Tensor]],
    exact: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    count: int,
    name: str,
) -> Tensor:
    """Take the mean Huber loss of a relation, and its gradient."""
    teacher = full_precision(teacher.detach())
    v, v_scale = _centred(teacher)
    t = _Points.of(v)

    def evaluate(
        student: Tensor, *, wanted: tuple[bool, ...]
    ) -> tuple[Tensor, Gradients]:
        z, scale = _centred(student)
        s = _Points.of(z)
        if s.close or t.close:
            # Not centred: a mean would round what is close to 0.
            total, gradient = exact(
                full_precision(student) / scale, teacher / v_scale
            )
        else:
            total, gradient = short(s, t)
        gradient = gradient - gradient.mean(0)
        return total / count, (gradient.div_(count * scale),)

    return with_gradient(
        evaluate, student, plain=f"snippets.park2019.{name}_loss"
    )


def _centred(points: Tensor) -> tuple[Tensor, Tensor]:
    """Move the mean to 0, and the largest coordinate to ±1."""
    points = full_precision(points)
    moved = points - points.mean(0)
    scale = peaks(moved.flatten())
    return moved / scale, scale


def _relative(apart: Tensor) -> tuple[Tensor, Tensor]:
    """Divide distances (B, B) by their mean, and give both."""
    mean = apart.sum() / (len(apart) * (len(apart) - 1))
    mean = torch.where(mean == 0, 1, mean)
    return apart / mean, mean


def _distances(s: _Points, t: _Points) -> tuple[Tensor, Tensor]:
    b = len(s.x)
    psi, mean = _relative(s.apart)
    gap = psi - _relative(t.apart)[0]
    w = gap.clamp(-1, 1)  # the slope of the Huber loss
    total = w.flatten() @ (gap - w / 2).flatten()
    # By the distance itself, and by the mean that divides all.
    slope = w - (w.flatten() @ psi.flatten()) / (b * (b - 1))
    pull = (slope / s.apart.fill_diagonal_(1)).fill_diagonal_(0)
    pull *= 2 / mean
    return total, pull.sum(1, keepdim=True) * s.x - pull @ s.x


def _exact_distances(s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    def relative(x: Tensor) -> Tensor:
        mode = "donot_use_mm_for_euclid_dist"
        return _relative(torch.cdist(x, x, compute_mode=mode))[0]

    with torch.enable_grad():
        z = s.detach().requires_grad_()
        total = nn.functional.huber_loss(
            relative(z), relative(t), reduction="sum"
        )
        (gradient,) = torch.autograd.grad(total, z)
    return total.detach(), gradient


def _angles(s: _Points, t: _Points) -> tuple[Tensor, Tensor]:
    b = len(s.x)
    inverse = 1 / s.apart.fill_diagonal_(torch.inf)
    t_inverse = 1 / t.apart.fill_diagonal_(torch.inf)
    scratch = s.gram.new_empty(3, min(b, max(1, BLOCK // b**2)), b, b)
    total = s.gram.new_zeros(())
    # The gradient is this matrix times the points; its rows add to 0.
    pull = torch.zeros_like(s.gram)
    for middles in torch.arange(b, device=pull.device).split(
        scratch.shape[1]
    ):
        cosine, gap, w = scratch[:, : len(middles)]
        _cosines(s, inverse, middles, cosine)
        torch.sub(cosine, _cosines(t, t_inverse, middles, gap), out=gap)
        torch.clamp(gap, -1, 1, out=w)  # the slope of the Huber loss
        w.diagonal(dim1=1, dim2=2).zero_()  # i = k is no triangle
        total += (w * gap.sub_(w, alpha=0.5)).sum()
        # ∂/∂i = 2 Σ_k m_ik (k − j), and j takes what balances it
        at = inverse[middles]  # (m, B)
        turn = torch.linalg.vecdot(w, cosine) * at.square()
        m = w.mul_(at[:, :, None]).mul_(at[:, None, :])
        m.diagonal(dim1=1, dim2=2).sub_(turn)
        pull += m.sum(0)
        sums = m.sum(-1)  # (m, B)
        pull[:, middles] -= sums.T
        pull[middles] -= sums
        pull[middles, middles] += sums.sum(-1)
    return total, 2 * (pull @ s.x)


def _cosines(
    points: _Points, inverse: Tensor, middles: Tensor, out: Tensor
) -> Tensor:
    """Write the cosines at some middles, (m, B, B)."""
    gram = points.gram
    at = gram[middles] - gram.diagonal()[middles, None] / 2  # (m, B)
    torch.sub(gram, at[:, :, None], out=out)
    out.sub_(at[:, None, :])
    near = inverse[middles]
    return out.mul_(near[:, :, None]).mul_(near[:, None, :])


def _exact_angles(s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    b, width = len(s), max(s.shape[1], t.shape[1], len(s))
    total, gradient = s.new_zeros(()), torch.zeros_like(s)

    def cosines(x: Tensor, middles: Tensor) -> Tensor:
        unit = directions(x[None, :] - x[middles, None])  # (m, B, D)
        return unit @ unit.mT

    for middles in torch.arange(b, device=s.device).split(
        max(1, BLOCK // (b * width))
    ):
        with torch.enable_grad():
            z = s.detach().requires_grad_()
            gaps = nn.functional.huber_loss(
                cosines(z, middles),
                cosines(t, middles),
                reduction="none",
            )
            part = gaps.sum() - gaps.diagonal(dim1=1, dim2=2).sum()
            (slope,) = torch.autograd.grad(part, z)
        total += part.detach()
        gradient += slope
    return total, gradient
