# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# Script of the note [papers/phuong2019.md](../papers/phuong2019.md).
#
# # Towards Understanding Knowledge Distillation
#
# Mary Phuong and Christoph H. Lampert, ICML 2019
# ([arXiv:2105.13093](https://arxiv.org/abs/2105.13093)).
#
# What does a student learn, exactly, and how well? The paper answers
# for the smallest case that is not empty: a linear teacher, a linear
# student, soft labels and gradient descent. The student becomes the
# teacher's shadow on the space that the inputs span, and the angle
# between the two bounds how often they disagree.
#
# Nearly everything here is mathematics, so we check it to many
# digits. Two findings are our own: the bound is loose, and more data
# can make a student worse, though the abstract says that they cannot.

# %%
import functools
import itertools
import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy.optimize import minimize_scalar
from scipy.special import fdtrc
from torch import Tensor, nn

from snippets.lab.checks import (
    full_precision,
    require_at_least,
    require_samples,
    require_share,
    typed,
)
from snippets.lab.claims import Evidence, claim, show
from snippets.lab.data import seeded
from snippets.lab.divergence import kl_divergence
from snippets.lab.plots import (
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    figure,
    label,
)
from snippets.lab.report import below, percent

# %% [markdown]
# ## The loss
#
# The teacher is a weight vector $w^*$. It gives the input $x$ to
# class 1 with probability $\sigma(w^{*\top} x)$. The student is a
# weight vector $w$ too, and matches those probabilities on $n$ inputs.
# The loss is the cross-entropy less its minimum, which is to say the
# divergence of two coins: the teacher's and the student's.


# %%
@typed
def distillation_loss(
    weights: Float[Tensor, "features"],
    inputs: Float[Tensor, "samples features"],
    teacher_weights: Float[Tensor, "features"],
) -> Float[Tensor, ""]:
    r"""Divergence of a linear student from a linear teacher.

    $$\mathcal L(w) = \frac1n \sum_i \mathrm{KL}\big(
    \sigma(w^{*\top} x_i) \,\|\, \sigma(w^\top x_i)\big)$$

    Each sigmoid stands for the two probabilities of a coin. This is
    the mean binary cross-entropy under the soft labels
    $y_i = \sigma(w^{*\top} x_i)$, minus its minimum, the mean entropy
    of the labels. The gradients are the same. It is 0 at $w = w^*$,
    and wherever else the two agree on all inputs.

    Args:
        weights: The student's $w$, (d,).
        inputs: The samples $x_i$ as rows, (n, d). The paper's matrix
            $X$ has them as columns.
        teacher_weights: The teacher's $w^*$, (d,); gets no gradient.

    Returns:
        A scalar in nats, at least 0.

    Raises:
        TypeError: sizes that differ, or tensors that are no floats.
        ValueError: an empty batch.

    Source: the paper's objective for one layer; no official code.
    """
    require_samples(inputs=inputs)
    x = full_precision(inputs)
    z = (x * full_precision(weights)).sum(-1)  # wᵀxᵢ, (n,)
    v = (x * full_precision(teacher_weights)).sum(-1)  # w*ᵀxᵢ, (n,)
    v = v.detach()
    # The coins' two sides are σ(z) and 1 − σ(z) = σ(−z).
    log_q = nn.functional.logsigmoid(torch.stack([z, -z], -1))  # (n, 2)
    log_p = nn.functional.logsigmoid(torch.stack([v, -v], -1))  # (n, 2)
    return kl_divergence(log_p, log_q).mean()


# %% [markdown]
# Theorem 1 says where gradient descent on this loss ends, and
# Theorem 3 how often that student disagrees with its teacher. Both
# are functions too.


# %%
@typed
def closed_form_student(
    inputs: Float[Tensor, "samples features"],
    teacher_weights: Float[Tensor, "features"],
) -> Float[Tensor, "features"]:
    r"""Student that gradient descent from zero finds.

    $$\hat w = X (X^\top X)^{-1} X^\top w^* \;\; (n < d), \qquad
    \hat w = w^* \;\; (n \ge d)$$

    with the samples as columns of $X$, in general position. This is
    the orthogonal projection of $w^*$ on the span of the samples, and
    we compute that: repeated or dependent samples do no harm. Where
    the samples span all directions, it is $w^*$ to the last digit.

    Args:
        inputs: The samples $x_i$ as rows, (n, d).
        teacher_weights: The teacher's $w^*$, (d,).

    Returns:
        The weights $\hat w$, (d,).

    Raises:
        TypeError: sizes that differ, or tensors that are no floats.
        ValueError: an empty batch.

    Source: Theorem 1 of the paper.
    """
    require_samples(inputs=inputs)
    x = full_precision(inputs)
    w_star = full_precision(teacher_weights)
    _, sizes, directions = torch.linalg.svd(x, full_matrices=False)
    rounding = max(x.shape) * torch.finfo(x.dtype).eps * sizes[0]
    span = directions[sizes > rounding]  # orthonormal, (rank, d)
    if len(span) == x.shape[1]:
        return w_star.clone()
    along = (span * w_star).sum(-1, keepdim=True)  # (rank, 1)
    return (along * span).sum(0)  # (d,)


@typed
def risk_bound(survival: Callable[[float], float], n: int) -> float:
    r"""Bound on the expected disagreement with the teacher.

    $$\mathbb E\,R(\hat w) \;\le\; \min_{0 \le \beta \le \pi/2}\;
    p(\beta) + p(\pi/2 - \beta)^n$$

    Here $p(\theta)$ is the probability that the line through an input
    makes an angle of at least $\theta$ with the teacher's weights.

    We look for $\beta$ on a grid of 1,000 steps, then between the
    best one's neighbours. Every $\beta$ gives a valid bound, so ours
    is valid even where steps of $p$ hide a slightly better one.

    Args:
        survival: The function $p$. It is called with floats in
            $[0, \pi/2]$ and must return probabilities.
        n: How many inputs the student saw.

    Returns:
        The bound, in [0, 2]. From 1 on it says nothing.

    Raises:
        TypeError: a survival that cannot be called, an n that is no
            integer.
        ValueError: an n below 1, a probability outside [0, 1].

    Source: Theorem 3 of the paper.
    """
    require_at_least(1, n=n)

    def p(theta: float) -> float:
        probability = float(survival(theta))
        require_share(survival=probability)
        return probability

    def bound(beta: float) -> float:
        return p(float(beta)) + p(math.pi / 2 - float(beta)) ** n

    steps = 1000
    grid = [math.pi / 2 * step / steps for step in range(steps + 1)]
    values = [bound(beta) for beta in grid]
    best = min(range(steps + 1), key=values.__getitem__)
    around = (grid[max(best - 1, 0)], grid[min(best + 1, steps)])
    search = minimize_scalar(
        bound, bounds=around, method="bounded", options={"xatol": 1e-9}
    )
    return min(values[best], float(search.fun))


# %% [markdown]
# ## What the student learns
#
# First the tools: problems to solve, plain gradient descent, and the
# angle between weight vectors.
#
# It must be *plain* gradient descent. With fewer inputs than
# dimensions there are many students of loss zero, and which of them
# one finds depends on the optimiser. The rate is one over the largest
# curvature that the loss can have, so no step overshoots. The paper
# takes infinitely small steps; ours end at the same point.


# %%
def normal(*shape: int, seed: int) -> Tensor:
    """Draw standard normal numbers in float64."""
    return torch.randn(
        shape, generator=seeded(seed), dtype=torch.float64
    )


def problem(
    n: int, d: int = 10, seed: int = 1
) -> tuple[Tensor, Tensor]:
    """Draw Gaussian inputs (n, d) and a teacher of norm 1, (d,).

    The inputs of a small problem come first in a larger one.
    """
    rows = normal(201, d, seed=seed)
    return rows[1 : n + 1], rows[0] / rows[0].norm()


def soft_labels(inputs: Tensor, teacher: Tensor) -> Tensor:
    """Ask the teacher: y = σ(w*ᵀx), (n, d), (d,) → (n,)."""
    return (inputs @ teacher).sigmoid()


def descend(
    inputs: Tensor,
    labels: Tensor,
    *,
    steps: int,
    start: Tensor | None = None,
    decay: float = 0.0,
) -> Tensor:
    """Minimise the cross-entropy under `labels`, soft or hard.

    Returns:
        The weights after each step, (steps + 1, d).
    """
    n, d = inputs.shape
    largest = torch.linalg.matrix_norm(inputs, 2).square() / n
    rate = 1 / (largest / 4 + decay)  # since σ' ≤ 1/4
    path = torch.zeros(steps + 1, d, dtype=inputs.dtype)
    if start is not None:
        path[0] = start
    for step in range(steps):
        w = path[step]
        error = (inputs @ w).sigmoid() - labels  # σ(wᵀxᵢ) − yᵢ, (n,)
        gradient = error @ inputs / n + decay * w  # (d,)
        path[step + 1] = w - rate * gradient
    return path


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle between vectors, in radians: (…, d), (…, d) → (…).

    Kahan's formula: an arc cosine would lose half of the digits of a
    small angle.
    """
    a = a / a.norm(dim=-1, keepdim=True)
    b = b / b.norm(dim=-1, keepdim=True)
    return 2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))


def outside(weights: Tensor, inputs: Tensor) -> Tensor:
    """Return the part of `weights` outside the span of `inputs`."""
    return weights - closed_form_student(inputs, weights)


# %% [markdown]
# **The gradient never leaves the span.** It is a sum of inputs, each
# times a number: $\nabla \mathcal L = \frac1n \sum_i (\sigma(w^\top
# x_i) - y_i)\,x_i$. Whatever direction the inputs do not show, the
# student's weights never move along it.


# %%
@claim(
    "The gradient of the distillation loss stays in the span of the"
    " inputs",
    source="proof of Theorem 1",
)
def gradient_stays_in_span() -> Evidence:
    inputs, teacher = problem(6)
    labels = soft_labels(inputs, teacher)
    gap = leak = 0.0
    for weights in normal(20, 10, seed=0):
        weights.requires_grad_()
        loss = distillation_loss(weights, inputs, teacher)
        (gradient,) = torch.autograd.grad(loss, weights)
        error = (inputs @ weights.detach()).sigmoid() - labels
        by_hand = error @ inputs / len(inputs)
        gap = max(gap, (gradient - by_hand).norm().item())
        leak = max(leak, outside(gradient, inputs).norm().item())
    return Evidence(
        holds=gap < 1e-12 and leak < 1e-12,
        measured=f"for 20 random students {below(leak, 1e-12)} lies"
        f" outside, {below(gap, 1e-12)} from the formula",
        expected="nothing outside, no difference",
    )


# %% [markdown]
# **So the student becomes a projection.** From $w(0) = 0$ it stays in
# the span. There the loss is strictly convex and grows without bound
# in every direction, so it has exactly one minimum. The projection of
# $w^*$ agrees with the teacher on every input: its loss is zero, and
# it is that minimum.
#
# Note what is *not* needed: many more inputs than dimensions. From
# $n = d$ on, the projection is the teacher. Near $n = d$ it takes
# longest, since a square random matrix has directions that it hardly
# shows. (We chose a draw that needs some thousands of steps; most
# need more.)


# %%
@claim(
    "From zero, gradient descent ends at the projection of the teacher"
    " on the span of the inputs, which is the teacher if n ≥ d",
    source="Theorem 1",
)
def student_becomes_projection(
    sizes: Sequence[int] = (3, 6, 9, 10, 20), steps: int = 5000
) -> Evidence:
    fig, (left, right) = figure(
        "The student ends at the teacher's projection",
        alt="Left, a student's ten weights against the steps of"
        " gradient descent, from 6 inputs: they start at zero and end"
        " on dashed lines, the projection, away from the dots, the"
        " teacher. Right, the relative distance to the projection for"
        " 3, 6, 9, 10 and 20 inputs: all fall to zero, 10 inputs last.",
        columns=2,
        size=(7.6, 3.6),
    )
    worst = 0.0
    for n in sizes:
        inputs, teacher = problem(n)
        goal = closed_form_student(inputs, teacher)
        labels = soft_labels(inputs, teacher)
        path = descend(inputs, labels, steps=steps)
        far = (path - goal).norm(dim=-1) / goal.norm()
        worst = max(worst, far[-1].item())
        seen = far[far > 1e-9]  # below, rounding takes over
        colour = VERMILLION if n == 10 else BLUE
        right.loglog(seen, color=colour)
        label(right, len(seen), 2e-10, f"{n}", colour, ha="center")
        if n == 6:
            left.plot(path[:1001], color=BLUE, lw=1.2)
            left.hlines(goal, 0, 1000, color=GREY, ls="--", lw=0.8)
            at = torch.full_like(teacher, 2500)
            left.plot(at, teacher, "o", color=VERMILLION, ms=4)
            top = teacher.max().item()
            label(left, 150, top, "teacher", VERMILLION)
    left.set_xscale("symlog", linthresh=1)
    left.set(xlabel="step", ylabel="weights, n = 6")
    left.set(xticks=[0, 1, 10, 100, 1000])
    right.set(xlabel="step", ylabel="relative distance")
    right.set(xlim=(1, 9000), ylim=(5e-11, 3))
    label(right, 50, 2e-10, "n =", GREY)
    return Evidence(
        holds=worst < 1e-9,
        measured=f"after {steps:,} steps, relative distance"
        f" {below(worst, 1e-9)} for d = 10 and n ="
        f" {', '.join(str(n) for n in sizes)}",
        expected="distance 0",
        figure=fig,
    )


# %% [markdown]
# **The start is remembered for ever.** What lies outside the span of
# the inputs is never corrected, so a student that starts at $w(0)$
# ends at $P w^* + (I - P)\,w(0)$, with $P$ the projection. Its loss is
# zero as well! The distillation loss cannot tell these students apart;
# fresh inputs can. For Gaussian inputs, the share on which two weight
# vectors disagree is their angle divided by π.


# %%
def disagreement(students: Tensor, teachers: Tensor) -> float:
    """Mean share of Gaussian inputs on which they disagree."""
    return angle(students, teachers).mean().item() / math.pi


@claim(
    "A student that does not start at zero keeps what lies outside the"
    " span, at loss zero, and disagrees more",
    source="Theorem 1 (its start at zero); abstract: optimization bias",
)
def start_is_remembered(starts: int = 200) -> Evidence:
    inputs, teacher = problem(6)
    goal = closed_form_student(inputs, teacher)
    units = nn.functional.normalize(normal(starts, 10, seed=0))
    kept = torch.stack([outside(unit, inputs) for unit in units])
    labels = soft_labels(inputs, teacher)
    end = descend(inputs, labels, steps=3000, start=units[0])[-1]
    gap = (end - goal - kept[0]).norm().item()
    loss = abs(distillation_loss(end, inputs, teacher).item())
    zero, one, three = (
        disagreement(goal + length * kept, teacher)
        for length in (0, 1, 3)
    )
    return Evidence(
        holds=gap < 1e-9 and loss < 1e-12 and zero < one < three,
        measured=f"end {below(gap, 1e-9)} from P w* + (I − P) w(0),"
        f" loss {below(loss, 1e-12)}; disagreement {percent(zero, 1)}"
        f" from zero, {percent(one, 1)} from starts as long as the"
        f" teacher, {percent(three, 1)} from three times as long",
        expected="difference 0, loss 0; more disagreement",
    )


# %% [markdown]
# **And the optimiser is part of the result.** Adam divides each
# coordinate by a scale of its own. That turns the step out of the
# span, so from the same zero start it finds another student of loss
# zero. The theorem is about gradient descent, and few distil by that.


# %%
def adam(inputs: Tensor, labels: Tensor, *, steps: int) -> Tensor:
    """Train k students side by side: (k, n, d), (k, n) → (k, d)."""
    k, n, d = inputs.shape
    w = torch.zeros(k, d, dtype=inputs.dtype)
    first = second = torch.zeros_like(w)
    for step in range(steps):
        error = (inputs @ w[..., None])[..., 0].sigmoid() - labels
        gradient = (error[:, None] @ inputs)[:, 0] / n  # (k, d)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient.square()
        scale = (second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
        rate = 0.01 * (1 + math.cos(math.pi * step / steps)) / 2
        w = w - rate * first / (1 - 0.9 ** (step + 1)) / scale
    return w


@claim(
    "Adam, from the same start at zero, does not find the projection",
    source="not in the paper",
)
def adam_ends_elsewhere(draws: int = 100) -> Evidence:
    problems = [problem(6, seed=seed) for seed in range(draws)]
    goals = torch.stack([closed_form_student(*p) for p in problems])
    inputs = torch.stack([inputs for inputs, _ in problems])
    teachers = torch.stack([teacher for _, teacher in problems])
    labels = (inputs @ teachers[..., None])[..., 0].sigmoid()
    students = adam(inputs, labels, steps=3000)
    loss = leak = 0.0
    for student, pair in zip(students, problems, strict=True):
        loss = max(loss, distillation_loss(student, *pair).item())
        rest = outside(student, pair[0]).norm() / student.norm()
        leak += rest.item() / draws
    theirs = disagreement(students, teachers)
    return Evidence(
        holds=loss < 1e-6 and leak > 0.01,
        measured=f"in {draws} draws, loss {below(loss, 1e-6)}, but"
        f" {percent(leak, 1)} of the length lies outside the span;"
        f" disagreement {percent(theirs, 1)}, the projections'"
        f" {percent(disagreement(goals, teachers), 1)}",
        expected="loss 0, outside the span",
    )


# %% [markdown]
# **Depth changes the way, not the end.** A deep linear student is a
# product of matrices, $w^\top = W_N \cdots W_1$. Its loss is no longer
# convex. Still it ends at the projection if it starts small, at a loss
# below that of zero, and *balanced*: $W_{j+1}^\top W_{j+1} = W_j
# W_j^\top$. The flow keeps this balance; steps of finite size keep it
# nearly.
#
# Our start has size $c$ in each layer and one direction $a$, so
# $w(0) = c^N a$. If $a$ lies in the span, the end is exact. If not,
# the theorem allows a small error, and we can say which. The first
# layer keeps its part outside the span, of size $c\,\|a_\perp\|$,
# while the product of the layers above grows to
# $\|\hat w\|^{(N-1)/N}$. What is left outside is the product of the
# two, so small starts forget.


# %%
def deep_start(
    direction: Tensor, depth: int, size: float
) -> list[Tensor]:
    """Build balanced layers with product size^depth · direction."""
    unit = torch.eye(3, dtype=direction.dtype)[:1]  # (1, 3)
    first, middle = unit.T * direction, unit.T @ unit  # (3, d), (3, 3)
    layers = [first, *[middle] * (depth - 2), unit]
    return [size * layer for layer in layers]


def product(layers: list[Tensor]) -> Tensor:
    """Multiply the layers: the weights w of a deep student, (d,)."""
    return torch.linalg.multi_dot(layers[::-1])[0]


def descend_deep(
    layers: list[Tensor], inputs: Tensor, labels: Tensor, *, steps: int
) -> list[Tensor]:
    """Minimise as `descend` does, over the layers of a deep student."""
    layers, rate = list(layers), 0.3
    for _ in range(steps):
        error = (inputs @ product(layers)).sigmoid() - labels
        # ∂L/∂W_j = (W_N⋯W_{j+1})ᵀ (W_{j−1}⋯W_1 ∇L)ᵀ
        right = [error @ inputs / len(inputs)]
        for layer in layers[:-1]:
            right.append(layer @ right[-1])
        left = torch.ones(1, dtype=inputs.dtype)
        for j in reversed(range(len(layers))):
            gradient = torch.outer(left, right[j])
            left = layers[j].T @ left
            layers[j] = layers[j] - rate * gradient
    return layers


@claim(
    "A deep linear student ends at the same projection, if it starts"
    " small and balanced",
    source="Theorem 2",
)
def deep_students_agree(steps: int = 3000) -> Evidence:
    inputs, teacher = problem(6)
    labels = soft_labels(inputs, teacher)
    goal = closed_form_student(inputs, teacher)
    within = (labels - 0.5) @ inputs  # along −∇L(0)
    within = within / within.norm()
    beyond = outside(teacher, inputs)
    halfway = (within + beyond / beyond.norm()) / math.sqrt(2)
    gap = drift = 0.0
    for depth in (2, 3):
        start = deep_start(within, depth, 0.1)
        layers = descend_deep(start, inputs, labels, steps=steps)
        far = (product(layers) - goal).norm() / goal.norm()
        gap = max(gap, far.item())
        for low, high in itertools.pairwise(layers):
            off = (high.T @ high - low @ low.T).abs().max()
            drift = max(drift, off.item())
    left, ratios = [], []
    for c in (0.1, 0.01):
        start = deep_start(halfway, 2, c)
        layers = descend_deep(start, inputs, labels, steps=steps)
        left.append(outside(product(layers), inputs).norm().item())
        formula = c * math.sqrt(0.5) * goal.norm().sqrt().item()
        ratios.append(left[-1] / formula)
    return Evidence(
        holds=gap < 1e-6
        and drift < 2e-3
        and all(abs(ratio - 1) < 0.01 for ratio in ratios),
        measured=f"N = 2, 3: relative distance {below(gap, 1e-6)},"
        f" balance kept to {drift:.2g}; N = 2, from a start half"
        f" outside the span: {left[0]:.3g} stays outside for c = 0.1,"
        f" {left[1]:.3g} for c = 0.01",
        expected="distance 0 and balance kept by the flow; what stays"
        " outside is proportional to c",
    )


# %% [markdown]
# ## How well the student does
#
# The *transfer risk* is the share of fresh inputs on which student
# and teacher choose different classes. It measures imitation, not
# truth: the teacher is right by definition.
#
# **Enough inputs give a perfect copy.** From $n = d$ on, the risk of
# the distilled student is exactly zero. A soft label fixes a number,
# $w^{*\top} x_i$, and ten of them fix ten weights. A hard label says
# only on which side of a plane the teacher lies.


# %%
@claim(
    "With n ≥ d soft labels the student copies the teacher exactly;"
    " with as many hard labels it does not",
    source="Theorem 1; the group's notes ask for n ≫ d",
)
def enough_inputs_copy_the_teacher(
    sizes: Sequence[int] = (10, 20, 200),
) -> Evidence:
    fresh = normal(100_000, 10, seed=1000)
    wrong, risks = 0, []
    for n in sizes:
        inputs, teacher = problem(n)
        soft = soft_labels(inputs, teacher)
        student = descend(inputs, soft, steps=4000)[-1]
        differ = (fresh @ student > 0) != (fresh @ teacher > 0)
        wrong += int(differ.sum())
        hard = (soft > 0.5).double()
        student = descend(inputs, hard, steps=2000)[-1]
        risks.append(disagreement(student, teacher))
    return Evidence(
        holds=wrong == 0 and min(risks) > 0,
        measured=f"d = 10 and n = {', '.join(str(n) for n in sizes)}:"
        f" with soft labels {wrong} of 100,000 fresh answers differ;"
        " with hard labels, after 2,000 steps, "
        + ", ".join(percent(risk, 1) for risk in risks),
        expected="none with soft labels, some with hard labels",
    )


# %% [markdown]
# **More data never turn the student away.** With fewer inputs than
# dimensions, the student is a projection on what they span. A larger
# span brings the projection closer to $w^*$: the angle
# $\bar\alpha(\hat w, w^*)$ can only fall. In particular, it is at most
# the angle of the best single input. (The bar means the angle between
# lines, at most π/2.)


# %%
def line_angle(a: Tensor, b: Tensor) -> Tensor:
    """The paper's ᾱ: angle between the lines through two vectors."""
    theta = angle(a, b)
    return torch.minimum(theta, math.pi - theta)


@claim(
    "One more input never raises the student's angle to the teacher,"
    " which is at most that of the best input",
    source="proof of Theorem 3; abstract: strong monotonicity",
)
def angle_never_rises(draws: int = 100) -> Evidence:
    rises = excesses = 0
    for seed in range(draws):
        inputs, teacher = problem(10, seed=seed)
        best = line_angle(inputs, teacher).cummin(0).values  # (n,)
        students = [
            closed_form_student(inputs[:n], teacher)
            for n in range(1, 11)
        ]
        angles = line_angle(torch.stack(students), teacher)  # (n,)
        rises += int((angles.diff() > 1e-9).sum())
        excesses += int((angles > best + 1e-9).sum())
    return Evidence(
        holds=rises == 0 and excesses == 0,
        measured=f"{rises} rises and {excesses} students worse than"
        f" their best input, in {draws} draws of 1 to 10 inputs",
        expected="none",
    )


# %% [markdown]
# **From angles to a risk.** Student and teacher can differ on $x$ only
# if $\bar\alpha(w^*, x) + \bar\alpha(\hat w, w^*) \ge \pi/2$. Now take
# any $\beta$. If some training input is closer to $w^*$ than
# $\pi/2 - \beta$, so is the student, and the risk is at most
# $p(\beta)$. Otherwise we give up: the risk is at most 1, and that
# happens with probability $p(\pi/2 - \beta)^n$. The sum is the bound.
#
# How good is it? We take Gaussian inputs in 20 dimensions, stretched
# $k$ times along $w^*$: both $p$ and the risk then have closed forms.
# The measured risk is far below, since the proof uses *one* good
# input while the student uses the whole span.


# %%
def stretched_survival(theta: float, stretch: float) -> float:
    """The p of Gaussians in 20 dimensions, stretched along w*.

    tan² of the angle is 19/k² times an F-distributed variable with
    19 and 1 degrees of freedom.
    """
    return float(fdtrc(19, 1, (stretch * math.tan(theta)) ** 2 / 19))


def stretched_risk(stretch: float, n: int, draws: int) -> float:
    """Mean risk of the students of n such inputs."""
    teacher = torch.eye(20, dtype=torch.float64)[0]
    scale = 1 + (stretch - 1) * teacher  # (k, 1, …, 1)
    students = [
        closed_form_student(scale * rows[:n], teacher)
        for rows in normal(draws, 20, 20, seed=0)
    ]
    # wᵀx = (scale · w)ᵀg with g not stretched: an angle again.
    return disagreement(scale * torch.stack(students), scale * teacher)


STRETCHES = ((1, VERMILLION), (3, GREEN), (8, BLUE))


@claim(
    "The expected risk stays below the bound, which falls with n",
    source="Theorem 3",
)
def risk_stays_below_bound(draws: int = 50) -> Evidence:
    sizes = range(1, 20)
    fig, ax = figure(
        "The bound holds, and is loose",
        alt="Transfer risk against the number of inputs, from 1 to 19,"
        " on a logarithmic scale, for inputs stretched 1, 3 and 8 times"
        " along the teacher. Measured risks fall. Their bounds, dashed"
        " in the same colour, lie far above; the first stays at 1.",
        size=(6.4, 4.0),
    )
    holds, parts = True, []
    for stretch, colour in STRETCHES:
        p = functools.partial(stretched_survival, stretch=stretch)
        bounds = [risk_bound(p, n) for n in sizes]
        risks = [stretched_risk(stretch, n, draws) for n in sizes]
        holds &= all(r < b for r, b in zip(risks, bounds, strict=True))
        steps = [b - a for a, b in itertools.pairwise(bounds)]
        holds &= max(steps) < 1e-9
        ax.semilogy(sizes, risks, color=colour)
        ax.semilogy(sizes, bounds, color=colour, ls="--", lw=1.2)
        label(ax, 19, risks[-1], f"k = {stretch}", colour)
        parts.append(
            f"k = {stretch}: {risks[9]:.2g} under {bounds[9]:.2g}"
        )
    label(ax, 9, 0.55, "dashed: the bounds", GREY)
    ax.set(xlabel="inputs n, of d = 20", ylabel="transfer risk")
    ax.set(xlim=(1, 21.5), xticks=[1, 5, 10, 15, 19])
    return Evidence(
        holds=holds,
        measured="at n = 10, " + "; ".join(parts),
        expected="risk below bound at every n",
        figure=fig,
    )


# %% [markdown]
# **What p must do.** The group noted that the *density* of the angle
# should fall as the angle grows. But $p$ is no density. It is the
# probability of an angle of *at least* $\theta$, and that cannot rise,
# whatever the data. The density may do anything: for plain Gaussian
# inputs it rises all the way to 90°, and enough of them still give a
# perfect copy. What matters is how *fast* $p$ falls.


# %%
@claim(
    "The survival function p never rises, though the density of the"
    " angle may",
    source="definition of p in Theorem 3; the group's notes",
)
def survival_never_rises() -> Evidence:
    fig, (left, right) = figure(
        "The density may rise; the survival function cannot",
        alt="Left, densities of the angle between an input and the"
        " teacher, for inputs stretched 1, 3 and 8 times: the first two"
        " rise up to 90 degrees, the third has a hump near 22. Right,"
        " the three survival functions: all fall from 1 to 0, earlier"
        " for more stretch.",
        columns=2,
        size=(7.6, 3.4),
    )
    degrees = torch.linspace(0, 90, 181, dtype=torch.float64)
    grid = degrees.deg2rad().tolist()
    rises, peaks = 0, []
    for stretch, colour in STRETCHES:
        values = [stretched_survival(theta, stretch) for theta in grid]
        p = torch.tensor(values, dtype=torch.float64)
        density = -p.diff() / degrees.diff()
        rises += int((density < 0).sum())
        peaks.append(degrees[density.argmax() + 1].item())
        left.plot(degrees[1:], density, color=colour)
        right.plot(degrees, p, color=colour)
        middle = degrees[p > 0.5].max().item()
        label(right, middle, 0.5, f"k = {stretch}", colour)
    for ax in (left, right):
        ax.set(xlabel="angle to the teacher, degrees")
        ax.set_xticks([0, 30, 60, 90])
    left.set(ylabel="density, per degree")
    right.set(ylabel="p: share from this angle on")
    return Evidence(
        holds=rises == 0 and peaks[0] == 90,
        measured=f"{rises} rises of p for k = 1, 3, 8; the densities"
        f" peak at {', '.join(f'{peak:.0f}°' for peak in peaks)}",
        expected="no rise, by definition",
        figure=fig,
    )


# %% [markdown]
# **How fast is fast?** Two corollaries. With a *margin*, no input
# comes within $\gamma$ of the teacher's decision boundary. Then
# $\beta = \pi/2 - \gamma$ makes the first term zero, and $p(\gamma)^n$
# is left: exponential. If $p(\theta) \le (1 - 2\theta/\pi)^\kappa$,
# choose $1 - 2\beta/\pi = \ln n / n$. Then the first term is
# $(\ln n / n)^\kappa$, and the second is
# $(1 - \ln n / n)^{\kappa n} \le n^{-\kappa}$.


# %%
@claim(
    "With a margin the bound falls exponentially; with a polynomial"
    " p of power κ it falls like (ln n / n)^κ",
    source="corollaries of Theorem 3",
)
def fast_decay_gives_fast_learning() -> Evidence:
    gamma = math.radians(30)

    def margin(theta: float) -> float:
        return max(0.0, 1 - theta / (math.pi / 2 - gamma))

    def power(theta: float) -> float:
        return (1 - 2 * theta / math.pi) ** 2

    holds, exponential, polynomial = True, [], []
    for n in (1, 3, 10, 30, 100):
        exponential.append(risk_bound(margin, n))
        polynomial.append(risk_bound(power, n))
        # The search for β stops short of the last digits.
        holds &= exponential[-1] <= margin(gamma) ** n * 1.0001
        holds &= polynomial[-1] <= (1 + math.log(n) ** 2) / n**2
    return Evidence(
        holds=holds,
        measured="n = 1, 3, 10, 30, 100: with a margin of 30°, "
        + ", ".join(f"{bound:.2g}" for bound in exponential)
        + "; with κ = 2, "
        + ", ".join(f"{bound:.2g}" for bound in polynomial),
        expected="at most p(γ)^n and (1 + (ln n)^κ)/n^κ",
    )


# %% [markdown]
# **Which inputs are worth a question?** The proof suggests those near
# the teacher's direction, of whatever length: the student is at least
# as good as its best input. So let a student have 5 of 200 inputs.


# %%
@claim(
    "Inputs close to the teacher's direction make better students",
    source="not in the paper: read off the proof of Theorem 3",
)
def near_inputs_teach_more(pools: int = 50) -> Evidence:
    risks = torch.zeros(3, dtype=torch.float64)
    for seed in range(pools):
        inputs, teacher = problem(200, d=20, seed=seed)
        order = line_angle(inputs, teacher).argsort()
        choices = inputs[order[:5]], inputs[:5], inputs[order[-5:]]
        for row, chosen in enumerate(choices):
            student = closed_form_student(chosen, teacher)
            risks[row] += disagreement(student, teacher) / pools
    near, random, far = risks.tolist()
    return Evidence(
        holds=near < random < far,
        measured=f"mean risk {percent(near, 1)} from the 5 nearest of"
        f" 200 inputs, {percent(random, 1)} from any 5,"
        f" {percent(far, 1)} from the 5 farthest",
        expected="in this order",
    )


# %% [markdown]
# **More data, more risk.** The abstract says that the expected risk
# "always decreases" as the training set grows. The *angle* does, we
# saw. But the risk is a function of the angle only where the inputs
# lie evenly around $w^*$.
#
# A counterexample needs three dimensions. Scale every input so that
# its part along $w^*$ is 1, and let $u$ be the rest, a point of the
# plane. The teacher is the origin. The student of one input is its
# point $u$; the student of two is the point $v$ nearest to the origin
# on the line through both. It errs on the inputs beyond the line
# $v^\top u = -1$. Now put the inputs into three small clouds, around
# $(1, 0.3)$, $(2, 0)$ and $(0, -3)$. Nothing lies beyond the line of a
# single input. But the student of clouds 1 and 2 errs on the whole of
# cloud 3. (So do some students of two inputs of one cloud.)


# %%
CLOUDS = torch.tensor(
    [[1.0, 0.3], [2.0, 0.0], [0.0, -3.0]], dtype=torch.float64
)


def cloudy_inputs(n: int, generator: torch.Generator) -> Tensor:
    """Draw inputs (±1, ±u) with u in one of the clouds, (n, 3).

    The sign makes both classes equally likely.
    """
    cloud = torch.randint(3, (n,), generator=generator)
    noise = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    u = CLOUDS[cloud] + 0.04 * (noise[:, 1:] - 0.5)  # (n, 2)
    ones = torch.ones(n, 1, dtype=torch.float64)
    return torch.cat([ones, u], 1) * (noise[:, :1] - 0.5).sign()


@show
def two_inputs_worse_than_one() -> Figure:
    one, two, _ = CLOUDS
    along = two - one
    v = one - (one @ along) / (along @ along) * along
    fig, ax = figure(
        "Two inputs can be worse than one",
        alt="Three clouds of inputs in the plane, the teacher at the"
        " origin. On the line through clouds 1 and 2, the point nearest"
        " to the origin is the student of two inputs. Cloud 3 lies in"
        " the shaded half-plane, where that student errs.",
        size=(6.4, 4.4),
    )
    ax.axline(one, two, color=GREY, lw=1)
    x = torch.tensor([-3.0, 4.0], dtype=torch.float64)
    edge = (-1 - v[0] * x) / v[1]  # vᵀu = −1
    ax.plot(x, edge, color=VERMILLION, lw=1, ls="--")
    ax.fill_between(x, edge, -4, color=VERMILLION, alpha=0.15, lw=0)
    label(ax, -2.6, -3.2, "here it errs", VERMILLION)
    ax.plot(0, 0, "o", color=GREY)
    label(ax, 0, 0, "teacher", GREY, ha="right", offset=(-7, 0))
    ax.plot(*v, "o", color=VERMILLION)
    name = "student of clouds 1 and 2"
    x0, y0 = v.tolist()
    label(ax, x0, y0, name, VERMILLION, offset=(-2, 12))
    ax.plot(*CLOUDS.T, "o", color=BLUE)
    for number, (x0, y0) in enumerate(CLOUDS.tolist(), start=1):
        label(ax, x0, y0, f"{number}", BLUE, offset=(3, -11))
    ax.set(xlim=(-3, 4), ylim=(-4, 1.5), aspect="equal")
    ax.set(xlabel="first part of u", ylabel="second part of u")
    return fig


# %%
@claim(
    "The expected risk always decreases when the training set grows",
    source="abstract: strong monotonicity",
    expect=False,
)
def expected_risk_always_falls(draws: int = 300) -> Evidence:
    teacher = torch.eye(3, dtype=torch.float64)[0]
    generator = seeded(0)
    fresh = cloudy_inputs(2000, generator)
    risks, angles = torch.zeros(2, 3, dtype=torch.float64)
    for _ in range(draws):
        inputs = cloudy_inputs(3, generator)
        for row in range(3):
            student = closed_form_student(inputs[: row + 1], teacher)
            differ = (fresh @ student > 0) != (fresh @ teacher > 0)
            risks[row] += differ.double().mean() / draws
            angles[row] += angle(student, teacher).rad2deg() / draws
    return Evidence(
        holds=bool((risks.diff() < 0).all()),
        measured="from 1, 2, 3 inputs, a mean risk of "
        + ", ".join(percent(risk, 1) for risk in risks)
        + ", while the mean angle falls: "
        + ", ".join(f"{theta:.3g}°" for theta in angles),
        expected="a risk that falls each time",
    )


# %% [markdown]
# ## A second loss term
#
# In practice labels are mixed in, and other tasks are trained along.
# The group asked what that does to the bias of the optimisation.
#
# **Hard labels stay in the span, and leave the projection.** A share
# λ of them turns $y_i$ into $(1-\lambda)\,\sigma(w^{*\top} x_i) +
# \lambda\,[w^{*\top} x_i > 0]$. The gradient is still a sum of inputs.
# For $n < d$ the new end is the one vector of the span that fits the
# new labels. Its length and its direction both change, for a small λ
# in proportion to it. Yet of all vectors in the span the projection
# has the smallest angle to $w^*$, and near a minimum a small turn
# costs only its square: the *decisions* hardly change.
#
# With $n \ge d$ there is no such mercy. The angle was zero, and grows
# in proportion to λ.


# %%
def mixed_labels(
    inputs: Tensor, teacher: Tensor, share: float
) -> Tensor:
    """Soft labels with a share of hard ones mixed in, (n,)."""
    soft = soft_labels(inputs, teacher)
    return (1 - share) * soft + share * (soft > 0.5).double()


@claim(
    "A share λ of hard labels keeps the student in the span, but moves"
    " it off the projection by O(λ) and its angle to the teacher by"
    " O(λ²)",
    source="the group's notes; not in the paper",
)
def hard_labels_leave_the_projection() -> Evidence:
    inputs, teacher = problem(4)
    goal = closed_form_student(inputs, teacher)
    inverse = torch.linalg.pinv(inputs)

    def changes(share: float) -> tuple[float, float, float]:
        # The vector of the span that fits the labels.
        student = inverse @ mixed_labels(inputs, teacher, share).logit()
        extra = angle(student, teacher) - angle(goal, teacher)
        return (
            student.norm().item() / goal.norm().item() - 1,
            angle(student, goal).item(),
            extra.item(),
        )

    half = mixed_labels(inputs, teacher, 0.5)
    end = descend(inputs, half, steps=2000)[-1]
    gap = (end - inverse @ half.logit()).norm().item()
    leak = outside(end, inputs).norm().item()
    growth = [
        twice / once
        for once, twice in zip(
            changes(0.01), changes(0.02), strict=True
        )
    ]
    # For n ≥ d nothing fits all labels: only descent finds the end.
    copied = []
    for share in (0.01, 0.1):
        more, _ = problem(20)  # the same teacher
        labels = mixed_labels(more, teacher, share)
        end = descend(more, labels, steps=1500)[-1]
        copied.append(math.degrees(angle(end, teacher).item()))
    fig, ax = figure(
        "The angle to the teacher changes last",
        alt="Change of the student against the share of hard labels, on"
        " logarithmic axes. Its relative length and its turn from the"
        " projection grow in proportion to the share, close together."
        " Its extra angle to the teacher lies far below and grows with"
        " the square.",
    )
    shares = torch.logspace(-2, -0.1, 20).tolist()
    curves = zip(*map(changes, shares), strict=True)
    for curve, name, colour in zip(
        curves,
        ("relative length", "turn", "angle to teacher"),
        (VERMILLION, BLUE, GREEN),
        strict=True,
    ):
        ax.loglog(shares, curve, color=colour)
        label(ax, shares[-1], curve[-1], name, colour)
    ax.set(xlabel="share λ of hard labels", xlim=(0.01, 4))
    ax.set(ylabel="change (angles in radians)")
    longer, turn, extra = changes(0.1)
    return Evidence(
        holds=gap < 1e-9
        and leak < 1e-9
        and all(
            abs(times - power) < 0.1
            for times, power in zip(growth, (2, 2, 4), strict=True)
        )
        and copied[0] > 0.1,
        measured=f"{below(leak, 1e-9)} outside the span; at λ = 0.1"
        f" the student is {percent(longer, 1)} longer, turned by"
        f" {math.degrees(turn):.3g}°, its angle to the teacher"
        f" {math.degrees(extra):.2g}° wider; twice the λ gives"
        f" {', '.join(f'{times:.3g}' for times in growth)} times as"
        f" much; for n = 20 ≥ d the angle is {copied[0]:.2g}° at"
        f" λ = 0.01, {copied[1]:.2g}° at 0.1",
        expected="0 outside, 2, 2, 4 times as much near λ = 0",
        figure=fig,
    )


# %% [markdown]
# **A task on other inputs leaves the span.** Weight decay adds a
# multiple of $w$ to the gradient, which lies in the span already: the
# student stays there, only smaller. A second task with $k$ inputs of
# its own pulls along *those*. While both tasks can be solved at once
# ($n + k \le d$), the weights of their losses do not matter: gradient
# descent ends at the shortest vector that solves both. The
# distillation loss is still zero, and does not notice.
#
# So the bias of the second task lies in its answers. Where they agree
# with the teacher, the new directions help, as more inputs would.
# Where they come from somebody else, they turn the student away.


# %%
@claim(
    "A second task on other inputs moves the student out of the span at"
    " distillation loss zero, for better or worse",
    source="the group's notes; not in the paper",
)
def second_task_leaves_the_span(draws: int = 50) -> Evidence:
    # One draw by gradient descent, weight decay first.
    rows, teacher = problem(8)
    _, stranger = problem(1, seed=1001)
    inputs, extra = rows[:4], rows[4:]
    soft = soft_labels(inputs, teacher)
    shrunk = descend(inputs, soft, steps=2000, decay=0.1)[-1]
    leak = outside(shrunk, inputs).norm().item()
    length = shrunk.norm() / closed_form_student(inputs, teacher).norm()
    labels = torch.cat([soft, soft_labels(extra, stranger)])
    end = descend(rows, labels, steps=5000)[-1]
    gap = (end - torch.linalg.pinv(rows) @ labels.logit()).norm().item()
    loss = abs(distillation_loss(end, inputs, teacher).item())
    # Many draws by the closed form.
    angles = torch.zeros(3, dtype=torch.float64)
    for seed in range(draws):
        rows, teacher = problem(8, seed=seed)
        _, stranger = problem(1, seed=1000 + seed)
        inputs, extra = rows[:4], rows[4:]
        logits = torch.cat([inputs @ teacher, extra @ stranger])
        students = (
            closed_form_student(inputs, teacher),
            closed_form_student(rows, teacher),
            torch.linalg.pinv(rows) @ logits,
        )
        found = angle(torch.stack(students), teacher)
        angles += found.rad2deg() / draws
    without, agreeing, unrelated = angles.tolist()
    return Evidence(
        holds=max(leak, gap, loss) < 1e-6
        and agreeing < without < unrelated,
        measured=f"distillation loss {below(loss, 1e-9)}; mean angle"
        f" to the teacher {without:.3g}° without a second task,"
        f" {agreeing:.3g}° if it agrees, {unrelated:.3g}° if it does"
        f" not; weight decay of 0.1 leaves {below(leak, 1e-9)}"
        f" outside the span and {percent(length, 1)} of the length",
        expected="loss 0; smaller if the tasks agree, else larger",
    )


# %% [markdown]
# ## What we learnt
#
# - The student is the teacher's projection, because a gradient is a
#   sum of inputs. $n = d$ soft labels are enough for a perfect copy.
# - The result belongs to plain gradient descent from zero. Another
#   start or Adam ends elsewhere, at the same loss of zero.
# - The bound holds but is loose. Its use is to say which data help:
#   inputs near the teacher's direction.
# - More data never widen the angle to the teacher. They can raise the
#   risk, against the abstract's wording.
# - A second loss term is harmless to the span if its gradient is a sum
#   of the same inputs. Otherwise the distillation loss does not see
#   what it does.
