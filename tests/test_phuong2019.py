"""The functions of phuong2019 against independent forms, and at their borders."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets import phuong2019
from snippets.lab.data import seeded
from snippets.phuong2019 import closed_form_student, distillation_loss, risk_bound

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-11, "atol": 1e-11}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def problem(seed=0, n=8, d=5, scale=1.0, dtype=torch.float64):
    """Student (d,), inputs (n, d) and teacher (d,)."""
    draw = scale * normal(n + 2, d, seed=seed)
    return draw[0].to(dtype), draw[1:-1].to(dtype), draw[-1].to(dtype)


def rotation(d, seed=0):
    return torch.linalg.qr(normal(d, d, seed=seed)).Q


def by_hand(weights, inputs, teacher):
    """The loss in scalar arithmetic, one sample at a time."""
    total = 0.0
    for row in inputs.tolist():
        z = sum(a * b for a, b in zip(row, weights.tolist(), strict=True))
        v = sum(a * b for a, b in zip(row, teacher.tolist(), strict=True))
        q, p = 1 / (1 + math.exp(-z)), 1 / (1 + math.exp(-v))
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    return total / len(inputs)


class TestLossAgainstIndependentForms:
    @pytest.mark.proves("against", "a scalar loop")
    def test_scalar_loop(self):
        expected = by_hand(*problem())
        assert distillation_loss(*problem()).item() == pytest.approx(expected, rel=1e-12)

    @pytest.mark.proves("against", "torch's binary cross-entropy less the entropy")
    def test_is_torchs_cross_entropy_minus_the_entropy(self):
        w, x, teacher = problem()
        y = (x @ teacher).sigmoid()
        cross = nn.functional.binary_cross_entropy_with_logits(x @ w, y)
        entropy = nn.functional.binary_cross_entropy(y, y)
        torch.testing.assert_close(distillation_loss(w, x, teacher), cross - entropy, **F64)

    @pytest.mark.proves("against", "torch.distributions")
    def test_distributions_library(self):
        w, x, teacher = problem()
        p, q = (torch.distributions.Bernoulli(logits=x @ u) for u in (teacher, w))
        theirs = torch.distributions.kl_divergence(p, q).mean()
        torch.testing.assert_close(distillation_loss(w, x, teacher), theirs, **F64)

    @pytest.mark.proves("against", "the gradient in closed form")
    def test_gradient_is_a_sum_of_inputs(self):
        w, x, teacher = problem()
        gradient = torch.func.grad(distillation_loss)(w, x, teacher)
        error = (x @ w).sigmoid() - (x @ teacher).sigmoid()
        torch.testing.assert_close(gradient, error @ x / len(x), **F64)

    def test_small_differences_cost_half_the_curvature(self):
        _, x, teacher = problem()
        step = 1e-4 * normal(5, seed=1)
        p = (x @ teacher).sigmoid()
        expected = (p * (1 - p) * (x @ step).square()).mean() / 2
        loss = distillation_loss(teacher + step, x, teacher)
        torch.testing.assert_close(loss, expected, rtol=1e-3, atol=0)


class TestWhoLearns:
    @pytest.mark.proves("gradients", "the student learns, the teacher does not")
    def test_student_learns_and_teacher_does_not(self):
        w, x, teacher = (tensor.requires_grad_() for tensor in problem())
        distillation_loss(w, x, teacher).backward()
        assert w.grad.abs().sum() > 0
        assert teacher.grad is None

    def test_swapping_roles_changes_the_value(self):
        w, x, teacher = problem()
        assert abs(distillation_loss(w, x, teacher) - distillation_loss(teacher, x, w)) > 1e-3

    def test_gradient_numerically(self):
        w, x, teacher = problem()
        w.requires_grad_()
        assert torch.autograd.gradcheck(lambda u: distillation_loss(u, x, teacher), w)

    def test_descent_from_zero_ends_at_the_projection(self):
        _, x, teacher = problem(n=3)
        w = torch.zeros(5, dtype=torch.float64)
        for _ in range(1000):
            w = w - torch.func.grad(distillation_loss)(w, x, teacher)
        torch.testing.assert_close(w, closed_form_student(x, teacher), rtol=0, atol=1e-6)


class TestLossInvariances:
    @given(SEEDS)
    def test_zero_at_the_teacher_and_positive_elsewhere(self, seed):
        w, x, teacher = problem(seed)
        assert distillation_loss(teacher, x, teacher) == 0
        assert distillation_loss(w, x, teacher) > 0

    @given(SEEDS)
    def test_zero_for_every_student_that_agrees_on_the_inputs(self, seed):
        w, x, teacher = problem(seed, n=3)
        unseen = w - closed_form_student(x, w)
        assert distillation_loss(teacher + unseen, x, teacher).abs() < 1e-11

    @given(SEEDS, st.permutations(range(8)))
    @pytest.mark.proves("invariances", "the order of the samples")
    def test_order_of_the_inputs(self, seed, order):
        w, x, teacher = problem(seed)
        loss = distillation_loss(w, x, teacher)
        torch.testing.assert_close(distillation_loss(w, x[order], teacher), loss, **F64)

    @given(SEEDS)
    @pytest.mark.proves("invariances", "a rotation of inputs and weights")
    def test_rotation_of_inputs_and_weights_together(self, seed):
        w, x, teacher = problem(seed)
        turn = rotation(5, seed + 1)
        turned = distillation_loss(w @ turn, x @ turn, teacher @ turn)
        torch.testing.assert_close(turned, distillation_loss(w, x, teacher), **F64)

    @given(SEEDS, st.lists(st.sampled_from([-1.0, 1.0]), min_size=8, max_size=8))
    def test_sign_of_an_input_swaps_the_classes_only(self, seed, signs):
        w, x, teacher = problem(seed)
        flipped = torch.tensor(signs, dtype=torch.float64)[:, None] * x
        loss = distillation_loss(w, x, teacher)
        torch.testing.assert_close(distillation_loss(w, flipped, teacher), loss, **F64)

    @given(SEEDS)
    @pytest.mark.proves("invariances", "a batch repeated")
    def test_mean_over_the_batch(self, seed):
        w, x, teacher = problem(seed)
        twice = distillation_loss(w, x.repeat(2, 1), teacher)
        torch.testing.assert_close(twice, distillation_loss(w, x, teacher), **F64)


class TestLossOfHardNumbers:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
    def test_extreme_logits_stay_finite(self, dtype, scale):
        x = torch.eye(4, dtype=dtype)  # the weights are the logits
        w = (scale * torch.tensor([1.0, 1.0, -1.0, -1.0])).to(dtype).requires_grad_()
        teacher = (scale * torch.tensor([1.0, -1.0, 1.0, -1.0])).to(dtype)
        loss = distillation_loss(w, x, teacher)
        loss.backward()
        assert loss.isfinite()
        assert loss >= 0
        assert w.grad.isfinite().all()

    def test_a_sure_student_that_is_wrong_pays_its_logit(self):
        x = torch.ones(1, 1)
        loss = distillation_loss(torch.tensor([-1e4]), x, torch.tensor([1e4]))
        assert loss.item() == pytest.approx(1e4)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, dtype):
        half = problem(dtype=dtype)
        loss = distillation_loss(*half)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, distillation_loss(*(t.float() for t in half)))

    def test_precisions_may_be_mixed(self):
        w, x, teacher = problem()
        mixed = distillation_loss(w.float(), x, teacher.half())
        torch.testing.assert_close(
            mixed.double(), distillation_loss(w, x, teacher), rtol=1e-2, atol=1e-3
        )
        assert closed_form_student(x.float(), teacher).shape == teacher.shape

    def test_strided_tensors(self):
        w, x, teacher = problem()
        strided = x.t().contiguous().t()
        torch.testing.assert_close(
            distillation_loss(w, strided, teacher), distillation_loss(w, x, teacher), **F64
        )

    def test_works_under_vmap(self):
        w, x, teacher = problem()
        each = torch.func.vmap(distillation_loss, in_dims=(None, 0, None))(w, x[:, None], teacher)
        torch.testing.assert_close(each.mean(), distillation_loss(w, x, teacher), **F64)


class TestClosedForm:
    @given(SEEDS, st.integers(1, 4))
    def test_papers_formula_for_fewer_inputs_than_dimensions(self, seed, n):
        _, x, teacher = problem(seed, n=n)
        columns = x.T  # the paper's X
        expected = columns @ torch.linalg.solve(x @ columns, x @ teacher)
        torch.testing.assert_close(closed_form_student(x, teacher), expected, rtol=1e-6, atol=1e-6)

    @given(SEEDS, st.integers(1, 4))
    def test_least_squares_of_smallest_norm(self, seed, n):
        _, x, teacher = problem(seed, n=n)
        expected = np.linalg.lstsq(x.numpy(), (x @ teacher).numpy(), rcond=None)[0]
        torch.testing.assert_close(
            closed_form_student(x, teacher), torch.from_numpy(expected), rtol=1e-6, atol=1e-6
        )

    @given(SEEDS, st.integers(5, 12))
    def test_is_the_teacher_from_n_equal_d_on(self, seed, n):
        _, x, teacher = problem(seed, n=n)
        assert torch.equal(closed_form_student(x, teacher), teacher)

    @given(SEEDS, st.integers(1, 12))
    def test_is_a_projection(self, seed, n):
        _, x, teacher = problem(seed, n=n)
        student = closed_form_student(x, teacher)
        torch.testing.assert_close(closed_form_student(x, student), student, **F64)
        torch.testing.assert_close(student @ student, student @ teacher, **F64)

    @given(SEEDS)
    def test_turns_with_inputs_and_teacher(self, seed):
        _, x, teacher = problem(seed, n=3)
        turn = rotation(5, seed + 1)
        turned = closed_form_student(x @ turn, teacher @ turn)
        torch.testing.assert_close(turned, closed_form_student(x, teacher) @ turn, **F64)

    @pytest.mark.parametrize("scale", [1e-12, 1e12])
    def test_length_and_number_of_copies_do_not_matter(self, scale):
        _, x, teacher = problem(n=3)
        copies = torch.cat([x, scale * x, x[:1] + x[1:2]])
        student = closed_form_student(x, teacher)
        torch.testing.assert_close(closed_form_student(scale * x, teacher), student, **F64)
        if scale < 1:
            torch.testing.assert_close(closed_form_student(copies, teacher), student, **F64)

    def test_inputs_of_zero_teach_nothing(self):
        _, x, teacher = problem()
        assert torch.equal(closed_form_student(0 * x, teacher), torch.zeros_like(teacher))

    def test_result_does_not_share_memory_with_the_teacher(self):
        _, x, teacher = problem()
        before = teacher.clone()
        closed_form_student(x, teacher).zero_()
        assert torch.equal(teacher, before)


def uniform(theta):
    return 1 - 2 * theta / math.pi


class TestRiskBound:
    @pytest.mark.parametrize("n", [1, 2, 5, 30, 300])
    @pytest.mark.parametrize("power", [0.5, 1, 3])
    def test_brute_force(self, n, power):
        beta = np.linspace(0, math.pi / 2, 400_001)
        expected = (uniform(beta) ** power + uniform(math.pi / 2 - beta) ** (power * n)).min()
        bound = risk_bound(lambda theta: uniform(theta) ** power, n)
        assert bound == pytest.approx(expected, rel=1e-6)

    @given(st.floats(0.1, 1.4), st.integers(1, 50))
    def test_margin(self, gamma, n):
        def p(theta):
            return max(0.0, 1 - theta / (math.pi / 2 - gamma))

        assert risk_bound(p, n) <= p(gamma) ** n + 1e-6

    @given(st.floats(0.3, 5), st.integers(1, 1000))
    def test_polynomial(self, kappa, n):
        bound = risk_bound(lambda theta: uniform(theta) ** kappa, n)
        assert bound <= (1 + math.log(n) ** kappa) / n**kappa + 1e-9

    @given(SEEDS, st.integers(1, 30))
    def test_more_inputs_never_raise_it(self, seed, n):
        angles = np.sort(np.random.default_rng(seed).uniform(0, math.pi / 2, 20))

        def p(theta):
            return 1 - np.searchsorted(angles, theta) / 20  # share of angles ≥ θ

        assert risk_bound(p, n + 1) <= risk_bound(p, n)

    @pytest.mark.parametrize(("edge", "expected"), [(0.5, 0.0), (1.0, 1.0)])
    def test_step(self, edge, expected):
        assert risk_bound(lambda theta: float(theta <= edge), 3) == expected

    def test_two_steps(self):
        # All but a tenth of the inputs at 0.2, the others at 1.2: take β between 1.2 and 1.37.
        def p(theta):
            return 1.0 if theta <= 0.2 else 0.1 * (theta <= 1.2)

        assert risk_bound(p, 2) == pytest.approx(0.1**2)

    def test_inputs_on_the_boundary_give_no_guarantee(self):
        assert risk_bound(lambda theta: 1.0, 10) == 2

    def test_calls_it_with_floats_between_zero_and_a_right_angle(self):
        seen = []
        risk_bound(lambda theta: seen.append(theta) or 0.5, 1)
        assert {type(theta) for theta in seen} == {float}
        assert 0 <= min(seen) <= max(seen) <= math.pi / 2


class TestBadInput:
    @pytest.mark.parametrize(
        ("w", "x", "teacher", "argument"),
        [
            (torch.zeros(1, 5), torch.zeros(8, 5), torch.zeros(5), "weights"),
            (torch.zeros(5), torch.zeros(5), torch.zeros(5), "inputs"),
            (torch.zeros(5), torch.zeros(8, 4), torch.zeros(5), "inputs"),
            (torch.zeros(5), torch.zeros(8, 5), torch.zeros(4), "teacher_weights"),
            (torch.zeros(5), torch.zeros(8, 5), torch.zeros(5, 1), "teacher_weights"),
            (torch.zeros(5).long(), torch.zeros(8, 5), torch.zeros(5), "weights"),
            (torch.zeros(5), torch.zeros(8, 5).int(), torch.zeros(5), "inputs"),
            (torch.zeros(5), torch.zeros(8, 5), [0.0] * 5, "teacher_weights"),
        ],
    )
    def test_wrong_tensor(self, w, x, teacher, argument):
        with pytest.raises(TypeError, match=rf"\b{argument}\b"):
            distillation_loss(w, x, teacher)

    @pytest.mark.parametrize(
        ("x", "teacher", "argument"),
        [
            (torch.zeros(5), torch.zeros(5), "inputs"),
            (torch.zeros(8, 5), torch.zeros(4), "teacher_weights"),
            (torch.zeros(8, 5).int(), torch.zeros(5), "inputs"),
        ],
    )
    def test_wrong_tensor_for_the_closed_form(self, x, teacher, argument):
        with pytest.raises(TypeError, match=rf"\b{argument}\b"):
            closed_form_student(x, teacher)

    @pytest.mark.parametrize("shape", [(0, 5), (8, 0)])
    def test_empty_batch(self, shape):
        w = torch.zeros(shape[1])
        with pytest.raises(ValueError, match=rf"inputs .*got shape \({shape[0]}, {shape[1]}\)"):
            distillation_loss(w, torch.zeros(shape), w)
        with pytest.raises(ValueError, match="inputs"):
            closed_form_student(torch.zeros(shape), w)

    @pytest.mark.parametrize("n", [0, -3])
    def test_number_of_inputs(self, n):
        with pytest.raises(ValueError, match=f"n must be at least 1 .* got {n}"):
            risk_bound(uniform, n)

    @pytest.mark.parametrize("probability", [-0.1, 1.5, math.nan])
    def test_survival_that_is_no_probability(self, probability):
        with pytest.raises(ValueError, match=f"survival .* got {probability}"):
            risk_bound(lambda theta: probability, 3)

    @pytest.mark.parametrize(
        ("survival", "n", "argument"), [(uniform, 2.5, "n"), (0.5, 2, "survival")]
    )
    def test_wrong_kind(self, survival, n, argument):
        with pytest.raises(TypeError, match=rf"\b{argument}\b"):
            risk_bound(survival, n)


class TestClaimsOfSmallerSize:
    def test_projection(self):
        evidence = phuong2019.student_becomes_projection(sizes=(3, 20), steps=1500)
        assert evidence.holds, evidence.measured

    def test_counterexample_to_the_abstract(self):
        evidence = phuong2019.expected_risk_always_falls(draws=30)
        assert evidence.holds is False, evidence.measured

    def test_counterexample_is_one_on_paper_too(self):
        # Exactly, with all inputs of a cloud at its centre: one input never errs.
        one, two, three = phuong2019.CLOUDS
        dots = phuong2019.CLOUDS @ phuong2019.CLOUDS.T
        assert (dots > -0.95).all()
        along = two - one
        v = one - (one @ along) / (along @ along) * along
        assert v @ three < -1.5
