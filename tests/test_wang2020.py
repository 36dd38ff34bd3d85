"""The losses of wang2020 against independent forms, and at their borders."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snippets import wang2020
from snippets.lab.data import seeded
from snippets.wang2020 import attention_loss, value_relation_loss
from tests import masked

SEEDS = st.integers(0, 2**31)


class Relation(masked.MaskedLoss):
    """Two distributions for each head and token, and their divergence."""

    def tables(self, x, real):
        """The rows of one head, cropped to the real tokens."""
        raise NotImplementedError

    def expected(self, student, teacher):
        """One sentence, head and row at a time."""
        sentences = []
        for b, real in enumerate(masked.MASK):
            rows = []
            for a in range(student.shape[1]):
                pairs = (self.tables(x[b, a], real) for x in (teacher, student))
                for p, q in zip(*pairs, strict=True):
                    rows.append(sum(x * math.log(x / y) for x, y in zip(p, q, strict=True)))
            sentences.append(sum(rows) / len(rows))
        return sum(sentences) / len(sentences)

    @masked.seeds
    @pytest.mark.proves("against", "a scalar loop")
    def test_scalar_loop(self, seed):
        student, teacher = self.inputs(seed)
        expected = self.expected(student, teacher)
        assert self.loss(student, teacher).item() == pytest.approx(expected, rel=1e-10)

    @masked.seeds
    def test_never_negative_and_zero_where_they_agree(self, seed):
        student, teacher = self.inputs(seed)
        assert self.loss(student, teacher) > 0
        assert abs(self.loss(teacher, teacher)) < 1e-12

    @masked.seeds
    @pytest.mark.proves("invariances", "the order of the heads")
    def test_order_of_heads(self, seed):
        student, teacher = self.inputs(seed)
        flipped = self.loss(student.flip(1), teacher.flip(1))
        torch.testing.assert_close(flipped, self.loss(student, teacher), **masked.F64)

    def test_a_sample_without_a_real_token_gets_no_gradient(self):
        mask = masked.MASK.clone()
        mask[1] = False
        student, teacher = self.inputs()
        self.loss(student.requires_grad_(), teacher, mask).backward()
        assert (student.grad[1] == 0).all()
        assert student.grad.isfinite().all()

    def test_heads_are_as_many(self):
        student, teacher = self.inputs()
        with pytest.raises(TypeError, match=self.names[1]):
            self.loss(student, teacher[:, :1])


class TestAttention(Relation):
    function = staticmethod(attention_loss)
    names = "student_attention", "teacher_attention", "mask"
    shape, axes = (3, 2, 5, 5), (2, 3)
    scales = ()

    def inputs(self, seed=0, dtype=torch.float64):
        hidden = ~masked.MASK[:, None, None]
        scores = super().inputs(seed)
        return tuple(x.masked_fill(hidden, -math.inf).softmax(-1).to(dtype) for x in scores)

    def tables(self, x, real):
        return x[real][:, real].tolist()


class TestValues(Relation):
    function = staticmethod(value_relation_loss)
    names = "student_values", "teacher_values", "mask"
    shape, axes = (3, 2, 5, 6), (2,)

    def tables(self, x, real):
        cropped = x[real]
        return (cropped @ cropped.T / math.sqrt(x.shape[1])).softmax(-1).tolist()

    @pytest.mark.parametrize("width", [1, 4, 9])
    def test_widths_may_differ(self, width):
        _, teacher = self.inputs()
        student = torch.randn(3, 2, 5, width, generator=seeded(1), dtype=torch.float64)
        expected = self.expected(student, teacher)
        assert self.loss(student, teacher).item() == pytest.approx(expected, rel=1e-9)

    @given(SEEDS)
    @pytest.mark.proves("invariances", "a rotation of either side")
    def test_a_turned_basis_does_not_count(self, seed):
        student, teacher = self.inputs(seed)
        square = torch.randn(6, 6, generator=seeded(seed), dtype=torch.float64)
        turned = self.loss(student @ torch.linalg.qr(square).Q, teacher)
        torch.testing.assert_close(turned, self.loss(student, teacher), **masked.F64)


@pytest.mark.parametrize("dtype", masked.DTYPES)
def test_a_student_without_probability_is_floored(dtype):
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=dtype)[None, None]
    student = teacher.flip(-1).contiguous().requires_grad_()
    value = attention_loss(student, teacher, torch.ones(1, 2).bool())
    value.backward()
    assert value.item() == pytest.approx(-math.log(torch.finfo(dtype).tiny), rel=1e-4)
    assert student.grad.isfinite().all()


def test_a_text_of_one_word_counts_as_one():
    mask = torch.tensor([[True, False, False]])
    assert wang2020.mean_of_rows(torch.ones(1, 2, 3), mask) == 1


def test_values_of_no_width():
    with pytest.raises(ValueError, match=r"teacher_values .* \(1, 2, 3, 0\)"):
        value_relation_loss(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 0), torch.ones(1, 3).bool())


def test_a_key_that_both_exclude_contributes_nothing():
    draw = torch.randn(2, 1, 1, 4, 4, generator=seeded(0), dtype=torch.float64)
    future = torch.ones(4, 4).triu(1).bool()  # as under a causal mask
    student, teacher = draw.masked_fill(future, -math.inf).softmax(-1)
    student.requires_grad_()
    value = attention_loss(student, teacher, torch.ones(1, 4).bool())
    value.backward()
    terms = torch.where(future, 0, teacher * (teacher / student.detach()).log())
    torch.testing.assert_close(value, terms.sum() / 4, **masked.F64)
    assert student.grad.isfinite().all()


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
