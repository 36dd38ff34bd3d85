# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# Script of the note [papers/agarwal2024.md](../papers/agarwal2024.md).
#
# # On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes
#
# Rishabh Agarwal and others, ICLR 2024
# ([arXiv:2306.13649](https://arxiv.org/abs/2306.13649)).
#
# A language model writes one word after another and reads what it
# wrote. Distillation on finished texts never shows it its own
# mistakes. The paper lets the student write, and the teacher judge
# each of its words. It also leaves open *how* two distributions are
# compared: a number β leads from one divergence to another. How β has
# been computed since is a history of mistakes, and we run them.

# %%
import functools
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from snippets.lab.checks import (
    full_precision,
    require_positive,
    require_samples,
    require_share,
    require_true,
    typed,
)
from snippets.lab.claims import Evidence, claim
from snippets.lab.data import seeded
from snippets.lab.divergence import kl_divergence, log_mixture
from snippets.lab.plots import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    VERMILLION,
    figure,
    label,
)
from snippets.lab.report import below, clear, percent
from snippets.lab.tokens import log_probabilities, real_mean
from snippets.lab.train import fit

# %% [markdown]
# ## The loss
#
# Mix the two distributions: $r = \beta p + (1-\beta) q$, with $p$ the
# teacher and $q$ the student. How far is each of them from the
# mixture? The loss is the average of both distances, with the same
# weights. At $\beta = 0$ and $\beta = 1$ nothing would be left of it;
# there one puts the two Kullback–Leibler divergences.


# %%
def jensen_shannon(log_q: Tensor, log_p: Tensor, beta: float) -> Tensor:
    r"""Compare two distributions over the last dimension.

    $$\mathrm{JSD}_\beta(p \,\|\, q) = \beta\, \mathrm{KL}(p \,\|\, r) +
    (1-\beta)\, \mathrm{KL}(q \,\|\, r), \qquad
    r = \beta p + (1-\beta) q$$

    Args:
        log_q: Log-probabilities of the student, (…, V).
        log_p: Log-probabilities of the teacher, (…, V).
        beta: The teacher's weight; at 0 and 1, the two KLs.

    Returns:
        The divergences in nats (…).

    Source: eq. 1 of the paper.
    """
    if beta == 0:
        return kl_divergence(log_p, log_q)  # KL(p‖q), forward
    if beta == 1:
        return kl_divergence(log_q, log_p)  # KL(q‖p), reverse
    log_r = log_mixture(log_p, log_q, beta)  # r = β p + (1−β) q
    teacher = kl_divergence(log_p, log_r)  # KL(p‖r)
    student = kl_divergence(log_q, log_r)  # KL(q‖r)
    return beta * teacher + (1 - beta) * student  # eq. 1


@typed
def generalized_jsd_loss(
    student_logits: Float[Tensor, "batch length vocabulary"],
    teacher_logits: Float[Tensor, "batch length vocabulary"],
    mask: Bool[Tensor, "batch length"],
    *,
    beta: float = 0.5,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    r"""Generalised Jensen–Shannon divergence, token by token.

    $$\frac1N \sum_{b,n} m_{bn}\, \mathrm{JSD}_\beta(p_{bn} \,\|\,
    q_{bn}), \qquad N = \sum_{b,n} m_{bn}$$

    $p = \mathrm{softmax}(v/T)$ and $q = \mathrm{softmax}(z/T)$ have
    read the same prefix. By convention $\beta = 0$ is the forward
    $\mathrm{KL}(p \| q)$ and $\beta = 1$ the reverse
    $\mathrm{KL}(q \| p)$. The formula itself tends to 0 there: near
    the ends the loss is about $\beta\,\mathrm{KL}(p \| q)$, or
    $(1-\beta)\,\mathrm{KL}(q \| p)$. So it jumps at both.

    A word that both exclude (logit −∞) contributes 0. One that a
    single side excludes is finite for $0 < \beta < 1$; at the ends it
    is infinite where that divergence is.

    Args:
        student_logits: The student's $z$, (B, L, V).
        teacher_logits: The teacher's $v$, (B, L, V); gets no
            gradient.
        mask: $m$, (B, L); True where there is a real token.
        beta: The teacher's weight in the mixture, in [0, 1]. 0.5 is
            the default of TRL, and symmetric.
        temperature: The $T$ of both softmaxes. There is no factor
            $T^2$.

    Returns:
        A scalar in nats per real token: 0 where the distributions
        agree. For $0 < \beta < 1$ at most the entropy of a coin with
        the weight $\beta$, 0.69 at a half.

    Raises:
        TypeError: shapes that differ, logits that are no floats, or a
            mask that is not boolean.
        ValueError: a beta outside [0, 1], a temperature not positive
            or not finite, an empty batch, a mask without a real token.

    Source: eq. 1 of the paper, which has no official code.
        The ends are as in TRL since v0.16. The paper averages over the
        tokens of a text and then over texts, TRL and we over all
        tokens.
    """
    require_share(beta=beta)
    require_positive(temperature=temperature)
    require_samples(student_logits=student_logits)
    require_true(mask=mask)
    z = _softened(student_logits, temperature)
    v = _softened(teacher_logits.detach(), temperature)
    log_q = log_probabilities(z, mask)  # (B, L, V)
    log_p = log_probabilities(v, mask)  # (B, L, V)
    return real_mean(jensen_shannon(log_q, log_p, beta), mask)


def _softened(logits: Tensor, temperature: float) -> Tensor:
    """Divide by the temperature, in float32 at least."""
    logits = full_precision(logits)
    # With the largest at 0, a tiny temperature gives no +inf.
    top = logits.detach().amax(-1, keepdim=True)
    return (logits - top) / temperature


# %% [markdown]
# ## Exact checks
#
# Pairs of random distributions over 50 words, in float64. The
# teacher's logits are three times as large as the student's, as a
# confident teacher's are.


# %%
WORDS = 50


def pairs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw a student's and a teacher's logits, (1, count, WORDS)."""
    draw = torch.randn(
        2, 1, count, WORDS, generator=seeded(seed), dtype=torch.float64
    )
    return draw[0].requires_grad_(), 3 * draw[1]


def logs(z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Take the log-probabilities, without gradient."""
    return z.detach().log_softmax(-1), v.log_softmax(-1)


def differ(a: Tensor, b: Tensor) -> float:
    """Find the largest difference."""
    return (a - b).abs().max().item()


def listed(values: list[float], digits: int = 3) -> str:
    """Write several numbers."""
    return ", ".join(f"{value:.{digits}f}" for value in values)


def loss_at(beta: float, z: Tensor, v: Tensor) -> Tensor:
    """Call the loss with nothing masked."""
    mask = torch.ones(z.shape[:2], dtype=torch.bool)
    return generalized_jsd_loss(z, v, mask, beta=beta)


def gradient(beta: float, z: Tensor, v: Tensor) -> Tensor:
    """Differentiate the loss with respect to the student's logits."""
    return torch.autograd.grad(loss_at(beta, z, v), z)[0]


# %% [markdown]
# **The ends are limits only after a division.** As $\beta \to 0$ the
# mixture becomes the student, so the second divergence vanishes and
# the first is multiplied by $\beta$. What tends to the forward KL is
# the loss *divided by* $\beta$; likewise at the other end.
#
# **Two other ways to attach the weights.** From v0.12 to v0.15, TRL
# mixed $\beta q + (1-\beta) p$. Then $\beta = 0$ gives the *reverse*
# KL and $\beta = 1$ the forward one, against its documentation. Later,
# users of the corrected formula proposed to swap the weights of the
# two divergences and to keep the mixture (ms-swift, pull request
# 10213). That has no jump. It is the old formula, read backwards.


# %%
def to_mixture(
    log_q: Tensor, log_p: Tensor, log_r: Tensor, beta: float
) -> Tensor:
    """Average the distances from any r, with the paper's weights."""
    teacher = kl_divergence(log_p, log_r)
    return beta * teacher + (1 - beta) * kl_divergence(log_q, log_r)


def swapped_mixture(
    log_q: Tensor, log_p: Tensor, beta: float
) -> Tensor:
    """TRL v0.12 to v0.15: the mixture has its weights swapped."""
    log_r = log_mixture(log_q, log_p, beta)
    return to_mixture(log_q, log_p, log_r, beta)


def swapped_weights(
    log_q: Tensor, log_p: Tensor, beta: float
) -> Tensor:
    """The proposed repair: the two divergences swap their weights."""
    log_r = log_mixture(log_p, log_q, beta)
    return to_mixture(log_q, log_p, log_r, 1 - beta)


@claim(
    "Divided by β, the loss tends to the forward KL at β = 0; divided"
    " by 1 − β, to the reverse KL at β = 1; the loss itself tends to 0",
    source="eq. 1, as a limit; the jump is that of the code",
)
def ends_are_limits() -> Evidence:
    z, v = pairs(100)
    log_q, log_p = logs(z, v)
    forward, reverse = (loss_at(b, z, v).item() for b in (0, 1))
    near = (0.1, 1e-2, 1e-3, 1e-8)
    low = [loss_at(b, z, v).item() / b for b in near]
    high = [loss_at(1 - b, z, v).item() / b for b in near]
    grid = torch.linspace(0.001, 0.999, 200).tolist()
    fig, ax = figure(
        "Inside, the paper's loss is small; at both ends it jumps",
        alt="The loss against beta. The paper's formula is an arch from"
        " 0 to 0, far below two dots: the forward KL at beta 0 and the"
        " reverse KL at beta 1. TRL's old formula runs from the reverse"
        " KL to the forward one; the proposed repair is its mirror"
        " image. All three meet at a half.",
    )
    for rule, text, colour, place in (
        (jensen_shannon, "paper", BLUE, 110),
        (swapped_mixture, "swapped mixture", VERMILLION, 194),
        (swapped_weights, "swapped weights", GREEN, 6),
    ):
        heights = [rule(log_q, log_p, b).mean().item() for b in grid]
        ax.plot(grid, heights, color=colour)
        side = "right" if place > 150 else "left"
        point, shift = (grid[place], heights[place]), (9, 0)
        if place > 150:
            shift = (-9, 0)
        elif rule is jensen_shannon:
            shift = (0, -11)
        label(ax, *point, text, colour, offset=shift, ha=side)
    ax.plot([0, 1], [forward, reverse], "o", color=BLUE, zorder=3)
    label(ax, 0, forward, "KL(p‖q)", BLUE, offset=(8, 5))
    label(ax, 1, reverse, "KL(q‖p)", BLUE, offset=(-8, 5), ha="right")
    ax.set(xlabel="β", ylabel="loss, nats", ylim=(0, None))
    small = loss_at(1e-8, z, v).item()
    return Evidence(
        holds=abs(low[-1] - forward) < 1e-3
        and abs(high[-1] - reverse) < 1e-3
        and small < 1e-6,
        measured=f"forward KL {forward:.3f}, loss / β {listed(low)} at"
        f" β = 0.1, 0.01, 0.001, 1e-8; reverse KL {reverse:.3f}, loss"
        f" / (1 − β) {listed(high)} as far from 1; the loss itself at"
        f" β = 1e-8 is {below(small, 1e-6)}",
        expected="the two divergences; 0",
        figure=fig,
    )


@claim(
    "With the mixture's weights swapped, β = 0 gives the reverse KL"
    " and β = 1 the forward KL; swapping the weights of the two"
    " divergences instead is the same function of 1 − β",
    source="TRL v0.12 to v0.15; ms-swift, pull request 10213",
)
def weights_swapped() -> Evidence:
    z, v = pairs(100)
    both = logs(z, v)
    forward, reverse = (loss_at(b, z, v).item() for b in (0, 1))
    first, last = (
        swapped_mixture(*both, b).mean().item()
        for b in (1e-8, 1 - 1e-8)
    )
    mirror = max(
        differ(swapped_weights(*both, b), swapped_mixture(*both, 1 - b))
        for b in (0.1, 0.3, 0.5, 0.9)
    )
    half = differ(
        swapped_mixture(*both, 0.5), jensen_shannon(*both, 0.5)
    )
    return Evidence(
        holds=abs(first - reverse) < 1e-3
        and abs(last - forward) < 1e-3
        and max(mirror, half) < 1e-12,
        measured=f"swapped mixture {first:.3f} at β = 1e-8 and"
        f" {last:.3f} at 1 − 1e-8; reverse KL {reverse:.3f}, forward"
        f" {forward:.3f}; mirror images to {below(mirror, 1e-12)};"
        f" equal to the paper's at β = 0.5 to {below(half, 1e-12)}",
        expected="reverse, then forward; equal; equal at a half",
    )


# %% [markdown]
# **β as a learning rate.** Near an end the gradient has the direction
# of that KL, and a length of β times it. Plain gradient descent with
# β = 0.01 then hardly moves. Adam divides by the length of the
# gradient and does not notice. So whether the jump is felt depends on
# the optimiser, on clipping, and on a second loss beside it.


# %%
def left_over(beta: float, *, adam: bool) -> float:
    """Train free logits; return the share of the forward KL left."""
    start, v = pairs(20, seed=1)
    z = nn.Parameter(start.detach().clone())
    before = loss_at(0, z, v).item()
    for _ in range(0 if adam else 60):
        z.data -= 30 * gradient(beta, z, v)
    if adam:
        fit(
            nn.ParameterList([z]),
            lambda _: loss_at(beta, z, v),
            1,
            generator=seeded(0),
            epochs=60,
            learning_rate=0.2,
        )
    return loss_at(0, z, v).item() / before


@claim(
    "Near 0, β sets the length of the gradient and not its direction:"
    " gradient descent stalls, Adam does not",
    source="ms-swift, issue 10078; the two optimisers are ours",
)
def beta_is_a_step_size() -> Evidence:
    z, v = pairs(100)
    end = gradient(0, z, v).flatten()
    cosines, lengths = [], []
    for beta in (0.1, 1e-2, 1e-3):
        g = gradient(beta, z, v).flatten()
        cosines.append(torch.cosine_similarity(g, end, 0).item())
        lengths.append((g.norm() / end.norm() / beta).item())
    plain = [left_over(beta, adam=False) for beta in (0, 0.01)]
    adam = [left_over(beta, adam=True) for beta in (0, 0.01)]
    return Evidence(
        holds=cosines[-1] > 0.99
        and abs(lengths[-1] - 1) < 0.05
        and plain[0] < 0.1
        and plain[1] > 0.5
        and max(adam) < 0.05,
        measured="β = 0.1, 0.01, 0.001: cosine with the forward KL's"
        f" gradient {listed(cosines)}, length over β"
        f" {listed(lengths, 2)}; of the forward KL, gradient descent"
        f" leaves {percent(plain[0], 1)} with β = 0 and"
        f" {percent(plain[1], 1)} with 0.01, Adam"
        f" {percent(adam[0], 1)} and {percent(adam[1], 1)}",
        expected="1; 1; a stall without Adam",
    )


# %% [markdown]
# **Symmetric and bounded.** Swapping the sides and replacing β by
# $1 - \beta$ changes nothing. And the loss never exceeds the entropy
# of a coin, $H(\beta) = -\beta \log \beta - (1-\beta) \log(1-\beta)$:
# it is how much one word tells of whether $p$ or $q$ was drawn from.
# The bound is reached by a student that shares no word with the
# teacher; both KLs are then infinite.


# %%
@claim(
    "The loss of β is that of 1 − β with the sides swapped, and at"
    " most the entropy of β; a student that shares no word reaches it",
    source="eq. 1",
)
def symmetric_and_bounded() -> Evidence:
    z, v = pairs(3000, seed=2)
    log_q, log_p = logs(3 * z, v)
    gap, most, reached = 0.0, 0.0, 0.0
    odd = torch.arange(WORDS) % 2 == 1
    apart = [
        x.masked_fill(m, -torch.inf) for x, m in ((z, odd), (v, ~odd))
    ]
    for beta in (0.01, 0.1, 0.3, 0.5, 0.9):
        bound = -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)
        d = jensen_shannon(log_q, log_p, beta)
        back = jensen_shannon(log_p, log_q, 1 - beta)
        gap = max(gap, differ(d, back))
        most = max(most, d.max().item() / bound)
        far = loss_at(beta, *apart).item()
        reached = max(reached, abs(far - bound))
    ends = [loss_at(b, *apart).item() for b in (0, 1)]
    return Evidence(
        holds=gap < 1e-12
        and most < 1
        and reached < 1e-9
        and ends == [torch.inf] * 2,
        measured="3000 pairs, five β: symmetric to"
        f" {below(gap, 1e-12)}, at most"
        f" {percent(most, 1)} of the bound; no word shared: the bound"
        f" to {below(reached, 1e-9)}, both KLs {ends[0]}",
        expected="equal; at most 100 %; the bound",
    )


# %% [markdown]
# **The gradient in closed form.** With respect to $\log q$ it is
# $(1-\beta)\, q \log(q/r)$, which is what Liger's kernel computes; the
# softmax then subtracts the mean. With respect to the logits,
#
# $$\frac{\partial\, \mathrm{JSD}_\beta}{\partial z_i} =
# (1-\beta)\, q_i \Big( \log \frac{q_i}{r_i} -
# \mathrm{KL}(q \,\|\, r) \Big).$$
#
# Each word's pull is multiplied by $q_i$, what the student already
# gives it. The forward KL's gradient, $q_i - p_i$, is not.


# %%
@claim(
    "The gradient with respect to the logits is"
    " (1 − β) q (log(q/r) − KL(q‖r))",
    source="follows from eq. 1; the first part is in Liger's kernel",
)
def closed_form_gradient() -> Evidence:
    z, v = pairs(100)
    q, p = z.detach().softmax(-1), v.softmax(-1)
    worst = 0.0
    for beta in (0.01, 0.1, 0.5, 0.9):
        ratio = (q / (beta * p + (1 - beta) * q)).log()  # log(q/r)
        pull = ratio - (q * ratio).sum(-1, keepdim=True)
        theirs = (1 - beta) * q * pull / 100  # a mean over 100 tokens
        worst = max(worst, differ(gradient(beta, z, v), theirs))
    return Evidence(
        holds=worst < 1e-12,
        measured=f"autograd differs by {below(worst, 1e-12)} at β ="
        " 0.01, 0.1, 0.5, 0.9",
        expected="equal",
    )


# %% [markdown]
# **Sure and wrong.** Two words. The teacher says the first with 99 %;
# the student says the second, ever more surely. The forward KL keeps
# pulling. All others let go: the student must give the right word
# some probability before it can learn it. That is one reason to start
# from a student that was trained in the ordinary way, as the paper
# does.


# %%
@claim(
    "On a student that is sure and wrong only the forward KL keeps"
    " pulling; for every β above 0 the gradient vanishes",
    source="follows from the gradient",
)
def sure_and_wrong() -> Evidence:
    v = torch.tensor([[[0.99, 0.01]]], dtype=torch.float64).log()
    grid = torch.linspace(0, 12, 49).tolist()
    fig, ax = figure(
        "Only the forward KL pulls on a student that is sure and wrong",
        alt="Length of the gradient, on a logarithmic scale, against"
        " how much the student prefers the wrong word. Forward KL stays"
        " near 1; the lines of beta 0.1, 0.5, 0.9 and of the reverse KL"
        " fall by many powers of ten.",
    )
    ends = {}
    lines = (
        (0.0, "forward KL", GREY, 0),
        (0.1, "β = 0.1", GREEN, -2),
        (0.5, "β = 0.5", BLUE, -10),
        (0.9, "β = 0.9", PURPLE, -2),
        (1.0, "reverse KL", VERMILLION, 6),
    )
    for beta, name, colour, shift in lines:
        lengths = []
        for odds in grid:
            z = torch.tensor([[[0.0, odds]]], dtype=torch.float64)
            z.requires_grad_()
            lengths.append(gradient(beta, z, v)[0, 0, 0].abs().item())
        ends[beta] = lengths[-1]
        ax.plot(grid, lengths, color=colour)
        end = (grid[-1], lengths[-1])
        label(ax, *end, name, colour, offset=(6, shift))
    ax.set(
        yscale="log",
        xlabel="log-odds of the wrong word",
        ylabel="pull on the right word's logit",
        xlim=(0, 14.5),
    )
    return Evidence(
        holds=ends[0] > 0.98 and max(ends[b] for b in ends if b) < 1e-3,
        measured="pull at log-odds 12: forward KL"
        f" {ends[0]:.2f}; β = 0.1, 0.5, 0.9"
        f" {ends[0.1]:.1e}, {ends[0.5]:.1e}, {ends[0.9]:.1e}; reverse"
        f" KL {ends[1]:.1e}",
        expected="0.99; towards 0",
        figure=fig,
    )


# %% [markdown]
# ## More mistakes of libraries, run again
#
# **Mixing logarithms.** TRL v0.11 averaged the log-probabilities. An
# average of logarithms is not the logarithm of a mixture, and its
# exponentials don't even sum to 1. What came out is
# $\beta^2\, \mathrm{KL}(p \| q) + (1-\beta)^2\, \mathrm{KL}(q \| p)$:
# no bound, and infinite as soon as one side excludes a word.


# %%
@claim(
    "Mixing logarithms gives β² KL(p‖q) + (1 − β)² KL(q‖p), which is"
    " no Jensen–Shannon divergence",
    source="TRL v0.11; corrected after issue 2202",
)
def logarithms_mixed() -> Evidence:
    z, v = pairs(100)
    log_q, log_p = logs(z, v)
    forward = kl_divergence(log_p, log_q)
    reverse = kl_divergence(log_q, log_p)
    worst = 0.0
    for beta in (0.0, 0.1, 0.5, 0.9, 1.0):
        log_r = beta * log_q + (1 - beta) * log_p
        theirs = to_mixture(log_q, log_p, log_r, beta)
        form = beta**2 * forward + (1 - beta) ** 2 * reverse
        worst = max(worst, differ(theirs, form))
    at_half = ((forward + reverse) / 4).mean().item()
    true = loss_at(0.5, z, v).item()
    return Evidence(
        holds=worst < 1e-12 and at_half > math.log(2) > true,
        measured=f"differs from that form by {below(worst, 1e-12)}; at"
        f" β = 0.5 {at_half:.2f} nats in place of {true:.2f}, above the"
        " bound of 0.69",
        expected="equal",
    )


# %% [markdown]
# **What a mean is taken over.** Given no labels, TRL divided the sum
# by the first *two* sizes of the tensor. For (B, L, V) that is a mean
# over tokens. For tokens in one row, (N, V), it divides by the
# vocabulary once more. Since v0.24 it divides by the first size only,
# which is the sum over a sentence. A fourth choice is the paper's: the
# mean of a sentence first. It changes the direction, too, since each
# token of a short text then weighs more.


# %%
@claim(
    "The same call is a mean over tokens, that divided by the"
    " vocabulary, or that times the length; the paper's mean over"
    " sentences has another direction",
    source="the paper's token-level divergence; TRL v0.11 to v0.23",
)
def means_differ() -> Evidence:
    z, v = (x.view(4, 6, WORDS) for x in pairs(24, seed=3))
    log_q, log_p = logs(z, v)
    log_r = log_mixture(log_p, log_q, 0.5)
    each = log_p.exp() * (log_p - log_r) + log_q.exp() * (log_q - log_r)
    each = each / 2  # (B, L, V), before the sum over words
    ours = loss_at(0.5, z, v)

    def over_two(x: Tensor) -> Tensor:
        return x.sum() / (x.shape[0] * x.shape[1])

    ratios = [
        (value / ours).item()
        for value in (
            over_two(each),
            over_two(each.flatten(0, 1)) * WORDS,
            each.sum() / len(each),
        )
    ]
    mask = torch.arange(6) < torch.tensor([1, 2, 5, 6])[:, None]
    by_token = generalized_jsd_loss(z, v, mask)
    by_text = [
        generalized_jsd_loss(
            z[i : i + 1], v[i : i + 1], mask[i : i + 1]
        )
        for i in range(4)
    ]
    g, h = (
        torch.autograd.grad(x, z, retain_graph=True)[0].flatten()
        for x in (by_token, torch.stack(by_text).mean())
    )
    cosine = torch.cosine_similarity(g, h, 0).item()
    wanted = zip(ratios, (1, 1, 6), strict=True)
    return Evidence(
        holds=all(abs(x - y) < 1e-9 for x, y in wanted)
        and cosine < 0.9,
        measured=f"relative to ours: (B, L, V) {ratios[0]:.3g}; (N, V)"
        f" {ratios[1]:.3g}/V; by the first size {ratios[2]:.3g}, the"
        " length; with sentences of 1, 2, 5 and 6 tokens the gradients"
        f" by token and by sentence have the cosine {cosine:.2f}",
        expected="1; 1/V; the length; below 1",
    )


# %% [markdown]
# **A negative divergence.** In ms-swift a student in float32 met a
# teacher in bfloat16, and the logged loss was below 0. Is rounding to
# 8 bits enough for that? Rounded *logits* are still the logits of some
# distribution: never. Rounded *log-probabilities* don't sum to 1, and
# both KLs may turn negative. The mixed loss still may not, because
# $x \log x$ is convex: it is negative only where probabilities and
# their logarithms are rounded apart and no longer fit each other. So
# widen first and take the softmax afterwards. Here the student is
# close to the teacher, as late in training.


# %%
def rounded(x: Tensor) -> Tensor:
    """Round to the 8 bits of bfloat16, and compute on in float64."""
    return x.bfloat16().double()


@claim(
    "In bfloat16 the loss can be negative: where probabilities and"
    " their logarithms are rounded apart, or at β = 0 and 1; with"
    " rounded logits it cannot",
    source="ms-swift, issue 10156; the three causes are ours",
)
def negative_divergence() -> Evidence:
    _, v = pairs(400, seed=4)
    noise, _ = pairs(400, seed=5)
    log_q, log_p = logs(v + 0.03 * noise, v)
    log_8 = rounded(log_p)
    p_8, q = rounded(log_8.exp()), log_q.exp()
    log_r = ((p_8 + q) / 2).log()
    apart = p_8 * (log_8 - log_r) + q * (log_q - log_r)
    tokens = {
        "apart": apart.sum(-1) / 2,
        "end": jensen_shannon(log_q, log_8, 0),
        "logs": jensen_shannon(log_q, log_8, 0.5),
        "logits": jensen_shannon(
            log_q, rounded(v).log_softmax(-1), 0.5
        ),
    }
    share = {
        k: (x < 0).double().mean().item() for k, x in tokens.items()
    }
    least, exact = (
        x.min().item()
        for x in (tokens["apart"], loss_at(0.5, log_q, v))
    )
    return Evidence(
        holds=share["apart"] > 0.1
        and share["end"] > 0.1
        and share["logs"] == share["logits"] == 0,
        measured=f"rounded apart: {percent(share['apart'])} of 400"
        f" tokens negative, down to {least:.4f}; the exact mean is"
        f" {exact:.5f}; rounded log-probabilities:"
        f" {percent(share['end'])} at β = 0,"
        f" {percent(share['logs'])} at 0.5; rounded logits:"
        f" {percent(share['logits'])}",
        expected="some; some; none; none",
    )


# %% [markdown]
# ## Whose text, and which divergence
#
# **Which mode?** The teacher has two hills, .7 on the left and .3 on
# the right; the student has one hill, whose place and width it may
# choose. We take the best of a grid, for 21 values of β. The forward
# KL covers both hills and puts its top where the teacher says little.
# The reverse KL takes one hill. In between one might expect a gradual
# move. There is none: both answers stay valleys of the loss, and at
# some β the other one becomes the deeper.


# %%
@claim(
    "A student with one mode covers both of the teacher's under the"
    " forward KL and takes the larger under the reverse KL; growing β"
    " switches from one to the other at once",
    source="the paper's remarks on divergences; the switch is ours",
)
def mode_seeking() -> Evidence:
    x = torch.linspace(-10, 10, 101, dtype=torch.float64)
    left, right = ((-((x - c) ** 2) / 2).exp() for c in (-3, 3))
    p = (0.7 * left + 0.3 * right) / (0.7 * left + 0.3 * right).sum()
    places = torch.arange(-50, 51, dtype=torch.float64) / 10
    widths = torch.arange(5, 41, dtype=torch.float64) / 10
    hills = torch.cartesian_prod(places, widths)  # (candidates, 2)
    away = x - hills[:, :1]
    log_q = (-(away**2) / 2 / hills[:, 1:] ** 2).log_softmax(-1)
    log_p = p.log().expand_as(log_q)
    betas = [i / 20 for i in range(21)]
    best = [
        int(jensen_shannon(log_q, log_p, beta).argmin())
        for beta in betas
    ]
    kinds = list(dict.fromkeys(best))  # in the order of β
    last = len(best) - 1
    said = []
    for k in kinds:
        centre, width = hills[k].tolist()
        ends = best.index(k), last - best[::-1].index(k)
        low, high = (betas[end] for end in ends)
        said.append(
            f"{centre:.1f} ± {width:.1f} for {low:g} to {high:g}"
        )
    fig, ax = figure(
        "β does not blend the two answers; it switches",
        alt="A teacher with a high hill at −3 and a lower one at 3. The"
        " best student of one hill is broad and lies between them for β"
        " up to 0.4, and is narrow and lies on the high hill for β from"
        " 0.45.",
    )
    ax.fill_between(x, p, color=GREY, alpha=0.3, lw=0)
    label(
        ax, 3, p[65].item(), "teacher", GREY, offset=(0, 8), ha="center"
    )
    names = (("β ≤ 0.4", VERMILLION, -0.6), ("β ≥ 0.45", BLUE, -2.4))
    for k, (name, colour, at) in zip(kinds, names, strict=False):
        height = log_q[k].exp()
        ax.plot(x, height, color=colour)
        near = int((x - at).abs().argmin())
        label(ax, at, height[near].item(), name, colour, offset=(8, 5))
    ax.set(xlabel="word, in an order", ylabel="probability", yticks=[])
    wide, narrow = hills[kinds[0]].tolist(), hills[kinds[-1]].tolist()
    return Evidence(
        holds=len(kinds) == 2
        and abs(wide[0] + 1.2) < 0.2
        and wide[1] > 2.5
        and abs(narrow[0] + 3) < 0.2
        and narrow[1] < 1.2,
        measured="place ± width by β: " + "; ".join(said),
        expected="the teacher's mean and width, −1.2 ± 2.9; then its"
        " larger hill, −3 ± 1",
        figure=fig,
    )


# %% [markdown]
# **Mistakes that add up.** A text is a walk: each word is a place, and
# the next one is near it. The teacher wanders freely in a lane of
# seven places. At its edges it turns back, so that less than one word
# in 10,000 is outside; from there it returns to the middle at once.
#
# The student is a bell around $w \cdot \text{place} + c$: three
# numbers, with the width. In the lane the teacher's next place is
# mostly near the place itself, so a student of the teacher's texts
# learns to stay where it is. It never sees what to do outside.
#
# A share λ of the texts is written by the student as it is now. Ten
# students for each setting, each from its own start; what they do is
# computed exactly. A difference counts if its mean, student by
# student, is above twice its standard error.
#
# The loss with β = 0.5 gains too, from a worse start. One reason may
# be that it is bounded: a rare large mistake costs it little.

# %%
STUDENTS, TEXTS, STEPS, FAR, LANE = 10, 8, 24, 10, 3
PLACES = torch.arange(-FAR, FAR + 1, dtype=torch.float64)


def bell(centre: Tensor, width: Tensor | float) -> Tensor:
    """Log-probabilities of all places, bells around `centre` (…)."""
    away = PLACES - centre[..., None]
    return (-(away**2) / 2 / width**2).log_softmax(-1)


TURNING = PLACES.clamp(-(LANE - 1), LANE - 1)
TEACHER = bell(torch.where(PLACES.abs() > LANE, 0, TURNING), 0.5)


class Walkers(nn.Module):
    """Students side by side, each of three numbers."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        draw = torch.randn(3, STUDENTS, 1, generator=generator)
        start = torch.tensor([0.5, 0.0, 0.0]).view(3, 1, 1) + draw / 5
        self.numbers = nn.Parameter(start.double())

    def forward(self) -> Tensor:
        """Score the next place after each place, (STUDENTS, V, V)."""
        w, c, log_width = self.numbers
        return bell(w * PLACES + c, log_width.exp()[..., None])


def walk(log_q: Tensor, generator: torch.Generator) -> Tensor:
    """Write TEXTS texts for each model (S, V, V), from the middle."""
    models = torch.arange(len(log_q))[:, None]
    place = torch.full((len(log_q), TEXTS), FAR)
    texts = [place]
    for _ in range(STEPS - 1):
        chance = log_q[models, place].exp().flatten(0, 1)
        place = chance.multinomial(1, generator=generator).view_as(
            place
        )
        texts.append(place)
    return torch.stack(texts, -1)  # (S, TEXTS, STEPS)


@functools.cache
def walkers(share: float, beta: float, prefixes: str = "") -> Tensor:
    """Train with λ = `share`; judge by lane and divergence, (2, S, L).

    The measures are the probability to be outside the lane, and the
    reverse KL, at each place of a text that the student writes. With
    `prefixes="anything"` the texts are random instead.
    """
    students, generator = Walkers(seeded(9)), seeded(10)
    teacher = TEACHER.expand(STUDENTS, -1, -1)
    each = torch.arange(STUDENTS)[:, None, None]
    mask = torch.ones(STUDENTS * TEXTS, STEPS, dtype=torch.bool)

    def written(log_q: Tensor) -> Tensor:
        if prefixes:
            size = (STUDENTS, TEXTS, STEPS)
            return torch.randint(len(PLACES), size, generator=generator)
        if share in (0, 1):
            return walk(log_q if share else teacher, generator)
        size = (STUDENTS, TEXTS, 1)
        own = torch.rand(size, generator=generator) < share
        student, guide = (walk(x, generator) for x in (log_q, teacher))
        return torch.where(own, student, guide)

    def loss(_: Tensor) -> Tensor:
        log_q = students()
        texts = written(log_q.detach())
        z, v = log_q[each, texts], TEACHER[texts]
        return generalized_jsd_loss(
            z.flatten(0, 1), v.flatten(0, 1), mask, beta=beta
        )

    fit(
        students, loss, 1,
        generator=seeded(11), epochs=80, learning_rate=0.1,
    )  # fmt: skip
    return judged(students().detach())


def judged(log_q: Tensor) -> Tensor:
    """Follow each model's own texts exactly: (2, S, STEPS)."""
    at = torch.zeros(len(log_q), len(PLACES), dtype=torch.float64)
    at[:, FAR] = 1
    cost = kl_divergence(log_q, TEACHER.expand_as(log_q))  # (S, V)
    found = []
    for _ in range(STEPS):
        spent = (at * cost).sum(-1)
        at = torch.einsum("sv,svw->sw", at, log_q.exp())
        outside = at[:, PLACES.abs() > LANE].sum(-1)
        found.append(torch.stack([outside, spent]))
    return torch.stack(found, -1)


SHARES, BETAS = (0.0, 0.5, 1.0), (0.0, 0.5, 1.0)
NAMES = ("forward KL", "β = 0.5", "reverse KL")


def less(beta: float, share: float, than: float) -> bool:
    """Is one λ clearly better than another, student by student?"""
    a, b = (walkers(x, beta)[0].mean(-1) for x in (share, than))
    return clear((b - a).tolist())


@claim(
    "A limited student that learns from its own texts leaves the"
    " teacher's lane less often, whatever the divergence",
    source="the paper's main finding, on other data",
)
def own_texts_help() -> Evidence:
    fig, ax = figure(
        "Off the teacher's path: mistakes add up, or are mended",
        alt="Probability to be outside the lane against the place in"
        " the text. The student of the teacher's texts climbs to almost"
        " 2 percent; with half of its own texts it reaches 1 percent,"
        " with only its own half a percent; the teacher stays near 0.",
    )
    for share, colour in zip(
        SHARES, (VERMILLION, PURPLE, BLUE), strict=True
    ):
        line = 100 * walkers(share, 0.0)[0].mean(0)
        ax.plot(range(1, STEPS + 1), line, color=colour)
        label(ax, STEPS, line[-1].item(), f"λ = {share:g}", colour)
    base = judged(TEACHER[None])[0, 0]
    ax.plot(range(1, STEPS + 1), 100 * base, color=GREY, ls=":")
    label(ax, STEPS, 0, "teacher", GREY, offset=(6, -1))
    ax.set(xlabel="place in the text", ylabel="outside the lane, %")
    ax.set(xlim=(1, STEPS + 3.5), xticks=(1, 6, 12, 18, 24))
    parts = []
    for beta, name in zip(BETAS, NAMES, strict=True):
        shares = [walkers(x, beta)[0].mean().item() for x in SHARES]
        text = ", ".join(percent(x, 2) for x in shares)
        parts.append(f"{name} {text}")
    better = [less(beta, x, 0.0) for beta in BETAS for x in SHARES[1:]]
    on = [
        n for n, b in zip(NAMES, BETAS, strict=True) if less(b, 1, 0.5)
    ]
    return Evidence(
        holds=all(better),
        measured="words outside the lane, λ = 0, 0.5, 1: "
        + "; ".join(parts)
        + f"; teacher {percent(base.mean(), 3)}; that 1 is better than"
        f" 0.5 is clear for {', '.join(on) or 'none'}",
        expected="less with 0.5 and with 1 than with 0, in each",
        figure=fig,
    )


# %% [markdown]
# **Is it the mistakes, or any other prefix?** A student could also be
# shown random places, most of them outside the lane. It then learns to
# go to the middle from everywhere, and in one wide bell, because that
# fits best on average. Its three numbers are spent on places that
# nobody visits.


# %%
@claim(
    "Its own mistakes serve a limited student better than random"
    " prefixes: it ends closer to the teacher along its own texts",
    source="a control that is ours",
)
def not_any_prefix() -> Evidence:
    own, data, random = (
        walkers(*setting)[1].mean(-1)
        for setting in ((1.0, 0.0), (0.0, 0.0), (0.0, 0.0, "anything"))
    )
    away = walkers(0.0, 0.0, "anything")[0].mean().item()
    return Evidence(
        holds=clear((data - own).tolist())
        and clear((random - own).tolist()),
        measured="reverse KL a word, forward KL trained: own texts"
        f" {own.mean():.2f}, teacher's texts {data.mean():.2f}, random"
        f" prefixes {random.mean():.2f}, with {percent(away, 2)} of the"
        " words outside the lane",
        expected="least with its own texts",
    )


# %% [markdown]
# ## What we learnt
#
# - β sets which KL the gradient resembles, and its length as well. At
#   both ends the length goes to 0, and there code puts the KLs: a
#   jump. Take 0, 1 or a value well inside, and tune the learning rate
#   for each.
# - One library published three formulas under one name, and a unit
#   test demanded the wrong one. Compare the ends with the two KLs.
# - For every β above 0, a student that is sure and wrong is not
#   corrected. Start from a student that already writes passably.
# - Its own texts help a student that is too small to copy the teacher
#   everywhere: it learns what to do in the places where it gets.
# - Whose texts and which divergence are two choices. The first helped
#   here with each of the second.
