"""The measures of zhou2020 against independent forms, and at their borders."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snippets import zhou2020
from snippets.lab.data import seeded
from snippets.zhou2020 import complexity, faithfulness

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-12, "atol": 1e-12}


def tables(seed=0, dtype=torch.float64):
    draw = torch.randn(2, 6, 4, generator=seeded(seed), dtype=torch.float64)
    return [table.to(dtype) for table in (2 * draw).softmax(-1)]


class TestAgainstIndependentForms:
    def test_complexity_in_scalar_arithmetic(self):
        real, _ = tables()
        total = sum(-p * math.log(p) for row in real.tolist() for p in row)
        assert complexity(real).item() == pytest.approx(total / 6, rel=1e-12)

    @pytest.mark.parametrize("smoothing", [0.0, 0.01, 1.0, 3])
    def test_faithfulness_in_scalar_arithmetic(self, smoothing):
        real, distilled = tables()
        total = 0.0
        for row_r, row_d in zip(real.tolist(), distilled.tolist(), strict=True):
            for r, d in zip(row_r, row_d, strict=True):
                total += r * math.log(r * (1 + 4 * smoothing) / (d + smoothing))
        measured = faithfulness(real, distilled, smoothing=smoothing).item()
        assert measured == pytest.approx(total / 6, rel=1e-12)

    def test_distributions_library(self):
        r, d = (torch.distributions.Categorical(probs=table) for table in tables())
        torch.testing.assert_close(complexity(r.probs), r.entropy().mean(), **F64)
        kl = torch.distributions.kl_divergence(r, d).mean()
        torch.testing.assert_close(faithfulness(r.probs, d.probs), kl, **F64)

    @pytest.mark.parametrize("k", [1, 2, 3, 5])
    def test_equal_synonyms(self, k):
        assert complexity(torch.full((3, k), 1 / k).double()).item() == pytest.approx(math.log(k))

    def test_smoothed_argmax_has_a_closed_form(self):
        k, e = 3, 0.01
        real = torch.full((2, k), 1 / k, dtype=torch.float64)
        kept = torch.eye(k, dtype=torch.float64)[:2]
        expected = -math.log(k) + math.log(1 + k * e) - (math.log(1 + e) + 2 * math.log(e)) / k
        measured = faithfulness(real, kept, smoothing=e).item()
        assert measured == pytest.approx(expected, rel=1e-12)


class TestProperties:
    def test_the_two_corpora_have_roles(self):
        real, distilled = tables()
        assert abs(faithfulness(real, distilled) - faithfulness(distilled, real)) > 1e-3

    @given(SEEDS)
    def test_bounds(self, seed):
        real, distilled = tables(seed)
        assert 0 <= complexity(real) <= math.log(4) + 1e-12
        assert faithfulness(real, distilled) > 0
        assert faithfulness(real, real).abs() < 1e-12

    @given(SEEDS, st.permutations(range(6)), st.permutations(range(4)))
    def test_order_of_words(self, seed, sources, targets):
        real, distilled = tables(seed)
        moved = [table[sources][:, targets] for table in (real, distilled)]
        torch.testing.assert_close(complexity(moved[0]), complexity(real), **F64)
        torch.testing.assert_close(faithfulness(*moved), faithfulness(real, distilled), **F64)

    @given(SEEDS)
    def test_unused_target_words_change_nothing(self, seed):
        real, distilled = (torch.nn.functional.pad(table, (0, 3)) for table in tables(seed))
        torch.testing.assert_close(complexity(real), complexity(tables(seed)[0]), **F64)
        torch.testing.assert_close(
            faithfulness(real, distilled), faithfulness(*tables(seed)), **F64
        )

    @given(SEEDS)
    def test_mean_over_source_types(self, seed):
        real, distilled = tables(seed)
        each = torch.stack([complexity(row[None]) for row in real])
        torch.testing.assert_close(complexity(real), each.mean(), **F64)
        twice = faithfulness(real.repeat(2, 1), distilled.repeat(2, 1))
        torch.testing.assert_close(twice, faithfulness(real, distilled), **F64)


class TestHardNumbers:
    def test_a_lost_pair_is_infinite_and_smoothing_makes_it_finite(self):
        real, distilled = tables()
        distilled[0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
        assert faithfulness(real, distilled) == math.inf
        assert faithfulness(real, distilled, smoothing=1e-6).isfinite()

    def test_a_pair_absent_from_both_contributes_nothing(self):
        table = torch.tensor([[0.5, 0.5, 0.0]])
        assert faithfulness(table, table) == 0
        assert faithfulness(table, torch.tensor([[0.4, 0.4, 0.2]])).isfinite()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_other_precisions(self, dtype):
        real, distilled = tables(dtype=dtype)
        for measured in (complexity(real), faithfulness(real, distilled, smoothing=0.1)):
            assert measured.dtype == torch.float32
        torch.testing.assert_close(
            complexity(real), complexity(tables()[0]).float(), rtol=2e-2, atol=2e-2
        )

    def test_gradient_numerically(self):
        real, distilled = (table.requires_grad_() for table in tables())
        # The check's small steps leave the rows' sums within the tolerance.
        assert torch.autograd.gradcheck(complexity, real)
        assert torch.autograd.gradcheck(faithfulness, (real, distilled))


class TestBadInput:
    @pytest.mark.parametrize(
        "row", [[0.5, 0.6], [0.5, 0.4], [1.5, -0.5], [math.nan, 1.0], [math.inf, 0.0], [0.0, 0.0]]
    )
    def test_rows_must_be_probabilities(self, row):
        good, bad = torch.tensor([[0.5, 0.5]]), torch.tensor([row])
        for name, call in (
            ("translation", lambda: complexity(bad)),
            ("real", lambda: faithfulness(bad, good)),
            ("distilled", lambda: faithfulness(good, bad)),
        ):
            with pytest.raises(ValueError, match=f"{name} must have rows of probabilities.*got"):
                call()

    def test_tolerance(self):
        assert complexity(torch.tensor([[0.5, 0.50009]])).isfinite()
        with pytest.raises(ValueError, match="1e-04"):
            complexity(torch.tensor([[0.5, 0.5002]]))

    @pytest.mark.parametrize("smoothing", [-0.1, math.inf, math.nan])
    def test_smoothing(self, smoothing):
        with pytest.raises(ValueError, match=f"smoothing .* got {smoothing}"):
            faithfulness(*tables(), smoothing=smoothing)

    @pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
    def test_empty_table(self, shape):
        with pytest.raises(ValueError, match="translation"):
            complexity(torch.zeros(shape))
        with pytest.raises(ValueError, match="real"):
            faithfulness(torch.zeros(shape), torch.zeros(shape))

    @pytest.mark.parametrize("table", [torch.ones(3), torch.ones(3, 1).long(), [[1.0]]])
    def test_wrong_table(self, table):
        with pytest.raises(TypeError, match="translation"):
            complexity(table)

    def test_tables_that_do_not_fit(self):
        real, distilled = tables()
        for bad in (distilled[:1], distilled[:, :1]):
            with pytest.raises(TypeError, match="distilled"):
                faithfulness(real, bad)

    def test_smoothing_is_a_keyword(self):
        with pytest.raises(TypeError):
            faithfulness(*tables(), 0.1)


def test_searched_data_are_simpler_and_better_for_a_parallel_student():
    sampled, searched = (zhou2020.decoded(0)[name] for name in ("sampling", "search"))
    assert searched[0] < sampled[0] - 0.5
    assert sampled[2] < 0.1 < 0.9 < searched[2]


def test_truncated_sampling_keeps_two_words_at_each_place():
    real = zhou2020.toy(0)
    p = zhou2020.truncated(real.teacher(), 2)
    torch.testing.assert_close(p.sum(-1), torch.ones_like(p[:, 0]), **F64)
    assert ((p > 0).sum(-1) == 2**4).all()
