"""The losses of kim2016 against independent forms, and at their borders."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets import kim2016
from snippets.kim2016 import sequence_kd_loss, word_kd_loss
from snippets.lab.data import seeded

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-12, "atol": 1e-12}
LENGTHS = torch.tensor([4, 1, 3])


def logits(seed=0, scale=2.0, dtype=torch.float64):
    draw = torch.randn(2, 3, 4, 5, generator=seeded(seed), dtype=torch.float64)
    return (scale * draw[0]).to(dtype), (scale * draw[1]).to(dtype)


def tokens(seed=0):
    return torch.randint(5, (3, 4), generator=seeded(seed))


def mask():
    return torch.arange(4) < LENGTHS[:, None]


def hard(z, v):
    """`sequence_kd_loss` in the form of `word_kd_loss`, for shared tests."""
    return sequence_kd_loss(z, v.argmax(-1), mask())


def soft(z, v):
    return word_kd_loss(z, v, mask())


def by_hand(z, v):
    """The word-level formula in scalar arithmetic, over the real tokens."""
    total, count = 0.0, 0
    for b, length in enumerate(LENGTHS.tolist()):
        for j in range(length):
            e_z = [math.exp(x) for x in z[b, j].tolist()]
            e_v = [math.exp(x) for x in v[b, j].tolist()]
            for student, teacher in zip(e_z, e_v, strict=True):
                total -= teacher / sum(e_v) * math.log(student / sum(e_z))
            count += 1
    return total / count


class TestAgainstIndependentForms:
    def test_scalar_loop(self):
        z, v = logits()
        assert soft(z, v).item() == pytest.approx(by_hand(z, v), rel=1e-12)

    def test_is_torchs_cross_entropy_with_soft_targets(self):
        z, v = logits()
        theirs = nn.functional.cross_entropy(z[mask()], v[mask()].softmax(-1))
        torch.testing.assert_close(soft(z, v), theirs, **F64)

    def test_is_torchs_cross_entropy_with_ignored_padding(self):
        z, _ = logits()
        y = torch.where(mask(), tokens(), -100)
        theirs = nn.functional.cross_entropy(z.flatten(0, 1), y.flatten())
        torch.testing.assert_close(sequence_kd_loss(z, y, mask()), theirs, **F64)

    def test_one_hot_teacher_turns_words_into_sequence(self):
        z, _ = logits()
        certain = torch.where(nn.functional.one_hot(tokens(), 5).bool(), 0.0, -torch.inf).double()
        expected = sequence_kd_loss(z, tokens(), mask())
        torch.testing.assert_close(word_kd_loss(z, certain, mask()), expected, **F64)

    def test_least_at_the_teacher_where_it_is_the_entropy(self):
        z, v = logits()
        entropy = torch.distributions.Categorical(logits=v[mask()]).entropy().mean()
        torch.testing.assert_close(soft(v, v), entropy, **F64)
        assert soft(z, v) > entropy


class TestWhoLearns:
    def test_student_learns_and_teacher_does_not(self):
        z, v = (x.requires_grad_() for x in logits())
        soft(z, v).backward()
        assert z.grad.abs().sum() > 0
        assert v.grad is None

    def test_student_learns_from_tokens(self):
        z = logits()[0].requires_grad_()
        sequence_kd_loss(z, tokens(), mask()).backward()
        assert z.grad.abs().sum() > 0

    def test_swapping_roles_changes_the_value(self):
        z, v = logits()
        assert abs(soft(z, v) - soft(v, z)) > 1e-3

    @pytest.mark.parametrize("loss", [soft, hard])
    def test_gradient_numerically(self, loss):
        z, v = logits()
        assert torch.autograd.gradcheck(lambda x: loss(x, v), z.requires_grad_())


class TestInvariances:
    @given(SEEDS, st.integers(1, 3))
    @pytest.mark.parametrize("filler", [0.0, 1e4, -torch.inf, torch.nan])
    def test_padding_never_counts(self, filler, seed, more):
        z, v = logits(seed)
        padding = torch.full((3, more, 5), filler, dtype=torch.float64)
        wide = [torch.cat([x, padding], 1).requires_grad_() for x in (z, v)]
        m = nn.functional.pad(mask(), (0, more))
        y = nn.functional.pad(tokens(seed), (0, more), value=-1)
        word, sequence = word_kd_loss(*wide, m), sequence_kd_loss(wide[0], y, m)
        torch.testing.assert_close(word, soft(z, v), **F64)
        torch.testing.assert_close(sequence, sequence_kd_loss(z, tokens(seed), mask()), **F64)
        (word + sequence).backward()
        assert wide[0].grad.isfinite().all()
        assert (wide[0].grad[~m] == 0).all()

    @given(SEEDS, st.floats(-50, 50))
    @pytest.mark.parametrize("loss", [soft, hard])
    def test_shift_of_a_tokens_logits(self, loss, seed, shift):
        z, v = logits(seed)
        shifts = shift * torch.arange(4, dtype=torch.float64)[:, None]
        for moved in ((z + shifts, v), (z, v + shifts)):
            torch.testing.assert_close(loss(*moved), loss(z, v), rtol=1e-9, atol=1e-9)

    @given(SEEDS, st.permutations(range(5)))
    @pytest.mark.parametrize("loss", [soft, hard])
    def test_order_of_the_vocabulary(self, loss, seed, order):
        z, v = logits(seed)
        torch.testing.assert_close(loss(z[..., order], v[..., order]), loss(z, v), **F64)

    @given(SEEDS)
    def test_each_real_token_weighs_the_same(self, seed):
        z, v = logits(seed)
        real = torch.ones(1, 1, dtype=torch.bool)
        each = [
            word_kd_loss(a[None, None], b[None, None], real)
            for a, b in zip(z[mask()], v[mask()], strict=True)
        ]
        torch.testing.assert_close(soft(z, v), torch.stack(each).mean(), **F64)


class TestHardNumbers:
    @pytest.mark.parametrize("loss", [soft, hard])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
    def test_extreme_logits_stay_finite(self, loss, dtype, scale):
        z, v = (scale * torch.sign(x) for x in logits())
        z, v = z.to(dtype).requires_grad_(), v.to(dtype)
        value = loss(z, v)
        value.backward()
        assert value.isfinite()
        assert z.grad.isfinite().all()

    @pytest.mark.parametrize("loss", [soft, hard])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, loss, dtype):
        z, v = logits(dtype=dtype)
        assert loss(z, v).dtype == torch.float32
        torch.testing.assert_close(loss(z, v), loss(z.float(), v.float()))

    @pytest.mark.parametrize("loss", [soft, hard])
    def test_word_masked_on_both_sides_contributes_nothing(self, loss):
        z, v = logits()
        z[..., 2] = v[..., 2] = -torch.inf
        z.requires_grad_()
        kept = [0, 1, 3, 4]
        value = loss(z, v)
        value.backward()
        torch.testing.assert_close(value, loss(z.detach()[..., kept], v[..., kept]), **F64)
        assert z.grad.isfinite().all()

    def test_word_that_the_student_alone_excludes_is_infinite(self):
        z, v = logits()
        z[0, 0, 1] = -torch.inf
        assert soft(z, v) == torch.inf
        y = tokens()
        y[0, 0] = 1
        assert sequence_kd_loss(z, y, mask()) == torch.inf

    def test_infinite_even_where_the_teachers_probability_underflows(self):
        z, v = logits(dtype=torch.float32)
        z[0, 0, 1], v[0, 0, 1] = -torch.inf, -1e4
        assert soft(z, v) == torch.inf

    def test_word_that_the_teacher_alone_excludes_is_finite(self):
        z, v = logits()
        v[..., 1] = -torch.inf
        assert soft(z, v).isfinite()

    def test_works_under_grad(self):
        z, v = logits()
        assert torch.func.grad(soft)(z, v).isfinite().all()


class TestBadInput:
    @pytest.mark.parametrize(
        ("z", "v", "m", "argument"),
        [
            (torch.zeros(3, 5), torch.zeros(3, 5), torch.ones(3).bool(), "student_logits"),
            (torch.zeros(3, 4, 5), torch.zeros(1, 4, 5), mask(), "teacher_logits"),
            (torch.zeros(3, 4, 5), torch.zeros(3, 4, 1), mask(), "teacher_logits"),
            (torch.zeros(3, 4, 5).long(), torch.zeros(3, 4, 5), mask(), "student_logits"),
            (torch.zeros(3, 4, 5), torch.zeros(3, 4, 5), mask().long(), "mask"),
            (torch.zeros(3, 4, 5), torch.zeros(3, 4, 5), mask()[:1], "mask"),
        ],
    )
    def test_wrong_tensor(self, z, v, m, argument):
        with pytest.raises(TypeError, match=argument):
            word_kd_loss(z, v, m)

    @pytest.mark.parametrize("y", [tokens()[:1], tokens().double(), tokens()[..., None]])
    def test_wrong_tokens(self, y):
        with pytest.raises(TypeError, match="teacher_tokens"):
            sequence_kd_loss(torch.zeros(3, 4, 5), y, mask())

    @pytest.mark.parametrize("token", [-1, 5])
    def test_token_outside_the_vocabulary(self, token):
        y = tokens()
        y[0, 0] = token
        with pytest.raises(ValueError, match=rf"teacher_tokens must be in 0 … 4, got.*{token}"):
            sequence_kd_loss(torch.zeros(3, 4, 5), y, mask())

    def test_mask_without_a_token(self):
        z, v = logits()
        nothing = torch.zeros(3, 4, dtype=torch.bool)
        with pytest.raises(ValueError, match=r"mask .* \(3, 4\)"):
            word_kd_loss(z, v, nothing)
        with pytest.raises(ValueError, match=r"mask .* \(3, 4\)"):
            sequence_kd_loss(z, tokens(), nothing)

    def test_empty_batch(self):
        z, m = torch.zeros(0, 4, 5), torch.zeros(0, 4, dtype=torch.bool)
        with pytest.raises(ValueError, match="student_logits"):
            word_kd_loss(z, z, m)
        with pytest.raises(ValueError, match="student_logits"):
            sequence_kd_loss(z, m.long(), m)


def test_seq_kd_wins_at_greedy_search_with_one_seed():
    evidence = kim2016.greedy_order(seeds=(0,))
    assert evidence.holds, evidence.measured
