"""What the losses are built from: divergences, tokens, lengths of vectors."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snippets.lab.data import seeded
from snippets.lab.divergence import cross_entropy, kl_divergence
from snippets.lab.tokens import log_probabilities, negative_log_likelihood, real_mean
from snippets.lab.vectors import directions, lengths, peaks
from tests.masked import F64, FILLERS, MASK

SEEDS = st.integers(0, 2**31)
NEVER = -torch.inf


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


class TestCrossEntropy:
    @given(SEEDS)
    def test_is_the_divergence_plus_the_entropy(self, seed):
        log_p, log_q = draw(2, 3, 5, seed=seed).log_softmax(-1)
        entropy = torch.special.entr(log_p.exp()).sum(-1)
        expected = kl_divergence(log_p, log_q) + entropy
        torch.testing.assert_close(cross_entropy(log_p, log_q), expected, **F64)

    @pytest.mark.parametrize(
        ("p", "q", "expected"),
        [
            ([0.0, NEVER], [math.log(0.5), math.log(0.5)], math.log(2)),
            ([0.0, NEVER], [0.0, NEVER], 0.0),
            ([NEVER, 0.0], [0.0, NEVER], math.inf),
            ([0.0, -1e4], [0.0, NEVER], math.inf),  # p underflows to 0
            ([0.0, -1e4], [0.0, -1e4], 0.0),
        ],
    )
    def test_excluded_classes(self, p, q, expected):
        log_p, log_q = (torch.tensor(x, requires_grad=True) for x in (p, q))
        value = cross_entropy(log_p, log_q)
        value.backward()
        assert value.item() == pytest.approx(expected)
        assert not log_p.grad.isnan().any()
        assert not log_q.grad.isnan().any()

    @pytest.mark.parametrize("function", [cross_entropy, kl_divergence])
    def test_gradient_numerically(self, function):
        tables = [x.log_softmax(-1).detach().requires_grad_() for x in draw(2, 3, 5)]
        assert torch.autograd.gradcheck(function, tables)


class TestTokens:
    @pytest.mark.parametrize("filler", FILLERS)
    def test_padding_is_uniform_and_gets_no_gradient(self, filler):
        logits = draw(3, 5, 6).masked_fill(~MASK[..., None], filler).requires_grad_()
        log_q = log_probabilities(logits, MASK)
        log_q.square().sum().backward()
        torch.testing.assert_close(log_q[MASK], logits[MASK].log_softmax(-1), **F64)
        assert (log_q[~MASK] + math.log(6)).abs().max() < 1e-12
        assert (logits.grad[~MASK] == 0).all()
        assert logits.grad.isfinite().all()

    @pytest.mark.parametrize("filler", FILLERS)
    def test_mean_of_the_real_ones(self, filler):
        values = draw(3, 5).masked_fill(~MASK, filler).requires_grad_()
        mean = real_mean(values, MASK)
        mean.backward()
        torch.testing.assert_close(mean, values[MASK].mean(), **F64)
        torch.testing.assert_close(values.grad, MASK.double() / MASK.sum(), **F64)

    def test_an_infinite_value_counts_where_it_is_real(self):
        values = draw(3, 5)
        values[0, 0] = math.inf
        assert real_mean(values, MASK) == math.inf

    @given(SEEDS, st.sampled_from([torch.int32, torch.int64, torch.uint8]))
    def test_likelihood_is_torchs(self, seed, dtype):
        logits = draw(3, 5, 6, seed=seed)
        y = torch.randint(6, (3, 5), generator=seeded(seed), dtype=dtype)
        theirs = torch.nn.functional.cross_entropy(logits[MASK], y[MASK].long())
        ours = negative_log_likelihood(logits, MASK, words=y)
        torch.testing.assert_close(ours, theirs, **F64)

    def test_a_wrong_token_is_an_error_only_where_it_is_real(self):
        logits, y = draw(3, 5, 6), torch.zeros(3, 5).long()
        y[~MASK] = -100
        assert negative_log_likelihood(logits, MASK, words=y).isfinite()
        y[0, 0] = 6
        with pytest.raises(ValueError, match=r"words must be in 0 … 5, got 0 … 6"):
            negative_log_likelihood(logits, MASK, words=y)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_widened(self, dtype):
        assert log_probabilities(draw(3, 5, 6, dtype=dtype), MASK).dtype == torch.float32


class TestVectors:
    def test_peaks(self):
        v = torch.tensor([[3.0, -4.0], [0.0, 0.0], [1e-30, 0.0]])
        assert peaks(v).tolist() == torch.tensor([[4.0], [1.0], [1e-30]]).tolist()
        assert not peaks(v.requires_grad_()).requires_grad

    @given(SEEDS, st.floats(1, 8))
    def test_lengths_are_torchs_norms(self, seed, p):
        v = draw(4, 7, seed=seed)
        torch.testing.assert_close(lengths(v, p), torch.linalg.vector_norm(v, p, dim=-1), **F64)

    @given(SEEDS)
    def test_directions_are_torchs(self, seed):
        v = draw(4, 7, seed=seed)
        torch.testing.assert_close(directions(v), torch.nn.functional.normalize(v, dim=-1), **F64)

    @pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
    @pytest.mark.parametrize("p", [1, 2, 3])
    def test_any_scale_in_float32(self, scale, p):
        v = draw(4, 7, dtype=torch.float32)
        scaled = (scale * v).requires_grad_()
        found = lengths(scaled, p)
        torch.testing.assert_close(found / scale, lengths(v, p))
        torch.testing.assert_close(directions(scaled), directions(v))
        (slope,) = torch.autograd.grad(found.sum(), scaled)
        (expected,) = torch.autograd.grad(lengths(v.requires_grad_(), p).sum(), v)
        torch.testing.assert_close(slope, expected)

    def test_slope_of_a_direction_falls_with_the_length(self):
        v, weights = draw(2, 4, 7, dtype=torch.float32)
        slopes = []
        for scale in (1.0, 1e30):
            scaled = (scale * v).requires_grad_()
            (slope,) = torch.autograd.grad((weights * directions(scaled)).sum(), scaled)
            slopes.append(scale * slope)
        torch.testing.assert_close(slopes[1], slopes[0])

    @pytest.mark.parametrize("function", [lengths, directions, lambda v: lengths(v, 1)])
    def test_a_zero_vector_has_no_slope(self, function):
        v = torch.cat([torch.zeros(1, 5), draw(1, 5, dtype=torch.float32)]).requires_grad_()
        out = function(v)
        out.square().sum().backward()
        assert (out[0] == 0).all()
        (slope,) = torch.autograd.grad(function(v).sum(), v)
        assert (slope[0] == 0).all()
        assert slope.isfinite().all()
        assert slope[1].abs().sum() > 0

    @pytest.mark.parametrize("p", [1, 1.5, 2, 3])
    def test_gradients_numerically(self, p):
        v = draw(3, 4).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: lengths(x, p), v)
        assert torch.autograd.gradcheck(directions, v)
