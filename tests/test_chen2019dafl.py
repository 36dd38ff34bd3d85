"""The loss of chen2019dafl against independent forms, and at its borders."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets import chen2019dafl
from snippets.chen2019dafl import generator_loss
from snippets.lab.data import seeded

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-12, "atol": 1e-12}


def batch(seed=0, samples=8, classes=5, features=6, dtype=torch.float64):
    draw = seeded(seed)
    v = 3 * torch.randn(samples, classes, generator=draw, dtype=torch.float64)
    f = torch.randn(samples, features, generator=draw, dtype=torch.float64)
    return v.to(dtype), f.to(dtype)


def by_hand(v, f, activation, information, log=math.log):
    """The formula in scalar arithmetic, one sample and class at a time."""
    rows = []
    for row in v.tolist():
        weights = [math.exp(x) for x in row]
        rows.append([w / sum(weights) for w in weights])
    one_hot = sum(-math.log(max(p)) for p in rows) / len(rows)
    numbers = [abs(x) for row in f.flatten(1).tolist() for x in row]
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    entropy = sum(p * log(p) for p in means)
    return one_hot - activation * sum(numbers) / len(numbers) + information * entropy


def term(name, v, f):
    """One term alone, with its sign and of weight 1."""
    bare = generator_loss(v, f, activation=0, information=0)
    if name == "one-hot":
        return bare
    weights = {"activation": 0, "information": 0, name: 1}
    return generator_loss(v, f, **weights) - bare


class TestAgainstIndependentForms:
    @pytest.mark.parametrize(("activation", "information"), [(0.1, 5.0), (0, 0), (2, 0.3)])
    @pytest.mark.proves("against", "a scalar loop")
    def test_scalar_loop(self, activation, information):
        v, f = batch()
        loss = generator_loss(v, f, activation=activation, information=information)
        assert loss.item() == pytest.approx(by_hand(v, f, activation, information), rel=1e-12)

    def test_authors_logarithm(self):
        v, f = batch()
        loss = generator_loss(v, f, variant="code")
        assert loss.item() == pytest.approx(by_hand(v, f, 0.1, 5.0, math.log10), rel=1e-12)

    def test_code_divides_one_term_by_ln_10(self):
        v, f = batch()
        scaled = generator_loss(v, f, information=5 / math.log(10))
        torch.testing.assert_close(generator_loss(v, f, variant="code"), scaled, **F64)

    @pytest.mark.proves("against", "torch's losses and distributions")
    def test_library_forms(self):
        v, f = batch()
        one_hot = nn.functional.cross_entropy(v, v.argmax(-1))
        mean = torch.distributions.Categorical(probs=v.softmax(-1).mean(0))
        expected = one_hot - 0.1 * f.abs().mean() - 5 * mean.entropy()
        torch.testing.assert_close(generator_loss(v, f), expected, **F64)

    def test_convolutional_features(self):
        v, f = batch(features=12)
        maps = f.view(8, 3, 2, 2)
        torch.testing.assert_close(generator_loss(v, maps), generator_loss(v, f), **F64)


class TestWhoLearns:
    @pytest.mark.proves("gradients", "both arguments get one: nothing is detached")
    def test_nothing_is_detached(self):
        v, f = (x.requires_grad_() for x in batch())
        generator_loss(v, f).backward()
        assert v.grad.abs().sum() > 0
        assert f.grad.abs().sum() > 0

    def test_gradient_reaches_the_generator_through_a_frozen_teacher(self):
        draw = seeded(0)
        teacher = torch.randn(6, 5, generator=draw, dtype=torch.float64)
        images = torch.randn(8, 6, generator=draw, dtype=torch.float64, requires_grad=True)
        generator_loss(images @ teacher, images).backward()
        assert (images.grad.abs().sum(1) > 0).all()
        assert teacher.grad is None

    @pytest.mark.parametrize("name", ["one-hot", "activation", "information"])
    def test_gradient_of_each_term(self, name):
        v, f = (x.requires_grad_() for x in batch())
        assert torch.autograd.gradcheck(lambda a, b: term(name, a, b), (v, f))

    def test_gradient_of_the_loss(self):
        v, f = (x.requires_grad_() for x in batch())
        for variant in ("paper", "code"):
            assert torch.autograd.gradcheck(
                lambda a, b, how=variant: generator_loss(a, b, variant=how), (v, f)
            )


class TestInvariances:
    @given(SEEDS, st.floats(-50, 50))
    @pytest.mark.proves("invariances", "a number added to all logits of a sample")
    def test_shift_of_the_logits(self, seed, shift):
        v, f = batch(seed)
        moved = v + shift * torch.arange(8, dtype=torch.float64)[:, None] / 8
        torch.testing.assert_close(
            generator_loss(moved, f), generator_loss(v, f), rtol=1e-9, atol=1e-11
        )

    @given(SEEDS, st.permutations(range(5)), st.permutations(range(8)))
    @pytest.mark.proves("invariances", "the order of the classes and samples")
    def test_order_of_classes_and_samples(self, seed, classes, samples):
        v, f = batch(seed)
        loss = generator_loss(v[samples][:, classes], f[samples])
        torch.testing.assert_close(loss, generator_loss(v, f), **F64)

    @given(SEEDS)
    @pytest.mark.proves("invariances", "a batch repeated, and the sign of features")
    def test_doubled_batch_and_sign_of_features(self, seed):
        v, f = batch(seed)
        twice = generator_loss(v.repeat(2, 1), -f.repeat(2, 1))
        torch.testing.assert_close(twice, generator_loss(v, f), **F64)

    @given(SEEDS, st.floats(0, 10), st.floats(0, 10))
    def test_lower_bound(self, seed, activation, information):
        v, f = batch(seed)
        loss = generator_loss(v, f, activation=activation, information=information)
        assert loss >= -activation * f.abs().max() - information * math.log(5) - 1e-9

    @given(SEEDS)
    def test_range_of_the_information_term(self, seed):
        value = term("information", *batch(seed))
        assert -math.log(5) - 1e-9 <= value <= 1e-9


class TestHardNumbers:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
    def test_extreme_logits_and_features_stay_finite(self, dtype, scale):
        v, f = ((scale * x.sign()).to(dtype).requires_grad_() for x in batch())
        loss = generator_loss(v, f)
        loss.backward()
        assert loss.isfinite()
        assert v.grad.isfinite().all()
        assert f.grad.isfinite().all()

    @pytest.mark.parametrize("never", [-1e4, -torch.inf])
    def test_class_of_zero_mean_probability(self, never):
        v, f = batch()
        v[:, 2] = never
        v.requires_grad_()
        loss = generator_loss(v, f)
        loss.backward()
        kept = [0, 1, 3, 4]
        torch.testing.assert_close(loss, generator_loss(v[:, kept], f), **F64)
        assert v.grad.isfinite().all()
        assert (v.grad[:, 2] == 0).all()

    def test_one_sample(self):
        v, f = (x.requires_grad_() for x in batch(samples=1))
        loss = generator_loss(v, f)
        loss.backward()
        assert loss.item() == pytest.approx(by_hand(v, f, 0.1, 5.0), rel=1e-12)
        assert v.grad.isfinite().all()

    def test_one_class_leaves_only_the_activation(self):
        v, f = batch(classes=1)
        torch.testing.assert_close(generator_loss(v, f), -0.1 * f.abs().mean(), **F64)

    def test_ties_choose_one_class(self):
        v, f = torch.zeros(4, 5, dtype=torch.float64), torch.zeros(4, 2, dtype=torch.float64)
        loss = generator_loss(v, f)
        assert loss.item() == pytest.approx(-4 * math.log(5), rel=1e-12)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, dtype):
        v, f = batch(dtype=dtype)
        assert generator_loss(v, f).dtype == torch.float32
        torch.testing.assert_close(generator_loss(v, f), generator_loss(v.float(), f.float()))


class TestBadInput:
    @pytest.mark.parametrize("name", ["activation", "information"])
    @pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
    def test_weight(self, name, weight):
        with pytest.raises(ValueError, match=f"{name} .* got {weight}"):
            generator_loss(*batch(), **{name: weight})

    def test_empty(self):
        with pytest.raises(ValueError, match="teacher_logits"):
            generator_loss(torch.zeros(0, 5), torch.zeros(0, 6))
        with pytest.raises(ValueError, match="teacher_features"):
            generator_loss(torch.zeros(8, 5), torch.zeros(8, 0))

    @pytest.mark.parametrize(
        ("v", "f", "argument"),
        [
            (torch.zeros(8), torch.zeros(8, 6), "teacher_logits"),
            (torch.zeros(8, 5).long(), torch.zeros(8, 6), "teacher_logits"),
            (torch.zeros(8, 5), torch.zeros(1, 6), "teacher_features"),
            (torch.zeros(8, 5), torch.zeros(8, 6).long(), "teacher_features"),
            (torch.zeros(8, 5), [[0.0] * 6] * 8, "teacher_features"),
        ],
    )
    def test_wrong_tensor(self, v, f, argument):
        with pytest.raises(TypeError, match=argument):
            generator_loss(v, f)

    def test_variant_and_keywords(self):
        with pytest.raises(TypeError, match="variant"):
            generator_loss(*batch(), variant="log10")
        with pytest.raises(TypeError):
            generator_loss(*batch(), 0.1)


def test_one_hot_term_alone_collapses_with_one_seed():
    evidence = chen2019dafl.collapse(seeds=(0,))
    assert evidence.holds, evidence.measured
