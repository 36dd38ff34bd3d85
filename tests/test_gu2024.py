"""The loss of gu2024 against independent forms, and at its borders."""

import math

import pytest
import torch

from snippets import gu2024
from snippets.gu2018 import reverse_cross_entropy
from snippets.gu2024 import WAYS, Pair, reverse_kl_loss, slope, to_go, words_said
from tests.masked import F64, MASK, Logits


class TestReverse(Logits):
    function = staticmethod(reverse_kl_loss)

    def by_hand(self, q, p):
        return sum(s * math.log(s / t) for s, t in zip(q, p, strict=True))

    @pytest.mark.proves("against", "torch's kl_div, the student first")
    def test_is_torchs_divergence_with_the_student_first(self):
        z, v = (torch.distributions.Categorical(logits=x[MASK]) for x in self.inputs())
        theirs = torch.distributions.kl_divergence(z, v).mean()
        torch.testing.assert_close(self.loss(*self.inputs()), theirs, **F64)

    @pytest.mark.proves("against", "gu2018's reverse_cross_entropy less the entropy")
    def test_is_the_reverse_cross_entropy_less_the_students_entropy(self):
        z, v = self.inputs()
        entropy = torch.distributions.Categorical(logits=z[MASK]).entropy().mean()
        torch.testing.assert_close(
            self.loss(z, v), reverse_cross_entropy(z, v, MASK) - entropy, **F64
        )

    def test_zero_at_the_teacher_and_only_there(self):
        z, v = self.inputs()
        assert self.loss(v, v).abs() < 1e-12
        assert self.loss(z, v) > 0.1

    @pytest.mark.proves("against", "the gradient in closed form")
    def test_closed_form_of_the_gradient(self):
        """For logits it is q (log q − log p − KL) / N."""
        z, v = self.inputs()
        log_q, log_p = z.log_softmax(-1), v.log_softmax(-1)
        gap = log_q - log_p
        centred = gap - (log_q.exp() * gap).sum(-1, keepdim=True)
        expected = log_q.exp() * centred * MASK[..., None] / MASK.sum()
        (found,) = torch.autograd.grad(self.loss(z.requires_grad_(), v), z)
        torch.testing.assert_close(found, expected, **F64)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    @pytest.mark.parametrize("student", [0.0, -1e4])
    def test_word_that_the_teacher_alone_excludes_is_infinite(self, student, dtype):
        """Even where the student's probability underflows to 0."""
        z, v = self.inputs(dtype=dtype)
        z[0, 0, 1], v[0, 0, 1] = student, -torch.inf
        z.requires_grad_()
        value = self.loss(z, v)
        value.backward()
        assert value == torch.inf
        assert not z.grad.isnan().any()

    def test_word_that_the_student_alone_excludes_contributes_nothing(self):
        z, v = self.inputs()
        z[..., 1] = -torch.inf
        q = z.softmax(-1)
        by_hand = torch.where(q > 0, q * (q.log() - v.log_softmax(-1)), 0).sum(-1)
        torch.testing.assert_close(self.loss(z, v), by_hand[MASK].mean(), **F64)

    def test_scale_of_the_logits_is_the_temperature_of_both(self):
        """Extreme temperatures: equal at infinity, one word against another at 0."""
        z, v = self.inputs()
        assert self.loss(z / 1e6, v / 1e6) < 1e-9
        assert self.loss(1e6 * z, 1e6 * v).isfinite()


def differences(loss, table, size=1e-6):
    """Differentiate numerically, one number of the table at a time."""
    found = torch.zeros_like(table).flatten()
    with torch.no_grad():
        flat = table.view(-1)
        for i in range(len(flat)):
            flat[i] += size
            above = loss()
            flat[i] -= 2 * size
            found[i] = (above - loss()) / (2 * size)
            flat[i] += size
    return found


def whole(pair):
    """KL of sentences, in plain loops over the 27 of them."""
    logs = [torch.log_softmax(m.logits()[0].detach(), -1) for m in (pair.student, pair.teacher)]
    total = 0.0
    for i, sentence in enumerate(gu2024.sentences(3, 3).tolist()):
        log_q, log_p = (sum(x[i, t, k].item() for t, k in enumerate(sentence)) for x in logs)
        total += math.exp(log_q) * (log_q - log_p)
    return total


@pytest.mark.parametrize("seed", range(2))
def test_both_parts_add_up_to_the_numerical_gradient(seed):
    pair = Pair(seed)
    expected = differences(lambda: whole(pair), pair.student.table)
    found = pair.single() + pair.policy(pair.later())
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert (pair.single() - expected).abs().max() > 1e-3


def test_returns_are_discounted_from_their_own_place():
    reward = torch.tensor([[1.0, 2.0, 3.0]])
    assert to_go(reward, 0.5).tolist() == [[2.75, 3.5, 3.0]]
    assert to_go(reward, 0.0).tolist() == reward.tolist()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stop", [0.1, 0.3, 0.6])
def test_slope_of_stopping_against_a_sum_over_lengths(way, stop):
    """List all lengths, and add up each token's advantage times its score."""
    cost, total, places = 0.4, 0.0, 0.0
    word, end = math.log(0.9 / (1 - stop)) - cost, math.log(0.1 / stop)
    for n in range(400):
        odds = stop * (1 - stop) ** n
        for t in range(n + 1):  # the last token is the stop
            later = (n - 1 - t) * word + end if t < n else 0.0
            if way == "normalised" and t < n:
                later /= n - t
            if way == "single step":
                later = 0.0
            score = -stop if t < n else 1 - stop
            single = stop * (1 - stop) * (word - end)
            total += odds * (single - later * score)
            places += odds
    assert total / places == pytest.approx(stop * (1 - stop) * slope(stop, cost, way), rel=1e-9)


def test_normalising_by_length_lies_between():
    """Without it outputs are shorter; without the long part, longer."""
    single, normal, plain = (words_said(0.3, way) for way in WAYS)
    assert plain < normal < single < 9


@pytest.mark.parametrize(
    "check",
    [
        gu2024.sum_along_own_sentences,
        gu2024.two_parts,
        gu2024.whitening_changes_direction,
        gu2024.slips_of_a_library,
        gu2024.short_outputs,
    ],
)
def test_the_exact_claims(check):
    evidence = check()
    assert evidence.holds, evidence.measured


@pytest.mark.parametrize("check", [gu2024.product_is_unbiased, gu2024.normalisation_removes_bias])
def test_the_exact_claims_that_fail(check):
    evidence = check()
    assert evidence.holds is False, evidence.measured


def test_weights_of_the_whole_sentence_are_exact():
    assert max(gu2024.errors(0.5, "whole sentence", [0])) < 1e-9
    assert min(gu2024.errors(0.5, "this word", [0])) > 1e-2


def test_one_toy_has_the_order_of_all():
    found = gu2024.results(0, 0.8)
    for measure in ("unlikely", "reverse", "entropy"):
        values = [found[way][measure] for way in ("whole", "single step", "forward")]
        assert values == sorted(values), measure
