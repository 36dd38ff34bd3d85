"""The toy languages: what is enumerated against what is computed."""

import itertools
import math

import pytest
import torch

from snippets.lab.data import seeded
from snippets.lab.language import (
    TabularModel,
    best_fit,
    interpolated,
    log_likelihood,
    only,
    row_of,
    sentences,
    translation,
    untied,
)

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def model(order=2, sources=2, vocabulary=3, length=3, seed=0):
    return TabularModel(untied(sources, length), vocabulary, order=order, generator=seeded(seed))


def test_sentences_are_all_there_is_in_order():
    listed = [tuple(row) for row in sentences(3, 4).tolist()]
    assert listed == list(itertools.product(range(3), repeat=4))


def test_row_of_finds_sentences():
    every = sentences(3, 4)
    assert row_of(every, 3).tolist() == list(range(81))
    assert row_of(every.view(9, 9, 4), 3).shape == (9, 9)


class TestTabularModel:
    @pytest.mark.parametrize("order", [0, 1, 2, 5])
    def test_probabilities_sum_to_one(self, order):
        torch.testing.assert_close(model(order).probabilities().sum(-1), torch.ones(2).double())

    def test_probability_of_a_sentence_by_hand(self):
        m = model(order=1)
        p = m.table.softmax(-1)
        # Source 1, sentence 2 0 1: contexts 3 … 5; histories 0 (start), 3, 1.
        expected = p[3, 0, 2] * p[4, 3, 0] * p[5, 1, 1]
        row = row_of(torch.tensor([2, 0, 1]), 3)
        torch.testing.assert_close(m.probabilities()[1, row], expected.detach(), **EXACT)

    @pytest.mark.parametrize("order", [0, 1, 2])
    def test_it_sees_just_the_words_that_its_order_allows(self, order):
        m, source = model(order, length=4), torch.zeros(1, dtype=torch.long)
        base = torch.zeros(1, 4, dtype=torch.long)
        for changed in range(4):
            other = base.clone()
            other[0, changed] = 1
            moved = (m(source, base) != m(source, other)).any(-1)[0].tolist()
            assert moved == [changed < place <= changed + order for place in range(4)]

    def test_parallel_model_is_a_product_of_marginals(self):
        p = model(order=0).probabilities().view(2, 3, 3, 3)
        product = torch.einsum("sa,sb,sc->sabc", p.sum((2, 3)), p.sum((1, 3)), p.sum((1, 2)))
        torch.testing.assert_close(p, product, **EXACT)

    def test_forward_and_logits_agree_and_learn(self):
        m, every = model(), sentences(3, 3)
        source = torch.ones(27, dtype=torch.long)
        torch.testing.assert_close(m(source, every), m.logits()[1])
        log_likelihood(m(source, every), every).sum().backward()
        assert m.table.grad.abs().sum() > 0

    def test_mode_and_greedy(self):
        m = model(seed=3)
        p = m.probabilities()
        assert (row_of(m.mode(), 3) == p.argmax(-1)).all()
        first = p.view(2, 3, 9).sum(-1).argmax(-1)
        assert (m.greedy()[:, 0] == first).all()

    def test_sources_that_share_their_context_share_their_model(self):
        m = TabularModel(torch.tensor([[0, 1], [0, 1]]), 3, order=1, generator=seeded(0))
        p = m.probabilities()
        torch.testing.assert_close(p[0], p[1])
        assert m.table.shape == (2, 4, 3)


class TestBestFit:
    def test_full_model_gives_the_language_back(self):
        p = model().probabilities()
        torch.testing.assert_close(best_fit(untied(2, 3), p, 3, order=2).probabilities(), p)

    @pytest.mark.parametrize("order", [0, 1])
    def test_no_other_model_of_its_kind_is_better(self, order):
        p = model().probabilities()
        context = untied(2, 3)
        fitted = best_fit(context, p, 3, order=order)
        loss = -(p * fitted.log_probabilities()).sum()
        (slope,) = torch.autograd.grad(loss, fitted.table)
        assert slope.abs().max() < 1e-12

    def test_parallel_fit_misses_the_total_correlation(self):
        p = model().probabilities()
        q = best_fit(untied(2, 3), p, 3, order=0).probabilities()
        marginals = [p.view(2, 3, 3, 3).sum(axes) for axes in ((2, 3), (1, 3), (1, 2))]
        total = sum(torch.special.entr(m).sum(-1) for m in marginals)
        total = total - torch.special.entr(p).sum(-1)
        torch.testing.assert_close((p * (p / q).log()).sum(-1), total, **EXACT)

    def test_soft_targets_along_own_sentences_give_the_same_fit(self):
        teacher = model()
        p, soft = teacher.probabilities(), teacher.logits().detach().softmax(-1)
        for order in (0, 1, 2):
            hard = best_fit(untied(2, 3), p, 3, order=order)
            softly = best_fit(untied(2, 3), p, 3, order=order, targets=soft)
            torch.testing.assert_close(hard.probabilities(), softly.probabilities(), **EXACT)

    def test_one_sentence(self):
        p = only(torch.tensor([4, 20]), 27)
        torch.testing.assert_close(best_fit(untied(2, 3), p, 3, order=0).probabilities(), p)


class TestInterpolated:
    P = model(seed=5).probabilities()
    REFERENCES = model(seed=6).probabilities()
    EVERY = sentences(3, 3)

    def interpolated(self, count):
        return interpolated(self.REFERENCES, self.P, self.EVERY, count=count)

    def test_the_best_one_is_the_mode_and_all_are_the_references(self):
        assert torch.equal(self.interpolated(27), self.REFERENCES)
        torch.testing.assert_close(self.interpolated(1), only(self.P.argmax(-1), 27))

    def test_against_a_search(self):
        expected = torch.zeros(2, 27).double()
        for source, p in enumerate(self.P.tolist()):
            best = sorted(range(27), key=p.__getitem__, reverse=True)[:5]
            for row, sentence in enumerate(self.EVERY):
                equal = [(self.EVERY[other] == sentence).sum().item() for other in best]
                nearest = best[equal.index(max(equal))]
                expected[source, nearest] += self.REFERENCES[source, row]
        torch.testing.assert_close(self.interpolated(5), expected)


class TestTranslation:
    def test_probabilities_by_hand(self):
        real = translation(generator=seeded(0), styles=(0.7, 0.3), words=3, length=2, size=5)
        each = real.by_style.view(2, 5, 2, 2)
        torch.testing.assert_close(real.p.sum(-1), torch.ones(5).double())
        # Given the style, words are independent.
        product = each.sum(3)[..., None] * each.sum(2)[..., None, :]
        torch.testing.assert_close(each, product, **EXACT)

    def test_consistent_sentences_keep_to_their_style(self):
        real = translation(generator=seeded(0), styles=(0.5, 0.3, 0.2), length=3, consistency=1.0)
        expected = torch.zeros(27).double()
        expected[[0, 13, 26]] = torch.tensor([0.5, 0.3, 0.2]).double()
        torch.testing.assert_close(real.p, expected.expand(len(real.p), -1))

    def test_without_consistency_words_are_independent_and_know_no_style(self):
        real = translation(generator=seeded(0), consistency=0.0, spread=0.0)
        torch.testing.assert_close(real.p, torch.full_like(real.p, 4.0**-4))

    def test_a_word_has_the_same_synonyms_in_every_sentence(self):
        real = translation(generator=seeded(0))
        first = real.p.view(48, 4, -1).sum(-1)
        for word in range(8):
            rows = first[real.sources[:, 0] == word]
            torch.testing.assert_close(rows, rows[:1].expand_as(rows))

    def test_table_by_hand(self):
        real = translation(generator=seeded(0), styles=(0.7, 0.3), words=2, length=2, size=3)
        shares = torch.zeros(2, 2).double()
        for source, p in zip(real.sources.tolist(), real.p, strict=True):
            for sentence, probability in zip(sentences(2, 2).tolist(), p, strict=True):
                for word, synonym in zip(source, sentence, strict=True):
                    shares[word, synonym] += probability
        expected = shares / shares.sum(-1, keepdim=True)
        torch.testing.assert_close(real.table(real.p), expected, **EXACT)

    def test_its_teacher_is_perfect(self):
        real = translation(generator=seeded(0))
        assert real.synonyms == 4
        torch.testing.assert_close(real.teacher().probabilities(), real.p, **EXACT)

    def test_the_same_seed_makes_the_same_translation(self):
        first, second = (translation(generator=seeded(3)) for _ in range(2))
        assert torch.equal(first.p, second.p)
        assert not torch.equal(first.p, translation(generator=seeded(4)).p)


def test_log_likelihood_by_hand():
    logits = torch.zeros(2, 3, 4)
    tokens = torch.zeros(2, 3, dtype=torch.long)
    assert log_likelihood(logits, tokens).tolist() == pytest.approx([-3 * math.log(4)] * 2)
