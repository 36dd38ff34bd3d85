"""The loss of chan2015 against independent forms, and its hidden Markov model."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets import chan2015
from snippets.chan2015 import frame_kd_loss, posterior
from snippets.lab.data import seeded

SEEDS = st.integers(0, 2**31)
F64 = {"rtol": 1e-12, "atol": 1e-12}


def inputs(seed=0, batch=3, length=5, states=4, scale=3.0, dtype=torch.float64):
    draw = torch.randn(2, batch, length, states, generator=seeded(seed), dtype=torch.float64)
    lengths = torch.arange(batch) % length + 1
    mask = torch.arange(length) < lengths[:, None]
    return (scale * draw[0]).to(dtype), (scale * draw[1]).to(dtype), mask


def by_hand(z, v, mask):
    """The formula in scalar arithmetic, one frame and state at a time."""
    total, frames = 0.0, 0
    for b, t in itertools.product(range(z.shape[0]), range(z.shape[1])):
        if not mask[b, t]:
            continue
        frames += 1
        e_z = [math.exp(x) for x in z[b, t].tolist()]
        e_v = [math.exp(x) for x in v[b, t].tolist()]
        for student, teacher in zip(e_z, e_v, strict=True):
            p, q = teacher / sum(e_v), student / sum(e_z)
            total += p * (math.log(p) - math.log(q))
    return total / frames


class TestAgainstIndependentForms:
    def test_scalar_loop(self):
        z, v, mask = inputs()
        assert frame_kd_loss(z, v, mask).item() == pytest.approx(by_hand(z, v, mask), rel=1e-12)

    def test_is_torchs_batchmean_over_the_real_frames(self):
        z, v, mask = inputs()
        log_q, log_p = z[mask].log_softmax(-1), v[mask].log_softmax(-1)
        theirs = nn.functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        torch.testing.assert_close(frame_kd_loss(z, v, mask), theirs, **F64)

    def test_gradient_is_the_difference_of_probabilities(self):
        z, v, mask = inputs()
        (slope,) = torch.autograd.grad(frame_kd_loss(z.requires_grad_(), v, mask), z)
        expected = (z.softmax(-1) - v.softmax(-1)) / mask.sum() * mask.unsqueeze(-1)
        torch.testing.assert_close(slope, expected.detach(), **F64)

    def test_gradient_is_that_of_soft_cross_entropy(self):
        z, v, mask = inputs()
        z.requires_grad_()
        (ours,) = torch.autograd.grad(frame_kd_loss(z, v, mask), z)
        soft = nn.functional.cross_entropy(z[mask], v[mask].softmax(-1))
        (theirs,) = torch.autograd.grad(soft, z)
        torch.testing.assert_close(ours, theirs, **F64)


class TestWhoLearns:
    def test_student_learns_and_teacher_does_not(self):
        z, v, mask = inputs()
        z.requires_grad_()
        v.requires_grad_()
        frame_kd_loss(z, v, mask).backward()
        assert (z.grad[mask].abs().sum(-1) > 0).all()
        assert v.grad is None

    def test_swapping_roles_changes_the_value(self):
        z, v, mask = inputs()
        assert abs(frame_kd_loss(z, v, mask) - frame_kd_loss(v, z, mask)) > 1e-3

    def test_gradient_numerically(self):
        z, v, mask = inputs()
        assert torch.autograd.gradcheck(lambda x: frame_kd_loss(x, v, mask), z.requires_grad_())


class TestMask:
    @given(SEEDS, st.integers(1, 6), st.sampled_from([0.0, 1e4, math.inf, -math.inf, math.nan]))
    def test_padding_changes_nothing_whatever_stands_there(self, seed, more, filling):
        z, v, mask = inputs(seed)
        loss = frame_kd_loss(z, v, mask)
        z, v = (nn.functional.pad(x, (0, 0, 0, more), value=filling) for x in (z, v))
        longer = nn.functional.pad(mask, (0, more), value=False)
        z.requires_grad_()
        padded = frame_kd_loss(z, v, longer)
        padded.backward()
        torch.testing.assert_close(padded, loss, **F64)
        assert not z.grad[~longer].any()

    def test_every_real_frame_counts_the_same(self):
        z, v, mask = inputs()
        each = [
            frame_kd_loss(z[b, t][None, None], v[b, t][None, None], mask[:1, :1])
            for b, t in mask.nonzero().tolist()
        ]
        torch.testing.assert_close(frame_kd_loss(z, v, mask), torch.stack(each).mean(), **F64)

    def test_a_mask_with_holes(self):
        z, v, _ = inputs()
        mask = torch.tensor([[True, False, True, False, True]] * 3)
        holed = frame_kd_loss(z, v, mask)
        torch.testing.assert_close(holed, frame_kd_loss(z[:, ::2], v[:, ::2], mask[:, ::2]), **F64)


class TestInvariances:
    @given(SEEDS)
    def test_zero_only_where_they_agree(self, seed):
        z, v, mask = inputs(seed)
        assert frame_kd_loss(v + 7, v, mask).abs() < 1e-10
        assert frame_kd_loss(z, v, mask) > 0

    @given(SEEDS, st.floats(-50, 50))
    def test_shift_of_a_frames_logits(self, seed, shift):
        z, v, mask = inputs(seed)
        shifts = shift * torch.arange(15, dtype=torch.float64).view(3, 5, 1) / 15
        loss = frame_kd_loss(z, v, mask)
        for moved in ((z + shifts, v), (z, v + shifts)):
            torch.testing.assert_close(frame_kd_loss(*moved, mask), loss, rtol=1e-9, atol=1e-11)

    @given(SEEDS, st.permutations(range(3)), st.permutations(range(5)), st.permutations(range(4)))
    def test_order_of_recordings_frames_and_states(self, seed, rows, frames, states):
        z, v, mask = inputs(seed)
        shuffled = [x[rows][:, frames][..., states] for x in (z, v)]
        loss = frame_kd_loss(*shuffled, mask[rows][:, frames])
        torch.testing.assert_close(loss, frame_kd_loss(z, v, mask), **F64)


class TestHardNumbers:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
    def test_extreme_logits_stay_finite(self, dtype, scale):
        z, v, mask = inputs()
        z, v = ((scale * torch.sign(x)).to(dtype) for x in (z, v))
        loss = frame_kd_loss(z.requires_grad_(), v, mask)
        loss.backward()
        assert loss.isfinite()
        assert z.grad.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, dtype):
        z, v, mask = inputs(dtype=dtype)
        loss = frame_kd_loss(z, v, mask)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, frame_kd_loss(z.float(), v.float(), mask))

    def test_state_excluded_on_both_sides_contributes_nothing(self):
        z, v, mask = inputs()
        kept = [0, 1, 3]
        expected = frame_kd_loss(z[..., kept], v[..., kept], mask)
        z[..., 2] = v[..., 2] = -torch.inf
        z.requires_grad_()
        loss = frame_kd_loss(z, v, mask)
        loss.backward()
        torch.testing.assert_close(loss, expected, **F64)
        assert z.grad.isfinite().all()

    def test_state_that_the_student_alone_excludes_is_infinite(self):
        z, v, mask = inputs()
        z[0, 0, 1] = -torch.inf
        assert frame_kd_loss(z, v, mask) == torch.inf


class TestBadInput:
    def test_mask_without_a_real_frame(self):
        z, v, mask = inputs()
        with pytest.raises(ValueError, match=r"mask must have .* got shape \(3, 5\)"):
            frame_kd_loss(z, v, torch.zeros_like(mask))

    def test_empty_batch(self):
        with pytest.raises(ValueError, match="student_logits"):
            frame_kd_loss(*torch.zeros(2, 0, 5, 4), torch.zeros(0, 5, dtype=torch.bool))

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("student_logits", torch.zeros(3, 5, 4).long()),
            ("student_logits", torch.zeros(15, 4)),
            ("teacher_logits", torch.zeros(1, 5, 4)),
            ("teacher_logits", torch.zeros(3, 5, 1)),
            ("teacher_logits", torch.zeros(3, 1, 4)),
            ("mask", torch.ones(3, 5)),
            ("mask", torch.ones(1, 5, dtype=torch.bool)),
            ("mask", torch.ones(3, 5, 1, dtype=torch.bool)),
        ],
    )
    def test_wrong_tensor(self, argument, value):
        good = dict(zip(("student_logits", "teacher_logits", "mask"), inputs(), strict=True))
        with pytest.raises(TypeError, match=argument):
            frame_kd_loss(**{**good, argument: value})


class TestHiddenMarkovModel:
    def test_forward_backward_against_enumeration(self):
        sequence = torch.tensor([[0, 2, 1, 1]])
        joint = torch.zeros(4, 3, dtype=torch.float64)
        for path in itertools.product(range(3), repeat=4):
            p = 1 / 3
            for before, after in itertools.pairwise(path):
                p *= chan2015.TRANSITION[before, after].item()
            for state, symbol in zip(path, sequence[0], strict=True):
                p *= chan2015.EMISSION[state, symbol].item()
            for t, state in enumerate(path):
                joint[t, state] += p
        p, chance = posterior(sequence)
        torch.testing.assert_close(chance[0], joint[0].sum(), **F64)
        torch.testing.assert_close(p[0], joint / joint.sum(-1, keepdim=True), **F64)

    def test_chances_of_all_sequences_sum_to_one(self):
        assert chan2015.CHANCE.sum().item() == pytest.approx(1, rel=1e-12)

    def test_the_window_of_everything_is_the_teacher(self):
        torch.testing.assert_close(chan2015.window_posterior(8), chan2015.TEACHER, **F64)
        assert abs(chan2015.floor(8)) < 1e-12

    def test_two_independent_forms_of_the_window_posterior(self):
        evidence = chan2015.same_optimum()
        assert evidence.holds, evidence.measured

    def test_the_loss_splits_into_floor_and_distance(self):
        evidence = chan2015.loss_has_a_floor()
        assert evidence.holds, evidence.measured
