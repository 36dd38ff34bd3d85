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
from snippets.lab.fast.zagoruyko2017 import attention_transfer_loss as fast_form
from snippets.lab.models import mlp
from snippets.zagoruyko2017 import (
    attention_map,
    attention_transfer_loss,
    gradient_attention_loss,
    input_gradient,
)
from tests import losses

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-11, "atol": 1e-13}


FEATURES = (4, 3, 4, 6), (4, 5, 4, 6)
IMAGES = (4, 1, 4, 6), (4, 1, 4, 6)

features = functools.partial(losses.pair, *FEATURES)
gradients = functools.partial(losses.pair, *IMAGES)


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
    @pytest.mark.proves("against", "a scalar loop", attention_transfer_loss)
    def test_scalar_loop(self, p):
        s, t = features()
        distances = by_hand(s, t, p)
        paper = attention_transfer_loss(s, t, p=p).item()
        code = attention_transfer_loss(s, t, p=p, variant="code").item()
        assert paper == pytest.approx(sum(distances) / 4, rel=1e-12)
        assert code == pytest.approx(sum(d * d for d in distances) / 4 / 24, rel=1e-12)

    @pytest.mark.proves("against", "torch's normalize and mse_loss", attention_transfer_loss)
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

    @pytest.mark.proves("against", "numbers by hand", gradient_attention_loss)
    def test_gradients_by_hand(self):
        j_s, j_t = gradients()
        expected = sum(norm((a - b).flatten().tolist()) for a, b in zip(j_s, j_t, strict=True)) / 4
        assert gradient_attention_loss(j_s, j_t).item() == pytest.approx(expected, rel=1e-12)

    def test_farthest_maps(self):
        corners = torch.zeros(2, 1, 1, 4, 4)
        corners[0, ..., 0] = corners[1, ..., 1] = 1
        assert attention_transfer_loss(*corners).item() == pytest.approx(math.sqrt(2))


class TestAttentionTransfer(losses.FeatureLoss):
    function = staticmethod(attention_transfer_loss)
    names = "student_features", "teacher_features"
    shapes = FEATURES
    options = tuple({"p": p, "variant": v} for p in (1, 1.5, 2, 4) for v in ("paper", "code"))

    @given(SEEDS)
    @pytest.mark.proves("invariances", "the scale and sign of each sample")
    def test_scale_and_sign_of_each_sample(self, seed):
        s, t = features(seed)
        scales = torch.tensor([1e-4, -1e4, 1e-30, 1e30], dtype=torch.float64)[:, None, None, None]
        torch.testing.assert_close(self.values(scales * s, t), self.values(s, t), **F64)
        torch.testing.assert_close(self.values(s, scales * t), self.values(s, t), **F64)

    @given(SEEDS, st.permutations(range(3)), st.permutations(range(5)))
    @pytest.mark.proves("invariances", "the order of the channels")
    def test_order_of_channels(self, seed, student, teacher):
        s, t = features(seed)
        shuffled = self.values(s[:, student], t[:, teacher])
        torch.testing.assert_close(shuffled, self.values(s, t), **F64)

    @given(SEEDS, st.permutations(range(24)))
    @pytest.mark.proves("invariances", "one order of the pixels for both")
    def test_one_order_of_pixels_for_both(self, seed, pixels):
        s, t = features(seed)
        shuffled = [x.flatten(2)[..., pixels].unflatten(2, (4, 6)) for x in (s, t)]
        torch.testing.assert_close(self.values(*shuffled), self.values(s, t), **F64)

    @given(SEEDS)
    def test_range_and_zero(self, seed):
        s, t = features(seed)
        values = self.values(s, t)
        assert (values > 0).all()
        assert (values <= math.sqrt(2)).all()
        assert (self.values(-3 * s, s) < 1e-12).all()

    @given(SEEDS)
    def test_rotation_of_channels_at_two(self, seed):
        s, t = features(seed)
        mixing = torch.linalg.qr(t[0, :3, :3, 0]).Q
        rotated = torch.einsum("dc,bchw->bdhw", mixing, s)
        torch.testing.assert_close(
            attention_transfer_loss(rotated, t), attention_transfer_loss(s, t), **F64
        )

    def test_descending_the_loss_makes_the_maps_agree(self):
        s, t = features()
        s = s.clone().requires_grad_()
        start = attention_transfer_loss(s, t)
        for _ in range(100):
            loss = attention_transfer_loss(s, t, variant="code")
            (step,) = torch.autograd.grad(loss, s)
            s = (s - 30 * step).detach().requires_grad_()
        assert attention_transfer_loss(s, t) < start / 3

    def test_a_blank_student_has_no_slope(self):
        s, t = features()
        s[0] = 0
        for option in self.options:
            assert (self.check(s, t, option)[1][0] == 0).all()

    @pytest.mark.parametrize("dtype", losses.HALVES)
    def test_maps_of_halves_are_float32(self, dtype):
        assert attention_map(features(dtype=dtype)[0]).dtype == torch.float32

    @pytest.mark.parametrize("p", [0.5, 0, -2, math.inf, math.nan])
    def test_power(self, p):
        with pytest.raises(ValueError, match=f"p must .* got {p}"):
            attention_transfer_loss(*features(), p=p)

    @pytest.mark.parametrize("loss", [attention_transfer_loss, fast_form])
    def test_no_channels(self, loss):
        with pytest.raises(ValueError, match=r"teacher_features .* \(2, 0, 3, 3\)"):
            loss(torch.ones(2, 4, 3, 3), torch.ones(2, 0, 3, 3))

    @pytest.mark.parametrize("size", [(6, 4), (1, 1)])
    def test_maps_of_another_size(self, size):
        with pytest.raises(TypeError, match="teacher_features"):
            attention_transfer_loss(torch.zeros(4, 3, 4, 6), torch.zeros(4, 3, *size))


class TestGradientAttention(losses.FeatureLoss):
    function = staticmethod(gradient_attention_loss)
    names = "student_gradient", "teacher_gradient"
    shapes = IMAGES
    scale_free = False

    @pytest.mark.proves("gradients", "through a network's gradient, twice")
    def test_second_derivative_of_the_gradient_loss(self):
        j_s, j_t = gradients()
        j_s = j_s[:2].clone().requires_grad_()
        loss = functools.partial(gradient_attention_loss, teacher_gradient=j_t[:2])
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

    @given(SEEDS, st.floats(1e-200, 1e200))
    def test_scales_and_ignores_a_common_shift(self, seed, scale):
        j_s, j_t = gradients(seed)
        loss = gradient_attention_loss(j_s, j_t)
        scaled = gradient_attention_loss(scale * j_s, scale * j_t)
        torch.testing.assert_close(scaled / scale, loss, rtol=1e-9, atol=0)
        torch.testing.assert_close(gradient_attention_loss(j_s + 1, j_t + 1), loss, **F64)

    @pytest.mark.parametrize("other", [(4, 1, 6, 4), (4, 24)])
    def test_gradients_of_another_shape(self, other):
        with pytest.raises(TypeError, match="teacher_gradient"):
            gradient_attention_loss(torch.zeros(4, 1, 4, 6), torch.zeros(other))


def test_the_noise_floor():
    evidence = zagoruyko2017.floor_stays_and_centring_hides_it()
    assert evidence.holds, evidence.measured
