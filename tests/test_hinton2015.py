"""The loss of hinton2015 against independent forms, and at its borders."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets import hinton2015
from snippets.hinton2015 import distillation_loss, kd_loss
from snippets.lab.data import seeded
from snippets.lab.divergence import excess, logit_divergence

TEMPERATURES = st.floats(0.1, 50)
SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-12, "atol": 1e-12}


def logits(seed=0, batch=8, classes=5, scale=3.0, dtype=torch.float64):
    draw = torch.randn(2, batch, classes, generator=seeded(seed), dtype=torch.float64)
    return (scale * draw[0]).to(dtype), (scale * draw[1]).to(dtype)


def targets(batch=8, classes=5):
    return torch.arange(batch) % classes


def by_hand(z, v, temperature):
    """The formula in scalar arithmetic, one sample and class at a time."""
    total = 0.0
    for row_z, row_v in zip(z.tolist(), v.tolist(), strict=True):
        e_z = [math.exp(x / temperature) for x in row_z]
        e_v = [math.exp(x / temperature) for x in row_v]
        for student, teacher in zip(e_z, e_v, strict=True):
            q, p = student / sum(e_z), teacher / sum(e_v)
            total += p * math.log(p / q)
    return temperature**2 * total / len(z)


class TestAgainstIndependentForms:
    @pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
    @pytest.mark.proves("against", "a scalar loop", kd_loss)
    def test_scalar_loop(self, temperature):
        z, v = logits()
        expected = by_hand(z, v, temperature)
        assert kd_loss(z, v, temperature=temperature).item() == pytest.approx(expected, rel=1e-12)

    @pytest.mark.proves("against", "torch's kl_div times T²", kd_loss)
    def test_is_torchs_batchmean_times_t_squared(self):
        z, v = logits()
        log_q, log_p = (z / 4).log_softmax(-1), (v / 4).log_softmax(-1)
        theirs = nn.functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        torch.testing.assert_close(kd_loss(z, v), 16 * theirs, **F64)

    @pytest.mark.proves("against", "torch.distributions", kd_loss)
    def test_distributions_library(self):
        z, v = logits()
        p, q = (torch.distributions.Categorical(logits=x / 4) for x in (v, z))
        theirs = torch.distributions.kl_divergence(p, q).mean()
        torch.testing.assert_close(kd_loss(z, v), 16 * theirs, **F64)

    @pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 1.0])
    @pytest.mark.proves("against", "its two terms, the cross-entropy in a loop", distillation_loss)
    def test_weighs_soft_and_hard_term(self, alpha):
        z, v = logits()
        y = targets()
        hard = -sum(z.log_softmax(-1)[i, y[i]] for i in range(len(y))) / len(y)
        expected = alpha * kd_loss(z, v) + (1 - alpha) * hard
        torch.testing.assert_close(distillation_loss(z, v, y, alpha=alpha), expected, **F64)

    def test_int_targets_and_temperature_count(self):
        z, v = logits()
        loss = distillation_loss(z, v, targets().int(), temperature=2, alpha=1)
        torch.testing.assert_close(loss, kd_loss(z, v, temperature=2.0), **F64)


class TestWhoLearns:
    @pytest.mark.parametrize(
        "loss", [kd_loss, lambda z, v: distillation_loss(z, v, targets(), alpha=0.5)]
    )
    @pytest.mark.proves(
        "gradients", "the student learns, the teacher does not", kd_loss, distillation_loss
    )
    def test_student_learns_and_teacher_does_not(self, loss):
        z, v = (x.requires_grad_() for x in logits())
        loss(z, v).backward()
        assert z.grad.abs().sum() > 0
        assert v.grad is None

    def test_swapping_roles_changes_the_value(self):
        z, v = logits()
        assert abs(kd_loss(z, v) - kd_loss(v, z)) > 1e-3

    def test_gradient_numerically(self):
        z, v = logits()
        z.requires_grad_()
        assert torch.autograd.gradcheck(lambda x: kd_loss(x, v), z)
        assert torch.autograd.gradcheck(lambda x: distillation_loss(x, v, targets()), z)

    def test_descending_the_loss_makes_the_student_agree(self):
        z, v = logits()
        z.requires_grad_()
        for _ in range(2000):
            (step,) = torch.autograd.grad(kd_loss(z, v, temperature=1.0), z)
            z = (z - 4 * step).detach().requires_grad_()
        torch.testing.assert_close(z.softmax(-1), v.softmax(-1), rtol=0, atol=5e-3)


class TestInvariances:
    @given(SEEDS, TEMPERATURES)
    def test_zero_only_where_they_agree(self, seed, temperature):
        z, v = logits(seed)
        assert kd_loss(v + 7, v, temperature=temperature).abs() < 1e-10
        assert kd_loss(z, v, temperature=temperature) > 0

    @given(SEEDS, TEMPERATURES, st.floats(-50, 50))
    @pytest.mark.proves("invariances", "a number added to all logits of a sample", kd_loss)
    def test_shift_of_a_samples_logits(self, seed, temperature, shift):
        z, v = logits(seed)
        shifts = shift * torch.arange(8, dtype=torch.float64)[:, None] / 8
        loss = kd_loss(z, v, temperature=temperature)
        for moved in ((z + shifts, v), (z, v + shifts)):
            torch.testing.assert_close(
                kd_loss(*moved, temperature=temperature), loss, rtol=1e-9, atol=1e-11
            )

    @given(SEEDS, st.permutations(range(5)), st.permutations(range(8)))
    @pytest.mark.proves("invariances", "the order of the classes and samples", kd_loss)
    def test_order_of_classes_and_samples(self, seed, classes, samples):
        z, v = logits(seed)
        shuffled = [x[samples][:, classes] for x in (z, v)]
        torch.testing.assert_close(kd_loss(*shuffled), kd_loss(z, v), **F64)

    @given(SEEDS)
    @pytest.mark.proves("invariances", "a batch repeated", kd_loss)
    def test_mean_over_the_batch(self, seed):
        z, v = logits(seed)
        twice = kd_loss(z.repeat(2, 1), v.repeat(2, 1))
        torch.testing.assert_close(twice, kd_loss(z, v), **F64)

    @given(SEEDS, TEMPERATURES)
    def test_temperature_is_a_scale_of_the_logits(self, seed, temperature):
        z, v = logits(seed)
        scaled = temperature**2 * kd_loss(z / temperature, v / temperature, temperature=1.0)
        torch.testing.assert_close(kd_loss(z, v, temperature=temperature), scaled, **F64)


class TestHardNumbers:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
    def test_extreme_logits_stay_finite(self, dtype, scale):
        z, v = (scale * torch.sign(x) for x in logits())
        z, v = z.to(dtype).requires_grad_(), v.to(dtype)
        loss = distillation_loss(z, v, targets())
        loss.backward()
        assert loss.isfinite()
        assert z.grad.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, dtype):
        z, v = logits(dtype=dtype)
        assert kd_loss(z, v).dtype == torch.float32
        torch.testing.assert_close(kd_loss(z, v), kd_loss(z.float(), v.float()))

    def test_class_masked_on_both_sides_contributes_nothing(self):
        z, v = logits()
        masked_z, masked_v = z.clone(), v.clone()
        masked_z[:, 2] = masked_v[:, 2] = -torch.inf
        masked_z.requires_grad_()
        kept = [0, 1, 3, 4]
        loss = kd_loss(masked_z, masked_v)
        loss.backward()
        torch.testing.assert_close(loss, kd_loss(z[:, kept], v[:, kept]), **F64)
        assert masked_z.grad.isfinite().all()

    def test_class_that_the_student_alone_excludes_is_infinite(self):
        z, v = logits()
        z[0, 1] = -torch.inf
        assert kd_loss(z, v) == torch.inf
        assert distillation_loss(z, v, targets(), alpha=0.0).isfinite()

    def test_class_that_the_teacher_alone_excludes_is_finite(self):
        z, v = logits()
        v[:, 1] = -torch.inf
        assert kd_loss(z, v).isfinite()

    def test_one_class_says_nothing(self):
        z, v = logits(classes=1)
        assert kd_loss(z, v) == 0

    def test_close_far_and_infinitely_far_samples_do_not_mix(self):
        z, v = logits(batch=6)
        z[0] = v[0] + 1e-5 * z[0]
        z[1, 2] += 30
        z[2, 1] = -torch.inf
        each = torch.stack([logit_divergence(*rows) for rows in zip(v, z, strict=True)])
        together = logit_divergence(v.view(3, 2, 5), z.view(3, 2, 5))
        torch.testing.assert_close(together, each.view(3, 2), rtol=1e-12, atol=0)
        assert each.isinf().tolist() == [False, False, True, False, False, False]

    def test_the_series_for_small_gaps_has_all_digits(self):
        x = 1e-4
        exact = sum(x**k / math.factorial(k) for k in range(2, 9))
        value = excess(*torch.tensor([x, math.expm1(x)], dtype=torch.float64))
        assert value.item() == pytest.approx(exact, rel=1e-13, abs=0)

    def test_strided_tensors(self):
        z, v = logits()
        strided = [x.t().contiguous().t() for x in (z, v)]
        torch.testing.assert_close(kd_loss(*strided), kd_loss(z, v), **F64)

    @pytest.mark.proves("transforms", "torch.func.grad", kd_loss)
    def test_works_under_grad_and_vmap(self):
        z, v = logits()
        grads = torch.func.grad(kd_loss)(z, v)
        assert grads.isfinite().all()
        each = torch.func.vmap(kd_loss)(z[:, None], v[:, None])
        torch.testing.assert_close(each.mean(), kd_loss(z, v), **F64)


class TestBadInput:
    @pytest.mark.parametrize(
        "temperature", [0.0, -1.0, math.inf, math.nan, math.nextafter(1e15, math.inf)]
    )
    def test_temperature(self, temperature):
        with pytest.raises(ValueError, match=f"temperature .* got {temperature}"):
            kd_loss(*logits(), temperature=temperature)

    @pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
    def test_alpha(self, alpha):
        with pytest.raises(ValueError, match=f"alpha .* got {alpha}"):
            distillation_loss(*logits(), targets(), alpha=alpha)

    def test_empty_batch(self):
        with pytest.raises(ValueError, match="student_logits"):
            kd_loss(torch.zeros(0, 5), torch.zeros(0, 5))

    @pytest.mark.parametrize(
        ("z", "v", "argument"),
        [
            (torch.zeros(8), torch.zeros(8), "student_logits"),
            (torch.zeros(8, 5), torch.zeros(1, 5), "teacher_logits"),
            (torch.zeros(8, 5), torch.zeros(8, 1), "teacher_logits"),
            (torch.zeros(8, 5).long(), torch.zeros(8, 5), "student_logits"),
            (torch.zeros(8, 5), [[0.0] * 5] * 8, "teacher_logits"),
        ],
    )
    def test_wrong_tensor(self, z, v, argument):
        with pytest.raises(TypeError, match=argument):
            kd_loss(z, v)

    @pytest.mark.parametrize("y", [torch.zeros(8), torch.zeros(7).long(), torch.zeros(8, 1).long()])
    def test_wrong_targets(self, y):
        with pytest.raises(TypeError, match="targets"):
            distillation_loss(*logits(), y)

    def test_options_are_keywords(self):
        with pytest.raises(TypeError):
            kd_loss(*logits(), 4.0)


def test_soft_targets_teach_an_unseen_digit_with_one_seed():
    evidence = hinton2015.omitted_six(seeds=(0,))
    assert evidence.holds, evidence.measured
