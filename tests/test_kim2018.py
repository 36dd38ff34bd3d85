"""The loss and modules of kim2018 against independent forms, and at their borders."""

import functools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import l1_loss, normalize

from snippets.kim2018 import Paraphraser, Translator, factor_transfer_loss, linear_paraphraser
from snippets.lab.data import seeded
from snippets.lab.models import initialised
from tests import losses

SEEDS = st.integers(0, 2**31)
POWERS = st.sampled_from([1, 1.5, 2, 4])
F64 = {"rtol": 1e-11, "atol": 1e-13}
SHAPE = (4, 3, 2, 4)

factors = functools.partial(losses.pair, SHAPE, SHAPE)


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
    @pytest.mark.proves("against", "a scalar loop")
    def test_scalar_loop(self, p):
        s, t = factors()
        sums = by_hand(s, t, p)
        paper = sum(x ** (1 / p) for x in sums) / 4
        assert factor_transfer_loss(s, t, p=p).item() == pytest.approx(paper, rel=1e-12)
        code = factor_transfer_loss(s, t, p=p, variant="code").item()
        assert code == pytest.approx(sum(sums) / 4 / 24, rel=1e-12)

    @pytest.mark.proves("against", "torch's normalize and l1_loss")
    def test_torchs_normalize_and_l1_loss(self):
        s, t = factors()
        theirs = l1_loss(normalize(s.flatten(1)), normalize(t.flatten(1)))
        torch.testing.assert_close(factor_transfer_loss(s, t, variant="code"), theirs, **F64)

    @pytest.mark.proves("against", "torch's vector_norm")
    def test_vector_norm(self):
        s, t = factors()
        gap = normalize(s.flatten(1)) - normalize(t.flatten(1))
        theirs = torch.linalg.vector_norm(gap, 3, dim=1).mean()
        torch.testing.assert_close(factor_transfer_loss(s, t, p=3), theirs, **F64)

    def test_largest_value(self):
        flat = torch.ones(2, 3, 2, 4)
        assert factor_transfer_loss(-flat, flat).item() == pytest.approx(2 * math.sqrt(24))
        assert factor_transfer_loss(-flat, flat, p=2).item() == pytest.approx(2)


class TestFactorTransfer(losses.FeatureLoss):
    function = staticmethod(factor_transfer_loss)
    names = "student_factor", "teacher_factor"
    shapes = SHAPE, SHAPE
    options = tuple({"p": p, "variant": v} for p in (1, 1.5, 2, 4) for v in ("paper", "code"))

    @given(SEEDS)
    @pytest.mark.proves("invariances", "a positive scale of each sample")
    def test_positive_scale_of_each_sample(self, seed):
        s, t = factors(seed)
        scales = torch.tensor([1e-4, 1e4, 1e-200, 1e200], dtype=torch.float64)[:, None, None, None]
        torch.testing.assert_close(self.values(scales * s, t), self.values(s, t), **F64)
        torch.testing.assert_close(self.values(s, scales * t), self.values(s, t), **F64)

    @given(SEEDS)
    def test_zero_only_where_they_agree(self, seed):
        s, t = factors(seed)
        assert (self.values(3 * t, t) < 1e-14).all()
        assert factor_transfer_loss(-t, t) > 0.1
        assert 0 < factor_transfer_loss(s, t) <= 2 * math.sqrt(24)

    @given(SEEDS, st.permutations(range(24)))
    @pytest.mark.proves("invariances", "one order of the entries for both")
    def test_one_order_of_entries_for_both(self, seed, entries):
        s, t = factors(seed)
        shuffled = [x.flatten(1)[:, entries].reshape(SHAPE) for x in (s, t)]
        torch.testing.assert_close(self.values(*shuffled), self.values(s, t), **F64)
        assert (
            entries == sorted(entries) or (self.values(shuffled[0], t) != self.values(s, t)).all()
        )

    @given(SEEDS)
    def test_code_is_the_paper_over_the_entries_at_one(self, seed):
        s, t = factors(seed)
        code = factor_transfer_loss(s, t, variant="code")
        torch.testing.assert_close(24 * code, factor_transfer_loss(s, t), **F64)

    def test_descending_the_loss_makes_the_factors_agree(self):
        s, t = factors()
        start = factor_transfer_loss(s, t)
        s = s.clone().requires_grad_()
        for _ in range(100):
            (step,) = torch.autograd.grad(factor_transfer_loss(s, t, p=2), s)
            s = (s - 5 * step).detach().requires_grad_()
        assert factor_transfer_loss(s, t) < start / 3

    @pytest.mark.parametrize("p", [0.5, 0, -1, math.inf, math.nan])
    def test_power(self, p):
        with pytest.raises(ValueError, match=f"p must .* got {p}"):
            factor_transfer_loss(*factors(), p=p)

    @pytest.mark.parametrize("other", [(4, 1, 2, 4), (4, 3, 4, 2), (4, 24)])
    def test_factors_of_another_shape(self, other):
        with pytest.raises(TypeError, match="teacher_factor"):
            factor_transfer_loss(torch.zeros(SHAPE), torch.zeros(other))


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

    def test_student_and_translator_learn_and_the_frozen_paraphraser_does_not(self):
        features = torch.randn(2, 4, 6, 3, 3, generator=seeded(0), dtype=torch.float64)
        paraphraser = initialised(lambda: Paraphraser(6), generator=seeded(1))
        translator = initialised(lambda: Translator(6, 3), generator=seeded(2))
        x = features[0].requires_grad_()
        factor_transfer_loss(translator(x), paraphraser.encode(features[1])).backward()
        assert x.grad.abs().sum() > 0
        assert all(w.grad is not None for w in translator.parameters())
        assert all(w.grad is None for w in paraphraser.parameters())
