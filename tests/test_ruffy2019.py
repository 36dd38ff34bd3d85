"""The objective of ruffy2019 against independent forms, and at its borders."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets import ruffy2019
from snippets.hinton2015 import distillation_loss
from snippets.lab.data import seeded
from snippets.park2019 import angle_loss, distance_loss
from snippets.ruffy2019 import KD, rkd_objective, student
from tests import losses

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-11, "atol": 1e-11}
PLAIN = {"distance_weight": 0.0, "angle_weight": 0.0}


def batch(seed=0, size=6, dtype=torch.float64, scale=1.0):
    """Logits of both, targets, and features of different width of both."""
    generator = seeded(seed)
    draw = [
        (scale * torch.randn(size, width, generator=generator, dtype=torch.float64)).to(dtype)
        for width in (5, 5, 3, 4)
    ]
    return [*draw[:2], torch.arange(size) % 5, *draw[2:]]


class TestAgainstIndependentForms:
    @pytest.mark.proves("against", "torch's losses, written out")
    def test_written_out_with_torchs_losses(self):
        z, v, y, s, t = batch()
        soft = nn.functional.kl_div((z / 5).log_softmax(-1), (v / 5).softmax(-1), reduction="sum")
        distances, cosines = [], []
        for x in (s, t):
            apart = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
            distances.append(apart / apart[apart > 0].mean())
            unit = nn.functional.normalize(x[None] - x[:, None], dim=-1)
            cosines.append(torch.einsum("abd,acd->abc", unit, unit))
        expected = 0.5 * nn.functional.cross_entropy(z, y) + 12.5 * soft / 6
        expected += 25 * nn.functional.smooth_l1_loss(*distances)
        expected += 50 * nn.functional.smooth_l1_loss(*cosines)
        torch.testing.assert_close(rkd_objective(z, v, y, s, t), expected, **F64)

    @pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
    @pytest.mark.parametrize("temperature", [1.0, 5.0])
    @pytest.mark.proves("against", "hinton2015's distillation_loss, without relations")
    def test_without_relations_it_is_plain_distillation(self, alpha, temperature):
        z, v, y, s, t = batch()
        options = {"alpha": alpha, "temperature": temperature}
        expected = distillation_loss(z, v, y, **options)
        assert torch.equal(rkd_objective(z, v, y, s, t, **options, **PLAIN), expected)

    @pytest.mark.proves("against", "torch's cross_entropy, without a teacher")
    def test_without_anything_it_is_cross_entropy(self):
        z, v, y, s, t = batch()
        expected = nn.functional.cross_entropy(z, y)
        ours = rkd_objective(z, v, y, s, t, alpha=0.0, **PLAIN)
        torch.testing.assert_close(ours, expected, **F64)

    @given(SEEDS, st.floats(0, 100), st.floats(0, 100))
    def test_the_weights_weigh(self, seed, distance, angle):
        z, v, y, s, t = batch(seed)
        ours = rkd_objective(z, v, y, s, t, distance_weight=distance, angle_weight=angle)
        plain = rkd_objective(z, v, y, s, t, **PLAIN)
        relations = distance * distance_loss(s, t, variant="code")
        relations += angle * angle_loss(s, t, variant="code")
        torch.testing.assert_close(ours, plain + relations, **F64)


class TestWhoLearns:
    @pytest.mark.proves("gradients", "the student learns, the teacher does not")
    def test_student_learns_and_teacher_does_not(self):
        z, v, y, s, t = batch()
        for x in (z, v, s, t):
            x.requires_grad_()
        rkd_objective(z, v, y, s, t).backward()
        assert z.grad.abs().sum() > 0
        assert s.grad.abs().sum() > 0
        assert v.grad is None
        assert t.grad is None

    def test_swapping_roles_changes_the_value(self):
        z, v, y, s, t = batch()
        assert abs(rkd_objective(z, v, y, s, t) - rkd_objective(v, z, y, t, s)) > 1e-3

    def test_gradient_numerically(self):
        z, v, y, s, t = batch()
        assert torch.autograd.gradcheck(
            lambda a, b: rkd_objective(a, v, y, b, t), (z.requires_grad_(), s.requires_grad_())
        )

    def test_weight_zero_stops_the_gradient(self):
        z, v, y, s, t = batch()
        s.requires_grad_()
        assert not rkd_objective(z, v, y, s, t, **PLAIN).requires_grad
        assert rkd_objective(z, v, y, s, t, distance_weight=0.0).requires_grad


class TestInvariances:
    @given(SEEDS, st.permutations(range(6)))
    @pytest.mark.proves("invariances", "the order of the samples")
    def test_order_of_the_samples(self, seed, order):
        tensors = batch(seed)
        shuffled = [x[order] for x in tensors]
        torch.testing.assert_close(rkd_objective(*shuffled), rkd_objective(*tensors), **F64)

    @given(SEEDS, st.floats(1e-3, 1e3), st.floats(-10, 10))
    @pytest.mark.proves("invariances", "the scale and place of the features")
    def test_unit_and_place_of_the_features(self, seed, scale, shift):
        z, v, y, s, t = batch(seed)
        moved = rkd_objective(z, v, y, scale * (s + shift), t)
        torch.testing.assert_close(moved, rkd_objective(z, v, y, s, t), rtol=1e-9, atol=1e-9)


class TestHardNumbers:
    @pytest.mark.parametrize("dtype", losses.DTYPES)
    @pytest.mark.parametrize("scale", [0.0, 1e-4, 1e4])
    def test_extreme_inputs_stay_finite(self, dtype, scale):
        z, v, y, s, t = batch(dtype=dtype, scale=scale)
        z.requires_grad_(), s.requires_grad_()
        loss = rkd_objective(z, v, y, s, t)
        loss.backward()
        assert loss.isfinite()
        assert z.grad.isfinite().all()
        assert s.grad.isfinite().all()

    @pytest.mark.parametrize("dtype", losses.DTYPES)
    def test_coinciding_samples_and_classes_masked_on_both_sides(self, dtype):
        z, v, y, s, t = batch(dtype=dtype)
        z[:, 4] = v[:, 4] = -torch.inf  # no sample has this class
        y, s[1:], t[3] = y % 4, s[:1], t[2]
        z.requires_grad_(), s.requires_grad_()
        loss = rkd_objective(z, v, y, s, t)
        loss.backward()
        assert loss.isfinite()
        assert z.grad.isfinite().all()
        assert s.grad.isfinite().all()
        kept = rkd_objective(z[:, :4], v[:, :4], y, s, t)
        torch.testing.assert_close(loss, kept)

    @pytest.mark.parametrize("dtype", losses.HALVES)
    def test_halves_are_computed_in_float32(self, dtype):
        z, v, y, s, t = batch(dtype=dtype)
        wide = rkd_objective(z.float(), v.float(), y, s.float(), t.float())
        assert rkd_objective(z, v, y, s, t).dtype == torch.float32
        torch.testing.assert_close(rkd_objective(z, v, y, s, t), wide)


class TestBadInput:
    @pytest.mark.parametrize("name", ["distance_weight", "angle_weight"])
    @pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
    def test_weight(self, name, weight):
        with pytest.raises(ValueError, match=f"{name} .* got {weight}"):
            rkd_objective(*batch(), **{name: weight})

    @pytest.mark.parametrize(("name", "value"), [("alpha", 1.5), ("temperature", 0.0)])
    def test_hintons_options(self, name, value):
        with pytest.raises(ValueError, match=f"{name} .* got {value}"):
            rkd_objective(*batch(), **{name: value})

    def test_too_few_samples_for_an_angle(self):
        with pytest.raises(ValueError, match=r"student .* got shape \(2, 3\)"):
            rkd_objective(*batch(size=2))
        assert rkd_objective(*batch(size=2), **PLAIN).isfinite()

    @pytest.mark.parametrize(
        ("position", "argument"),
        [
            (0, "student_logits"),
            (1, "teacher_logits"),
            (2, "targets"),
            (3, "student_features"),
            (4, "teacher_features"),
        ],
    )
    def test_wrong_tensor(self, position, argument):
        for wrong in (lambda x: x[..., None], lambda x: x[:1], lambda x: x.tolist()):
            tensors = batch()
            tensors[position] = wrong(tensors[position])
            # Of two sizes that differ, the later argument is named.
            named = "teacher_logits" if position == 0 and len(tensors[0]) == 1 else argument
            with pytest.raises(TypeError, match=named):
                rkd_objective(*tensors)

    def test_targets_are_integers(self):
        z, v, y, s, t = batch()
        with pytest.raises(TypeError, match="targets"):
            rkd_objective(z, v, y.double(), s, t)


class TestEvidence:
    def test_the_sweep_stands_still(self):
        assert ruffy2019.sweep_stands_still().holds

    def test_a_student_learns(self):
        result = student(KD, 0, 0)
        assert result.right.double().mean() == result.accuracy
        assert 0.5 < result.accuracy <= result.best
