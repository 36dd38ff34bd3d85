"""The losses of zagoruyko2017 against independent forms, and at their borders."""

import functools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, mse_loss, normalize

from snippets import zagoruyko2017
from snippets.lab.data import seeded
from snippets.lab.models import mlp
from snippets.zagoruyko2017 import (
    attention_map,
    attention_transfer_loss,
    gradient_attention_loss,
    input_gradient,
)

SEEDS = st.integers(0, 2**31)
POWERS = st.sampled_from([1, 1.5, 2, 3, 4])
VARIANTS = ["paper", "code"]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
F64 = {"rtol": 1e-11, "atol": 1e-13}


def features(seed=0, batch=4, channels=(3, 5), size=(4, 6), dtype=torch.float64):
    draw = torch.randn(batch, sum(channels), *size, generator=seeded(seed), dtype=torch.float64)
    return draw[:, : channels[0]].to(dtype), draw[:, channels[0] :].to(dtype)


def gradients(seed=0, dtype=torch.float64):
    return torch.randn(2, 4, 1, 4, 6, generator=seeded(seed), dtype=torch.float64).to(dtype)


def norm(numbers):
    return math.sqrt(sum(x * x for x in numbers))


def by_hand(s, t, p):
    """Eq. 2 in scalar arithmetic: the distance of each sample's maps."""
    distances = []
    for sample_s, sample_t in zip(s, t, strict=True):
        maps = []
        for sample in (sample_s, sample_t):
            channels = sample.flatten(1).tolist()
            pixels = [sum(abs(a) ** p for a in pixel) for pixel in zip(*channels, strict=True)]
            maps.append([q / norm(pixels) for q in pixels])
        distances.append(norm(a - b for a, b in zip(*maps, strict=True)))
    return distances


class TestAgainstIndependentForms:
    @pytest.mark.parametrize("p", [1, 1.5, 2, 3, 4])
    def test_scalar_loop(self, p):
        s, t = features()
        distances = by_hand(s, t, p)
        paper = attention_transfer_loss(s, t, p=p).item()
        code = attention_transfer_loss(s, t, p=p, variant="code").item()
        assert paper == pytest.approx(sum(distances) / 4, rel=1e-12)
        assert code == pytest.approx(sum(d * d for d in distances) / 4 / 24, rel=1e-12)

    def test_torchs_normalize_and_mse(self):
        s, t = features()
        maps = [normalize(x.square().mean(1).flatten(1)) for x in (s, t)]
        loss = attention_transfer_loss(s, t, variant="code")
        torch.testing.assert_close(loss, mse_loss(*maps), **F64)

    def test_a_pixel_by_hand(self):
        a = torch.tensor([[[[3.0]], [[-2.0]]]])
        assert attention_map(a).item() == 13
        assert attention_map(a, p=1).item() == 5
        assert attention_map(a, p=3).item() == 35

    def test_gradients_by_hand(self):
        j_s, j_t = gradients()
        expected = sum(norm((a - b).flatten().tolist()) for a, b in zip(j_s, j_t, strict=True)) / 4
        assert gradient_attention_loss(j_s, j_t).item() == pytest.approx(expected, rel=1e-12)

    def test_farthest_maps(self):
        corners = torch.zeros(2, 1, 1, 4, 4)
        corners[0, ..., 0] = corners[1, ..., 1] = 1
        assert attention_transfer_loss(*corners).item() == pytest.approx(math.sqrt(2))


class TestWhoLearns:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_student_learns_and_teacher_does_not(self, variant):
        s, t = (x.clone().requires_grad_() for x in features())
        attention_transfer_loss(s, t, variant=variant).backward()
        assert s.grad.abs().sum() > 0
        assert t.grad is None

    def test_student_gradient_learns_and_teachers_does_not(self):
        j_s, j_t = (x.clone().requires_grad_() for x in gradients())
        gradient_attention_loss(j_s, j_t).backward()
        assert j_s.grad.abs().sum() > 0
        assert j_t.grad is None

    def test_both_are_symmetric_by_definition(self):
        s, t = features()
        torch.testing.assert_close(
            attention_transfer_loss(s, t), attention_transfer_loss(t, s), **F64
        )
        j_s, j_t = gradients()
        torch.testing.assert_close(
            gradient_attention_loss(j_s, j_t), gradient_attention_loss(j_t, j_s), **F64
        )

    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("p", [1.5, 2, 3])
    def test_gradient_numerically(self, variant, p):
        s, t = features(batch=2, size=(2, 3))
        s = s.clone().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda x: attention_transfer_loss(x, t, p=p, variant=variant), s
        )

    def test_first_and_second_derivative_of_the_gradient_loss(self):
        j_s, j_t = gradients()
        j_s = j_s[:2].clone().requires_grad_()
        loss = functools.partial(gradient_attention_loss, teacher_gradient=j_t[:2])
        assert torch.autograd.gradcheck(loss, j_s)
        assert torch.autograd.gradgradcheck(loss, j_s)

    def test_double_backward_through_a_network(self):
        draw = torch.randn(3, 5, 6, generator=seeded(0), dtype=torch.float64)
        x, y = draw[0], torch.arange(5) % 3
        j_t = draw[1]

        def loss(w):
            x_in = x.clone().requires_grad_()
            logits = torch.tanh(x_in @ w[:, :6].T) @ w[:3, 6:].T
            total = cross_entropy(logits, y, reduction="sum")
            (j,) = torch.autograd.grad(total, x_in, create_graph=True)
            return gradient_attention_loss(j, j_t)

        w = torch.randn(4, 10, generator=seeded(1), dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(loss, w)

    def test_gradient_of_each_image_is_its_own(self):
        model = mlp(6, 3, generator=seeded(1))
        x, y = torch.randn(4, 6, generator=seeded(0), dtype=torch.float64), torch.arange(4) % 3
        j, ce = input_gradient(model, x, y, graph=False)
        for i in range(4):
            alone, _ = input_gradient(model, x[i : i + 1], y[i : i + 1], graph=False)
            torch.testing.assert_close(j[i : i + 1], alone, **F64)
        torch.testing.assert_close(ce, cross_entropy(model(x), y), **F64)

    def test_descending_the_loss_makes_the_maps_agree(self):
        s, t = features()
        s = s.clone().requires_grad_()
        start = attention_transfer_loss(s, t)
        for _ in range(100):
            loss = attention_transfer_loss(s, t, variant="code")
            (step,) = torch.autograd.grad(loss, s)
            s = (s - 30 * step).detach().requires_grad_()
        assert attention_transfer_loss(s, t) < start / 3


class TestInvariances:
    @given(SEEDS, POWERS, st.sampled_from(VARIANTS))
    def test_scale_and_sign_of_each_sample(self, seed, p, variant):
        s, t = features(seed)
        scales = torch.tensor([1e-4, -1e4, 1e-30, 1e30], dtype=torch.float64)[:, None, None, None]
        loss = attention_transfer_loss(s, t, p=p, variant=variant)
        for moved in ((scales * s, t), (s, scales * t)):
            torch.testing.assert_close(
                attention_transfer_loss(*moved, p=p, variant=variant), loss, **F64
            )

    @given(SEEDS, POWERS, st.permutations(range(3)), st.permutations(range(5)))
    def test_order_of_channels(self, seed, p, student, teacher):
        s, t = features(seed)
        shuffled = attention_transfer_loss(s[:, student], t[:, teacher], p=p)
        torch.testing.assert_close(shuffled, attention_transfer_loss(s, t, p=p), **F64)

    @given(SEEDS)
    def test_rotation_of_channels_at_two(self, seed):
        s, t = features(seed)
        mixing = torch.linalg.qr(t[0, :3, :3, 0]).Q
        rotated = torch.einsum("dc,bchw->bdhw", mixing, s)
        torch.testing.assert_close(
            attention_transfer_loss(rotated, t), attention_transfer_loss(s, t), **F64
        )

    @given(SEEDS, POWERS)
    def test_range_and_zero(self, seed, p):
        s, t = features(seed)
        assert 0 < attention_transfer_loss(s, t, p=p) <= math.sqrt(2)
        assert attention_transfer_loss(-3 * s, s, p=p) < 1e-12

    @given(SEEDS, st.permutations(range(24)), st.permutations(range(4)))
    def test_order_of_pixels_and_samples(self, seed, pixels, samples):
        s, t = features(seed)
        shuffled = [x[samples].flatten(2)[..., pixels].unflatten(2, (4, 6)) for x in (s, t)]
        torch.testing.assert_close(
            attention_transfer_loss(*shuffled), attention_transfer_loss(s, t), **F64
        )

    @given(SEEDS, st.floats(1e-200, 1e200))
    def test_gradient_loss_scales_and_ignores_a_common_shift(self, seed, scale):
        j_s, j_t = gradients(seed)
        loss = gradient_attention_loss(j_s, j_t)
        scaled = gradient_attention_loss(scale * j_s, scale * j_t)
        torch.testing.assert_close(scaled / scale, loss, rtol=1e-9, atol=0)
        torch.testing.assert_close(gradient_attention_loss(j_s + 1, j_t + 1), loss, **F64)

    @given(SEEDS)
    def test_mean_over_the_batch(self, seed):
        s, t = features(seed)
        for variant in VARIANTS:
            twice = attention_transfer_loss(
                s.repeat(2, 1, 1, 1), t.repeat(2, 1, 1, 1), variant=variant
            )
            torch.testing.assert_close(twice, attention_transfer_loss(s, t, variant=variant), **F64)


class TestHardNumbers:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("p", [1, 2, 4])
    def test_extreme_features_stay_finite(self, dtype, scale, variant, p):
        s, t = (scale * x.sign() for x in features())
        s, t = s.to(dtype).requires_grad_(), t.to(dtype)
        loss = attention_transfer_loss(s, t, p=p, variant=variant)
        loss.backward()
        assert loss.isfinite()
        assert s.grad.isfinite().all()

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_equal_zero_and_constant_samples(self, dtype, variant):
        s, t = features(channels=(3, 3), dtype=dtype)
        s, t = s.clone(), t.clone()
        s[0], t[1] = 0, 0
        s[2] = t[2]
        s[3] = 1
        s.requires_grad_()
        loss = attention_transfer_loss(s, t, variant=variant)
        loss.backward()
        assert loss.isfinite()
        assert s.grad.isfinite().all()
        assert (s.grad[0] == 0).all()

    @pytest.mark.parametrize("p", [2, 4])
    def test_float32_keeps_the_value_at_small_and_large_scale(self, p):
        s, t = features(dtype=torch.float32)
        loss = attention_transfer_loss(s, t, p=p)
        for scale in (1e-20, 1e-4, 1e4, 1e15):
            torch.testing.assert_close(
                attention_transfer_loss(scale * s, scale * t, p=p), loss, rtol=1e-4, atol=0
            )

    def test_two_blank_samples_cost_nothing(self):
        blank = torch.zeros(2, 3, 4, 4, requires_grad=True)
        loss = attention_transfer_loss(blank, torch.zeros(2, 5, 4, 4))
        loss.backward()
        assert loss == 0
        assert (blank.grad == 0).all()

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_gradient_loss_on_equal_and_extreme_gradients(self, dtype):
        j_s, j_t = (1e4 * gradients().sign()).to(dtype)
        j_s = torch.cat([j_t[:1], j_s[1:]]).requires_grad_()
        loss = gradient_attention_loss(j_s, j_t)
        loss.backward()
        assert loss.isfinite()
        assert j_s.grad.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, dtype):
        s, t = features(dtype=dtype)
        loss = attention_transfer_loss(s, t)
        assert loss.dtype == attention_map(s).dtype == torch.float32
        torch.testing.assert_close(loss, attention_transfer_loss(s.float(), t.float()))
        assert gradient_attention_loss(*gradients(dtype=dtype)).dtype == torch.float32

    def test_works_under_grad(self):
        s, t = features()
        assert torch.func.grad(attention_transfer_loss)(s, t).isfinite().all()


class TestBadInput:
    @pytest.mark.parametrize("p", [0.5, 0, -2, math.inf, math.nan])
    def test_power(self, p):
        with pytest.raises(ValueError, match=f"p must .* got {p}"):
            attention_transfer_loss(*features(), p=p)

    @pytest.mark.parametrize(
        ("s", "t", "argument"),
        [
            (torch.zeros(4, 3, 4, 6), torch.zeros(1, 3, 4, 6), "teacher_features"),
            (torch.zeros(4, 3, 4, 6), torch.zeros(4, 3, 6, 4), "teacher_features"),
            (torch.zeros(4, 3, 4, 6), torch.zeros(4, 3, 1, 1), "teacher_features"),
            (torch.zeros(4, 4, 6), torch.zeros(4, 4, 6), "student_features"),
            (torch.zeros(4, 3, 4, 6).long(), torch.zeros(4, 3, 4, 6), "student_features"),
        ],
    )
    def test_wrong_features(self, s, t, argument):
        with pytest.raises(TypeError, match=argument):
            attention_transfer_loss(s, t)

    @pytest.mark.parametrize("other", [(1, 1, 4, 6), (4, 1, 6, 4), (4, 24)])
    def test_wrong_gradients(self, other):
        with pytest.raises(TypeError, match="teacher_gradient"):
            gradient_attention_loss(torch.zeros(4, 1, 4, 6), torch.zeros(other))

    def test_variant(self):
        with pytest.raises(TypeError, match="variant"):
            attention_transfer_loss(*features(), variant="mean")

    @pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4)])
    def test_empty(self, shape):
        with pytest.raises(ValueError, match=r"student_features .* got shape"):
            attention_transfer_loss(torch.zeros(shape), torch.zeros(shape))

    def test_empty_gradients(self):
        with pytest.raises(ValueError, match=r"student_gradient .* got shape"):
            gradient_attention_loss(torch.zeros(0, 3), torch.zeros(0, 3))

    def test_options_are_keywords(self):
        with pytest.raises(TypeError):
            attention_transfer_loss(*features(), 2)


def test_the_noise_floor():
    evidence = zagoruyko2017.floor_stays_and_centring_hides_it()
    assert evidence.holds, evidence.measured
