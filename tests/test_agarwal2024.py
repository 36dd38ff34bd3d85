"""The loss of agarwal2024 against independent forms, and at its borders."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snippets import agarwal2024
from snippets.agarwal2024 import (
    generalized_jsd_loss,
    jensen_shannon,
    judged,
    swapped_mixture,
    swapped_weights,
    walk,
)
from snippets.gu2024 import reverse_kl_loss
from snippets.kim2016 import word_kd_loss
from snippets.lab.data import seeded
from snippets.lab.divergence import log_mixture
from tests.masked import DTYPES, F64, MASK, Logits

BETAS = st.floats(0.001, 0.999)
SEEDS = st.integers(0, 1000)


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


class TestInside(Logits):
    """Away from the ends, and not symmetric."""

    beta = 0.3
    function = staticmethod(partial(generalized_jsd_loss, beta=0.3))

    def by_hand(self, q, p):
        r = [self.beta * a + (1 - self.beta) * b for a, b in zip(p, q, strict=True)]
        return self.beta * divergence(p, r) + (1 - self.beta) * divergence(q, r)

    @pytest.mark.proves("against", "entropies of the mixture and its parts")
    def test_entropy_of_the_mixture_less_the_mean_entropy(self):
        """Another form, in NumPy, of one value for all tokens."""
        z, v = (x.numpy()[MASK.numpy()] for x in self.inputs())
        q, p = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (z, v))

        def entropy(x):
            return -(x * np.log(x)).sum(-1)

        b = self.beta
        each = entropy(b * p + (1 - b) * q) - b * entropy(p) - (1 - b) * entropy(q)
        assert self.loss(*self.inputs()).item() == pytest.approx(each.mean(), rel=1e-10)

    @pytest.mark.parametrize("side", [0, 1])
    @pytest.mark.parametrize("other", [0.0, -1e4])
    def test_a_word_that_one_side_excludes_is_finite(self, side, other):
        inputs = [*self.inputs(dtype=torch.float32)]
        inputs[side][..., 1] = -torch.inf
        inputs[1 - side][..., 1] = other
        z, v = inputs
        value = self.loss(z.requires_grad_(), v)
        value.backward()
        assert value.isfinite()
        assert z.grad.isfinite().all()

    def test_no_word_in_common_gives_the_entropy_of_beta(self):
        z, v = self.inputs()
        z[..., :3] = v[..., 3:] = -torch.inf
        bound = -0.3 * math.log(0.3) - 0.7 * math.log(0.7)
        assert self.loss(z, v).item() == pytest.approx(bound, rel=1e-12)

    def test_rounding_the_logits_leaves_it_above_zero(self):
        z, v = self.inputs(dtype=torch.bfloat16)
        assert self.loss(v + 0.01 * z, v) > 0


class TestHalf(TestInside):
    beta = 0.5
    function = staticmethod(generalized_jsd_loss)
    symmetric = True

    def test_no_word_in_common_gives_the_entropy_of_beta(self):
        z, v = self.inputs()
        z[..., :3] = v[..., 3:] = -torch.inf
        assert self.loss(z, v).item() == pytest.approx(math.log(2), rel=1e-12)


class TestForward(Logits):
    function = staticmethod(partial(generalized_jsd_loss, beta=0))

    def by_hand(self, q, p):
        return divergence(p, q)

    @pytest.mark.proves("against", "kim2016's word_kd_loss, its gradient at β = 0")
    def test_has_the_gradient_of_word_level_distillation(self):
        z, v = self.inputs()
        grads = [torch.func.grad(f)(z, v, MASK) for f in (self.function, word_kd_loss)]
        torch.testing.assert_close(*grads, **F64)

    def test_a_word_that_the_student_alone_excludes_is_infinite(self):
        z, v = self.inputs()
        z[0, 0, 1] = -torch.inf
        value = self.loss(z.requires_grad_(), v)
        value.backward()
        assert value == torch.inf
        assert not z.grad.isnan().any()

    def test_a_word_that_the_teacher_alone_excludes_is_finite(self):
        z, v = self.inputs()
        v[..., 1] = -torch.inf
        assert self.loss(z, v).isfinite()


class TestReverse(Logits):
    function = staticmethod(partial(generalized_jsd_loss, beta=1))

    def by_hand(self, q, p):
        return divergence(q, p)

    @pytest.mark.proves("against", "gu2024's reverse_kl_loss, at β = 1")
    def test_is_the_loss_of_minillm(self):
        z, v = self.inputs()
        torch.testing.assert_close(self.loss(z, v), reverse_kl_loss(z, v, MASK), **F64)

    def test_a_word_that_the_teacher_alone_excludes_is_infinite(self):
        z, v = self.inputs()
        v[0, 0, 1] = -torch.inf
        assert self.loss(z, v) == torch.inf


class TestTemperature:
    @pytest.mark.parametrize("beta", [0, 0.2, 1])
    @pytest.mark.parametrize("temperature", [0.5, 3])
    def test_it_divides_the_logits_of_both_without_a_factor(self, beta, temperature):
        z, v = TestInside().inputs()
        value = generalized_jsd_loss(z, v, MASK, beta=beta, temperature=temperature)
        expected = generalized_jsd_loss(z / temperature, v / temperature, MASK, beta=beta)
        torch.testing.assert_close(value, expected, **F64)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("beta", [1e-30, 0.3, 1 - 1e-12])
    @pytest.mark.parametrize("temperature", [1e-30, 1e-3, 1e3, 1e30])
    @pytest.mark.parametrize("scale", [1.0, 1e4])
    def test_extremes(self, dtype, beta, temperature, scale):
        z, v = (scale * x.sign() for x in TestInside().inputs(dtype=dtype))
        z.requires_grad_()
        value = generalized_jsd_loss(z, v, MASK, beta=beta, temperature=temperature)
        value.backward()
        assert value.isfinite()
        assert not z.grad.isnan().any()
        # A slope of 1/T is beyond the largest half, 65504.
        if dtype != torch.float16 or temperature > 1e-5:
            assert z.grad.isfinite().all()

    def test_halves_are_widened_before_the_division(self):
        z, v = TestInside().inputs(dtype=torch.bfloat16)
        narrow = generalized_jsd_loss(z, v, MASK, temperature=0.7)
        wide = generalized_jsd_loss(z.float(), v.float(), MASK, temperature=0.7)
        assert narrow == wide

    def test_student_and_teacher_may_differ_in_precision(self):
        z, v = TestInside().inputs(dtype=torch.bfloat16)
        torch.testing.assert_close(
            generalized_jsd_loss(z.float(), v, MASK), generalized_jsd_loss(z, v, MASK)
        )


class TestFamily:
    @given(SEEDS, BETAS)
    def test_symmetric_bounded_and_zero_at_the_teacher(self, seed, beta):
        z, v = TestInside().inputs(seed)
        value = generalized_jsd_loss(z, v, MASK, beta=beta)
        back = generalized_jsd_loss(v, z, MASK, beta=1 - beta)
        bound = -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)
        torch.testing.assert_close(value, back, rtol=1e-9, atol=1e-12)
        assert 0 < value < bound
        assert generalized_jsd_loss(v + 5, v, MASK, beta=beta).abs() < 1e-10

    @given(SEEDS)
    def test_limits_at_both_ends(self, seed):
        z, v = TestInside().inputs(seed)
        ends = [generalized_jsd_loss(z, v, MASK, beta=b).item() for b in (0, 1)]
        low, high = (generalized_jsd_loss(z, v, MASK, beta=b).item() for b in (1e-7, 1 - 1e-7))
        assert low / 1e-7 == pytest.approx(ends[0], rel=1e-2)
        assert high / 1e-7 == pytest.approx(ends[1], rel=1e-2)

    @given(SEEDS, BETAS)
    def test_the_two_mistakes_are_mirror_images_and_not_the_loss(self, seed, beta):
        log_q, log_p = (x.log_softmax(-1) for x in TestInside().inputs(seed))
        mirror = swapped_mixture(log_q, log_p, 1 - beta)
        torch.testing.assert_close(swapped_weights(log_q, log_p, beta), mirror, rtol=1e-9, atol=0)
        if abs(beta - 0.5) > 0.1:
            assert (mirror - jensen_shannon(log_q, log_p, beta)).abs().max() > 1e-4


class TestBorders:
    @pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan])
    def test_beta(self, beta):
        with pytest.raises(ValueError, match=r"beta must be in \[0, 1\], got"):
            generalized_jsd_loss(*TestInside().inputs(), MASK, beta=beta)

    @pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
    def test_temperature(self, temperature):
        with pytest.raises(ValueError, match=f"temperature .* got {temperature}"):
            generalized_jsd_loss(*TestInside().inputs(), MASK, temperature=temperature)

    def test_a_mixture_excludes_what_both_parts_do(self):
        neither = torch.tensor([-math.inf])
        assert log_mixture(neither, neither, 0.3) == -math.inf

    def test_the_smallest_temperature_makes_nothing_infinite(self):
        z, v = (100 + x.float() for x in TestInside().inputs())
        assert generalized_jsd_loss(z, v, MASK, temperature=1e-38).isfinite()

    def test_options_by_keyword_only(self):
        with pytest.raises(TypeError):
            generalized_jsd_loss(*TestInside().inputs(), MASK, 0.5)

    def test_compiles(self):
        compiled = torch.compile(generalized_jsd_loss, backend="eager")
        z, v = TestInside().inputs()
        torch.testing.assert_close(compiled(z, v, MASK), generalized_jsd_loss(z, v, MASK))


class TestLane:
    def test_a_text_stays_where_the_model_says(self):
        """A model that always steps one place to the right."""
        step = torch.full((1, 21, 21), -torch.inf).double()
        step[0, torch.arange(21), torch.arange(21).add(1).clamp(max=20)] = 0
        text = walk(step, seeded(0))[0, 0]
        assert text.tolist() == [min(10 + i, 20) for i in range(24)]

    def test_the_teacher_is_judged_as_itself(self):
        outside, spent = judged(agarwal2024.TEACHER[None])
        assert spent.abs().max() < 1e-12
        assert 0 < outside.mean() < 1e-3

    def test_shares_agree_with_sampled_texts(self):
        wide = agarwal2024.bell(0.9 * agarwal2024.PLACES, 1.0)[None]
        texts = torch.cat([walk(wide, seeded(i)) for i in range(300)], 1)
        sampled = ((texts[0, :, 1:] - 10).abs() > 3).double().mean()
        exact = judged(wide)[0, 0, :-1].mean()
        assert abs(sampled - exact) < 0.02


@pytest.mark.parametrize(
    "check",
    [
        agarwal2024.ends_are_limits,
        agarwal2024.weights_swapped,
        agarwal2024.symmetric_and_bounded,
        agarwal2024.closed_form_gradient,
        agarwal2024.logarithms_mixed,
        agarwal2024.means_differ,
        agarwal2024.negative_divergence,
        agarwal2024.mode_seeking,
    ],
)
def test_the_exact_claims(check):
    evidence = check()
    assert evidence.holds, evidence.measured
