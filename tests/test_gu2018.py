"""The losses of gu2018 against independent forms, and at their borders."""

import math

import pytest
import torch
from torch import nn

from snippets import gu2018
from snippets.gu2018 import nat_loss, reverse_cross_entropy
from snippets.kim2016 import sequence_kd_loss, word_kd_loss
from tests.masked import F64, MASK, Logits, Tokens


class TestParallel(Tokens):
    function = staticmethod(nat_loss)
    names = "logits", "targets", "mask"

    @pytest.mark.proves("against", "kim2016's sequence_kd_loss")
    def test_on_the_teachers_output_is_sequence_level_distillation(self):
        z, y, mask = self.arguments()
        torch.testing.assert_close(nat_loss(z, y, mask), sequence_kd_loss(z, y, mask), **F64)


class TestReverse(Logits):
    function = staticmethod(reverse_cross_entropy)

    def by_hand(self, q, p):
        return -sum(s * math.log(t) for s, t in zip(q, p, strict=True))

    @pytest.mark.proves("against", "kim2016's word_kd_loss, roles exchanged")
    def test_is_the_word_level_loss_with_the_roles_swapped(self):
        z, v = self.inputs()
        torch.testing.assert_close(self.loss(z, v), word_kd_loss(v, z, MASK), **F64)

    @pytest.mark.proves("against", "the reverse KL plus the student's entropy")
    def test_is_the_reverse_kl_plus_the_students_entropy(self):
        z, v = (torch.distributions.Categorical(logits=x[MASK]) for x in self.inputs())
        parts = torch.distributions.kl_divergence(z, v) + z.entropy()
        torch.testing.assert_close(self.loss(*self.inputs()), parts.mean(), **F64)

    def test_least_at_the_teachers_likeliest_word(self):
        z, v = self.inputs()
        corner = 1e4 * nn.functional.one_hot(v.argmax(-1), 6).double()
        least = -v[MASK].log_softmax(-1).amax(-1).mean()
        torch.testing.assert_close(self.loss(corner, v), least, **F64)
        assert self.loss(z, v) > least
        assert self.loss(v, v) > least

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    @pytest.mark.parametrize("student", [0.0, -1e4])
    def test_word_that_the_teacher_alone_excludes_is_infinite(self, student, dtype):
        z, v = self.inputs(dtype=dtype)
        z[0, 0, 1], v[0, 0, 1] = student, -torch.inf
        z.requires_grad_()
        value = self.loss(z, v)
        value.backward()
        assert value == torch.inf
        assert not z.grad.isnan().any()

    def test_word_that_the_student_alone_excludes_is_finite(self):
        z, v = self.inputs()
        z[..., 1] = -torch.inf
        assert self.loss(z, v).isfinite()


def test_the_best_fit_has_the_least_loss():
    p = torch.tensor([[0, 0.5, 0.5, 0]]).double()
    every = gu2018.sentences(2, 2)
    real = torch.ones(1, 2, dtype=torch.bool)
    model = gu2018.best_fit(gu2018.untied(1, 2), p, 2, order=0)

    def loss(moved):
        z = model.logits().detach() + moved
        each = [nat_loss(z[:, i], y[None], real) for i, y in enumerate(every)]
        return (p[0] @ torch.stack(each)).item()

    assert loss(0) == pytest.approx(math.log(2))
    assert loss(torch.tensor([0.3, 0.0])) > loss(0) + 1e-3


def test_one_call_is_enough_only_in_parallel():
    evidence = gu2018.sequential_calls()
    assert evidence.holds, evidence.measured
