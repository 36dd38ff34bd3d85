"""The loss of sun2019 against independent forms, and at its borders."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets import sun2019
from snippets.lab.data import seeded
from snippets.sun2019 import patience_loss

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-12, "atol": 1e-12}


def states(seed=0, batch=4, layers=3, width=6, dtype=torch.float64):
    draw = torch.randn(2, batch, layers, width, generator=seeded(seed), dtype=torch.float64)
    return draw[0].to(dtype), draw[1].to(dtype)


def by_hand(student, teacher):
    """The formula in scalar arithmetic, one sentence and layer at a time."""
    total = 0.0
    for sentence_s, sentence_t in zip(student.tolist(), teacher.tolist(), strict=True):
        for s, t in zip(sentence_s, sentence_t, strict=True):
            long_s, long_t = math.hypot(*s), math.hypot(*t)
            total += sum((a / long_s - b / long_t) ** 2 for a, b in zip(s, t, strict=True))
    return total / len(student)


class TestAgainstIndependentForms:
    @pytest.mark.proves("against", "a scalar loop")
    def test_scalar_loop(self):
        h_s, h_t = states()
        assert patience_loss(h_s, h_t).item() == pytest.approx(by_hand(h_s, h_t), rel=1e-12)

    @pytest.mark.proves("against", "torch's cosine_embedding_loss, twice")
    def test_is_torchs_cosine_embedding_loss_twice(self):
        h_s, h_t = states()
        each = nn.functional.cosine_embedding_loss(
            h_s.flatten(0, 1), h_t.flatten(0, 1), torch.ones(12), reduction="sum"
        )
        torch.testing.assert_close(patience_loss(h_s, h_t), 2 * each / 4, **F64)

    @pytest.mark.proves("against", "torch's mse_loss of normalised states")
    def test_the_code_is_a_mean_squared_error(self):
        h_s, h_t = states()
        theirs = nn.functional.mse_loss(
            nn.functional.normalize(h_s, dim=-1), nn.functional.normalize(h_t, dim=-1)
        )
        code = patience_loss(h_s, h_t, variant="code")
        torch.testing.assert_close(code, theirs, **F64)
        torch.testing.assert_close(patience_loss(h_s, h_t), 3 * 6 * theirs, **F64)

    def test_layers_add_up(self):
        h_s, h_t = states()
        each = [patience_loss(h_s[:, m : m + 1], h_t[:, m : m + 1]) for m in range(3)]
        torch.testing.assert_close(patience_loss(h_s, h_t), sum(each), **F64)


class TestWhoLearns:
    @pytest.mark.parametrize("variant", ["paper", "code"])
    @pytest.mark.proves("gradients", "the student learns, the teacher does not")
    def test_student_learns_and_teacher_does_not(self, variant):
        h_s, h_t = (x.requires_grad_() for x in states())
        patience_loss(h_s, h_t, variant=variant).backward()
        assert h_s.grad.abs().sum() > 0
        assert h_t.grad is None

    @pytest.mark.proves("invariances", "student and teacher exchanged")
    def test_symmetric_by_definition(self):
        h_s, h_t = states()
        torch.testing.assert_close(patience_loss(h_s, h_t), patience_loss(h_t, h_s), **F64)

    def test_gradient_numerically(self):
        h_s, h_t = states()
        h_s.requires_grad_()
        assert torch.autograd.gradcheck(lambda x: patience_loss(x, h_t), h_s)

    def test_the_gradient_only_turns_a_state(self):
        h_s, h_t = states()
        h_s.requires_grad_()
        (grad,) = torch.autograd.grad(patience_loss(h_s, h_t), h_s)
        along = (grad * h_s).sum(-1)
        torch.testing.assert_close(along, torch.zeros_like(along), rtol=0, atol=1e-12)


class TestInvariances:
    @given(SEEDS, st.floats(-6, 6), st.floats(-6, 6))
    @pytest.mark.proves("invariances", "the length of a state")
    def test_lengths_do_not_count(self, seed, s, t):
        h_s, h_t = states(seed)
        scaled = patience_loss(10**s * h_s, 10**t * h_t)
        torch.testing.assert_close(scaled, patience_loss(h_s, h_t), rtol=1e-9, atol=1e-12)

    @given(SEEDS)
    @pytest.mark.proves("invariances", "a rotation of both")
    def test_one_rotation_of_both_does_not_count(self, seed):
        h_s, h_t = states(seed)
        square = torch.randn(6, 6, generator=seeded(seed), dtype=torch.float64)
        turn = torch.linalg.qr(square).Q
        rotated = patience_loss(h_s @ turn, h_t @ turn)
        torch.testing.assert_close(rotated, patience_loss(h_s, h_t), rtol=1e-9, atol=1e-12)

    @given(SEEDS, st.permutations(range(4)), st.permutations(range(3)))
    @pytest.mark.proves("invariances", "the order of the sentences and pairs of layers")
    def test_order_of_sentences_and_of_pairs(self, seed, sentences, layers):
        h_s, h_t = states(seed)
        shuffled = [x[sentences][:, layers] for x in (h_s, h_t)]
        torch.testing.assert_close(patience_loss(*shuffled), patience_loss(h_s, h_t), **F64)

    @given(SEEDS)
    def test_between_zero_and_four_a_layer(self, seed):
        h_s, h_t = states(seed)
        assert 0 < patience_loss(h_s, h_t) < 12
        assert patience_loss(3 * h_t, h_t) < 1e-12
        torch.testing.assert_close(patience_loss(-h_t, h_t).item(), 12.0)

    @given(SEEDS)
    @pytest.mark.proves("invariances", "a batch repeated")
    def test_mean_over_the_batch(self, seed):
        h_s, h_t = states(seed)
        twice = patience_loss(h_s.repeat(2, 1, 1), h_t.repeat(2, 1, 1))
        torch.testing.assert_close(twice, patience_loss(h_s, h_t), **F64)


class TestHardNumbers:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
    def test_large_and_small_states(self, dtype, scale):
        h_s, h_t = (torch.sign(x).to(dtype) for x in states())
        scaled = (scale * h_s).requires_grad_()
        loss = patience_loss(scaled, scale * h_t)
        loss.backward()
        expected = patience_loss(h_s, h_t)
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
        assert scaled.grad.isfinite().all()

    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_squares_beyond_the_dtype(self, scale):
        h_s, h_t = states(dtype=torch.float32)
        torch.testing.assert_close(patience_loss(scale * h_s, h_t), patience_loss(h_s, h_t))

    @pytest.mark.parametrize("variant", ["paper", "code"])
    def test_states_without_a_direction(self, variant):
        h_s, h_t = states()
        zero = torch.zeros_like(h_s).requires_grad_()
        loss = patience_loss(zero, h_t, variant=variant)
        loss.backward()
        assert loss.item() == pytest.approx(3.0 if variant == "paper" else 1 / 6)
        assert zero.grad.isfinite().all()
        assert patience_loss(zero, torch.zeros_like(h_t), variant=variant) == 0

    @pytest.mark.parametrize("variant", ["paper", "code"])
    def test_equal_states_have_no_gradient(self, variant):
        h_s = states()[0].requires_grad_()
        patience_loss(h_s, h_s, variant=variant).backward()
        assert h_s.grad.abs().max() < 1e-12

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, dtype):
        h_s, h_t = states(dtype=dtype)
        assert patience_loss(h_s, h_t).dtype == torch.float32
        torch.testing.assert_close(patience_loss(h_s, h_t), patience_loss(h_s.float(), h_t.float()))

    def test_works_under_grad_and_vmap(self):
        h_s, h_t = states()
        assert torch.func.grad(patience_loss)(h_s, h_t).isfinite().all()
        each = torch.func.vmap(patience_loss)(h_s[:, None], h_t[:, None])
        torch.testing.assert_close(each.mean(), patience_loss(h_s, h_t), **F64)


class TestBadInput:
    @pytest.mark.parametrize("shape", [(0, 3, 6), (4, 0, 6), (4, 3, 0)])
    def test_nothing_to_compare(self, shape):
        with pytest.raises(ValueError, match=r"student_hidden .*got shape"):
            patience_loss(torch.zeros(shape), torch.zeros(shape))

    @pytest.mark.parametrize(
        ("student", "teacher", "argument"),
        [
            (torch.zeros(4, 6), torch.zeros(4, 6), "student_hidden"),
            (torch.zeros(4, 3, 6), torch.zeros(1, 3, 6), "teacher_hidden"),
            (torch.zeros(4, 3, 6), torch.zeros(4, 1, 6), "teacher_hidden"),
            (torch.zeros(4, 3, 6), torch.zeros(4, 3, 1), "teacher_hidden"),
            (torch.zeros(4, 3, 6).long(), torch.zeros(4, 3, 6), "student_hidden"),
            (torch.zeros(4, 3, 6), torch.zeros(4, 3, 6).long(), "teacher_hidden"),
        ],
    )
    def test_wrong_tensor(self, student, teacher, argument):
        with pytest.raises(TypeError, match=argument):
            patience_loss(student, teacher)

    def test_wrong_variant(self):
        with pytest.raises(TypeError, match="variant"):
            patience_loss(*states(), variant="mean")

    def test_options_are_keywords(self):
        with pytest.raises(TypeError):
            patience_loss(*states(), "code")


@pytest.mark.parametrize(
    "check",
    [
        sun2019.is_cosine_distance,
        sun2019.means_shrink_both_terms,
        sun2019.half_blurs_the_loss,
        sun2019.shapes_decide_in_vision,
    ],
)
def test_the_exact_claims(check):
    evidence = check()
    assert evidence.holds, evidence.measured
