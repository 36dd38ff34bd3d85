"""The losses of wang2020 against independent forms, and at their borders."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets import wang2020
from snippets.lab.data import seeded
from snippets.wang2020 import attention_loss, value_relation_loss

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-11, "atol": 1e-12}
LOSSES = [attention_loss, value_relation_loss]
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 1, 0, 0]]).bool()


def inputs(loss, seed=0, dtype=torch.float64):
    shape = (3, 2, 5, 5) if loss is attention_loss else (3, 2, 5, 6)
    pair = torch.randn(2, *shape, generator=seeded(seed), dtype=torch.float64)
    if loss is attention_loss:
        pair = pair.masked_fill(~MASK[:, None, None], -math.inf).softmax(-1)
    return pair[0].to(dtype), pair[1].to(dtype), MASK.clone()


def by_hand(loss, student, teacher, mask):
    """One sentence, head and row at a time, cropped to the real tokens."""
    sentences = []
    for b in range(len(mask)):
        real = mask[b].nonzero()[:, 0].tolist()
        rows = []
        for a in range(student.shape[1]):
            tables = []
            for x in (teacher[b, a], student[b, a]):
                if loss is value_relation_loss:
                    cropped = x[real]
                    tables.append((cropped @ cropped.T / math.sqrt(x.shape[1])).softmax(-1))
                else:
                    tables.append(x[real][:, real])
            for p, q in zip(*(t.tolist() for t in tables), strict=True):
                rows.append(sum(x * math.log(x / y) for x, y in zip(p, q, strict=True)))
        sentences.append(sum(rows) / len(rows))
    return sum(sentences) / len(sentences)


def lengthen(loss, tensor, value, extra=3):
    sides = (0, extra, 0, extra) if loss is attention_loss else (0, 0, 0, extra)
    return nn.functional.pad(tensor, sides, value=value)


@pytest.mark.parametrize("loss", LOSSES)
class TestBoth:
    def test_scalar_loop(self, loss):
        expected = by_hand(loss, *inputs(loss))
        assert loss(*inputs(loss)).item() == pytest.approx(expected, rel=1e-11)

    def test_student_learns_and_teacher_does_not(self, loss):
        student, teacher, mask = inputs(loss)
        student.requires_grad_()
        teacher.requires_grad_()
        loss(student, teacher, mask).backward()
        assert student.grad.abs().sum() > 0
        assert teacher.grad is None

    def test_swapping_changes_the_value(self, loss):
        student, teacher, mask = inputs(loss)
        assert abs(loss(student, teacher, mask) - loss(teacher, student, mask)) > 1e-4

    def test_gradient_numerically(self, loss):
        student, teacher, mask = inputs(loss)
        student = student.requires_grad_()
        if loss is attention_loss:
            assert torch.autograd.gradcheck(
                lambda x: loss((x + 0.1).abs(), teacher, mask), student.detach().requires_grad_()
            )
        else:
            assert torch.autograd.gradcheck(lambda x: loss(x, teacher, mask), student)

    @pytest.mark.parametrize("value", [0.0, 0.5, -1e4, math.inf, math.nan])
    def test_padding_changes_neither_value_nor_gradient(self, loss, value):
        student, teacher, mask = inputs(loss)
        student.requires_grad_()
        short = loss(student, teacher, mask)
        long = loss(
            lengthen(loss, student, value),
            lengthen(loss, teacher, value),
            nn.functional.pad(mask, (0, 3), value=False),
        )
        torch.testing.assert_close(long, short, **F64)
        grads = [torch.autograd.grad(x, student)[0] for x in (short, long)]
        torch.testing.assert_close(*grads, **F64)
        assert grads[1].isfinite().all()

    def test_an_empty_sentence_is_left_out(self, loss):
        student, teacher, mask = inputs(loss)
        mask[1] = False
        student.requires_grad_()
        value = loss(student, teacher, mask)
        value.backward()
        kept = [0, 2]
        torch.testing.assert_close(value, loss(student[kept], teacher[kept], mask[kept]), **F64)
        assert student.grad.isfinite().all()

    @given(SEEDS)
    def test_never_negative_and_zero_where_they_agree(self, loss, seed):
        student, teacher, mask = inputs(loss, seed)
        assert loss(student, teacher, mask) > 0
        assert abs(loss(teacher, teacher, mask)) < 1e-12

    @given(SEEDS, st.permutations(range(2)), st.permutations(range(3)))
    def test_order_of_heads_and_sentences(self, loss, seed, heads, order):
        student, teacher, mask = inputs(loss, seed)
        shuffled = [x[order][:, heads] for x in (student, teacher)]
        torch.testing.assert_close(
            loss(*shuffled, mask[order]), loss(student, teacher, mask), **F64
        )

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, loss, dtype):
        student, teacher, mask = inputs(loss, dtype=dtype)
        value = loss(student, teacher, mask)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, loss(student.float(), teacher.float(), mask))

    @pytest.mark.parametrize("argument", [0, 1, 2])
    def test_wrong_rank_size_or_type(self, loss, argument):
        names = ["student", "teacher", "mask"]
        for spoil in (lambda x: x[0], lambda x: x[:1], lambda x: x[:, :1], lambda x: x.long()):
            good = list(inputs(loss))
            good[argument] = spoil(good[argument])
            with pytest.raises(TypeError, match="|".join(names[argument:])):
                loss(*good)

    def test_no_real_token(self, loss):
        student, teacher, mask = inputs(loss)
        with pytest.raises(ValueError, match=r"mask .* \(3, 5\)"):
            loss(student, teacher, mask & False)


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_student_without_probability_is_floored(dtype):
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=dtype)[None, None]
    student = teacher.flip(-1).contiguous().requires_grad_()
    value = attention_loss(student, teacher, torch.ones(1, 2).bool())
    value.backward()
    assert value.item() == pytest.approx(-math.log(torch.finfo(dtype).tiny), rel=1e-4)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
def test_large_small_and_zero_values(dtype, scale):
    student, teacher, mask = inputs(value_relation_loss)
    student = (scale * student.sign()).to(dtype).requires_grad_()
    value = value_relation_loss(student, (scale * teacher.sign()).to(dtype), mask)
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


@given(SEEDS, st.integers(1, 9))
def test_widths_may_differ(seed, width):
    _, teacher, mask = inputs(value_relation_loss, seed)
    student = torch.randn(3, 2, 5, width, generator=seeded(seed), dtype=torch.float64)
    value = value_relation_loss(student, teacher, mask).item()
    expected = by_hand(value_relation_loss, student, teacher, mask)
    assert value == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(SEEDS)
def test_a_turned_basis_does_not_count(seed):
    student, teacher, mask = inputs(value_relation_loss, seed)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=seeded(seed), dtype=torch.float64)).Q
    torch.testing.assert_close(
        value_relation_loss(student @ turn, teacher, mask),
        value_relation_loss(student, teacher, mask),
        **F64,
    )


@pytest.mark.parametrize(
    "check",
    [
        wang2020.rotation_changes_nothing,
        wang2020.zero_loss_other_states,
        wang2020.who_sees_what,
        wang2020.padding_needs_a_mask,
    ],
)
def test_the_exact_claims(check):
    evidence = check()
    assert evidence.holds, evidence.measured
