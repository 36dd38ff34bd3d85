"""What every loss of features must do, as a class of tests to inherit.

A test module writes, for each of its losses,

    class TestHints(losses.FeatureLoss):
        function = staticmethod(hint_loss)
        names = "student_features", "teacher_features"
        shapes = (4, 3, 2, 5), (4, 3, 2, 5)
        options = {"variant": "paper"}, {"variant": "code"}

and gets all tests below, each for all `options`. What differs between losses
is an attribute; what only one loss does stays in its own module.
"""

import pytest
import torch

from snippets.lab.data import seeded

F64 = {"rtol": 1e-11, "atol": 1e-12}
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
HALVES = DTYPES[2:]

seeds = pytest.mark.parametrize("seed", range(3))


def pair(student, teacher, seed=0, dtype=torch.float64):
    """Draw two Gaussian tensors of these shapes."""
    generator = seeded(seed)
    draw = [
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in (student, teacher)
    ]
    return tuple(x.to(dtype) for x in draw)


class FeatureLoss:
    """A loss of a student's and a teacher's features, and of no mask."""

    function = None  # staticmethod(…) of the loss
    names = "student", "teacher"
    shapes = (6, 3), (6, 5)  # the batch comes first
    options = ({},)  # keyword arguments to be tested
    least = 1  # samples that it needs
    symmetric = True  # in value, by definition
    scale_free = True  # on each side
    averages = True  # a batch, repeated, costs the same

    def inputs(self, seed=0, dtype=torch.float64):
        return pair(*self.shapes, seed, dtype)

    def check(self, student, teacher, option):
        """Value and gradient must be finite; returns both."""
        student = student.clone().requires_grad_()
        value = type(self).function(student, teacher, **option)
        value.backward()
        assert value.isfinite(), option
        assert student.grad.isfinite().all(), option
        return value.detach(), student.grad

    def values(self, student, teacher):
        """The loss under each of the options."""
        return torch.stack([type(self).function(student, teacher, **o) for o in self.options])

    # Who learns

    @pytest.mark.proves("gradients", "the student learns, the teacher does not")
    def test_student_learns_and_teacher_does_not(self):
        for option in self.options:
            s, t = (x.requires_grad_() for x in self.inputs())
            type(self).function(s, t, **option).backward()
            assert s.grad.abs().sum() > 0, option
            assert t.grad is None, option

    def test_gradient_numerically(self):
        s, t = self.inputs()
        s.requires_grad_()
        for option in self.options:
            assert torch.autograd.gradcheck(
                lambda x, option=option: type(self).function(x, t, **option), s
            )

    @pytest.mark.proves(
        "invariances", lambda c: "student and teacher exchanged" if c.symmetric else None
    )
    def test_swapping_roles(self):
        s, t = self.inputs()
        same = torch.isclose(self.values(s, t), self.values(t, s), rtol=1e-11)
        assert same.all() if self.symmetric else not same.any()

    # Invariances

    @seeds
    @pytest.mark.proves("invariances", "the order of the samples")
    def test_order_of_the_samples(self, seed):
        s, t = self.inputs(seed)
        order = torch.randperm(len(s), generator=seeded(seed))
        torch.testing.assert_close(self.values(s[order], t[order]), self.values(s, t), **F64)

    @seeds
    def test_each_sample_has_its_own_teacher(self, seed):
        s, t = self.inputs(seed)
        assert (self.values(s.roll(1, 0), t) != self.values(s, t)).all()

    @seeds
    @pytest.mark.proves("invariances", lambda c: "a batch repeated" if c.averages else None)
    def test_mean_over_the_batch(self, seed):
        s, t = self.inputs(seed)
        twice = self.values(torch.cat([s, s]), torch.cat([t, t]))
        assert torch.allclose(twice, self.values(s, t), **F64) == self.averages

    @pytest.mark.parametrize("scale", [1e-150, 1e-4, 1e4, 1e150])
    @pytest.mark.proves(
        "invariances",
        lambda c: "the scale of either side, 10⁻¹⁵⁰ to 10¹⁵⁰" if c.scale_free else None,
    )
    def test_scale_of_either_side(self, scale):
        s, t = self.inputs()
        for moved in ((scale * s, t), (s, scale * t)):
            same = torch.isclose(self.values(*moved), self.values(s, t), rtol=1e-11)
            assert same.all() if self.scale_free else not same.any()

    @pytest.mark.parametrize("scale", [1e-15, 1e-4, 1e4, 1e15])
    def test_scale_costs_no_digits_in_float32(self, scale):
        s, t = self.inputs(dtype=torch.float32)
        scaled = self.values(scale * s, scale * t)
        expected = self.values((scale * s).double(), (scale * t).double())
        torch.testing.assert_close(scaled.double(), expected, rtol=1e-4, atol=0)

    # Hard numbers

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
    def test_extreme_features_stay_finite(self, dtype, scale):
        s, t = (scale * x.sign() for x in self.inputs())
        for option in self.options:
            self.check(s.to(dtype), t.to(dtype), option)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_zero_constant_and_duplicated_samples(self, dtype):
        s, t = self.inputs(dtype=dtype)
        mixed_s, mixed_t = s.clone(), t.clone()
        mixed_s[0], mixed_t[1], mixed_s[2] = 0, 0, 1
        hard = [
            (torch.zeros_like(s), t),
            (s, torch.zeros_like(t)),
            (torch.full_like(s, 7), t),
            (s[:1].expand_as(s), t[:1].expand_as(t)),
            (mixed_s, mixed_t),
            *([(s, s)] if s.shape == t.shape else []),
        ]
        for student, teacher in hard:
            for option in self.options:
                self.check(student, teacher, option)

    def test_zeros_on_both_sides_cost_nothing(self):
        s, t = (torch.zeros_like(x) for x in self.inputs())
        for option in self.options:
            value, slope = self.check(s, t, option)
            assert value == 0
            assert (slope == 0).all()

    @pytest.mark.parametrize("dtype", HALVES)
    def test_halves_are_computed_in_float32(self, dtype):
        s, t = self.inputs(dtype=dtype)
        values = self.values(s, t)
        assert values.dtype == torch.float32
        torch.testing.assert_close(values, self.values(s.float(), t.float()))

    @pytest.mark.proves("transforms", "torch.func.grad")
    def test_strided_tensors_and_function_transforms(self):
        s, t = self.inputs()
        strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in (s, t)]
        torch.testing.assert_close(self.values(*strided), self.values(s, t), **F64)
        assert torch.func.grad(type(self).function)(s, t).isfinite().all()

    # Bad input

    def test_too_few_samples(self):
        s, t = (x[: self.least - 1] for x in self.inputs())
        with pytest.raises(ValueError, match=f"{self.names[0]} .* got shape"):
            type(self).function(s, t)

    def test_empty_samples(self):
        s, t = (x[..., :0] for x in self.inputs())
        with pytest.raises(ValueError, match=f"{self.names[0]} .* got shape"):
            type(self).function(s, t)

    def test_wrong_tensors(self):
        s, t = self.inputs()
        first, second = self.names
        for student, teacher, name in (
            (s[:1], t, second),  # of two sizes that differ, the later one
            (s, t[:1], second),
            (s.long(), t, first),
            (s, t.long(), second),
            (s, t.tolist(), second),
            (s[0], t, first),
            (s, t[0], second),
        ):
            with pytest.raises(TypeError, match=name):
                type(self).function(student, teacher)

    def test_options_are_keywords_and_variants_two(self):
        with pytest.raises(TypeError):
            type(self).function(*self.inputs(), 1)
        if any("variant" in option for option in self.options):
            with pytest.raises(TypeError, match="variant"):
                type(self).function(*self.inputs(), variant="mean")
