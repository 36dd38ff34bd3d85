"""The losses of jiao2020 against independent forms, and at their borders."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets import jiao2020
from snippets.jiao2020 import attention_loss, hidden_loss
from snippets.lab.data import seeded

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-12, "atol": 1e-12}
LOSSES = [attention_loss, hidden_loss]
PADDING = [-1e4, -math.inf, math.inf, math.nan]


def inputs(loss, seed=0, dtype=torch.float64):
    """Draw a student, a teacher, and a mask with padding on both sides."""
    shape = (3, 2, 5, 5) if loss is attention_loss else (3, 5, 6)
    student, teacher = torch.randn(2, *shape, generator=seeded(seed), dtype=torch.float64).to(dtype)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 0, 0]]).bool()
    return student, teacher, mask


def by_hand(student, teacher, mask):
    """The mean over real entries, one entry at a time."""
    squares = []
    for b in range(len(mask)):
        for i in mask[b].nonzero()[:, 0].tolist():
            if student.ndim == 3:
                gaps = student[b, i] - teacher[b, i]
            else:
                keys = mask[b].nonzero()[:, 0].tolist()
                gaps = torch.stack(
                    [(student - teacher)[b, h, i, j] for h in range(2) for j in keys]
                )
            squares += [gap * gap for gap in gaps.tolist()]
    return math.fsum(squares) / len(squares)


def lengthen(tensor, value, extra=3):
    """Append `extra` padded tokens to scores or states."""
    sides = (0, extra, 0, extra) if tensor.ndim == 4 else (0, 0, 0, extra)
    return nn.functional.pad(tensor, sides, value=value)


@pytest.mark.parametrize("loss", LOSSES)
class TestAgainstIndependentForms:
    def test_scalar_loop(self, loss):
        student, teacher, mask = inputs(loss)
        expected = by_hand(student, teacher, mask)
        assert loss(student, teacher, mask).item() == pytest.approx(expected, rel=1e-12)

    def test_without_padding_it_is_torchs_mse(self, loss):
        student, teacher, mask = inputs(loss)
        theirs = nn.functional.mse_loss(student, teacher)
        torch.testing.assert_close(loss(student, teacher, mask | True), theirs, **F64)

    def test_one_sentence_at_a_time(self, loss):
        student, teacher, mask = inputs(loss)
        sizes = mask.sum(-1).double() ** (2 if loss is attention_loss else 1)
        each = torch.stack(
            [loss(student[b : b + 1], teacher[b : b + 1], mask[b : b + 1]) for b in range(3)]
        )
        mean = (sizes * each).sum() / sizes.sum()
        torch.testing.assert_close(loss(student, teacher, mask), mean, **F64)


def test_mean_over_heads_of_their_mse():
    student, teacher, mask = inputs(attention_loss)
    each = [attention_loss(student[:, [i]], teacher[:, [i]], mask) for i in (0, 1)]
    torch.testing.assert_close(attention_loss(student, teacher, mask), sum(each) / 2, **F64)


@pytest.mark.parametrize("loss", LOSSES)
class TestWhoLearns:
    def test_student_learns_and_teacher_does_not(self, loss):
        student, teacher, mask = inputs(loss)
        student.requires_grad_()
        teacher.requires_grad_()
        loss(student, teacher, mask).backward()
        assert student.grad.abs().sum() > 0
        assert teacher.grad is None

    def test_symmetric_by_definition(self, loss):
        student, teacher, mask = inputs(loss)
        torch.testing.assert_close(
            loss(student, teacher, mask), loss(teacher, student, mask), **F64
        )

    def test_gradient_numerically(self, loss):
        student, teacher, mask = inputs(loss)
        student.requires_grad_()
        assert torch.autograd.gradcheck(lambda x: loss(x, teacher, mask), student)


@pytest.mark.parametrize("loss", LOSSES)
class TestPadding:
    @pytest.mark.parametrize("value", [0.0, 7.0, *PADDING])
    def test_appending_changes_neither_value_nor_gradient(self, loss, value):
        student, teacher, mask = inputs(loss)
        student.requires_grad_()
        short = loss(student, teacher, mask)
        long = loss(
            lengthen(student, value),
            lengthen(teacher, -value),
            nn.functional.pad(mask, (0, 3), value=False),
        )
        torch.testing.assert_close(long, short, **F64)
        grads = [torch.autograd.grad(x, student)[0] for x in (short, long)]
        torch.testing.assert_close(*grads, **F64)

    @pytest.mark.parametrize("value", PADDING)
    def test_what_stands_at_padding_does_not_leak(self, loss, value):
        student, teacher, mask = inputs(loss)
        expected = loss(student, teacher, mask)
        hidden = ~mask[:, None, None] if loss is attention_loss else ~mask[..., None]
        student, teacher = (x.masked_fill(hidden, value) for x in (student, teacher))
        student.requires_grad_()
        value = loss(student, teacher, mask)
        value.backward()
        torch.testing.assert_close(value, expected, **F64)
        assert student.grad.isfinite().all()
        assert student.grad[hidden.expand_as(student)].abs().sum() == 0

    @given(SEEDS, st.integers(0, 5))
    def test_only_real_entries_count(self, loss, seed, extra):
        student, teacher, mask = inputs(loss, seed)
        longer = loss(
            lengthen(student, 1.0, extra),
            lengthen(teacher, 2.0, extra),
            nn.functional.pad(mask, (0, extra), value=False),
        )
        torch.testing.assert_close(longer, loss(student, teacher, mask), **F64)

    def test_no_real_token(self, loss):
        student, teacher, mask = inputs(loss)
        with pytest.raises(ValueError, match=r"mask .* got shape \(3, 5\)"):
            loss(student, teacher, mask & False)


@pytest.mark.parametrize("loss", LOSSES)
class TestInvariances:
    @given(SEEDS, st.floats(0.01, 100))
    def test_the_square_of_a_scale(self, loss, seed, scale):
        student, teacher, mask = inputs(loss, seed)
        torch.testing.assert_close(
            loss(scale * student, scale * teacher, mask),
            scale**2 * loss(student, teacher, mask),
            rtol=1e-10,
            atol=0,
        )

    @given(SEEDS, st.floats(-10, 10))
    def test_a_shift_of_both_does_not_count(self, loss, seed, shift):
        student, teacher, mask = inputs(loss, seed)
        torch.testing.assert_close(
            loss(student + shift, teacher + shift, mask),
            loss(student, teacher, mask),
            rtol=1e-9,
            atol=1e-12,
        )

    @given(SEEDS, st.permutations(range(3)), st.permutations(range(5)))
    def test_order_of_sentences_and_tokens(self, loss, seed, sentences, tokens):
        student, teacher, mask = inputs(loss, seed)
        shuffled = [x[sentences][..., tokens, :] for x in (student, teacher)]
        if loss is attention_loss:
            shuffled = [x[..., tokens] for x in shuffled]
        torch.testing.assert_close(
            loss(*shuffled, mask[sentences][:, tokens]), loss(student, teacher, mask), **F64
        )

    @given(SEEDS)
    def test_zero_only_where_they_agree(self, loss, seed):
        student, teacher, mask = inputs(loss, seed)
        assert loss(teacher, teacher, mask) == 0
        assert loss(student, teacher, mask) > 0


@given(SEEDS)
def test_one_rotation_of_both_states_does_not_count(seed):
    student, teacher, mask = inputs(hidden_loss, seed)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=seeded(seed), dtype=torch.float64)).Q
    loss = hidden_loss(student, teacher, mask)
    torch.testing.assert_close(
        hidden_loss(student @ turn, teacher @ turn, mask), loss, rtol=1e-9, atol=0
    )
    assert abs(hidden_loss(student @ turn, teacher, mask) - loss) > 1e-6


@pytest.mark.parametrize("loss", LOSSES)
class TestHardNumbers:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
    def test_large_and_small_numbers(self, loss, dtype, scale):
        student, teacher, mask = inputs(loss)
        student = (scale * student.sign()).to(dtype).requires_grad_()
        value = loss(student, (scale * teacher.sign()).to(dtype), mask)
        value.backward()
        assert value.isfinite()
        assert value > 0
        assert student.grad.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, loss, dtype):
        student, teacher, mask = inputs(loss, dtype=dtype)
        value = loss(student, teacher, mask)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, loss(student.float(), teacher.float(), mask))

    def test_equal_inputs_have_no_gradient(self, loss):
        student, _, mask = inputs(loss)
        student.requires_grad_()
        loss(student, student, mask).backward()
        assert student.grad.abs().max() == 0

    def test_a_real_nan_is_not_hidden(self, loss):
        student, teacher, mask = inputs(loss)
        student[0] = math.nan
        assert loss(student, teacher, mask).isnan()


def test_a_causal_mask_counts_as_equal():
    student, teacher, mask = inputs(attention_loss)
    future = torch.ones(5, 5).triu(1).bool()
    masked = [x.masked_fill(future, -math.inf).requires_grad_() for x in (student, teacher)]
    zeroed = [x.masked_fill(future, 0) for x in (student, teacher)]
    loss = attention_loss(*masked, mask)
    loss.backward()
    torch.testing.assert_close(loss, attention_loss(*zeroed, mask), **F64)
    assert masked[0].grad.isfinite().all()
    assert attention_loss(masked[0], teacher, mask) == math.inf


class TestBadInput:
    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.parametrize("argument", [0, 1, 2])
    def test_wrong_rank_size_or_type(self, loss, argument):
        names = {0: "student", 1: "teacher", 2: "mask"}
        for spoil in (lambda x: x[0], lambda x: x[:1], lambda x: x[..., :1], lambda x: x.long()):
            good = list(inputs(loss))
            good[argument] = spoil(good[argument])
            # Which of two unequal arguments is named depends on their order.
            with pytest.raises(TypeError, match="|".join(list(names.values())[argument:])):
                loss(*good)

    def test_keys_and_queries_are_as_many(self):
        student, teacher, mask = inputs(attention_loss)
        with pytest.raises(TypeError, match="student_scores"):
            attention_loss(student[..., :4], teacher[..., :4], mask)

    def test_heads_are_as_many(self):
        student, teacher, mask = inputs(attention_loss)
        with pytest.raises(TypeError, match="teacher_scores"):
            attention_loss(student, teacher[:, :1], mask)

    def test_a_state_has_numbers(self):
        with pytest.raises(ValueError, match=r"student_hidden .* \(3, 5, 0\)"):
            hidden_loss(torch.zeros(3, 5, 0), torch.zeros(3, 5, 0), torch.ones(3, 5).bool())


@pytest.mark.parametrize(
    "check",
    [
        jiao2020.padding_shrinks_the_loss,
        jiao2020.threshold_kills_negative_scores,
        jiao2020.prediction_divides_by_classes,
        jiao2020.rows_may_shift,
    ],
)
def test_the_exact_claims(check):
    evidence = check()
    assert evidence.holds, evidence.measured
