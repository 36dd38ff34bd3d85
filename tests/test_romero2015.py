"""The loss of romero2015 against independent forms, and at its borders."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets import romero2015
from snippets.lab.data import seeded
from snippets.lab.models import mlp
from snippets.romero2015 import Regressor, SideBySide, hint_loss

SEEDS = st.integers(0, 2**31)
SHAPES = [(5, 7), (3, 4, 2, 6), (2, 3, 1, 1), (4, 1), (6,)]
VARIANTS = ["paper", "code"]
F64 = {"rtol": 1e-12, "atol": 1e-12}


def features(*shape, seed=0, dtype=torch.float64):
    draw = torch.randn(2, *(shape or (4, 3, 5, 2)), generator=seeded(seed), dtype=torch.float64)
    return draw[0].to(dtype), draw[1].to(dtype)


def rotation(size, seed):
    square = torch.randn(size, size, generator=seeded(seed), dtype=torch.float64)
    return torch.linalg.qr(square).Q


def regressor(*sizes, **options):
    """A regressor in float64."""
    return Regressor(*sizes, **options).double()


def numbers(nested):
    """All numbers of a nested list, in order."""
    return [nested] if isinstance(nested, float) else [x for part in nested for x in numbers(part)]


def by_hand(r, u, variant):
    """The formula in scalar arithmetic, one sample and element at a time."""
    total = 0.0
    for sample, hint in zip(r.tolist(), u.tolist(), strict=True):
        squares = [(b - a) ** 2 for a, b in zip(numbers(sample), numbers(hint), strict=True)]
        total += sum(squares) / (2 if variant == "paper" else len(squares))
    return total / len(r)


@pytest.mark.parametrize("shape", SHAPES)
class TestAgainstIndependentForms:
    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.proves("against", "a scalar loop")
    def test_scalar_loop(self, shape, variant):
        r, u = features(*shape)
        expected = by_hand(r, u, variant)
        assert hint_loss(r, u, variant=variant).item() == pytest.approx(expected, rel=1e-12)

    @pytest.mark.proves("against", "torch's mse_loss")
    def test_code_is_torchs_mean_squared_error(self, shape):
        r, u = features(*shape)
        theirs = nn.functional.mse_loss(r, u)
        torch.testing.assert_close(hint_loss(r, u, variant="code"), theirs, **F64)

    @pytest.mark.proves("against", "torch's cdist")
    def test_paper_is_half_a_squared_distance(self, shape):
        r, u = features(*shape)
        apart = torch.linalg.vector_norm((u - r).reshape(len(r), -1), dim=-1)
        torch.testing.assert_close(hint_loss(r, u), apart.square().mean() / 2, **F64)

    def test_factor_between_the_variants(self, shape):
        r, u = features(*shape)
        each = r[0].numel()
        code = hint_loss(r, u, variant="code")
        torch.testing.assert_close(code, hint_loss(r, u) * 2 / each, **F64)


@pytest.mark.parametrize("variant", VARIANTS)
class TestWhoLearns:
    @pytest.mark.proves("gradients", "the student learns, the teacher does not")
    def test_student_learns_and_teacher_does_not(self, variant):
        r, u = (x.requires_grad_() for x in features())
        hint_loss(r, u, variant=variant).backward()
        assert r.grad.abs().sum() > 0
        assert u.grad is None

    @pytest.mark.proves("invariances", "student and teacher exchanged")
    def test_the_value_is_symmetric_and_the_learner_is_not(self, variant):
        r, u = (x.requires_grad_() for x in features())
        swapped = hint_loss(u, r, variant=variant)
        assert swapped == hint_loss(r, u, variant=variant)
        swapped.backward()
        assert r.grad is None
        assert u.grad.abs().sum() > 0

    def test_gradient_numerically(self, variant):
        r, u = features()
        r.requires_grad_()
        assert torch.autograd.gradcheck(lambda x: hint_loss(x, u, variant=variant), r)


def test_gradient_is_the_difference_per_sample():
    r, u = features()
    r.requires_grad_()
    hint_loss(r, u).backward()
    torch.testing.assert_close(r.grad, ((r - u) / len(r)).detach(), **F64)


@pytest.mark.parametrize("variant", VARIANTS)
class TestInvariances:
    @given(SEEDS)
    @pytest.mark.proves("invariances", "a rotation of both")
    def test_common_rotation_of_the_features(self, variant, seed):
        r, u = features(6, 9, seed=seed)
        turn = rotation(9, seed)
        turned = hint_loss(r @ turn, u @ turn, variant=variant)
        torch.testing.assert_close(turned, hint_loss(r, u, variant=variant), **F64)

    @given(SEEDS, st.floats(-50, 50))
    @pytest.mark.proves("invariances", "a shift of both")
    def test_common_shift(self, variant, seed, shift):
        r, u = features(seed=seed)
        shifts = shift * torch.arange(3, dtype=torch.float64)[:, None, None]
        moved = hint_loss(r + shifts, u + shifts, variant=variant)
        torch.testing.assert_close(moved, hint_loss(r, u, variant=variant), rtol=1e-9, atol=0)

    @given(SEEDS, st.floats(1e-4, 1e4))
    def test_quadratic_in_the_scale(self, variant, seed, scale):
        r, u = features(seed=seed)
        scaled = hint_loss(scale * r, scale * u, variant=variant)
        expected = scale**2 * hint_loss(r, u, variant=variant)
        torch.testing.assert_close(scaled, expected, rtol=1e-12, atol=0)

    @given(SEEDS, st.permutations(range(4)), st.permutations(range(3)))
    @pytest.mark.proves("invariances", "the order of the samples and channels")
    def test_order_of_samples_and_channels(self, variant, seed, samples, channels):
        r, u = features(seed=seed)
        shuffled = [x[samples][:, channels] for x in (r, u)]
        loss = hint_loss(r, u, variant=variant)
        torch.testing.assert_close(hint_loss(*shuffled, variant=variant), loss, **F64)

    @given(SEEDS, st.integers(2, 4))
    @pytest.mark.proves("invariances", "a batch repeated")
    def test_duplicated_batch(self, variant, seed, times):
        r, u = features(seed=seed)
        more = hint_loss(r.repeat(times, 1, 1, 1), u.repeat(times, 1, 1, 1), variant=variant)
        torch.testing.assert_close(more, hint_loss(r, u, variant=variant), **F64)

    @given(SEEDS)
    def test_zero_only_where_they_agree(self, variant, seed):
        r, u = features(seed=seed)
        assert hint_loss(u, u, variant=variant) == 0
        assert hint_loss(r, u, variant=variant) > 0


@pytest.mark.parametrize("variant", VARIANTS)
class TestHardNumbers:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
    def test_loss_and_gradient_stay_finite(self, variant, dtype, scale):
        r, u = ((scale * x.sign()).to(dtype) for x in features())
        r.requires_grad_()
        loss = hint_loss(r, u, variant=variant)
        loss.backward()
        assert loss.isfinite()
        assert r.grad.isfinite().all()
        assert (loss > 0) == (scale > 0)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, variant, dtype):
        r, u = features(dtype=dtype)
        loss = hint_loss(r, u, variant=variant)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, hint_loss(r.float(), u.float(), variant=variant))

    def test_strided_tensors(self, variant):
        r, u = features()
        loss = hint_loss(r, u, variant=variant)
        strided = [x.mT.contiguous().mT for x in (r, u)]
        last = [x.contiguous(memory_format=torch.channels_last) for x in (r, u)]
        assert not strided[0].is_contiguous()
        for pair in (strided, last, (last[0], u)):
            torch.testing.assert_close(hint_loss(*pair, variant=variant), loss, **F64)

    @pytest.mark.proves("transforms", "torch.func.grad")
    def test_works_under_grad_and_vmap(self, variant):
        r, u = features()

        def loss(r, u):
            return hint_loss(r, u, variant=variant)

        assert torch.func.grad(loss)(r, u).isfinite().all()
        each = torch.func.vmap(loss)(r[:, None], u[:, None])
        torch.testing.assert_close(each.mean(), loss(r, u), **F64)


class TestBadInput:
    @pytest.mark.parametrize(
        ("r", "u", "argument"),
        [
            (torch.zeros(()), torch.zeros(()), "student_features"),
            (torch.zeros(8, 5), torch.zeros(1, 5), "teacher_features"),
            (torch.zeros(8, 5), torch.zeros(8, 1), "teacher_features"),
            (torch.zeros(8, 5), torch.zeros(8, 5, 1), "teacher_features"),
            (torch.zeros(8, 5).long(), torch.zeros(8, 5), "student_features"),
            (torch.zeros(8, 5), torch.zeros(8, 5).int(), "teacher_features"),
            (torch.zeros(8, 5), [[0.0] * 5] * 8, "teacher_features"),
        ],
    )
    def test_wrong_tensor(self, r, u, argument):
        with pytest.raises(TypeError, match=argument):
            hint_loss(r, u)

    @pytest.mark.parametrize("shape", [(0, 5), (4, 0)])
    def test_empty_batch(self, shape):
        with pytest.raises(ValueError, match=rf"student_features .* got shape \({shape[0]}, "):
            hint_loss(torch.zeros(shape), torch.zeros(shape))

    def test_variant(self):
        with pytest.raises(TypeError, match="variant"):
            hint_loss(*features(), variant="mean")
        with pytest.raises(TypeError):
            hint_loss(*features(), "code")


class TestRegressor:
    def test_the_papers_kernel_makes_the_sizes_meet(self):
        for student, teacher in ((8, 8), (8, 6), (5, 1)):
            r = regressor(3, 7, kernel_size=student - teacher + 1)
            out = r(torch.zeros(2, 3, student, student).double())
            assert out.shape == (2, 7, teacher, teacher)

    def test_its_size_is_what_the_paper_counts(self):
        weight, bias = Regressor(3, 7, kernel_size=4).parameters()
        assert weight.numel() == 4 * 4 * 3 * 7
        assert bias.numel() == 7

    def test_at_one_pixel_it_is_a_linear_layer(self):
        r = regressor(5, 9)
        v, _ = features(6, 5)
        weight, bias = r.convolution.weight[:, :, 0, 0], r.convolution.bias
        out = r(v[..., None, None]).flatten(1)
        torch.testing.assert_close(out, v @ weight.mT + bias, **F64)

    def test_gradient_numerically(self):
        r = regressor(2, 3, kernel_size=2)
        v, _ = features(2, 2, 3, 4)
        u, _ = features(2, 3, 2, 3, seed=1)
        weight, bias = (p.detach().requires_grad_() for p in r.parameters())

        def loss(v, weight, bias):
            parameters = {"convolution.weight": weight, "convolution.bias": bias}
            return hint_loss(torch.func.functional_call(r, parameters, v), u)

        assert torch.autograd.gradcheck(loss, (v.requires_grad_(), weight, bias))

    def test_it_learns_together_with_the_student(self):
        r = regressor(2, 3)
        v, _ = features(4, 2, 5, 5)
        u, _ = features(4, 3, 5, 5)
        v.requires_grad_()
        hint_loss(r(v), u).backward()
        assert v.grad.abs().sum() > 0
        assert all(p.grad.abs().sum() > 0 for p in r.parameters())

    @pytest.mark.parametrize("name", ["student_channels", "teacher_channels", "kernel_size"])
    def test_sizes_below_one(self, name):
        sizes = {"student_channels": 3, "teacher_channels": 4, "kernel_size": 1, name: 0}
        kernel = sizes.pop("kernel_size")
        with pytest.raises(ValueError, match=f"{name} must be at least 1 .* got 0"):
            Regressor(**sizes, kernel_size=kernel)

    def test_maps_that_do_not_fit(self):
        r = Regressor(3, 4, kernel_size=3)
        with pytest.raises(ValueError, match="student_features must have 3 channels, got 4"):
            r(torch.zeros(2, 4, 5, 5))
        with pytest.raises(ValueError, match=r"student_features .* 3×3, got 2×5"):
            r(torch.zeros(2, 3, 2, 5))

    @pytest.mark.parametrize("maps", [torch.zeros(2, 3), torch.zeros(2, 3, 5, 5).long()])
    def test_wrong_tensor(self, maps):
        with pytest.raises(TypeError, match="student_features"):
            Regressor(3, 4)(maps)


def test_side_by_side_is_one_by_one():
    networks = [
        mlp(6, 5, 4, 3, generator=seeded(k), activation=lambda: nn.LeakyReLU(0.1)) for k in (0, 1)
    ]
    x, _ = features(7, 6)
    together = SideBySide(networks)
    for depth, stop in ((None, None), (1, 3), (2, 5)):
        alone = torch.stack([network[:stop](x) for network in networks])
        torch.testing.assert_close(together(x, depth), alone, **F64)


def test_a_frozen_student_stays_what_it_was():
    outcome = romero2015.train_by_hint(frozen=True, strong=True, seed=0)
    assert outcome.after == outcome.before
    assert outcome.r2 > 0.4


def test_a_larger_rate_may_free_a_student_without_a_hint():
    rate = 4 * romero2015.RATE
    scores = romero2015.two_stages("none", (0,), starts=("paper",), rate=rate)
    assert scores[1].item() > 0.5
