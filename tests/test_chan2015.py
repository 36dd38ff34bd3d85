"""The loss of chan2015 against independent forms, and its hidden Markov model."""

import itertools
import math

import pytest
import torch
from torch import nn

from snippets import chan2015
from snippets.chan2015 import frame_kd_loss, posterior
from tests.masked import F64, MASK, Logits, seeds


class TestLoss(Logits):
    function = staticmethod(frame_kd_loss)

    def by_hand(self, q, p):
        return sum(t * math.log(t / s) for s, t in zip(q, p, strict=True))

    @pytest.mark.proves("against", "torch's kl_div")
    def test_is_torchs_batchmean_over_the_real_frames(self):
        z, v = self.inputs()
        log_q, log_p = z[MASK].log_softmax(-1), v[MASK].log_softmax(-1)
        theirs = nn.functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        torch.testing.assert_close(self.loss(z, v), theirs, **F64)

    @pytest.mark.proves("against", "the gradient in closed form")
    def test_gradient_is_the_difference_of_probabilities(self):
        z, v = self.inputs()
        (slope,) = torch.autograd.grad(self.loss(z.requires_grad_(), v), z)
        expected = (z.softmax(-1) - v.softmax(-1)) / MASK.sum() * MASK.unsqueeze(-1)
        torch.testing.assert_close(slope, expected.detach(), **F64)

    def test_gradient_is_that_of_soft_cross_entropy(self):
        z, v = self.inputs()
        z.requires_grad_()
        (ours,) = torch.autograd.grad(self.loss(z, v), z)
        soft = nn.functional.cross_entropy(z[MASK], v[MASK].softmax(-1))
        (theirs,) = torch.autograd.grad(soft, z)
        torch.testing.assert_close(ours, theirs, **F64)

    @seeds
    def test_zero_only_where_they_agree(self, seed):
        z, v = self.inputs(seed)
        assert self.loss(v + 7, v).abs() < 1e-10
        assert self.loss(z, v) > 0

    @pytest.mark.parametrize("teacher", [0.0, -1e4])
    def test_state_that_the_student_alone_excludes_is_infinite(self, teacher):
        """Even where the teacher's probability underflows to 0."""
        z, v = self.inputs(dtype=torch.float32)
        z[0, 0, 1], v[0, 0, 1] = -torch.inf, teacher
        assert self.loss(z, v) == torch.inf

    def test_state_that_the_teacher_alone_excludes_is_finite(self):
        z, v = self.inputs()
        v[..., 1] = -torch.inf
        assert self.loss(z, v).isfinite()


class TestHiddenMarkovModel:
    def test_forward_backward_against_enumeration(self):
        sequence = torch.tensor([[0, 2, 1, 1]])
        joint = torch.zeros(4, 3, dtype=torch.float64)
        for path in itertools.product(range(3), repeat=4):
            p = 1 / 3
            for before, after in itertools.pairwise(path):
                p *= chan2015.TRANSITION[before, after].item()
            for state, symbol in zip(path, sequence[0], strict=True):
                p *= chan2015.EMISSION[state, symbol].item()
            for t, state in enumerate(path):
                joint[t, state] += p
        p, chance = posterior(sequence)
        torch.testing.assert_close(chance[0], joint[0].sum(), **F64)
        torch.testing.assert_close(p[0], joint / joint.sum(-1, keepdim=True), **F64)

    def test_chances_of_all_sequences_sum_to_one(self):
        assert chan2015.CHANCE.sum().item() == pytest.approx(1, rel=1e-12)

    def test_the_window_of_everything_is_the_teacher(self):
        torch.testing.assert_close(chan2015.window_posterior(8), chan2015.TEACHER, **F64)
        assert abs(chan2015.floor(8)) < 1e-12

    def test_two_independent_forms_of_the_window_posterior(self):
        evidence = chan2015.same_optimum()
        assert evidence.holds, evidence.measured

    def test_the_loss_splits_into_floor_and_distance(self):
        evidence = chan2015.loss_has_a_floor()
        assert evidence.holds, evidence.measured
