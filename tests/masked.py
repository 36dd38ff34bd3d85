"""What every loss with a mask must do, as classes of tests to inherit.

A test module writes, for each of its losses,

    class TestFrames(masked.Logits):
        function = staticmethod(frame_kd_loss)

        def by_hand(self, q, p): …  # one token, in scalar arithmetic

and gets all tests below. For tensors that are no logits (B, L, V), it takes
`MaskedLoss` and sets `names`, `shape` and `axes`: scores of attention are
`shape, axes = (3, 2, 5, 5), (2, 3)`. It writes `inputs` if they are no Gaussians.
"""

import math

import pytest
import torch
from torch import nn

from snippets.lab.data import seeded

F64 = {"rtol": 1e-11, "atol": 1e-12}
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
FILLERS = [0.0, 7.0, 1e4, math.inf, -math.inf, math.nan]
# One full sample, one with padding after it, one with a hole.
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 1, 0]]).bool()

seeds = pytest.mark.parametrize("seed", range(3))


class MaskedLoss:
    """A loss of student, teacher (both `shape`) and mask (3, 5)."""

    function = None  # staticmethod(…) of the loss
    names = "student_logits", "teacher_logits", "mask"
    shape = 3, 5, 6  # of student and teacher
    axes = (1,)  # those of length 5 that the mask is about
    symmetric = False
    scales = 0.0, 1e-4, 1.0, 1e4  # none, where numbers cannot be scaled

    def inputs(self, seed=0, dtype=torch.float64):
        draw = torch.randn(2, *self.shape, generator=seeded(seed), dtype=torch.float64)
        student, teacher = (2 * draw).to(dtype)
        return student, teacher

    def arguments(self):
        """What the function takes, to be spoilt."""
        return [*self.inputs(), MASK.clone()]

    def loss(self, student, teacher, mask=MASK):
        return type(self).function(student, teacher, mask)

    def padding(self, tensor, mask=MASK):
        """True where an entry belongs to padding."""
        found = torch.zeros(tensor.shape, dtype=torch.bool)
        for axis in self.axes:
            sizes = [mask.shape[i] if i < 1 else 1 for i in range(tensor.ndim)]
            sizes[axis] = mask.shape[1]
            found |= ~mask.view(sizes)
        return found

    def lengthened(self, tensor, value, extra=3):
        for axis in self.axes:
            sizes = list(tensor.shape)
            sizes[axis] = extra
            tensor = torch.cat([tensor, torch.full(sizes, value, dtype=tensor.dtype)], axis)
        return tensor

    # Who learns

    @pytest.mark.proves("gradients", "the student learns, the teacher does not")
    def test_student_learns_and_teacher_does_not(self):
        student, teacher = (x.requires_grad_() for x in self.inputs())
        self.loss(student, teacher).backward()
        assert student.grad.abs().sum() > 0
        assert teacher.grad is None

    @pytest.mark.proves(
        "invariances", lambda c: "student and teacher exchanged" if c.symmetric else None
    )
    def test_roles(self):
        student, teacher = self.inputs()
        gap = (self.loss(student, teacher) - self.loss(teacher, student)).abs()
        assert gap < 1e-12 if self.symmetric else gap > 1e-4

    def test_gradient_numerically(self):
        student, teacher = self.inputs()
        assert torch.autograd.gradcheck(lambda x: self.loss(x, teacher), student.requires_grad_())

    @pytest.mark.proves("transforms", "torch.func.grad")
    def test_works_under_functional_grad(self):
        assert torch.func.grad(self.loss)(*self.inputs()).isfinite().all()

    # Only real tokens count

    @pytest.mark.parametrize("filler", FILLERS)
    @pytest.mark.proves("invariances", "what stands in the padding, even NaN")
    def test_what_stands_in_the_padding(self, filler):
        student, teacher = self.inputs()
        filled = [x.masked_fill(self.padding(x), filler) for x in (student, teacher)]
        self._same_value_and_gradient((student, teacher, MASK), (*filled, MASK))

    @pytest.mark.parametrize("filler", FILLERS)
    @pytest.mark.proves("invariances", "more padding")
    def test_appended_padding(self, filler):
        student, teacher = self.inputs()
        longer = [self.lengthened(x, filler) for x in (student, teacher)]
        mask = nn.functional.pad(MASK, (0, 3))
        self._same_value_and_gradient((student, teacher, MASK), (*longer, mask))

    @pytest.mark.proves("inputs", "samples without a real token")
    def test_a_sample_without_a_real_token_is_left_out(self):
        mask, kept = MASK.clone(), [0, 2]
        mask[1] = False
        short = [x[kept] for x in self.inputs()]
        torch.testing.assert_close(
            self.loss(*self.inputs(), mask), self.loss(*short, mask[kept]), **F64
        )

    @seeds
    @pytest.mark.proves("invariances", "the order of the samples and tokens")
    def test_order_of_samples_and_tokens(self, seed):
        samples, tokens = (torch.randperm(n, generator=seeded(seed)) for n in (3, 5))
        moved = [x[samples] for x in self.inputs(seed)]
        for axis in self.axes:
            moved = [x.index_select(axis, tokens) for x in moved]
        torch.testing.assert_close(
            self.loss(*moved, MASK[samples][:, tokens]), self.loss(*self.inputs(seed)), **F64
        )

    def _same_value_and_gradient(self, before, after):
        values, slopes = [], []
        for student, teacher, mask in (before, after):
            value = self.loss(student.requires_grad_(), teacher, mask)
            (slope,) = torch.autograd.grad(value, student)
            hidden = self.padding(student, mask)
            assert (slope[hidden] == 0).all()
            values.append(value)
            slopes.append(slope[~hidden])
        torch.testing.assert_close(values[1], values[0], **F64)
        torch.testing.assert_close(slopes[1], slopes[0], **F64)

    # Hard numbers

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_large_small_zero_and_constant_numbers(self, dtype):
        signs, teacher = (x.sign().to(dtype) for x in self.inputs())
        for scale in self.scales:
            for numbers in (signs, torch.ones_like(signs), teacher):
                student = (scale * numbers).requires_grad_()
                value = self.loss(student, scale * teacher)
                value.backward()
                assert value.isfinite(), scale
                assert student.grad.isfinite().all(), scale

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, dtype):
        student, teacher = self.inputs(dtype=dtype)
        value = self.loss(student, teacher)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, self.loss(student.float(), teacher.float()))

    # Bad input

    @pytest.mark.parametrize("argument", range(3))
    def test_wrong_rank_size_or_type(self, argument):
        # Where two sizes differ, the later argument is the one named.
        named = "|".join(self.names[argument:])
        for spoil in (
            lambda x: x[0],
            lambda x: x[:1],
            lambda x: x[:, :1],
            lambda x: x[..., None],
            lambda x: x.double() if x.dtype == torch.long else x.long(),
        ):
            arguments = self.arguments()
            arguments[argument] = spoil(arguments[argument])
            with pytest.raises(TypeError, match=named):
                type(self).function(*arguments)

    def test_no_real_token(self):
        *tensors, mask = self.arguments()
        with pytest.raises(ValueError, match=r"mask must have .* got shape \(3, 5\)"):
            type(self).function(*tensors, mask & False)

    def test_empty_batch(self):
        with pytest.raises(ValueError, match=self.names[0]):
            type(self).function(*(x[:0] for x in self.arguments()))


class Logits(MaskedLoss):
    """A loss of logits (3, 5, 6): a sum over words, a mean over tokens."""

    def by_hand(self, q, p):
        """The loss of one token, from lists of probabilities."""
        raise NotImplementedError

    @seeds
    @pytest.mark.proves("against", "a scalar loop")
    def test_scalar_loop(self, seed):
        each = []
        for z, v in zip(*(x[MASK].tolist() for x in self.inputs(seed)), strict=True):
            e_z, e_v = ([math.exp(x) for x in row] for row in (z, v))
            q, p = ([x / sum(row) for x in row] for row in (e_z, e_v))
            each.append(self.by_hand(q, p))
        expected = math.fsum(each) / len(each)
        assert self.loss(*self.inputs(seed)).item() == pytest.approx(expected, rel=1e-12)

    @seeds
    @pytest.mark.proves("invariances", "a number added to all logits of a token")
    def test_a_tokens_logits_may_be_shifted(self, seed):
        z, v = self.inputs(seed)
        shifts = 50 * torch.randn(3, 5, 1, generator=seeded(seed), dtype=torch.float64)
        for moved in ((z + shifts, v), (z, v + shifts)):
            torch.testing.assert_close(self.loss(*moved), self.loss(z, v), rtol=1e-9, atol=1e-9)

    @seeds
    @pytest.mark.proves("invariances", "the order of the vocabulary")
    def test_order_of_the_vocabulary(self, seed):
        order = torch.randperm(6, generator=seeded(seed))
        z, v = self.inputs(seed)
        torch.testing.assert_close(self.loss(z[..., order], v[..., order]), self.loss(z, v), **F64)

    def test_a_word_excluded_on_both_sides_contributes_nothing(self):
        z, v = self.inputs()
        z[..., 2] = v[..., 2] = -torch.inf
        kept = [0, 1, 3, 4, 5]
        expected = self.loss(z[..., kept], v[..., kept])
        value = self.loss(z.requires_grad_(), v)
        value.backward()
        torch.testing.assert_close(value, expected, **F64)
        assert z.grad.isfinite().all()


class Tokens(Logits):
    """The likelihood of tokens (3, 5), which here are the teacher's best."""

    names = "student_logits", "teacher_tokens", "mask"

    def arguments(self):
        z, v = self.inputs()
        return [z, v.argmax(-1), MASK.clone()]

    def loss(self, student, teacher, mask=MASK):
        return type(self).function(student, teacher.argmax(-1), mask)

    def by_hand(self, q, p):
        return -math.log(q[p.index(max(p))])

    @pytest.mark.proves("against", "torch's cross_entropy")
    def test_is_torchs_cross_entropy_with_ignored_padding(self):
        z, y, mask = self.arguments()
        y = torch.where(mask, y, -100)
        theirs = nn.functional.cross_entropy(z.flatten(0, 1), y.flatten())
        torch.testing.assert_close(type(self).function(z, y, mask), theirs, **F64)

    def test_a_token_that_the_student_excludes_is_infinite(self):
        z, y, mask = self.arguments()
        z[0, 0, y[0, 0]] = -torch.inf
        assert type(self).function(z, y, mask) == torch.inf

    @pytest.mark.parametrize("token", [-1, 6])
    def test_token_outside_the_vocabulary(self, token):
        z, y, mask = self.arguments()
        y[0, 0] = token
        with pytest.raises(ValueError, match=rf"{self.names[1]} must be in 0 … 5, got.*{token}"):
            type(self).function(z, y, mask)
