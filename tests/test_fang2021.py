"""The loss of fang2021 against independent forms, and at its borders."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets.fang2021 import seed_loss
from snippets.lab.data import seeded
from snippets.lab.vectors import directions

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-11, "atol": 1e-12}


def draw(seed=0, batch=4, queue=7, width=5, dtype=torch.float64):
    """A student's and a teacher's embeddings and a queue."""
    rows = torch.randn(2 * batch + queue, width, generator=seeded(seed), dtype=torch.float64).to(
        dtype
    )
    return rows[:batch], rows[batch : 2 * batch], rows[2 * batch :]


def by_hand(student, teacher, queue, tau_s, tau_t):
    """The loss in scalar arithmetic."""

    def cosine(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / (math.hypot(*a) * math.hypot(*b))

    def softmax(row):
        weights = [math.exp(x) for x in row]
        return [w / sum(weights) for w in weights]

    total = 0.0
    d = queue.tolist()
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p = softmax([cosine(t, other) / tau_t for other in (t, *d)])
        q = softmax([cosine(s, other) / tau_s for other in (t, *d)])
        total -= sum(x * math.log(y) for x, y in zip(p, q, strict=True))
    return total / len(student)


def authors(student, teacher, queue, tau_s, tau_t):
    """The forward pass of the authors' `SEED`; its queue is (d, K)."""
    s, t = (nn.functional.normalize(x, dim=1) for x in (student, teacher))
    keys = nn.functional.normalize(queue, dim=1).T
    stu, tea = (torch.einsum("nc,ck->nk", x, keys) for x in (s, t))
    stu = torch.cat([torch.einsum("nc,nc->n", s, t)[:, None], stu], 1) / tau_s
    tea = torch.cat([torch.einsum("nc,nc->n", t, t)[:, None], tea], 1) / tau_t
    return -(tea.softmax(1) * stu.log_softmax(1)).sum(1).mean()


class TestAgainstIndependentForms:
    @pytest.mark.parametrize(("tau_s", "tau_t"), [(0.2, 0.01), (0.2, 0.2), (0.07, 0.5)])
    @pytest.mark.proves("against", "a scalar loop, and the authors' form")
    def test_scalar_loop_and_authors_code(self, tau_s, tau_t):
        given = draw()
        ours = seed_loss(*given, student_temperature=tau_s, teacher_temperature=tau_t)
        assert ours.item() == pytest.approx(by_hand(*given, tau_s, tau_t), rel=1e-11)
        torch.testing.assert_close(ours, authors(*given, tau_s, tau_t), **F64)

    def test_defaults_are_the_papers(self):
        assert seed_loss(*draw()).item() == pytest.approx(by_hand(*draw(), 0.2, 0.01), rel=1e-11)

    @pytest.mark.proves("against", "InfoNCE, as the teacher's temperature falls")
    def test_a_cold_teacher_gives_infonce(self):
        s, t, queue = draw()
        cosines = nn.functional.cosine_similarity(
            s[:, None], torch.cat([t[:, None], queue.expand(4, -1, -1)], 1), dim=-1
        )
        expected = nn.functional.cross_entropy(cosines / 0.2, torch.zeros(4).long())
        torch.testing.assert_close(seed_loss(s, t, queue, teacher_temperature=1e-4), expected)

    def test_a_duplicate_in_the_queue_shares_the_mass(self):
        s, t, queue = draw(batch=1)
        twice = seed_loss(s, t, torch.cat([t, queue]), teacher_temperature=1e-4)
        once = seed_loss(s, t, queue, teacher_temperature=1e-4)
        assert twice > once
        # log(Z + e) − c instead of log Z − c, with c the self-logit.
        c = (nn.functional.cosine_similarity(s, t) / 0.2).item()
        z = math.exp(once.item() + c)
        assert twice.item() == pytest.approx(math.log(z + math.exp(c)) - c, rel=1e-9)


class TestWhoLearns:
    @pytest.mark.proves("gradients", "the student learns, the teacher does not")
    def test_only_the_student_learns(self):
        s, t, queue = (x.clone().requires_grad_() for x in draw())
        seed_loss(s, t, queue, teacher_temperature=0.2).backward()
        assert s.grad.abs().sum() > 0
        assert t.grad is None
        assert queue.grad is None

    def test_swapping_changes_the_value(self):
        s, t, queue = draw()
        assert (seed_loss(s, t, queue) - seed_loss(t, s, queue)).abs() > 1e-3

    def test_gradient_numerically(self):
        s, t, queue = draw()
        assert torch.autograd.gradcheck(
            lambda x: seed_loss(x, t, queue, teacher_temperature=0.2), s.clone().requires_grad_()
        )

    @given(seed=SEEDS)
    def test_a_copy_is_the_minimum_at_equal_temperatures(self, seed):
        s, t, queue = draw(seed)
        copied = t.clone().requires_grad_()
        least = seed_loss(copied, t, queue, teacher_temperature=0.2)
        assert torch.autograd.grad(least, copied)[0].abs().max() < 1e-9
        assert least <= seed_loss(s, t, queue, teacher_temperature=0.2) + 1e-12


class TestInvariances:
    @given(seed=SEEDS, order=st.permutations(range(7)), power=st.floats(-4, 4))
    @pytest.mark.proves(
        "invariances", "scales, the order of the samples and queue, a common rotation"
    )
    def test_scale_order_and_a_common_rotation(self, seed, order, power):
        s, t, queue = draw(seed)
        base = seed_loss(s, t, queue)
        turn = torch.linalg.qr(draw(seed + 1)[2][:5]).Q
        for moved in (
            (s * 10**power, t, queue),
            (s, t / 10**power, queue * 10**power),
            (s, t, queue[order]),
            (s @ turn, t @ turn, queue @ turn),
        ):
            torch.testing.assert_close(seed_loss(*moved), base, rtol=1e-8, atol=1e-9)

    @pytest.mark.parametrize("scale", [1e-30, 1e-4, 1e4, 1e30])
    def test_no_absolute_epsilon(self, scale):
        rows = draw(dtype=torch.float32)
        value = seed_loss(*(scale * x for x in rows))
        torch.testing.assert_close(value, seed_loss(*rows), rtol=1e-4, atol=1e-5)


class TestHardNumbers:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
    @pytest.mark.parametrize("cold", [1e-4, 0.01])
    def test_finite_value_and_gradient(self, dtype, scale, cold):
        s, t, queue = ((scale * torch.sign(x)).to(dtype) for x in draw())
        s.requires_grad_()
        value = seed_loss(s, t, queue, teacher_temperature=cold)
        value.backward()
        assert value.isfinite()
        assert s.grad.isfinite().all()

    def test_zero_rows_are_at_rest_and_others_are_not(self):
        s, t, queue = draw()
        s = torch.cat([torch.zeros(1, 5), s[1:]]).double().requires_grad_()
        value = seed_loss(s, t, queue)
        value.backward()
        assert value.isfinite()
        assert (s.grad[0] == 0).all()
        assert (s.grad[1:] != 0).any(-1).all()
        zero = torch.zeros(4, 5, dtype=torch.float64)
        assert seed_loss(zero, t, queue).item() == pytest.approx(math.log(8))
        assert seed_loss(s, zero, 0 * queue).isfinite()

    def test_duplicated_and_constant_rows(self):
        rows = torch.full((4, 5), 7.0).requires_grad_()
        value = seed_loss(rows, rows, rows)
        value.backward()
        assert value.item() == pytest.approx(math.log(5))
        assert rows.grad.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, dtype):
        rows = draw(dtype=dtype)
        value = seed_loss(*rows)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, seed_loss(*(x.float() for x in rows)))

    def test_a_teacher_of_another_type(self):
        s, t, queue = draw()
        value = seed_loss(s.float(), t, queue)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), seed_loss(s, t, queue), rtol=1e-5, atol=0)

    def test_rows_get_length_one(self):
        assert directions(draw()[0]).norm(dim=-1).tolist() == pytest.approx([1.0] * 4)


class TestBadInput:
    @pytest.mark.parametrize("name", ["student_temperature", "teacher_temperature"])
    @pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
    def test_temperature(self, name, value):
        with pytest.raises(ValueError, match=f"{name} .* got {value}"):
            seed_loss(*draw(), **{name: value})

    def test_empty(self):
        s, t, queue = draw()
        with pytest.raises(ValueError, match=r"student .* got shape \(0, 5\)"):
            seed_loss(s[:0], t[:0], queue)
        with pytest.raises(ValueError, match=r"queue .* got shape \(0, 5\)"):
            seed_loss(s, t, queue[:0])

    @pytest.mark.parametrize(
        ("index", "wrong", "argument"),
        [
            (0, torch.zeros(5), "student"),
            (0, torch.zeros(4, 5).long(), "student"),
            (1, torch.zeros(1, 5), "teacher"),
            (1, torch.zeros(4, 6), "teacher"),
            (2, torch.zeros(5, 7), "queue"),
            (2, [[0.0] * 5], "queue"),
        ],
    )
    def test_wrong_tensor(self, index, wrong, argument):
        rows = list(draw(dtype=torch.float32))
        rows[index] = wrong
        with pytest.raises(TypeError, match=argument):
            seed_loss(*rows)
