"""The losses of park2019 against independent forms, and at their borders."""

import math

import pytest
import torch
from torch import nn

from snippets import park2019
from snippets.lab.data import seeded
from snippets.park2019 import angle_loss, distance_loss, relative_distances
from tests import losses

F64 = {"rtol": 1e-11, "atol": 1e-12}
LOSSES = [distance_loss, angle_loss]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def pair(seed=0, batch=6):
    """A student's and a teacher's embeddings, of different width."""
    return losses.pair((batch, 3), (batch, 5), seed)


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
    @pytest.mark.proves("against", "a scalar loop")
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
    @pytest.mark.proves("against", "the authors' code, written anew", distance_loss, angle_loss)
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


class Relations(losses.FeatureLoss):
    options = {"variant": "paper"}, {"variant": "code"}
    averages = False  # a sample's relations change with its company
    by_hand = None  # the relations of points, in scalar arithmetic

    @losses.seeds
    @pytest.mark.parametrize(("scale", "shift"), [(1e-6, 100), (0.3, -7), (1e6, 0)])
    @pytest.mark.proves("invariances", "a rotation, shift and scale of either side")
    def test_similarity_of_either_side(self, seed, scale, shift):
        s, t = pair(seed)
        same = self.values(s, t)
        moved = scale * (s @ rotation(3, seed)) + scale * shift
        torch.testing.assert_close(self.values(moved, t), same, rtol=1e-8, atol=1e-10)
        mirrored = t * torch.tensor([-1.0, 1, 1, 1, 1]) + shift
        torch.testing.assert_close(self.values(s, mirrored), same, rtol=1e-8, atol=1e-10)

    @losses.seeds
    @pytest.mark.proves("invariances", "zero for a similar copy in another width")
    def test_a_similar_copy_in_another_width_costs_nothing(self, seed):
        _, t = pair(seed)
        assert (self.values(0.1 * t @ rotation(9, seed)[:5] - 3, t) < 1e-20).all()
        assert (self.values(t * torch.tensor([3.0, 1, 1, 1, 1]), t) > 1e-5).all()

    def test_the_students_mean_takes_part_in_the_gradient(self):
        s, t = pair()
        for option in self.options:
            # A scale changes nothing, so no step may point along the points.
            assert (self.check(s, t, option)[1] * s).sum().abs() < 1e-12

    def test_a_collapsed_student_is_at_rest_at_the_teachers_norm(self):
        s, t = torch.ones(6, 3).double(), pair()[1]
        norms = [huber(0.0, x) for x in type(self).by_hand(t).values()]
        for option in self.options:
            value, slope = self.check(s, t, option)
            every = 6 ** (self.least)  # B² pairs or B³ triplets
            count = every if option["variant"] == "code" else len(norms)
            assert (slope == 0).all()
            assert value.item() == pytest.approx(sum(norms) / count, rel=1e-12)

    def test_an_offset_costs_no_digits(self):
        s, t = pair()
        s = (s + 1e4).float()
        ours, exact = self.values(s, t.float()), self.values(s.double(), t)
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-6)

    @pytest.mark.proves("transforms", "torch.func.vmap")
    def test_works_under_vmap(self):
        s, t = pair()
        each = torch.func.vmap(type(self).function)(s.expand(2, -1, -1), t.expand(2, -1, -1))
        torch.testing.assert_close(each, self.values(s, t)[:1].expand(2), **F64)

    def test_an_empty_teacher_is_named(self):
        with pytest.raises(ValueError, match=r"teacher .* got shape \(4, 0\)"):
            type(self).function(torch.zeros(4, 3), torch.zeros(4, 0))


class TestDistance(Relations):
    function = staticmethod(distance_loss)
    by_hand = staticmethod(distances_by_hand)
    least = 2


class TestAngle(Relations):
    function = staticmethod(angle_loss)
    by_hand = staticmethod(cosines_by_hand)
    least = 3


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


def test_zero_loss_at_chance_with_one_seed():
    evidence = park2019.zero_loss_at_chance(seeds=(0,))
    assert evidence.holds, evidence.measured
