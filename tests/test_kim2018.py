"""The loss and modules of kim2018 against independent forms, and at their borders."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import l1_loss, normalize

from snippets.kim2018 import Paraphraser, Translator, factor_transfer_loss, linear_paraphraser
from snippets.lab.data import seeded
from snippets.lab.models import initialised

SEEDS = st.integers(0, 2**31)
POWERS = st.sampled_from([1, 1.5, 2, 4])
VARIANTS = ["paper", "code"]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
F64 = {"rtol": 1e-11, "atol": 1e-13}


def factors(seed=0, batch=4, shape=(3, 2, 4), dtype=torch.float64):
    draw = torch.randn(2, batch, *shape, generator=seeded(seed), dtype=torch.float64)
    return draw[0].to(dtype), draw[1].to(dtype)


def by_hand(s, t, p):
    """Each sample's sum of absolute differences to the p, in scalar arithmetic."""
    sums = []
    for sample_s, sample_t in zip(s, t, strict=True):
        rows = []
        for sample in (sample_s, sample_t):
            entries = sample.flatten().tolist()
            length = math.sqrt(sum(x * x for x in entries))
            rows.append([x / length for x in entries])
        sums.append(sum(abs(a - b) ** p for a, b in zip(*rows, strict=True)))
    return sums


class TestAgainstIndependentForms:
    @pytest.mark.parametrize("p", [1, 1.5, 2, 4])
    def test_scalar_loop(self, p):
        s, t = factors()
        sums = by_hand(s, t, p)
        paper = sum(x ** (1 / p) for x in sums) / 4
        assert factor_transfer_loss(s, t, p=p).item() == pytest.approx(paper, rel=1e-12)
        code = factor_transfer_loss(s, t, p=p, variant="code").item()
        assert code == pytest.approx(sum(sums) / 4 / 24, rel=1e-12)

    def test_torchs_normalize_and_l1_loss(self):
        s, t = factors()
        theirs = l1_loss(normalize(s.flatten(1)), normalize(t.flatten(1)))
        torch.testing.assert_close(factor_transfer_loss(s, t, variant="code"), theirs, **F64)

    def test_vector_norm(self):
        s, t = factors()
        gap = normalize(s.flatten(1)) - normalize(t.flatten(1))
        theirs = torch.linalg.vector_norm(gap, 3, dim=1).mean()
        torch.testing.assert_close(factor_transfer_loss(s, t, p=3), theirs, **F64)

    def test_largest_value(self):
        flat = torch.ones(2, 3, 2, 4)
        assert factor_transfer_loss(-flat, flat).item() == pytest.approx(2 * math.sqrt(24))
        assert factor_transfer_loss(-flat, flat, p=2).item() == pytest.approx(2)


class TestWhoLearns:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_student_learns_and_teacher_does_not(self, variant):
        s, t = (x.clone().requires_grad_() for x in factors())
        factor_transfer_loss(s, t, variant=variant).backward()
        assert s.grad.abs().sum() > 0
        assert t.grad is None

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_it_is_symmetric_by_definition(self, variant):
        s, t = factors()
        swapped = factor_transfer_loss(t, s, variant=variant)
        torch.testing.assert_close(factor_transfer_loss(s, t, variant=variant), swapped, **F64)

    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("p", [1, 1.5, 2, 3])
    def test_gradient_numerically(self, variant, p):
        s, t = factors(batch=2)
        s = s.clone().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda x: factor_transfer_loss(x, t, p=p, variant=variant), s
        )

    def test_descending_the_loss_makes_the_factors_agree(self):
        s, t = factors()
        start = factor_transfer_loss(s, t)
        s = s.clone().requires_grad_()
        for _ in range(100):
            (step,) = torch.autograd.grad(factor_transfer_loss(s, t, p=2), s)
            s = (s - 5 * step).detach().requires_grad_()
        assert factor_transfer_loss(s, t) < start / 3

    def test_student_and_translator_learn_and_the_frozen_paraphraser_does_not(self):
        features = torch.randn(2, 4, 6, 3, 3, generator=seeded(0), dtype=torch.float64)
        paraphraser = initialised(lambda: Paraphraser(6), generator=seeded(1))
        translator = initialised(lambda: Translator(6, 3), generator=seeded(2))
        x = features[0].requires_grad_()
        factor_transfer_loss(translator(x), paraphraser.encode(features[1])).backward()
        assert x.grad.abs().sum() > 0
        assert all(w.grad is not None for w in translator.parameters())
        assert all(w.grad is None for w in paraphraser.parameters())


class TestInvariances:
    @given(SEEDS, POWERS, st.sampled_from(VARIANTS))
    def test_positive_scale_of_each_sample(self, seed, p, variant):
        s, t = factors(seed)
        scales = torch.tensor([1e-4, 1e4, 1e-200, 1e200], dtype=torch.float64)[:, None, None, None]
        loss = factor_transfer_loss(s, t, p=p, variant=variant)
        for moved in ((scales * s, t), (s, scales * t)):
            scaled = factor_transfer_loss(*moved, p=p, variant=variant)
            torch.testing.assert_close(scaled, loss, **F64)

    @given(SEEDS, POWERS)
    def test_zero_only_where_they_agree(self, seed, p):
        s, t = factors(seed)
        assert factor_transfer_loss(3 * t, t, p=p) < 1e-14
        assert factor_transfer_loss(-t, t, p=p) > 0.1
        assert 0 < factor_transfer_loss(s, t, p=p) <= 2 * math.sqrt(24)

    @given(SEEDS, POWERS, st.permutations(range(24)), st.permutations(range(4)))
    def test_one_order_for_both(self, seed, p, entries, samples):
        s, t = factors(seed)
        shuffled = [x[samples].flatten(1)[:, entries].reshape(4, 3, 2, 4) for x in (s, t)]
        torch.testing.assert_close(
            factor_transfer_loss(*shuffled, p=p), factor_transfer_loss(s, t, p=p), **F64
        )

    @given(SEEDS)
    def test_code_is_the_paper_over_the_entries_at_one(self, seed):
        s, t = factors(seed)
        code = factor_transfer_loss(s, t, variant="code")
        torch.testing.assert_close(24 * code, factor_transfer_loss(s, t), **F64)

    @given(SEEDS, st.sampled_from(VARIANTS))
    def test_mean_over_the_batch(self, seed, variant):
        s, t = factors(seed)
        twice = factor_transfer_loss(s.repeat(2, 1, 1, 1), t.repeat(2, 1, 1, 1), variant=variant)
        torch.testing.assert_close(twice, factor_transfer_loss(s, t, variant=variant), **F64)


class TestHardNumbers:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("p", [1, 2, 4])
    def test_extreme_factors_stay_finite(self, dtype, scale, variant, p):
        s, t = (scale * x.sign() for x in factors())
        s, t = s.to(dtype).requires_grad_(), t.to(dtype)
        loss = factor_transfer_loss(s, t, p=p, variant=variant)
        loss.backward()
        assert loss.isfinite()
        assert s.grad.isfinite().all()

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("p", [1, 1.5, 2])
    def test_equal_zero_and_constant_samples(self, dtype, variant, p):
        s, t = (x.clone() for x in factors(dtype=dtype))
        s[0], t[1] = 0, 0
        s[2] = t[2]
        s[3] = 1
        s.requires_grad_()
        loss = factor_transfer_loss(s, t, p=p, variant=variant)
        loss.backward()
        assert loss.isfinite()
        assert s.grad.isfinite().all()

    def test_zero_factors_cost_nothing(self):
        s, t = torch.zeros(2, 3, 2, 4, requires_grad=True), torch.zeros(2, 3, 2, 4)
        loss = factor_transfer_loss(s, t, p=2)
        loss.backward()
        assert loss == 0
        assert (s.grad == 0).all()

    def test_float32_keeps_the_value_at_any_scale(self):
        s, t = factors(dtype=torch.float32)
        loss = factor_transfer_loss(s, t)
        for scale in (1e-30, 1e-4, 1e4, 1e30):
            scaled = factor_transfer_loss(scale * s, scale * t)
            torch.testing.assert_close(scaled, loss, rtol=1e-5, atol=0)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, dtype):
        s, t = factors(dtype=dtype)
        loss = factor_transfer_loss(s, t)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, factor_transfer_loss(s.float(), t.float()))

    def test_works_under_grad(self):
        assert torch.func.grad(factor_transfer_loss)(*factors()).isfinite().all()


class TestModules:
    @pytest.mark.parametrize(("rate", "channels"), [(0.5, 4), (0.25, 2), (0.75, 6), (2.0, 16)])
    def test_shapes(self, rate, channels):
        x = torch.randn(2, 8, 5, 3, generator=seeded(0), dtype=torch.float64)
        model = initialised(lambda: Paraphraser(8, rate=rate), generator=seeded(1))
        assert model.factors == channels
        assert model.encode(x).shape == (2, channels, 5, 3)
        assert model(x).shape == x.shape
        torch.testing.assert_close(model(x), model.decode(model.encode(x)))
        translator = initialised(lambda: Translator(8, channels), generator=seeded(1))
        assert translator(x).shape == model.encode(x).shape

    @pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan, 0.01])
    def test_rate(self, rate):
        with pytest.raises(ValueError, match=f"rate must .* got {rate}"):
            Paraphraser(8, rate=rate)

    def test_the_linear_one_is_pca(self):
        rows = torch.randn(4000, 6, generator=seeded(0), dtype=torch.float64)
        rows = rows * torch.tensor([6, 5, 4, 1, 0.5, 0.1], dtype=torch.float64)
        error, decoder = linear_paraphraser(rows, 3)
        tail = torch.linalg.svdvals(rows)[3:].square().sum().item()
        assert error == pytest.approx(tail, rel=1e-9)
        torch.testing.assert_close(decoder @ decoder.T, torch.eye(3, dtype=torch.float64))


class TestBadInput:
    @pytest.mark.parametrize("p", [0.5, 0, -1, math.inf, math.nan])
    def test_power(self, p):
        with pytest.raises(ValueError, match=f"p must .* got {p}"):
            factor_transfer_loss(*factors(), p=p)

    @pytest.mark.parametrize(
        ("s", "t", "argument"),
        [
            (torch.zeros(4, 3, 2, 4), torch.zeros(1, 3, 2, 4), "teacher_factor"),
            (torch.zeros(4, 3, 2, 4), torch.zeros(4, 1, 2, 4), "teacher_factor"),
            (torch.zeros(4, 3, 2, 4), torch.zeros(4, 3, 4, 2), "teacher_factor"),
            (torch.zeros(4, 24), torch.zeros(4, 24), "student_factor"),
            (torch.zeros(4, 3, 2, 4).int(), torch.zeros(4, 3, 2, 4), "student_factor"),
        ],
    )
    def test_wrong_tensor(self, s, t, argument):
        with pytest.raises(TypeError, match=argument):
            factor_transfer_loss(s, t)

    def test_variant(self):
        with pytest.raises(TypeError, match="variant"):
            factor_transfer_loss(*factors(), variant="mean")

    @pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 0, 2, 2), (2, 3, 2, 0)])
    def test_empty(self, shape):
        with pytest.raises(ValueError, match=r"student_factor .* got shape"):
            factor_transfer_loss(torch.zeros(shape), torch.zeros(shape))

    def test_options_are_keywords(self):
        with pytest.raises(TypeError):
            factor_transfer_loss(*factors(), 1)
