"""The losses of kim2016 against independent forms, and at their borders."""

import math

import pytest
import torch
from torch import nn

from snippets import kim2016
from snippets.kim2016 import sequence_kd_loss, word_kd_loss
from tests.masked import F64, MASK, Logits, Tokens


class TestSequence(Tokens):
    function = staticmethod(sequence_kd_loss)


class TestWord(Logits):
    function = staticmethod(word_kd_loss)

    def by_hand(self, q, p):
        return -sum(t * math.log(s) for s, t in zip(q, p, strict=True))

    @pytest.mark.proves("against", "torch's cross_entropy with soft targets")
    def test_is_torchs_cross_entropy_with_soft_targets(self):
        z, v = self.inputs()
        theirs = nn.functional.cross_entropy(z[MASK], v[MASK].softmax(-1))
        torch.testing.assert_close(self.loss(z, v), theirs, **F64)

    @pytest.mark.proves("against", "sequence_kd_loss, for a one-hot teacher")
    def test_one_hot_teacher_turns_words_into_sequence(self):
        z, v = self.inputs()
        best = v.argmax(-1)
        certain = torch.where(nn.functional.one_hot(best, 6).bool(), 0.0, -torch.inf).double()
        torch.testing.assert_close(self.loss(z, certain), sequence_kd_loss(z, best, MASK), **F64)

    def test_least_at_the_teacher_where_it_is_the_entropy(self):
        z, v = self.inputs()
        entropy = torch.distributions.Categorical(logits=v[MASK]).entropy().mean()
        torch.testing.assert_close(self.loss(v, v), entropy, **F64)
        assert self.loss(z, v) > entropy

    @pytest.mark.parametrize("teacher", [0.0, -1e4])
    def test_word_that_the_student_alone_excludes_is_infinite(self, teacher):
        """Even where the teacher's probability underflows to 0."""
        z, v = self.inputs(dtype=torch.float32)
        z[0, 0, 1], v[0, 0, 1] = -torch.inf, teacher
        assert self.loss(z, v) == torch.inf

    def test_word_that_the_teacher_alone_excludes_is_finite(self):
        z, v = self.inputs()
        v[..., 1] = -torch.inf
        assert self.loss(z, v).isfinite()


def test_seq_kd_wins_at_greedy_search_with_one_seed():
    greedy = {name: found["greedy"] for name, found in kim2016.results(0).items()}
    assert sorted(greedy, key=greedy.get) == ["NLL", "Word-KD", "teacher", "Seq-KD"]


@pytest.mark.parametrize(
    "check",
    [
        kim2016.sequence_level_is_word_level,
        kim2016.mode_is_another_target,
        kim2016.greedy_counterexample,
    ],
)
def test_the_exact_claims(check):
    evidence = check()
    assert evidence.holds, evidence.measured
