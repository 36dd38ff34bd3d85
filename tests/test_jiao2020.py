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
from tests import masked

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-12, "atol": 1e-12}


class Squares(masked.MaskedLoss):
    """A mean squared error over the real entries."""

    symmetric = True

    @masked.seeds
    @pytest.mark.proves("against", "a scalar loop")
    def test_scalar_loop(self, seed):
        student, teacher = self.inputs(seed)
        real = (~self.padding(student)).nonzero().tolist()
        squares = [(student[tuple(i)] - teacher[tuple(i)]).item() ** 2 for i in real]
        expected = math.fsum(squares) / len(squares)
        assert self.loss(student, teacher).item() == pytest.approx(expected, rel=1e-12)

    @pytest.mark.proves("against", "torch's mse_loss")
    def test_without_padding_it_is_torchs_mse(self):
        student, teacher = self.inputs()
        theirs = nn.functional.mse_loss(student, teacher)
        torch.testing.assert_close(self.loss(student, teacher, masked.MASK | True), theirs, **F64)

    @pytest.mark.parametrize("scale", [0.01, 3.0, 100.0])
    def test_the_square_of_a_scale(self, scale):
        student, teacher = self.inputs()
        scaled = self.loss(scale * student, scale * teacher)
        expected = scale**2 * self.loss(student, teacher)
        torch.testing.assert_close(scaled, expected, rtol=1e-10, atol=0)

    @pytest.mark.parametrize("shift", [-10.0, 0.5, 10.0])
    @pytest.mark.proves("invariances", "a shift of both")
    def test_a_shift_of_both_does_not_count(self, shift):
        student, teacher = self.inputs()
        shifted = self.loss(student + shift, teacher + shift)
        torch.testing.assert_close(shifted, self.loss(student, teacher), rtol=1e-9, atol=1e-12)

    def test_equal_inputs_cost_nothing_and_have_no_gradient(self):
        student, _ = self.inputs()
        value = self.loss(student.requires_grad_(), student)
        value.backward()
        assert value == 0
        assert student.grad.abs().max() == 0

    def test_a_real_nan_is_not_hidden(self):
        student, teacher = self.inputs()
        student[0] = math.nan
        assert self.loss(student, teacher).isnan()


class TestAttention(Squares):
    function = staticmethod(attention_loss)
    names = "student_scores", "teacher_scores", "mask"
    shape, axes = (3, 2, 5, 5), (2, 3)

    def test_mean_over_heads_of_their_mse(self):
        student, teacher = self.inputs()
        each = [self.loss(student[:, [i]], teacher[:, [i]]) for i in (0, 1)]
        torch.testing.assert_close(self.loss(student, teacher), sum(each) / 2, **F64)


class TestHidden(Squares):
    function = staticmethod(hidden_loss)
    names = "student_hidden", "teacher_hidden", "mask"

    @given(SEEDS)
    @pytest.mark.proves("invariances", "a rotation of both")
    def test_one_rotation_of_both_does_not_count(self, seed):
        student, teacher = self.inputs(seed)
        square = torch.randn(6, 6, generator=seeded(seed), dtype=torch.float64)
        turn = torch.linalg.qr(square).Q
        loss = self.loss(student, teacher)
        turned = self.loss(student @ turn, teacher @ turn)
        torch.testing.assert_close(turned, loss, rtol=1e-9, atol=0)
        assert abs(self.loss(student @ turn, teacher) - loss) > 1e-6


def test_a_causal_mask_counts_as_equal():
    student, teacher = TestAttention().inputs()
    mask = masked.MASK
    future = torch.ones(5, 5).triu(1).bool()
    hidden = [x.masked_fill(future, -math.inf).requires_grad_() for x in (student, teacher)]
    zeroed = [x.masked_fill(future, 0) for x in (student, teacher)]
    loss = attention_loss(*hidden, mask)
    loss.backward()
    torch.testing.assert_close(loss, attention_loss(*zeroed, mask), **F64)
    assert hidden[0].grad.isfinite().all()
    assert attention_loss(hidden[0], teacher, mask) == math.inf


class TestBadInput:
    def test_keys_and_queries_are_as_many(self):
        student, teacher, mask = TestAttention().arguments()
        with pytest.raises(TypeError, match="student_scores"):
            attention_loss(student[..., :4], teacher[..., :4], mask)

    def test_heads_are_as_many(self):
        student, teacher, mask = TestAttention().arguments()
        with pytest.raises(TypeError, match="teacher_scores"):
            attention_loss(student, teacher[:, :1], mask)

    def test_a_state_has_numbers(self):
        with pytest.raises(ValueError, match=r"student_hidden .* \(3, 5, 0\)"):
            hidden_loss(torch.zeros(3, 5, 0), torch.zeros(3, 5, 0), masked.MASK)


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
