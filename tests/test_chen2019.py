"""The losses of chen2019 (a reconstruction) against independent forms, and at their borders."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets import chen2019
from snippets.chen2019 import (
    adversarial_loss,
    discriminator_loss,
    orthogonality_loss,
    selective_distillation_loss,
)
from snippets.lab.data import seeded

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-12, "atol": 1e-12}
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16]
)
HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def vectors(seed=0):
    """The student's, the teacher's and the true ratings, and the shared part's."""
    return draw(4, 8, seed=seed).unbind()


def distil(student, teacher, ratings, shared, **options):
    return selective_distillation_loss(
        student, teacher, ratings, shared_predictions=shared, **options
    )


class TestSelectiveDistillation:
    @pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
    @pytest.mark.proves("against", "a scalar loop", selective_distillation_loss)
    def test_scalar_loop(self, weight):
        rows = zip(*(x.tolist() for x in vectors()), strict=True)
        expected = sum((1 - weight) * (s - r) ** 2 + weight * (h - t) ** 2 for s, t, r, h in rows)
        ours = distil(*vectors(), imitation=weight)
        assert ours.item() == pytest.approx(expected / 8, rel=1e-12)

    @pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
    def test_without_shared_predictions_the_whole_student_imitates(self, weight):
        s, t, r, _ = vectors()
        ours = selective_distillation_loss(s, t, r, imitation=weight)
        torch.testing.assert_close(ours, distil(s, t, r, s, imitation=weight), **F64)

    @pytest.mark.proves(
        "gradients", "the student learns, the teacher does not", selective_distillation_loss
    )
    def test_student_learns_and_teacher_and_ratings_do_not(self):
        s, t, r, h = (x.clone().requires_grad_() for x in vectors())
        distil(s, t, r, h).backward()
        assert (s.grad != 0).all()
        assert (h.grad != 0).all()
        assert t.grad is None
        assert r.grad is None

    def test_swapping_student_and_teacher_changes_the_value(self):
        s, t, r, h = vectors()
        assert abs(distil(s, t, r, h) - distil(t, s, r, h)) > 1e-3

    def test_swapping_teacher_and_ratings_changes_the_value(self):
        s, t, r, h = vectors()
        assert abs(distil(s, t, r, h) - distil(s, r, t, h)) > 1e-3

    def test_gradient_numerically(self):
        s, t, r, h = vectors()
        inputs = (s.clone().requires_grad_(), h.clone().requires_grad_())
        assert torch.autograd.gradcheck(lambda a, b: distil(a, t, r, b), inputs)

    @given(SEEDS, st.floats(-50, 50), st.permutations(range(8)))
    @pytest.mark.proves(
        "invariances",
        "the order of the samples, and a shift of all ratings",
        selective_distillation_loss,
    )
    def test_a_shift_of_the_scale_and_the_order_change_nothing(self, seed, shift, order):
        loss = distil(*vectors(seed))
        moved = distil(*(x[order] + shift for x in vectors(seed)))
        torch.testing.assert_close(moved, loss, rtol=1e-9, atol=1e-9)

    @given(SEEDS, st.floats(0.01, 100))
    def test_the_loss_is_quadratic_in_the_scale_of_ratings(self, seed, scale):
        loss = distil(*(scale * x for x in vectors(seed)))
        torch.testing.assert_close(loss, scale**2 * distil(*vectors(seed)), rtol=1e-9, atol=0)

    def test_zero_where_all_agree(self):
        s, *_ = vectors()
        assert distil(s, s, s, s) == 0

    def test_what_has_no_weight_may_be_infinite(self):
        s, t, r, h = vectors()
        assert distil(s, t * math.inf, r, h, imitation=0.0).isfinite()
        assert distil(s, t, r * math.inf, h, imitation=1.0).isfinite()

    @DTYPES
    @pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
    def test_extreme_predictions_stay_finite(self, dtype, scale):
        s, t, r, h = ((scale * x.sign()).to(dtype).requires_grad_() for x in vectors())
        loss = distil(s, t, r, h)
        loss.backward()
        assert loss.isfinite()
        assert s.grad.isfinite().all()
        assert h.grad.isfinite().all()

    @HALVES
    def test_halves_are_computed_in_float32(self, dtype):
        halves = [x.to(dtype) for x in vectors()]
        loss = distil(*halves)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, distil(*(x.float() for x in halves)))

    @pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan])
    def test_bad_weight(self, weight):
        with pytest.raises(ValueError, match=f"imitation .* got {weight}"):
            distil(*vectors(), imitation=weight)

    def test_empty_batch(self):
        with pytest.raises(ValueError, match="student_predictions"):
            distil(*torch.zeros(4, 0))

    @pytest.mark.parametrize(
        "argument", ["student_predictions", "teacher_predictions", "ratings", "shared_predictions"]
    )
    @pytest.mark.parametrize(
        "value", [torch.zeros(8, 1), torch.zeros(1), torch.zeros(8).long(), [0.0] * 8]
    )
    def test_wrong_tensor(self, argument, value):
        names = ("student_predictions", "teacher_predictions", "ratings", "shared_predictions")
        good = dict(zip(names, vectors(), strict=True))
        # The message names the argument at which the shapes stop to fit.
        sized = isinstance(value, torch.Tensor) and value.shape == (1,)
        named = "teacher_predictions" if sized and argument == names[0] else argument
        with pytest.raises(TypeError, match=named):
            selective_distillation_loss(**{**good, argument: value})


class TestAdversary:
    @pytest.mark.proves(
        "against", "torch's binary cross-entropy", adversarial_loss, discriminator_loss
    )
    def test_are_binary_cross_entropies(self):
        student, teacher = draw(8), draw(5, seed=1)
        bce = nn.functional.binary_cross_entropy_with_logits
        one, zero = torch.ones(8).double(), torch.zeros(8).double()
        torch.testing.assert_close(adversarial_loss(student), bce(student, one), **F64)
        expected = bce(student, zero) + bce(teacher, one[:5])
        torch.testing.assert_close(discriminator_loss(student, teacher), expected, **F64)

    @pytest.mark.proves("against", "a scalar loop", adversarial_loss, discriminator_loss)
    def test_scalar_loop(self):
        student = draw(8)
        by_hand = sum(math.log(1 + math.exp(-x)) for x in student.tolist()) / 8
        assert adversarial_loss(student).item() == pytest.approx(by_hand, rel=1e-12)

    def test_values_where_the_discriminator_cannot_tell(self):
        assert adversarial_loss(torch.zeros(3)).item() == pytest.approx(math.log(2))
        unsure = discriminator_loss(torch.zeros(3), torch.zeros(4))
        assert unsure.item() == pytest.approx(2 * math.log(2))

    def test_the_student_and_the_discriminator_pull_in_opposite_directions(self):
        student, teacher = draw(8).requires_grad_(), draw(8, seed=1).requires_grad_()
        (fool,) = torch.autograd.grad(adversarial_loss(student), student)
        tell, praise = torch.autograd.grad(discriminator_loss(student, teacher), (student, teacher))
        assert (fool < 0).all()
        assert (tell > 0).all()
        assert (praise < 0).all()

    def test_swapping_roles_changes_the_value(self):
        student, teacher = draw(8), draw(8, seed=1)
        forth, back = discriminator_loss(student, teacher), discriminator_loss(teacher, student)
        assert abs(forth - back) > 1e-3

    def test_gradient_numerically(self):
        inputs = (draw(8).requires_grad_(), draw(5, seed=1).requires_grad_())
        assert torch.autograd.gradcheck(discriminator_loss, inputs)
        assert torch.autograd.gradcheck(adversarial_loss, inputs[:1])

    @given(SEEDS, st.permutations(range(8)))
    @pytest.mark.proves(
        "invariances", "the order of the samples", adversarial_loss, discriminator_loss
    )
    def test_order_of_the_samples(self, seed, order):
        student, teacher = draw(2, 8, seed=seed)
        torch.testing.assert_close(
            discriminator_loss(student, teacher[order]), discriminator_loss(student, teacher), **F64
        )

    @DTYPES
    @pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
    def test_extreme_logits_stay_finite_and_do_not_saturate(self, dtype, scale):
        student, teacher = ((scale * x.sign()).to(dtype).requires_grad_() for x in draw(2, 8))
        loss = adversarial_loss(student) + discriminator_loss(student, teacher)
        (slope,) = torch.autograd.grad(adversarial_loss(student), student)
        assert loss.isfinite()
        assert loss.dtype == (dtype if dtype == torch.float64 else torch.float32)
        assert slope.isfinite().all()
        assert (slope[student <= 0] < 0).all()

    def test_bad_input(self):
        with pytest.raises(ValueError, match="student_logits"):
            adversarial_loss(torch.zeros(0))
        with pytest.raises(ValueError, match="teacher_logits"):
            discriminator_loss(torch.zeros(2), torch.zeros(0))
        with pytest.raises(ValueError, match="student_logits"):
            discriminator_loss(torch.zeros(0), torch.zeros(2))
        with pytest.raises(TypeError, match="student_logits"):
            adversarial_loss(torch.zeros(2, 1))
        with pytest.raises(TypeError, match="student_logits"):
            adversarial_loss(torch.zeros(2).long())
        with pytest.raises(TypeError, match="teacher_logits"):
            discriminator_loss(torch.zeros(2), torch.zeros(2, 1))


class TestOrthogonality:
    @pytest.mark.proves("against", "a scalar loop", orthogonality_loss)
    def test_scalar_loop(self):
        shared, private = draw(6, 3), draw(6, 2, seed=1)
        total = 0.0
        for a in shared.T.tolist():
            for b in private.T.tolist():
                dot = sum(x * y for x, y in zip(a, b, strict=True))
                total += dot**2 / sum(x * x for x in a) / sum(y * y for y in b)
        ours = orthogonality_loss(shared, private)
        assert ours.item() == pytest.approx(total / 6, rel=1e-12)

    @pytest.mark.proves("against", "torch's cosine_similarity", orthogonality_loss)
    def test_is_the_mean_squared_cosine_of_the_library(self):
        shared, private = draw(6, 3), draw(6, 2, seed=1)
        cosine = nn.functional.cosine_similarity(shared[:, :, None], private[:, None], dim=0)
        torch.testing.assert_close(
            orthogonality_loss(shared, private), cosine.square().mean(), **F64
        )

    def test_one_for_a_copy_and_zero_after_projection(self):
        x, other = draw(9, 1), draw(9, 2, seed=1)
        projected = other - x @ (x.T @ other) / x.square().sum()
        torch.testing.assert_close(orthogonality_loss(x, -3 * x).item(), 1.0, **F64)
        assert orthogonality_loss(x, projected) < 1e-12

    def test_zero_for_a_square_which_is_determined_but_orthogonal(self):
        x = torch.linspace(-1, 1, 41, dtype=torch.float64)[:, None]
        assert orthogonality_loss(x, x.square()) < 1e-12

    def test_it_is_symmetric_and_both_parts_learn(self):
        shared, private = draw(6, 3).requires_grad_(), draw(6, 2, seed=1).requires_grad_()
        loss = orthogonality_loss(shared, private)
        torch.testing.assert_close(loss, orthogonality_loss(private, shared), **F64)
        loss.backward()
        assert shared.grad.abs().sum() > 0
        assert private.grad.abs().sum() > 0

    def test_gradient_numerically(self):
        inputs = (draw(6, 3).requires_grad_(), draw(6, 2, seed=1).requires_grad_())
        assert torch.autograd.gradcheck(orthogonality_loss, inputs)

    @given(SEEDS, st.permutations(range(6)), st.floats(1e-4, 1e4))
    @pytest.mark.proves(
        "invariances", "the order of the samples and the scale of a column", orthogonality_loss
    )
    def test_order_of_samples_and_scale_of_columns(self, seed, order, scale):
        shared, private = draw(6, 3, seed=seed), draw(6, 2, seed=seed + 1)
        loss = orthogonality_loss(shared, private)
        assert 0 <= loss <= 1
        scales = torch.tensor([1, -scale, 1 / scale], dtype=torch.float64)
        moved = orthogonality_loss((shared * scales)[order], private[order])
        torch.testing.assert_close(moved, loss, **F64)

    @DTYPES
    @pytest.mark.parametrize("scale", [1e-4, 1e4])
    def test_scale_does_not_matter_in_any_dtype(self, dtype, scale):
        shared, private = draw(6, 3).to(dtype), draw(6, 2, seed=1).to(dtype)
        # What rounding makes of the scaled input is the input.
        scaled = (scale * shared).to(dtype)
        expected = orthogonality_loss(scaled.double(), private.double())
        loss = orthogonality_loss(scaled, private)
        assert loss.dtype == (dtype if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-6)

    def test_tiny_and_huge_features_in_float32(self):
        shared, private = draw(6, 3).float(), draw(6, 2, seed=1).float()
        loss = orthogonality_loss(shared, private)
        for scale in (1e-30, 1e30, torch.tensor([1e30, 1, 1e-30])):
            torch.testing.assert_close(orthogonality_loss(scale * shared, private), loss)

    def test_the_length_of_a_column_with_one_entry_has_no_slope(self):
        shared = torch.tensor([[2.0], [0.0], [0.0]], requires_grad=True)
        orthogonality_loss(shared, draw(3, 2).float()).backward()
        assert shared.grad[0] == pytest.approx(0, abs=1e-7)
        assert shared.grad[1:].all()

    @DTYPES
    @pytest.mark.parametrize("value", [0.0, 1.0, -1e4])
    def test_constant_features_stay_finite(self, dtype, value):
        shared = torch.full((6, 3), value, dtype=dtype).requires_grad_()
        private = draw(6, 2).to(dtype).requires_grad_()
        loss = orthogonality_loss(shared, private)
        loss.backward()
        assert loss.isfinite()
        assert shared.grad.isfinite().all()
        assert private.grad.isfinite().all()
        if value == 0:
            assert loss == 0

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"shared must have at least 2 .* got shape \(1, 3\)"):
            orthogonality_loss(torch.zeros(1, 3), torch.zeros(1, 2))
        with pytest.raises(ValueError, match="private"):
            orthogonality_loss(torch.zeros(4, 3), torch.zeros(4, 0))
        with pytest.raises(TypeError, match="private"):
            orthogonality_loss(torch.zeros(4, 3), torch.zeros(1, 2))
        with pytest.raises(TypeError, match="private"):
            orthogonality_loss(torch.zeros(4, 3), torch.zeros(4, 2).long())
        with pytest.raises(TypeError, match="shared"):
            orthogonality_loss(torch.zeros(4), torch.zeros(4, 2))


class TestWorld:
    def test_bad_reviews_keep_the_ratings_and_spoil_the_teacher(self):
        clean, noisy = (chen2019.make_world(0, share) for share in (0.0, 0.5))
        torch.testing.assert_close(clean.ratings, noisy.ratings, **F64)
        truth = clean.liking[: chen2019.RATED]
        spoilt, right, ideal = (
            (predictions - truth).square().mean()
            for predictions in (noisy.features.sum(-1), clean.features.sum(-1), noisy.ideal)
        )
        assert right < ideal < spoilt

    @pytest.mark.parametrize(
        "claim",
        [
            chen2019.imitation_averages_labels,
            chen2019.adversary_measures_divergence,
            chen2019.adversary_is_blind_to_swaps,
        ],
    )
    def test_exact_claims(self, claim):
        evidence = claim()
        assert evidence.holds, evidence.measured
