"""The tiny transformer, its task, and the one layer experiment."""

import pytest
import torch

from snippets.lab.data import seeded
from snippets.lab.transformer import (
    FROM_BELOW,
    LENGTH,
    NEEDLE,
    PAD,
    START,
    SYMBOL,
    SYMBOLS,
    distil_layers,
    encoder,
    layer_map,
    needle_accuracy,
    needle_teacher,
    needles,
)


def hidden_gap(student, teacher, mask):
    return (student.hidden - teacher.hidden)[mask].square().mean()


class TestNeedles:
    def test_the_class_is_the_symbol_behind_the_needle(self):
        data = needles(300, seed=0)
        for row, label in zip(data.tokens.tolist(), data.labels.tolist(), strict=True):
            real = [token for token in row if token != PAD]
            assert row == real + [PAD] * (LENGTH - len(real))
            assert real[0] == START
            assert real.count(NEEDLE) == 1
            assert real[real.index(NEEDLE) + 1] == SYMBOL + label

    def test_every_class_length_and_place_occurs(self):
        data = needles(300, seed=0)
        assert set(data.labels.tolist()) == set(range(SYMBOLS))
        assert set((data.tokens != PAD).sum(-1).tolist()) == set(range(4, LENGTH + 1))
        places = (data.tokens == NEEDLE).nonzero()[:, 1]
        assert set(places.tolist()) == set(range(1, LENGTH - 1))

    def test_the_seed_says_which(self):
        assert not torch.equal(needles(50, seed=0).tokens, needles(50, seed=1).tokens)


class TestEncoder:
    def test_weights_come_from_the_generator_alone(self):
        torch.manual_seed(0)
        state = torch.get_rng_state()
        first, again, other = (encoder(2, generator=seeded(s)) for s in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), state)
        tokens = needles(5, seed=0).tokens
        assert torch.equal(first(tokens), again(tokens))
        assert not torch.equal(first(tokens), other(tokens))
        assert first(tokens).dtype == torch.float64

    def test_every_layer_shows_itself(self):
        tokens = needles(5, seed=0).tokens
        logits, layers = encoder(4, generator=seeded(0), width=24, heads=3).trace(tokens)
        assert logits.shape == (5, SYMBOLS)
        assert len(layers) == 4
        for layer in layers:
            assert layer.hidden.shape == (5, LENGTH, 24)
            assert layer.scores.shape == layer.attention.shape == (5, 3, LENGTH, LENGTH)
            assert layer.values.shape == (5, 3, LENGTH, 8)
            torch.testing.assert_close(layer.scores.softmax(-1), layer.attention)
            assert torch.equal(layer.of(torch.tensor([3])).hidden, layer.hidden[3:4])

    def test_attention_by_hand(self):
        model = encoder(1, generator=seeded(0))
        tokens = needles(5, seed=0).tokens
        x = model.embed(tokens) + model.position.weight
        block = model.blocks[0]
        q, k, v = block.query_key_value(block.norm(x)).chunk(3, -1)
        layer = model.trace(tokens)[1][0]
        for head in (0, 1):
            part = slice(16 * head, 16 * head + 16)
            scores = torch.einsum("bid,bjd->bij", q[..., part], k[..., part]) / 4
            real = (tokens != PAD)[:, None].expand_as(scores)
            torch.testing.assert_close(layer.scores[:, head][real], scores[real])
            torch.testing.assert_close(layer.values[:, head], v[..., part])

    def test_padding_changes_nothing(self):
        model = encoder(3, generator=seeded(0))
        tokens = needles(100, seed=0).tokens
        short = tokens[(tokens != PAD).sum(-1) <= 5]
        torch.testing.assert_close(model(short[:, :5]), model(short), rtol=1e-12, atol=1e-12)
        assert model.trace(short)[1][-1].attention[..., 5:].abs().max() == 0


class TestLayerMap:
    @pytest.mark.parametrize(
        ("name", "three", "two", "one"),
        [
            ("skip", [2, 4, 6], [2, 4], [2]),
            ("last", [4, 5, 6], [4, 5], [5]),
            ("first", [1, 2, 3], [1, 2], [1]),
            ("reverse", [6, 4, 2], [4, 2], [2]),
        ],
    )
    def test_names(self, name, three, two, one):
        for aligned, follows in ((3, three), (2, two), (1, one), (0, [])):
            expected = dict(zip(range(1, aligned + 1), follows, strict=True))
            assert layer_map(name, aligned=aligned) == expected
        assert layer_map(name) == layer_map(name, aligned=3)


class TestDistillation:
    def test_the_teacher_knows_the_task(self):
        teacher = needle_teacher()
        assert needle_accuracy(teacher) > 0.95
        assert not any(p.requires_grad for p in teacher.parameters())

    def test_a_student_learns_and_the_teacher_stays(self):
        teacher = needle_teacher()
        before = [p.clone() for p in teacher.parameters()]
        student = distil_layers(teacher, layer_map("skip"), hidden_gap, seed=0, weight=0.1)
        assert needle_accuracy(student) > 0.8
        assert all(map(torch.equal, teacher.parameters(), before))

    def test_the_layer_loss_brings_layers_together(self):
        teacher = needle_teacher()
        tokens = needles(200, seed=7).tokens
        gaps = []
        for weight in (0.0, 1.0):
            student = distil_layers(teacher, {1: 4}, hidden_gap, seed=0, weight=weight, samples=256)
            layers = student.trace(tokens)[1][0], teacher.trace(tokens)[1][3]
            gaps.append(hidden_gap(*layers, tokens != PAD).item())
        assert gaps[1] < 0.8 * gaps[0]

    def test_an_empty_map_asks_for_no_layer(self):
        def never(*_):
            raise AssertionError

        teacher = needle_teacher()
        first, again, other = (
            distil_layers(teacher, {}, never, seed=s, samples=32, epochs=1) for s in (0, 0, 1)
        )
        tokens = needles(5, seed=0).tokens
        assert torch.equal(first(tokens), again(tokens))
        assert not torch.equal(first(tokens), other(tokens))

    @pytest.mark.parametrize("copied", [FROM_BELOW, {1: 6, 3: 2}, {}])
    def test_where_a_student_starts(self, copied):
        teacher = needle_teacher()
        student = distil_layers(teacher, {}, hidden_gap, seed=0, copied=copied, epochs=0)
        assert torch.equal(student.embed.weight, teacher.embed.weight) == bool(copied)
        for m, block in enumerate(student.blocks, 1):
            same = [torch.equal(block.mix.weight, other.mix.weight) for other in teacher.blocks]
            assert same == [n == copied.get(m) for n in range(1, 7)]
