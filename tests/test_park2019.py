"""The losses of park2019 against independent forms, and at their borders."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets import park2019
from snippets.lab.data import seeded
from snippets.park2019 import angle_loss, distance_loss, relative_distances

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-11, "atol": 1e-12}
LOSSES = [distance_loss, angle_loss]
VARIANTS = ["paper", "code"]


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def pair(seed=0, batch=6, student=3, teacher=5, dtype=torch.float64):
    """A student's and a teacher's embeddings, of different width."""
    return (
        normal(batch, student, seed=seed, dtype=dtype),
        normal(batch, teacher, seed=seed + 1, dtype=dtype),
    )


def rotation(width, seed=0):
    return torch.linalg.qr(normal(width, width, seed=seed)).Q


def huber(a, b):
    gap = abs(a - b)
    return gap**2 / 2 if gap <= 1 else gap - 0.5


def distances_by_hand(points):
    """Relative distances of all ordered pairs, in scalar arithmetic."""
    rows = points.tolist()
    b = range(len(rows))
    apart = {(i, j): math.dist(rows[i], rows[j]) for i in b for j in b if i != j}
    mean = sum(apart.values()) / len(apart)
    return {key: d / mean for key, d in apart.items()}


def cosines_by_hand(points):
    """Cosine at j of all triplets of distinct samples, by the law of cosines."""
    rows = points.tolist()
    b = range(len(rows))
    found = {}
    for i in b:
        for j in b:
            for k in b:
                if len({i, j, k}) == 3:
                    ij, kj, ik = (math.dist(rows[x], rows[y]) for x, y in ((i, j), (k, j), (i, k)))
                    found[i, j, k] = (ij**2 + kj**2 - ik**2) / (2 * ij * kj)
    return found


def authors_distance(student, teacher):
    """`RkdDistance` of the authors' repository, with exact distances."""
    s, t = (
        torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") for x in (student, teacher)
    )
    s, t = s / s[s > 0].mean(), t / t[t > 0].mean()
    return nn.functional.smooth_l1_loss(s, t)


def authors_angle(student, teacher):
    """`RKdAngle` of the authors' repository: its vertex is the first index."""
    cosines = []
    for x in (student, teacher):
        unit = nn.functional.normalize(x.unsqueeze(0) - x.unsqueeze(1), p=2, dim=2)
        cosines.append(torch.bmm(unit, unit.transpose(1, 2)).view(-1))
    return nn.functional.smooth_l1_loss(*cosines)


class TestAgainstIndependentForms:
    @pytest.mark.parametrize(
        ("loss", "by_hand"), [(distance_loss, distances_by_hand), (angle_loss, cosines_by_hand)]
    )
    def test_scalar_loop(self, loss, by_hand):
        s, t = pair()
        ours, theirs = by_hand(s), by_hand(t)
        expected = sum(huber(ours[key], theirs[key]) for key in ours) / len(ours)
        assert loss(s, t).item() == pytest.approx(expected, rel=1e-11)

    def test_large_gaps_count_linearly(self):
        s = torch.tensor([[0.0], [1.0], [2.0]]).double()
        t = torch.tensor([[0.0], [1.0], [100.0]]).double()
        ours, theirs = distances_by_hand(s), distances_by_hand(t)
        expected = sum(huber(ours[key], theirs[key]) for key in ours) / 6
        assert distance_loss(s, t).item() == pytest.approx(expected, rel=1e-12)
        # Angles of 180° where the other side has 0°: |1 − (−1)| − ½.
        turned = torch.tensor([[1.0], [0.0], [2.0]]).double()
        assert angle_loss(turned, s).item() == pytest.approx(1.5 * 4 / 6)

    @pytest.mark.parametrize("batch", [3, 8, 17])
    def test_authors_code(self, batch):
        s, t = pair(batch=batch)
        torch.testing.assert_close(
            distance_loss(s, t, variant="code"), authors_distance(s, t), **F64
        )
        torch.testing.assert_close(angle_loss(s, t, variant="code"), authors_angle(s, t), **F64)

    @pytest.mark.parametrize("batch", [3, 4, 9])
    def test_variants_differ_by_the_share_of_distinct_samples(self, batch):
        s, t = pair(batch=batch)
        shares = [(batch - 1) / batch, (batch - 1) * (batch - 2) / batch**2]
        for loss, share in zip(LOSSES, shares, strict=True):
            torch.testing.assert_close(loss(s, t, variant="code"), share * loss(s, t), **F64)

    def test_two_samples_have_one_distance(self):
        s, t = pair(batch=2)
        assert distance_loss(s, t) == 0


@pytest.mark.parametrize("loss", LOSSES)
class TestWhoLearns:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_student_learns_and_teacher_does_not(self, loss, variant):
        s, t = (x.requires_grad_() for x in pair())
        loss(s, t, variant=variant).backward()
        assert s.grad.abs().sum() > 0
        assert t.grad is None

    def test_the_value_is_symmetric_by_definition(self, loss):
        s, t = pair()
        torch.testing.assert_close(loss(s, t), loss(t, s), **F64)

    def test_gradient_numerically(self, loss):
        s, t = pair(batch=5)
        assert torch.autograd.gradcheck(lambda x: loss(x, t), s.requires_grad_())

    def test_the_students_mean_takes_part_in_the_gradient(self, loss):
        s, t = (x.requires_grad_() for x in pair())
        (gradient,) = torch.autograd.grad(loss(s, t), s)
        # A scale changes nothing, so no step may point along the points.
        assert (gradient * s).sum().abs() < 1e-12


@pytest.mark.parametrize("loss", LOSSES)
class TestInvariances:
    @given(seed=SEEDS, scale=st.floats(1e-6, 1e6), shift=st.floats(-100, 100))
    def test_similarity_of_either_side(self, loss, seed, scale, shift):
        s, t = pair(seed)
        same = loss(s, t)
        moved = scale * (s @ rotation(3, seed)) + scale * shift
        torch.testing.assert_close(loss(moved, t), same, rtol=1e-8, atol=1e-10)
        mirrored = t * torch.tensor([-1.0, 1, 1, 1, 1]) + shift
        torch.testing.assert_close(loss(s, mirrored), same, rtol=1e-8, atol=1e-10)

    @given(seed=SEEDS, order=st.permutations(range(6)))
    def test_order_of_the_samples(self, loss, seed, order):
        s, t = pair(seed)
        torch.testing.assert_close(loss(s[order], t[order]), loss(s, t), **F64)
        assert order == sorted(order) or loss(s[order], t) != loss(s, t)

    @given(seed=SEEDS)
    def test_a_similar_copy_in_another_width_costs_nothing(self, loss, seed):
        _, t = pair(seed)
        assert loss(0.1 * t @ rotation(9, seed)[:5] - 3, t) < 1e-20
        assert loss(t * torch.tensor([3.0, 1, 1, 1, 1]), t) > 1e-5

    def test_units_do_not_matter(self, loss):
        s, t = pair()
        for scale in (1e-150, 1e-4, 1e150):
            torch.testing.assert_close(loss(scale * s, t), loss(s, scale * t), **F64)
            torch.testing.assert_close(loss(scale * s, t), loss(s, t), **F64)


class TestBlindSpots:
    def test_angles_do_not_see_spacing_on_a_line(self):
        line = torch.arange(6.0).double()[:, None]
        assert angle_loss(line.exp(), line) == 0
        assert distance_loss(line.exp(), line) > 0.1

    def test_the_expanded_square_loses_the_distances_and_ours_does_not(self):
        points = (normal(8, 64) + 1e4).float()
        square = points.square().sum(-1)
        apart = (square[:, None] + square - 2 * points @ points.mT).clamp(min=1e-12).sqrt()
        theirs = apart / apart[~torch.eye(8, dtype=torch.bool)].mean()
        exact = relative_distances(points.double())
        assert (theirs - exact).abs().fill_diagonal_(0).max() > 0.2
        assert (relative_distances(points) - exact).abs().max() < 1e-5


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("variant", VARIANTS)
class TestHardNumbers:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
    def test_extreme_features_stay_finite(self, loss, variant, dtype, scale):
        s, t = (scale * torch.sign(x) for x in pair())
        s, t = s.to(dtype).requires_grad_(), t.to(dtype)
        value = loss(s, t, variant=variant)
        value.backward()
        assert value.isfinite()
        assert s.grad.isfinite().all()

    @pytest.mark.parametrize(
        "student",
        [torch.zeros(6, 3), torch.full((6, 3), 7.0), normal(3, 3).repeat(2, 1).float()],
        ids=["zero", "constant", "duplicated"],
    )
    def test_points_that_coincide(self, loss, variant, student):
        _, t = pair(dtype=torch.float32)
        for s, teacher in ((student, t), (student, student), (t[:, :3], student)):
            s = s.clone().requires_grad_()
            value = loss(s, teacher, variant=variant)
            value.backward()
            assert value.isfinite()
            assert s.grad.isfinite().all()

    def test_a_collapsed_student_is_at_rest_at_the_teachers_norm(self, loss, variant):
        s, t = torch.ones(6, 3).double().requires_grad_(), pair()[1]
        value = loss(s, t, variant=variant)
        value.backward()
        assert (s.grad == 0).all()
        by_hand = distances_by_hand if loss is distance_loss else cosines_by_hand
        entries = [huber(0.0, x) for x in by_hand(t).values()]
        count = {distance_loss: 36, angle_loss: 216}[loss] if variant == "code" else len(entries)
        assert value.item() == pytest.approx(sum(entries) / count, rel=1e-12)

    def test_an_offset_costs_no_digits(self, loss, variant):
        s, t = pair()
        s = (s + 1e4).float()
        exact = loss(s.double(), t, variant=variant)
        ours = loss(s, t.float(), variant=variant)
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, loss, variant, dtype):
        s, t = pair(dtype=dtype)
        value = loss(s, t, variant=variant)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, loss(s.float(), t.float(), variant=variant))

    def test_strided_tensors_and_transforms(self, loss, variant):
        s, t = pair()
        value = loss(s, t, variant=variant)
        strided = [x.t().contiguous().t() for x in (s, t)]
        torch.testing.assert_close(loss(*strided, variant=variant), value, **F64)
        each = torch.func.vmap(loss)(s.expand(2, -1, -1), t.expand(2, -1, -1))
        torch.testing.assert_close(each, loss(s, t).expand(2), **F64)
        assert torch.func.grad(loss)(s, t).isfinite().all()


class TestBadInput:
    @pytest.mark.parametrize(
        ("loss", "few"), [(distance_loss, 1), (angle_loss, 2), (angle_loss, 0)]
    )
    def test_too_few_samples(self, loss, few):
        with pytest.raises(ValueError, match=rf"student .* got shape \({few}, 3\)"):
            loss(torch.zeros(few, 3), torch.zeros(few, 5))

    @pytest.mark.parametrize("loss", LOSSES)
    def test_no_features(self, loss):
        with pytest.raises(ValueError, match=r"teacher .* got shape \(4, 0\)"):
            loss(torch.zeros(4, 3), torch.zeros(4, 0))

    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.parametrize(
        ("s", "t", "argument"),
        [
            (torch.zeros(6), torch.zeros(6, 5), "student"),
            (torch.zeros(6, 3), torch.zeros(6, 5, 1), "teacher"),
            (torch.zeros(6, 3), torch.zeros(1, 5), "teacher"),
            (torch.zeros(6, 3).long(), torch.zeros(6, 5), "student"),
            (torch.zeros(6, 3), [[0.0] * 5] * 6, "teacher"),
        ],
    )
    def test_wrong_tensor(self, loss, s, t, argument):
        with pytest.raises(TypeError, match=argument):
            loss(s, t)

    @pytest.mark.parametrize("loss", LOSSES)
    def test_variant(self, loss):
        with pytest.raises(TypeError, match="variant"):
            loss(*pair(), variant="mean")
        with pytest.raises(TypeError):
            loss(*pair(), "code")


def test_zero_loss_at_chance_with_one_seed():
    evidence = park2019.zero_loss_at_chance(seeds=(0,))
    assert evidence.holds, evidence.measured
