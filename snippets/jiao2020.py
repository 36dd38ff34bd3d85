# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# Script of the note [papers/jiao2020.md](../papers/jiao2020.md).
#
# # TinyBERT: Distilling BERT for Natural Language Understanding
#
# Xiaoqi Jiao, Yichun Yin, Lifeng Shang, Xin Jiang, Xiao Chen, Linlin
# Li, Fang Wang and Qun Liu, 2020
# ([arXiv:1909.10351](https://arxiv.org/abs/1909.10351)).
#
# TinyBERT copies a transformer from the inside: the states of every
# token, and the attention scores of every head. Both are squared
# errors, so everything depends on *what is averaged*. This script
# builds the two losses with a mask, shows what padding and one wrong
# threshold do to them in public code, and asks which of the two helps.

# %%
import functools
from collections.abc import Sequence
from statistics import mean

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from snippets.hinton2015 import kd_loss
from snippets.lab.checks import (
    full_precision,
    require_samples,
    require_true,
    typed,
)
from snippets.lab.claims import Evidence, claim
from snippets.lab.data import seeded
from snippets.lab.plots import (
    BLUE,
    GREY,
    VERMILLION,
    figure,
    label,
)
from snippets.lab.report import below, clear, percent
from snippets.lab.transformer import (
    Layer,
    MapName,
    distil_layers,
    layer_map,
    needle_accuracy,
    needle_teacher,
)

# %% [markdown]
# ## The loss
#
# A *score* is a query times a key, before the softmax. A *state* is
# what a layer passes on. Both losses are the mean squared difference
# between student and teacher, over the real tokens only.


# %%
@typed
def attention_loss(
    student_scores: Float[Tensor, "batch heads tokens tokens"],
    teacher_scores: Float[Tensor, "batch heads tokens tokens"],
    mask: Bool[Tensor, "batch tokens"],
) -> Float[Tensor, ""]:
    r"""Squared error of the attention scores, before the softmax.

    $$\mathcal L_{\mathrm{attn}} = \frac1{A_h} \sum_{i=1}^{A_h}
    \mathrm{MSE}\big(A_i^S,\, A_i^T\big)$$

    The mean runs over the entries whose query and key are both real.
    What stands elsewhere, be it −10⁴, −∞ or NaN, has no influence. A
    real entry that is −∞ on both sides, as under a causal mask, counts
    as equal.

    Args:
        student_scores: The student's $A^S$, (B, A_h, L, L), queries
            before keys.
        teacher_scores: The teacher's $A^T$, as many heads, (B, A_h,
            L, L); they get no gradient.
        mask: True for real tokens, (B, L).

    Returns:
        A scalar: the squared error of a score.

    Raises:
        TypeError: shapes that differ, scores that are no floats, a
            mask that is not boolean.
        ValueError: a mask without a real token; no scores.

    Source: the paper's attention based distillation. The official code
    averages over padding too.
    """
    require_samples(student_scores=student_scores)
    require_true(mask=mask)
    A_s = full_precision(student_scores)
    A_t = full_precision(teacher_scores).detach()
    real = mask[:, :, None] & mask[:, None, :]  # (B, L, L)
    return squared_error(A_s, A_t, real[:, None].expand_as(A_s))


@typed
def hidden_loss(
    student_hidden: Float[Tensor, "batch tokens width"],
    teacher_hidden: Float[Tensor, "batch tokens width"],
    mask: Bool[Tensor, "batch tokens"],
) -> Float[Tensor, ""]:
    r"""Squared error of the states of one layer.

    $$\mathcal L_{\mathrm{hidn}} =
    \mathrm{MSE}\big(H^S R,\, H^T\big)$$

    The mean runs over real tokens and over the width. Where the student
    is narrower, pass $H^S R$, with a learned matrix $R$ (the
    paper's $W_h$).

    Args:
        student_hidden: The student's $H^S R$, (B, L, d).
        teacher_hidden: The teacher's $H^T$, (B, L, d); gets no
            gradient.
        mask: True for real tokens, (B, L).

    Returns:
        A scalar: the squared error of one number of a state.

    Raises:
        TypeError: shapes that differ, states that are no floats, a
            mask that is not boolean.
        ValueError: a mask without a real token; no numbers.

    Source: the paper's hidden states based distillation. The official
    code has no mask here.
    """
    require_samples(student_hidden=student_hidden)
    require_true(mask=mask)
    H_s = full_precision(student_hidden)
    H_t = full_precision(teacher_hidden).detach()
    return squared_error(H_s, H_t, mask[..., None].expand_as(H_s))


def squared_error(left: Tensor, right: Tensor, real: Tensor) -> Tensor:
    """Average the squared difference over the `real` entries."""
    # Chosen before the difference: −∞ − (−∞) would be NaN, and its
    # gradient too. Equal entries add nothing, whatever they are.
    apart = real & (left != right)
    gap = torch.where(apart, left, 0) - torch.where(apart, right, 0)
    return gap.square().sum() / real.sum()


# %% [markdown]
# ## Exact checks
#
# Mathematics, checked in float64 on random numbers.
#
# **Padding must not count.** Sentences of a batch are padded to one
# length, so padding says how long *another* sentence is. The official
# code averages over all entries. It sets scores of padded keys to 0 on
# both sides, which makes these entries agree: the loss shrinks as
# padding grows. Its hidden loss counts the states at padding, too.


# %%
REAL = 8


def padded(length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw scores of two models, 8 real tokens, and their mask."""
    whole = torch.randn(
        2, 16, 2, 64, 64, generator=seeded(0), dtype=torch.float64
    )
    student, teacher = whole[..., :length, :length].clone()
    mask = (torch.arange(length) < REAL).expand(16, length)
    for scores in (student, teacher):
        scores[..., REAL:] = -1e4  # as BERT does with padded keys
    return student, teacher, mask


def official(student: Tensor, teacher: Tensor, limit: float) -> Tensor:
    """Average over all entries, scores up to `limit` set to 0."""
    s, t = (torch.where(x <= limit, 0, x) for x in (student, teacher))
    return nn.functional.mse_loss(s, t)


@claim(
    "Padding makes the official attention loss shrink; with a mask it"
    " changes nothing",
    source="not in the paper: found in the official code",
)
def padding_shrinks_the_loss() -> Evidence:
    lengths = (8, 12, 16, 24, 32, 48, 64)
    ours, theirs = [], []
    for length in lengths:
        student, teacher, mask = padded(length)
        ours.append(attention_loss(student, teacher, mask).item())
        theirs.append(official(student, teacher, -1e2).item())
    fig, ax = figure(
        "The official loss shrinks as padding grows",
        alt="Attention loss of the same eight real tokens against the"
        " padded length. With a mask the line is flat at 2; in the"
        " official code it falls from 2 to a quarter at length 64.",
    )
    ax.plot(lengths, ours, "o-", color=BLUE)
    label(ax, 64, ours[-1], "with a mask", BLUE, offset=(-70, 12))
    ax.plot(lengths, theirs, "o-", color=VERMILLION)
    label(ax, 24, theirs[3], "official code", VERMILLION, offset=(8, 9))
    ax.set(xlabel="length with padding", ylabel="attention loss")
    ax.set_ylim(0, 2.4)
    change = max(abs(x - ours[0]) for x in ours)
    return Evidence(
        holds=change < 1e-12 and theirs[-1] < theirs[0] / 5,
        measured=f"from length 8 to 64 the official loss falls from"
        f" {theirs[0]:.2f} to {theirs[-1]:.2f}; ours moves by"
        f" {below(change, 1e-12)}",
        expected="about 8 times less; no change",
        figure=fig,
    )


# %% [markdown]
# **One digit in a threshold.** TextBrewer, a popular library, does the
# same with another limit: without a mask, every score up to −0.001
# becomes 0. A limit of −1,000 would only meet padding; this one meets
# *every negative score*. On scores from a standard normal distribution
# the loss should be 2, the variance of a difference. With the limit it
# tends to $1 - 1/\pi \approx 0.68$, and half of all gradients are 0.


# %%
@claim(
    "A limit of −0.001 zeroes every negative score: the loss falls to"
    " 1 − 1/π of a score's variance, and half the gradient vanishes",
    source="not in the paper: found in TextBrewer (att_mse_loss)",
)
def threshold_kills_negative_scores() -> Evidence:
    student, teacher = torch.randn(
        2, 64, 4, 32, 32, generator=seeded(1), dtype=torch.float64
    )
    student.requires_grad_()
    mask = torch.ones(64, 32, dtype=torch.bool)
    ours = attention_loss(student, teacher, mask)
    theirs = official(student, teacher, -1e-3)
    (slope,) = torch.autograd.grad(theirs, student)
    dead = (slope == 0).double().mean().item()
    scores = torch.linspace(-3, 3, 301, dtype=torch.float64)
    cut = torch.where(scores <= -1e-3, 0, 2 * (scores - 1))
    fig, ax = figure(
        "With that limit, a negative score is pulled nowhere",
        alt="Gradient of one entry against the student's score, for a"
        " teacher's score of 1: a straight line through zero at 1. With"
        " the limit of minus 0.001 it is zero for all negative scores,"
        " where the pull should be strongest.",
    )
    ax.plot(scores, 2 * (scores - 1), color=BLUE)
    ax.plot(scores, cut, color=VERMILLION, ls="--")
    label(ax, -2, -6, "without it", BLUE, offset=(14, -6))
    label(ax, -2, 0, "limit −0.001", VERMILLION, offset=(0, 10))
    ax.set(xlabel="student's score (teacher's: 1)", ylabel="gradient")
    return Evidence(
        holds=abs(theirs.item() - (1 - 1 / torch.pi)) < 0.02
        and abs(ours.item() - 2) < 0.04
        and abs(dead - 0.5) < 0.02,
        measured=f"loss {theirs.item():.2f} instead of"
        f" {ours.item():.2f}; {percent(dead)} of the gradient is 0",
        expected="0.68 instead of 2; 50 %",
        figure=fig,
    )


# %% [markdown]
# **The prediction loss, too, is a mean over everything.** The paper's
# last term is the cross-entropy of the two softmaxes. The code takes
# its mean over samples *and classes*, and leaves out $T^2$. Its
# gradient is that of Hinton's loss at $T = 1$ divided by the number of
# classes.


# %%
@claim(
    "The official prediction loss is too small by the number of"
    " classes",
    source="not in the paper: found in the official code",
)
def prediction_divides_by_classes() -> Evidence:
    ratios, worst = [], 0.0
    for classes in (2, 3):
        z, v = torch.randn(
            2, 8, classes, generator=seeded(0), dtype=torch.float64
        )
        z.requires_grad_()
        code = -(v.softmax(-1) * z.log_softmax(-1)).mean()
        (theirs,) = torch.autograd.grad(code, z)
        loss = kd_loss(z, v, temperature=1.0)
        (ours,) = torch.autograd.grad(loss, z)
        ratios.append((ours.norm() / theirs.norm()).item())
        gap = (ours - classes * theirs).abs().max().item()
        worst = max(worst, gap)
    return Evidence(
        holds=worst < 1e-12,
        measured="gradient too small by "
        + ", ".join(f"{ratio:.6g}" for ratio in ratios)
        + " for 2, 3 classes; its direction differs by"
        f" {below(worst, 1e-12)}",
        expected="too small by the number of classes; no difference",
    )


# %% [markdown]
# **What the scores hold beyond the attention.** A softmax does not see
# a constant added to a whole row of scores. The squared error does. So
# it may ask a student, whose attention is already the teacher's, to
# change its scores. (MiniLM compares the softmaxes instead.)


# %%
@claim(
    "The loss on raw scores penalises what the attention cannot show: a"
    " constant added to a row",
    source="follows from the formula (unnormalised scores)",
)
def rows_may_shift() -> Evidence:
    _, teacher, mask = padded(REAL)
    shift = torch.randn(
        16, 2, REAL, 1, generator=seeded(2), dtype=torch.float64
    )
    shifted = teacher + 3 * shift
    same = (shifted.softmax(-1) - teacher.softmax(-1)).abs().max()
    loss = attention_loss(shifted, teacher, mask)
    size = (9 * shift.square()).mean()
    return Evidence(
        holds=bool(same < 1e-12 and abs(loss / size - 1) < 1e-9),
        measured=f"attention differs by {below(same, 1e-12)}; the loss"
        f" is {loss.item():.3g}, the mean square of the shifts",
        expected="no difference; the mean square of the shifts",
    )


# %% [markdown]
# ## Attention, hidden states, or both?
#
# The common bench for layers: a teacher of six layers finds the symbol
# behind a needle; a student of three layers starts as its first three
# and learns from 512 sequences, from the teacher's logits and its
# layers. The paper's map is *uniform*, which is skip (2, 4, 6) here.
#
# The layers get a weight of 0.1, our choice: squared errors of states
# are large next to the divergence of four classes. (The paper avoids
# this by stages: layers first, logits last.)
#
# As in the script of PKD, students are compared seed by seed, and one
# is better if its mean gain exceeds two standard errors.


# %%
SEEDS = (0, 1, 2)


def attend(student: Layer, teacher: Layer, mask: Tensor) -> Tensor:
    """Apply `attention_loss` to one pair of layers."""
    return attention_loss(student.scores, teacher.scores, mask)


def resemble(student: Layer, teacher: Layer, mask: Tensor) -> Tensor:
    """Apply `hidden_loss` to one pair of layers."""
    return hidden_loss(student.hidden, teacher.hidden, mask)


def both(student: Layer, teacher: Layer, mask: Tensor) -> Tensor:
    """Add the two, with equal weight, as the paper does."""
    layers = (student, teacher, mask)
    return attend(*layers) + resemble(*layers)


LOSSES = {"hidden": resemble, "attention": attend, "both": both}


@functools.cache
def score(loss: str, name: MapName, seed: int) -> float:
    """Distil a student; its accuracy on fresh sequences, in %."""
    student = distil_layers(
        needle_teacher(),
        layer_map(name) if loss in LOSSES else {},
        LOSSES.get(loss, both),
        seed=seed,
        weight=0.1,
    )
    return 100 * needle_accuracy(student)


def better(left: Sequence[float], right: Sequence[float]) -> bool:
    """Is the left student clearly better, compared seed by seed?"""
    return clear([a - b for a, b in zip(left, right, strict=True)])


# %%
@claim(
    "Attention and hidden states together are better than either alone",
    source="the paper's ablation of the objectives (as reported)",
    expect=False,
)
def both_are_better(seeds: Sequence[int] = SEEDS) -> Evidence:
    rates = {
        loss: [score(loss, "skip", s) for s in seeds]
        for loss in ("logits only", *LOSSES)
    }
    return Evidence(
        holds=better(rates["both"], rates["hidden"])
        and better(rates["both"], rates["attention"]),
        measured="; ".join(
            f"{name} {mean(row):.1f} %" for name, row in rates.items()
        ),
        expected="average of MNLI, MRPC and CoLA: both 75.6, without"
        " hidden 72.9, without attention 71.0 (as reported)",
    )


# %% [markdown]
# This does not reproduce here. States help a little, scores hurt. We
# suspect two reasons. A head of the teacher's layer 2 need not do what
# the same head does in the student's layer 1; the squared error insists
# all the same, head by head and row by row. And our student starts with
# attention that works, which the loss first has to undo. TinyBERT
# starts from scratch, and trains far longer.
#
# If so, scores should do well where the student follows the very
# layers that it started from. That is the *first* map, the paper's
# "bottom". Let us see.


# %%
@claim(
    "The uniform map is better than the first layers and than the last",
    source="the paper's mapping functions (as reported)",
    expect=False,
)
def uniform_is_best(seeds: Sequence[int] = SEEDS) -> Evidence:
    maps: tuple[MapName, ...] = ("first", "skip", "last")
    rates = {
        loss: [[score(loss, m, s) for s in seeds] for m in maps]
        for loss in ("attention", "both")
    }
    means = {loss: [*map(mean, rows)] for loss, rows in rates.items()}
    fig, ax = figure(
        "Scores help only where the student started",
        alt="Accuracy for three layer maps. With attention alone and"
        " with both losses, following the first layers is best, some"
        " two points above the logits alone; the last layers are worst,"
        " and below them.",
    )
    for loss, colour in (("attention", VERMILLION), ("both", BLUE)):
        ax.plot(range(3), means[loss], "o-", color=colour)
        label(ax, 2, means[loss][2], loss, colour)
    alone = mean(score("logits only", "skip", s) for s in seeds)
    ax.axhline(alone, color=GREY, ls="--", lw=1)
    label(ax, 2, alone, "logits only", GREY, offset=(-50, 8))
    ax.set_xticks(range(3), ["first layers", "uniform", "last layers"])
    ax.set(ylabel="accuracy, %")
    first, uniform, last = rates["both"]
    return Evidence(
        holds=better(uniform, first) and better(uniform, last),
        measured="first, uniform, last: "
        + "; ".join(
            f"{loss} " + ", ".join(f"{x:.1f}" for x in row)
            for loss, row in means.items()
        ),
        expected="MNLI, MRPC and CoLA, dev average: bottom 71.3,"
        " uniform 75.6, top 70.9 (as reported)",
        figure=fig,
    )


# %% [markdown]
# The further the teacher's layers are from where the student starts,
# the worse. So the paper's ranking need not hold for every student:
# theirs does not start as a copy. Raw scores are picky about the map.
# States are not, as the script of PKD shows for their directions.
#
# ## What we learnt
#
# - Say what a mean runs over. With a mask, padding changes nothing;
#   without, the loss depends on the longest sentence of the batch.
# - A wrong limit of −0.001 gives no error and no warning. It switches
#   off half of the gradient, where it should be strongest.
# - Raw scores hold more than the attention: a constant in each row.
# - Here hidden states help, and attention scores only where the student
#   already resembles the layers that it follows.
