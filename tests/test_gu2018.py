"""The losses of gu2018 against independent forms, and at their borders."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets import gu2018
from snippets.gu2018 import nat_loss, reverse_cross_entropy
from snippets.kim2016 import sequence_kd_loss, word_kd_loss
from snippets.lab.data import seeded

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-12, "atol": 1e-12}
LENGTHS = torch.tensor([4, 1, 3])


def logits(seed=0, scale=2.0, dtype=torch.float64):
    draw = torch.randn(2, 3, 4, 5, generator=seeded(seed), dtype=torch.float64)
    return (scale * draw[0]).to(dtype), (scale * draw[1]).to(dtype)


def tokens(seed=0):
    return torch.randint(5, (3, 4), generator=seeded(seed))


def mask():
    return torch.arange(4) < LENGTHS[:, None]


def hard(z, v):
    """`nat_loss` in the form of the other, for shared tests."""
    return nat_loss(z, v.argmax(-1), mask())


def soft(z, v):
    return reverse_cross_entropy(z, v, mask())


class TestAgainstIndependentForms:
    def test_scalar_loop(self):
        z, v = logits()
        total, count = 0.0, 0
        for b, length in enumerate(LENGTHS.tolist()):
            for t in range(length):
                e_z = [math.exp(x) for x in z[b, t].tolist()]
                e_v = [math.exp(x) for x in v[b, t].tolist()]
                for student, teacher in zip(e_z, e_v, strict=True):
                    total -= student / sum(e_z) * math.log(teacher / sum(e_v))
                count += 1
        assert soft(z, v).item() == pytest.approx(total / count, rel=1e-12)

    def test_is_the_word_level_loss_with_the_roles_swapped(self):
        z, v = logits()
        torch.testing.assert_close(soft(z, v), word_kd_loss(v, z, mask()), **F64)

    def test_is_the_reverse_kl_plus_the_students_entropy(self):
        z, v = (torch.distributions.Categorical(logits=x[mask()]) for x in logits())
        parts = torch.distributions.kl_divergence(z, v) + z.entropy()
        torch.testing.assert_close(soft(*logits()), parts.mean(), **F64)

    def test_least_at_the_teachers_likeliest_word(self):
        z, v = logits()
        corner = 1e4 * nn.functional.one_hot(v.argmax(-1), 5).double()
        least = -v[mask()].log_softmax(-1).amax(-1).mean()
        torch.testing.assert_close(soft(corner, v), least, **F64)
        assert soft(z, v) > least
        assert soft(v, v) > least

    def test_is_torchs_cross_entropy_with_ignored_padding(self):
        z, _ = logits()
        y = torch.where(mask(), tokens(), -100)
        theirs = nn.functional.cross_entropy(z.flatten(0, 1), y.flatten())
        torch.testing.assert_close(nat_loss(z, y, mask()), theirs, **F64)

    def test_on_the_teachers_output_is_sequence_level_distillation(self):
        z, _ = logits()
        theirs = sequence_kd_loss(z, tokens(), mask())
        torch.testing.assert_close(nat_loss(z, tokens(), mask()), theirs, **F64)

    def test_order_of_the_sentence_is_free(self):
        z, _ = logits()
        order = torch.tensor([2, 0, 3, 1])
        moved = nat_loss(z[:, order], tokens()[:, order], mask()[:, order])
        torch.testing.assert_close(moved, nat_loss(z, tokens(), mask()), **F64)


class TestWhoLearns:
    def test_student_learns_and_teacher_does_not(self):
        z, v = (x.requires_grad_() for x in logits())
        soft(z, v).backward()
        assert z.grad.abs().sum() > 0
        assert v.grad is None

    def test_student_learns_from_tokens(self):
        z = logits()[0].requires_grad_()
        nat_loss(z, tokens(), mask()).backward()
        assert z.grad.abs().sum() > 0

    def test_swapping_roles_changes_the_value(self):
        z, v = logits()
        assert abs(soft(z, v) - soft(v, z)) > 1e-3

    @pytest.mark.parametrize("loss", [soft, hard])
    def test_gradient_numerically(self, loss):
        z, v = logits()
        assert torch.autograd.gradcheck(lambda x: loss(x, v), z.requires_grad_())


class TestInvariances:
    @given(SEEDS, st.integers(1, 3))
    @pytest.mark.parametrize("filler", [0.0, 1e4, -torch.inf, torch.nan])
    def test_padding_never_counts(self, filler, seed, more):
        z, v = logits(seed)
        padding = torch.full((3, more, 5), filler, dtype=torch.float64)
        wide = [torch.cat([x, padding], 1).requires_grad_() for x in (z, v)]
        m = nn.functional.pad(mask(), (0, more))
        y = nn.functional.pad(tokens(seed), (0, more), value=-1)
        judged, said = reverse_cross_entropy(*wide, m), nat_loss(wide[0], y, m)
        torch.testing.assert_close(judged, soft(z, v), **F64)
        torch.testing.assert_close(said, nat_loss(z, tokens(seed), mask()), **F64)
        (judged + said).backward()
        assert wide[0].grad.isfinite().all()
        assert (wide[0].grad[~m] == 0).all()

    @given(SEEDS, st.floats(-50, 50))
    @pytest.mark.parametrize("loss", [soft, hard])
    def test_shift_of_a_tokens_logits(self, loss, seed, shift):
        z, v = logits(seed)
        shifts = shift * torch.arange(4, dtype=torch.float64)[:, None]
        for moved in ((z + shifts, v), (z, v + shifts)):
            torch.testing.assert_close(loss(*moved), loss(z, v), rtol=1e-9, atol=1e-9)

    @given(SEEDS, st.permutations(range(5)))
    @pytest.mark.parametrize("loss", [soft, hard])
    def test_order_of_the_vocabulary(self, loss, seed, order):
        z, v = logits(seed)
        torch.testing.assert_close(loss(z[..., order], v[..., order]), loss(z, v), **F64)


class TestHardNumbers:
    @pytest.mark.parametrize("loss", [soft, hard])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
    def test_extreme_logits_stay_finite(self, loss, dtype, scale):
        z, v = (scale * torch.sign(x) for x in logits())
        z, v = z.to(dtype).requires_grad_(), v.to(dtype)
        value = loss(z, v)
        value.backward()
        assert value.isfinite()
        assert z.grad.isfinite().all()

    @pytest.mark.parametrize("loss", [soft, hard])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, loss, dtype):
        z, v = logits(dtype=dtype)
        assert loss(z, v).dtype == torch.float32
        torch.testing.assert_close(loss(z, v), loss(z.float(), v.float()))

    @pytest.mark.parametrize("loss", [soft, hard])
    def test_word_masked_on_both_sides_contributes_nothing(self, loss):
        z, v = logits()
        z[..., 2] = v[..., 2] = -torch.inf
        z.requires_grad_()
        kept = [0, 1, 3, 4]
        value = loss(z, v)
        value.backward()
        torch.testing.assert_close(value, loss(z.detach()[..., kept], v[..., kept]), **F64)
        assert z.grad.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    @pytest.mark.parametrize("student", [0.0, -1e4])
    def test_word_that_the_teacher_alone_excludes_is_infinite(self, student, dtype):
        z, v = logits(dtype=dtype)
        z[0, 0, 1], v[0, 0, 1] = student, -torch.inf
        z.requires_grad_()
        value = soft(z, v)
        value.backward()
        assert value == torch.inf
        assert not z.grad.isnan().any()

    def test_word_that_the_student_alone_excludes_is_finite(self):
        z, v = logits()
        z[..., 1] = -torch.inf
        assert soft(z, v).isfinite()

    def test_target_that_the_student_excludes_is_infinite(self):
        z, _ = logits()
        z[0, 0, tokens()[0, 0]] = -torch.inf
        assert nat_loss(z, tokens(), mask()) == torch.inf

    @pytest.mark.parametrize("loss", [soft, hard])
    def test_works_under_grad(self, loss):
        z, v = logits()
        assert torch.func.grad(loss)(z, v).isfinite().all()


class TestBadInput:
    @pytest.mark.parametrize(
        ("z", "v", "m", "argument"),
        [
            (torch.zeros(3, 5), torch.zeros(3, 5), torch.ones(3).bool(), "student_logits"),
            (torch.zeros(3, 4, 5), torch.zeros(1, 4, 5), mask(), "teacher_logits"),
            (torch.zeros(3, 4, 5), torch.zeros(3, 4, 1), mask(), "teacher_logits"),
            (torch.zeros(3, 4, 5).long(), torch.zeros(3, 4, 5), mask(), "student_logits"),
            (torch.zeros(3, 4, 5), torch.zeros(3, 4, 5), mask().long(), "mask"),
            (torch.zeros(3, 4, 5), torch.zeros(3, 4, 5), mask()[:1], "mask"),
        ],
    )
    def test_wrong_tensor(self, z, v, m, argument):
        with pytest.raises(TypeError, match=argument):
            reverse_cross_entropy(z, v, m)

    @pytest.mark.parametrize(
        ("z", "y", "argument"),
        [
            (torch.zeros(3, 4), tokens(), "logits"),
            (torch.zeros(3, 4, 5).long(), tokens(), "logits"),
            (torch.zeros(3, 4, 5), tokens()[:1], "targets"),
            (torch.zeros(3, 4, 5), tokens().double(), "targets"),
        ],
    )
    def test_wrong_tokens(self, z, y, argument):
        with pytest.raises(TypeError, match=argument):
            nat_loss(z, y, mask())

    @pytest.mark.parametrize("token", [-1, 5])
    def test_token_outside_the_vocabulary(self, token):
        y = tokens()
        y[0, 0] = token
        with pytest.raises(ValueError, match=rf"targets must be in 0 … 4, got.*{token}"):
            nat_loss(torch.zeros(3, 4, 5), y, mask())

    def test_mask_without_a_token(self):
        z, v = logits()
        nothing = torch.zeros(3, 4, dtype=torch.bool)
        with pytest.raises(ValueError, match=r"mask .* \(3, 4\)"):
            reverse_cross_entropy(z, v, nothing)
        with pytest.raises(ValueError, match=r"mask .* \(3, 4\)"):
            nat_loss(z, tokens(), nothing)

    def test_empty_batch(self):
        z, m = torch.zeros(0, 4, 5), torch.zeros(0, 4, dtype=torch.bool)
        with pytest.raises(ValueError, match="student_logits"):
            reverse_cross_entropy(z, z, m)
        with pytest.raises(ValueError, match="logits"):
            nat_loss(z, m.long(), m)


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
