"""The loss of zhang2022 against independent forms, and at its borders."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets import zhang2022
from snippets.lab.data import seeded
from snippets.zhang2022 import glnn_loss

SEEDS = st.integers(0, 2**31)
WEIGHTS = [0.0, 0.3, 1.0]
F64 = {"rtol": 1e-12, "atol": 1e-12}
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def nodes(seed=0, count=9, classes=4, scale=2.0, dtype=torch.float64):
    """Student's and teacher's logits, labels, and which are known."""
    draw = torch.randn(2, count, classes, generator=seeded(seed), dtype=torch.float64)
    z, v = (scale * draw).to(dtype)
    return z, v, torch.arange(count) % classes, torch.arange(count) % 3 == 0


def by_hand(z, v, targets, labelled, weight):
    """The formula in scalar arithmetic, one node at a time."""
    soft, hard = [], []
    for row_z, row_v, y, known in zip(
        z.tolist(), v.tolist(), targets.tolist(), labelled.tolist(), strict=True
    ):
        q = [math.exp(x) / sum(math.exp(k) for k in row_z) for x in row_z]
        p = [math.exp(x) / sum(math.exp(k) for k in row_v) for x in row_v]
        soft.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
        if known:
            hard.append(-math.log(q[y]))
    return weight * sum(hard) / len(hard) + (1 - weight) * sum(soft) / len(soft)


class TestAgainstIndependentForms:
    @pytest.mark.parametrize("weight", WEIGHTS)
    @pytest.mark.proves("against", "a scalar loop")
    def test_scalar_loop(self, weight):
        given = nodes()
        expected = by_hand(*given, weight)
        assert glnn_loss(*given, weight=weight).item() == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("weight", WEIGHTS)
    @pytest.mark.proves("against", "torch's losses as the authors use them")
    def test_torchs_losses_as_the_authors_use_them(self, weight):
        z, v, y, known = nodes()
        hard = nn.NLLLoss()(z.log_softmax(1)[known], y[known])
        soft = nn.KLDivLoss(reduction="batchmean", log_target=True)(
            z.log_softmax(1), v.log_softmax(1)
        )
        expected = weight * hard + (1 - weight) * soft
        torch.testing.assert_close(glnn_loss(z, v, y, known, weight=weight), expected, **F64)

    def test_the_default_is_weight_0(self):
        given = nodes()
        assert glnn_loss(*given) == glnn_loss(*given, weight=0)

    @pytest.mark.proves("against", "the gradient in closed form")
    def test_gradient_of_each_node_by_hand(self):
        z, v, y, known = nodes()
        z.requires_grad_()
        (gradient,) = torch.autograd.grad(glnn_loss(z, v, y, known, weight=0.3), z)
        q = z.detach().softmax(1)
        soft = 0.7 * (q - v.softmax(1)) / 9
        hard = 0.3 * (q - nn.functional.one_hot(y, 4)) / known.sum()
        expected = soft + hard * known[:, None]
        torch.testing.assert_close(gradient, expected, **F64)


class TestWhoLearns:
    @pytest.mark.parametrize("weight", WEIGHTS)
    @pytest.mark.proves("gradients", "the student learns, the teacher does not")
    def test_student_learns_and_teacher_does_not(self, weight):
        z, v, y, known = nodes()
        z.requires_grad_()
        v.requires_grad_()
        glnn_loss(z, v, y, known, weight=weight).backward()
        assert z.grad.abs().sum() > 0
        assert v.grad is None

    @pytest.mark.parametrize("weight", [0.0, 0.3])
    def test_swapping_roles_changes_the_value(self, weight):
        z, v, y, known = nodes()
        there = glnn_loss(z, v, y, known, weight=weight)
        assert abs(there - glnn_loss(v, z, y, known, weight=weight)) > 1e-3

    @pytest.mark.parametrize("weight", WEIGHTS)
    def test_gradient_numerically(self, weight):
        z, *rest = nodes()
        assert torch.autograd.gradcheck(
            lambda x: glnn_loss(x, *rest, weight=weight), z.requires_grad_()
        )

    def test_with_labels_alone_unlabelled_nodes_do_not_teach(self):
        z, v, y, known = nodes()
        z.requires_grad_()
        glnn_loss(z, v, y, known, weight=1.0).backward()
        assert (z.grad[~known] == 0).all()


class TestInvariances:
    @given(SEEDS)
    def test_zero_only_where_they_agree(self, seed):
        z, v, y, known = nodes(seed)
        assert glnn_loss(v + 7, v, y, known).abs() < 1e-12
        assert glnn_loss(z, v, y, known) > 0

    @given(SEEDS, st.floats(0, 1), st.permutations(range(9)))
    @pytest.mark.proves("invariances", "the order of the nodes")
    def test_order_of_nodes(self, seed, weight, order):
        given = nodes(seed)
        torch.testing.assert_close(
            glnn_loss(*(x[order] for x in given), weight=weight),
            glnn_loss(*given, weight=weight),
            **F64,
        )

    @given(SEEDS, st.floats(0, 1), st.floats(-50, 50))
    @pytest.mark.proves("invariances", "a number added to all logits of a node")
    def test_shift_of_a_nodes_logits(self, seed, weight, shift):
        z, v, y, known = nodes(seed)
        shifts = shift * torch.arange(9, dtype=torch.float64)[:, None] / 9
        torch.testing.assert_close(
            glnn_loss(z + shifts, v - shifts, y, known, weight=weight),
            glnn_loss(z, v, y, known, weight=weight),
            rtol=1e-9,
            atol=1e-11,
        )

    @given(SEEDS, st.floats(0, 1))
    @pytest.mark.proves("invariances", "a batch repeated")
    def test_mean_over_nodes(self, seed, weight):
        given = nodes(seed)
        twice = [torch.cat([x, x]) for x in given]
        torch.testing.assert_close(
            glnn_loss(*twice, weight=weight), glnn_loss(*given, weight=weight), **F64
        )

    @given(SEEDS, st.floats(0, 1))
    @pytest.mark.proves("invariances", "labels of other nodes")
    def test_labels_of_other_nodes_are_not_read(self, seed, weight):
        z, v, y, known = nodes(seed)
        other = torch.where(known, y, -1)
        assert glnn_loss(z, v, other, known, weight=weight) == glnn_loss(
            z, v, y, known, weight=weight
        )

    def test_weight_0_needs_no_label(self):
        z, v, y, known = nodes()
        none = torch.zeros_like(known)
        assert glnn_loss(z, v, y - 1, none) == glnn_loss(z, v, y, known)

    def test_weight_1_needs_no_teacher(self):
        z, v, y, known = nodes()
        assert glnn_loss(z, v + torch.nan, y, known, weight=1.0).isfinite()


class TestHardNumbers:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
    @pytest.mark.parametrize("weight", WEIGHTS)
    def test_extreme_logits_stay_finite(self, dtype, scale, weight):
        z, v, y, known = nodes()
        z = (scale * z.sign()).to(dtype).requires_grad_()
        v = (scale * v.sign()).to(dtype)
        loss = glnn_loss(z, v, y, known, weight=weight)
        loss.backward()
        assert loss.isfinite()
        assert z.grad.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, dtype):
        z, v, y, known = nodes(dtype=dtype)
        loss = glnn_loss(z, v, y, known, weight=0.5)
        assert loss.dtype == torch.float32
        assert loss == glnn_loss(z.float(), v.float(), y, known, weight=0.5)

    def test_duplicated_nodes(self):
        z, v, y, known = (x[[0] * 9] for x in nodes())
        z.requires_grad_()
        glnn_loss(z, v, y, known, weight=0.5).backward()
        assert z.grad.isfinite().all()

    def test_class_masked_on_both_sides_contributes_nothing(self):
        z, v, _, known = nodes()
        y = torch.zeros(9).long()
        masked_z, masked_v = z.clone(), v.clone()
        masked_z[:, 2] = masked_v[:, 2] = -torch.inf
        kept = [0, 1, 3]
        loss = glnn_loss(masked_z, masked_v, y, known, weight=0.5)
        expected = glnn_loss(z[:, kept], v[:, kept], y, known, weight=0.5)
        torch.testing.assert_close(loss, expected, **F64)

    def test_small_integers_as_labels(self):
        z, v, y, known = nodes()
        loss = glnn_loss(z, v, y.to(torch.int8), known, weight=0.5)
        assert loss == glnn_loss(z, v, y, known, weight=0.5)


class TestBadInput:
    @pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan])
    def test_weight(self, weight):
        with pytest.raises(ValueError, match=f"weight .* got {weight}"):
            glnn_loss(*nodes(), weight=weight)

    @pytest.mark.parametrize("weight", [0.3, 1.0])
    def test_weight_above_0_needs_a_label(self, weight):
        z, v, y, known = nodes()
        with pytest.raises(ValueError, match=r"labelled .* without any"):
            glnn_loss(z, v, y, torch.zeros_like(known), weight=weight)

    @pytest.mark.parametrize("wrong", [-1, 4])
    def test_label_that_is_no_class(self, wrong):
        z, v, y, known = nodes()
        y[0] = wrong
        with pytest.raises(ValueError, match=rf"targets must be in 0 … 3, got .*{wrong}"):
            glnn_loss(z, v, y, known, weight=0.5)

    def test_no_node(self):
        with pytest.raises(ValueError, match="student_logits"):
            glnn_loss(*(x[:0] for x in nodes()))

    @pytest.mark.parametrize(
        ("position", "value", "argument"),
        [
            (0, torch.zeros(9), "student_logits"),
            (0, torch.zeros(9, 4).long(), "student_logits"),
            (1, torch.zeros(1, 4), "teacher_logits"),
            (1, torch.zeros(9, 1), "teacher_logits"),
            (1, [[0.0] * 4] * 9, "teacher_logits"),
            (2, torch.zeros(9), "targets"),
            (2, torch.zeros(8).long(), "targets"),
            (2, torch.zeros(9, 1).long(), "targets"),
            (3, torch.ones(9), "labelled"),
            (3, torch.ones(1).bool(), "labelled"),
            (3, torch.ones(9).long(), "labelled"),
        ],
    )
    def test_wrong_tensor(self, position, value, argument):
        given = [*nodes()]
        given[position] = value
        with pytest.raises(TypeError, match=argument):
            glnn_loss(*given)

    def test_options_are_keywords(self):
        with pytest.raises(TypeError):
            glnn_loss(*nodes(), 0.5)


class TestInformation:
    @given(SEEDS)
    def test_the_chain_rule(self, seed):
        joint = torch.rand(3, 4, 2, generator=seeded(seed), dtype=torch.float64)
        joint /= joint.sum()

        def shared(table):
            parts = (table.sum(0), table.sum(1), table)
            x, y, both = (zhang2022.entropy(part) for part in parts)
            return x + y - both

        everything = shared(joint.flatten(0, 1))
        assert everything == pytest.approx(shared(joint.sum(1)) + zhang2022.news(joint, 1))
        assert everything == pytest.approx(shared(joint.sum(0)) + zhang2022.news(joint, 0))

    @pytest.mark.parametrize("signal", [0.0, 1.5, 3.0])
    def test_the_ceiling_is_the_rate_of_the_best_guess(self, signal):
        x = torch.randn(200_000, 4, generator=seeded(0), dtype=torch.float64)
        x[:, 0] += signal
        rate = (x.argmax(1) == 0).double().mean().item()
        assert zhang2022.ceiling(signal) == pytest.approx(rate, abs=0.005)


@pytest.mark.parametrize("name", ["empty_pass_moves", "conditional_independence", "structure_only"])
def test_claims_with_one_seed(name):
    test = getattr(zhang2022, name)
    evidence = test(seeds=(0,)) if name == "structure_only" else test()
    assert evidence.holds == test.claim.expect, evidence.measured
