"""The losses of sanh2019 against independent forms, and at their borders."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets import sanh2019
from snippets.lab.data import seeded
from snippets.sanh2019 import cosine_loss, distilbert_loss
from tests import masked as masked_loss

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-12, "atol": 1e-12}
MASK = masked_loss.MASK


def states(seed=0, dtype=torch.float64):
    draw = torch.randn(2, 3, 5, 6, generator=seeded(seed), dtype=torch.float64).to(dtype)
    return draw[0], draw[1], MASK.clone()


def everything(seed=0, dtype=torch.float64):
    """The seven arguments of `distilbert_loss`: 7 words, masked words in two sentences."""
    z, v = torch.randn(2, 3, 5, 7, generator=seeded(seed + 1), dtype=torch.float64).to(dtype)
    h_s, h_t, mask = states(seed, dtype)
    targets = torch.randint(7, (3, 5), generator=seeded(seed))
    masked = torch.zeros(3, 5).bool()
    masked[0, 1] = masked[0, 3] = masked[2, 1] = True
    return [z, v, h_s, h_t, targets, masked, mask]


def by_hand(student, teacher, mask):
    each = []
    for b, i in mask.nonzero().tolist():
        s, t = student[b, i].tolist(), teacher[b, i].tolist()
        dot = math.fsum(x * y for x, y in zip(s, t, strict=True))
        each.append(1 - dot / math.hypot(*s) / math.hypot(*t))
    return math.fsum(each) / len(each)


class TestCosine(masked_loss.MaskedLoss):
    function = staticmethod(cosine_loss)
    names = "student_hidden", "teacher_hidden", "mask"
    symmetric = True

    @pytest.mark.proves("against", "a scalar loop")
    def test_scalar_loop(self):
        assert cosine_loss(*states()).item() == pytest.approx(by_hand(*states()), rel=1e-12)

    @pytest.mark.proves("against", "torch's cosine_embedding_loss")
    def test_is_torchs_cosine_embedding_loss(self):
        h_s, h_t, mask = states()
        n = int(mask.sum())
        theirs = nn.functional.cosine_embedding_loss(h_s[mask], h_t[mask], torch.ones(n))
        torch.testing.assert_close(cosine_loss(h_s, h_t, mask), theirs, **F64)

    @given(SEEDS, st.floats(1e-4, 1e4), st.floats(1e-4, 1e4))
    @pytest.mark.proves("invariances", "the length of a state")
    def test_lengths_do_not_count(self, seed, left, right):
        h_s, h_t, mask = states(seed)
        torch.testing.assert_close(
            cosine_loss(left * h_s, right * h_t, mask), cosine_loss(h_s, h_t, mask), **F64
        )

    @given(SEEDS)
    @pytest.mark.proves("invariances", "a rotation of both")
    def test_one_rotation_of_both_does_not_count(self, seed):
        h_s, h_t, mask = states(seed)
        turn = torch.linalg.qr(torch.randn(6, 6, generator=seeded(seed), dtype=torch.float64)).Q
        torch.testing.assert_close(
            cosine_loss(h_s @ turn, h_t @ turn, mask), cosine_loss(h_s, h_t, mask), **F64
        )

    @given(SEEDS)
    def test_bounds(self, seed):
        h_s, h_t, mask = states(seed)
        assert 0 <= cosine_loss(h_s, h_t, mask) <= 2
        assert cosine_loss(h_s, h_s, mask).abs() < 1e-12
        assert (cosine_loss(h_s, -h_s, mask) - 2).abs() < 1e-12

    @pytest.mark.parametrize("zero", ["student", "teacher", "both"])
    def test_a_zero_state_has_cosine_zero(self, zero):
        h_s, h_t, mask = states()
        h_s = h_s * (zero == "teacher")
        h_t = h_t * (zero == "student")
        h_s.requires_grad_()
        value = cosine_loss(h_s, h_t, mask)
        value.backward()
        assert value == 1
        assert h_s.grad.isfinite().all()


class TestThreeTerms:
    @pytest.mark.proves("against", "torch's losses, written out", distilbert_loss)
    def test_library_form(self):
        z, v, h_s, h_t, targets, masked, mask = everything()
        kl = nn.functional.kl_div(
            (z / 2)[mask].log_softmax(-1), (v / 2)[mask].softmax(-1), reduction="batchmean"
        )
        ignored = targets.masked_fill(~masked, -100)
        mlm = nn.functional.cross_entropy(z.flatten(0, 1), ignored.flatten())
        expected = 5 * 4 * kl + 2 * mlm + cosine_loss(h_s, h_t, mask)
        torch.testing.assert_close(distilbert_loss(*everything()), expected, **F64)

    def test_the_weights_are_linear(self):
        parts = [
            distilbert_loss(*everything(), alpha_ce=a, alpha_mlm=b, alpha_cos=c)
            for a, b, c in torch.eye(3).tolist()
        ]
        third = {"alpha_ce": 0.33, "alpha_mlm": 0.33, "alpha_cos": 0.33}
        torch.testing.assert_close(
            distilbert_loss(*everything(), **third), 0.33 * sum(parts), **F64
        )

    @pytest.mark.proves("gradients", "the student learns, the teacher does not", distilbert_loss)
    def test_student_learns_and_teacher_does_not(self):
        given = everything()
        for x in given[:4]:
            x.requires_grad_()
        distilbert_loss(*given).backward()
        for student, teacher in (given[0:2], given[2:4]):
            assert student.grad.abs().sum() > 0
            assert teacher.grad is None

    def test_swapping_changes_the_value(self):
        z, v, *rest = everything()
        gap = distilbert_loss(z, v, *rest, alpha_mlm=0) - distilbert_loss(v, z, *rest, alpha_mlm=0)
        assert gap.abs() > 1e-3

    def test_gradient_numerically(self):
        z, v, *rest = everything()
        z.requires_grad_()
        assert torch.autograd.gradcheck(lambda x: distilbert_loss(x, v, *rest), z)

    @pytest.mark.parametrize("filler", masked_loss.FILLERS)
    @pytest.mark.proves("invariances", "what stands in the padding, even NaN", distilbert_loss)
    def test_padding(self, filler):
        given = everything()
        longer = [nn.functional.pad(x, (0, 0, 0, 3), value=filler) for x in given[:4]]
        longer += [nn.functional.pad(given[4], (0, 3), value=-100)]
        longer += [nn.functional.pad(given[5], (0, 3), value=True)]
        longer += [nn.functional.pad(given[6], (0, 3), value=False)]
        slopes = []
        for arguments in (given, longer):
            arguments[0].requires_grad_()
            value = distilbert_loss(*arguments)
            slopes.append(torch.autograd.grad(value, arguments[0])[0])
        torch.testing.assert_close(value, distilbert_loss(*given), **F64)
        torch.testing.assert_close(slopes[1][:, :5], slopes[0], **F64)
        assert (slopes[1][:, 5:] == 0).all()

    def test_a_word_excluded_on_both_sides_contributes_nothing(self):
        given = everything()
        given[4] %= 6  # word 6 is never the true one
        kept = [x[..., :6] for x in given[:2]]
        expected = distilbert_loss(*kept, *given[2:])
        given[0][..., 6] = given[1][..., 6] = -math.inf
        torch.testing.assert_close(distilbert_loss(*given), expected, **F64)


class TestHardNumbers:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
    def test_large_and_small_numbers(self, dtype, scale):
        given = everything()
        given[:4] = [(scale * x.sign()).to(dtype) for x in given[:4]]
        given[0].requires_grad_()
        given[2].requires_grad_()
        value = distilbert_loss(*given)
        value.backward()
        assert value.isfinite()
        assert given[0].grad.isfinite().all()
        assert given[2].grad.isfinite().all()


class TestBadInput:
    def test_no_real_word(self):
        given = everything()
        given[6] = torch.zeros_like(given[6])
        with pytest.raises(ValueError, match=r"^mask .* \(3, 5\)"):
            distilbert_loss(*given)

    def test_no_masked_word(self):
        given = everything()
        given[5] = ~given[6]  # padding alone is masked
        with pytest.raises(ValueError, match=r"masked .* \(3, 5\)"):
            distilbert_loss(*given)

    @pytest.mark.parametrize("name", ["alpha_ce", "alpha_mlm", "alpha_cos"])
    @pytest.mark.parametrize("value", [-0.5, math.nan, math.inf])
    def test_weights(self, name, value):
        with pytest.raises(ValueError, match=rf"{name} .* {value}"):
            distilbert_loss(*everything(), **{name: value})

    @pytest.mark.parametrize("value", [0.0, -1.0, math.inf])
    def test_temperature(self, value):
        with pytest.raises(ValueError, match=rf"temperature .* {value}"):
            distilbert_loss(*everything(), temperature=value)


@pytest.mark.parametrize(
    "check",
    [
        sanh2019.is_half_of_patience,
        sanh2019.length_does_not_count,
        sanh2019.padding_changes_nothing,
        sanh2019.batchmean_means_tokens,
    ],
)
def test_the_exact_claims(check):
    evidence = check()
    assert evidence.holds, evidence.measured
