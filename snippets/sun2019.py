# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# Script of the note [papers/sun2019.md](../papers/sun2019.md).
#
# # Patient Knowledge Distillation for BERT Model Compression
#
# Siqi Sun, Yu Cheng, Zhe Gan and Jingjing Liu, 2019
# ([arXiv:1908.09355](https://arxiv.org/abs/1908.09355)).
#
# A *patient* student listens to the teacher's middle layers, not only
# to its answer. *Which* layers, and *how many*? Every later paper on
# BERT answers in another way. This script builds the loss, checks it
# exactly, and tries maps that are sensible, and one upside down.

# %%
import functools
import itertools
from collections.abc import Sequence
from statistics import mean
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from snippets.hinton2015 import kd_loss
from snippets.lab.checks import (
    full_precision,
    require_samples,
    typed,
)
from snippets.lab.claims import Evidence, claim
from snippets.lab.data import seeded
from snippets.lab.models import cnn
from snippets.lab.plots import (
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    figure,
    label,
)
from snippets.lab.report import below, clear, percent
from snippets.lab.transformer import (
    FROM_BELOW,
    STUDENT_DEPTH,
    TEACHER_DEPTH,
    Layer,
    MapName,
    distil_layers,
    encoder,
    layer_map,
    needle_accuracy,
    needle_teacher,
    needles,
)
from snippets.lab.vectors import directions

# %% [markdown]
# ## The loss
#
# BERT reads a sentence's class at its first token, [CLS]. The student
# shall pass through the same states there as the teacher does. Only
# their *direction* counts: each state is divided by its length first.


# %%
@typed
def patience_loss(
    student_hidden: Float[Tensor, "batch layers width"],
    teacher_hidden: Float[Tensor, "batch layers width"],
    *,
    variant: Literal["paper", "code"] = "paper",
) -> Float[Tensor, ""]:
    r"""Distance of the student's [CLS] states from the teacher's.

    $$\frac1B \sum_{i=1}^{B} \sum_{j=1}^{M} \Big\|
    \frac{h^s_{i,j}}{\|h^s_{i,j}\|_2} -
    \frac{h^t_{i,I(j)}}{\|h^t_{i,I(j)}\|_2} \Big\|_2^2$$

    $I(j)$ is the teacher's layer that the student's layer $j$ follows;
    the caller picks it. A state of length 0 has no direction: it counts
    as 0, which is 1 away from every direction.

    Args:
        student_hidden: The student's states $h^s$, (B, M, d).
        teacher_hidden: The teacher's states $h^t$, one for each of the
            student's, (B, M, d); they get no gradient.
        variant: `"paper"` sums over layers and width; `"code"` takes
            the mean over all elements, which is $M d$ times less.

    Returns:
        A scalar: in [0, 4 M] for the paper's variant, in [0, 4 / d]
        for the code's.

    Raises:
        TypeError: shapes that differ, or states that are no floats.
        ValueError: an empty batch, no layer, or no width.

    Source: the paper's patience loss, its sum over samples a mean. The
    code's form is `patience_loss` of its official repository, with
    normalisation and without the cast to half precision.
    """
    require_samples(student_hidden=student_hidden)
    h_s = full_precision(student_hidden)
    h_t = full_precision(teacher_hidden).detach()
    gap = (directions(h_s) - directions(h_t)).square()  # (B, M, d)
    if variant == "code":
        return gap.mean()
    return gap.sum((1, 2)).mean()  # Σ over j = 1 … M, mean over i


# %% [markdown]
# ## Exact checks
#
# Mathematics, checked in float64 on random states: 16 sentences, five
# layers and a width of 768, as for a BERT of six layers.


# %%
def random_states(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw a student's and a teacher's states, (16, 5, 768) each."""
    draw = torch.randn(
        2, 16, 5, 768, generator=seeded(seed), dtype=torch.float64
    )
    return draw[0], draw[0] + 2 * draw[1]


# %% [markdown]
# **It is a cosine.** For unit vectors
# $\|\hat a - \hat b\|^2 = 2 - 2\,\hat a \cdot \hat b$. So the loss is
# twice the cosine distance that DistilBERT uses, and the length of a
# state means nothing. Without the normalisation, which the authors'
# code can switch off, it means a lot.


# %%
@claim(
    "The patience loss is twice the cosine distance, summed over"
    " layers, and the length of a state does not matter",
    source="the formula of the loss",
)
def is_cosine_distance() -> Evidence:
    h_s, h_t = random_states()
    loss = patience_loss(h_s, h_t)
    cosine = nn.functional.cosine_similarity(h_s, h_t, dim=-1)
    gap = loss - 2 * (1 - cosine).sum(1).mean()
    lengths = torch.logspace(-4, 4, 16, dtype=torch.float64)
    stretched = patience_loss(lengths[:, None, None] * h_s, h_t)
    bare = (h_s - h_t).square().mean()
    bare_far = (10 * h_s - h_t).square().mean()
    worst = max(gap.abs(), (stretched - loss).abs())
    return Evidence(
        holds=bool(worst < 1e-12 and bare_far > 5 * bare),
        measured=f"both differ by {below(worst, 1e-12)}; the squared"
        f" error of raw states grows {(bare_far / bare).item():.3g}"
        " times when the student's are 10 times as long",
        expected="no difference; growth without normalisation",
    )


# %% [markdown]
# **Why β is 500.** The official code takes the mean over all elements.
# That makes the loss $M d$ times smaller than the formula: 3,840 times
# for five layers of 768. The weights β from 10 to 1,000 that the
# authors search only make sense for that mean. Their KD term, too, is
# a mean over all elements (PyTorch's `reduction="mean"`). That divides
# it by the number of classes, 2 or 3, so the balance α between labels
# and teacher means another thing on each task.


# %%
@claim(
    "The means of the code divide the patience loss by layers times"
    " width, and the KD term by the number of classes",
    source="not in the paper: found in the official code",
)
def means_shrink_both_terms() -> Evidence:
    h_s, h_t = random_states()
    code = patience_loss(h_s, h_t, variant="code")
    ratios = [(patience_loss(h_s, h_t) / code).item()]
    for classes in (2, 3):
        z, v = torch.randn(
            2, 8, classes, generator=seeded(0), dtype=torch.float64
        )
        log_q, p = (z / 10).log_softmax(-1), (v / 10).softmax(-1)
        each = nn.functional.kl_div(log_q, p, reduction="none")
        kd = kd_loss(z, v, temperature=10.0)
        ratios.append((kd / (100 * each.mean())).item())
    return Evidence(
        holds=all(
            abs(ratio / by - 1) < 1e-9
            for ratio, by in zip(ratios, (3840, 2, 3), strict=True)
        ),
        measured=f"patience loss {ratios[0]:.6g} times less for 5"
        f" layers of 768 (β = 500 is {500 / ratios[0]:.2g} in the"
        f" paper's scale); KD term {ratios[1]:.3g} times less for 2"
        f" classes, {ratios[2]:.3g} times for 3",
        expected="5 · 768 = 3840, 2, and 3 times less",
    )


# %% [markdown]
# **A cast that blurs.** The code ends with `.half()`, also when it
# trains in single precision. A half has 11 bits. So the reported loss
# moves in steps. The gradient is untouched, since the cast passes it on
# as it is: this harms what one reads, not what is learnt.


# %%
@claim(
    "The cast to half precision makes the loss move in steps, and"
    " leaves its gradient alone",
    source="not in the paper: found in the official code",
)
def half_blurs_the_loss() -> Evidence:
    h_s, h_t = random_states()
    shares = torch.linspace(0, 0.005, 201, dtype=torch.float64)
    exact, halved = [], []
    for share in shares:
        moved = h_s + share * (h_t - h_s)
        loss = patience_loss(moved, h_t, variant="code")
        exact.append(1e3 * loss.item())
        halved.append(1e3 * loss.half().item())
    h_s.requires_grad_()
    loss = patience_loss(h_s, h_t, variant="code")
    (plain,) = torch.autograd.grad(500 * loss, h_s, retain_graph=True)
    (cast,) = torch.autograd.grad(500 * loss.half(), h_s)
    fig, ax = figure(
        "In half precision the loss moves in steps",
        alt="The loss while the student moves half a percent of the way"
        " to the teacher: a smooth falling line in full precision, a"
        " staircase of some twenty steps in half precision.",
    )
    ax.plot(100 * shares, exact, color=BLUE)
    ax.step(100 * shares, halved, color=VERMILLION, where="mid", lw=1)
    label(ax, 0.3, exact[120], "full", BLUE, offset=(-30, -14))
    label(ax, 0.3, exact[120], "half", VERMILLION, offset=(8, 10))
    ax.set(xlabel="way to the teacher, %", ylabel="loss, 10⁻³")
    steps = len(set(halved))
    return Evidence(
        holds=steps < 60 < len(set(exact)) and torch.equal(plain, cast),
        measured=f"{len(exact)} losses become {steps}; the gradient"
        + (" stays" if torch.equal(plain, cast) else " changes"),
        expected="steps of one part in 1,000 to 2,000; no change",
        figure=fig,
    )


# %% [markdown]
# ## Layers in vision and in language
#
# The group asked whether the choice of layers differs between the two.
# It does, and the reason is a matter of shapes. A convolutional network
# goes through *stages*: each halves the image and has channels of its
# own. Two feature maps can be subtracted only within a stage, so the
# stages' ends choose the pairs. In a transformer all layers have one
# shape, and no pair is ruled out.


# %%
@claim(
    "Between transformers every pair of layers has one shape, between"
    " convolutional networks only those of the same stage",
    source="the group's question; not in the paper",
)
def shapes_decide_in_vision() -> Evidence:
    tokens = needles(4, seed=0).tokens
    images = torch.ones(4, 1, 8, 8, dtype=torch.float64)
    shapes = []
    for depth in (TEACHER_DEPTH, STUDENT_DEPTH):
        model = encoder(depth, generator=seeded(0))
        shapes.append([x.hidden.shape for x in model.trace(tokens)[1]])
    for _ in ("teacher", "student"):
        vision = cnn([8, 16, 32], 10, generator=seeded(0))
        maps = [vision[: 2 * k](images) for k in (1, 2, 3)]
        shapes.append([x.shape for x in maps])
    language, sight = (
        [t == s for t, s in itertools.product(*pair)]
        for pair in (shapes[:2], shapes[2:])
    )
    return Evidence(
        holds=all(language) and sum(sight) == 3,
        measured=f"{sum(language)} of {len(language)} pairs between"
        f" transformers, {sum(sight)} of {len(sight)} between"
        " convolutional networks",
        expected="all; one for each stage",
    )


# %% [markdown]
# ## Which layers?
#
# The task is small. A sequence of up to eight tokens hides one needle;
# its class is the symbol right behind it. The teacher has six layers
# of width 32. The student has three and learns from 512 sequences. As
# in the paper, it starts as a copy of the teacher's first layers, and
# follows the teacher in all layers but its last, since the logits
# cover that one. (We learn from the teacher alone, without labels.)
#
# Four maps for the two layers: *skip* (2, 4), *last* (4, 5), *first*
# (1, 2), and *reverse* (4, 2), which makes no sense at all. For one
# seed all students see the same data in the same order. So we compare
# them seed by seed, and call a gain clear if its mean over the seeds
# exceeds two standard errors.
#
# The scripts of DistilBERT, TinyBERT and MiniLM use the same teacher,
# the same student and the same task, with other losses.

# %%
SEEDS = (0, 1, 2)
MAPS: tuple[MapName, ...] = ("skip", "last", "first", "reverse")
STARTS = {
    "first layers": FROM_BELOW,
    "every second": layer_map("skip"),
    "last layers": layer_map("last"),
    "at random": {},
}


def cls_patience(student: Layer, teacher: Layer, _: Tensor) -> Tensor:
    """Apply `patience_loss` to one pair of layers, at [CLS]."""
    return patience_loss(student.hidden[:, :1], teacher.hidden[:, :1])


@functools.cache
def score(
    name: MapName, aligned: int, seed: int, start: str = "first layers"
) -> float:
    """Distil a student; its accuracy on fresh sequences, in %."""
    student = distil_layers(
        needle_teacher(),
        layer_map(name, aligned=aligned),
        cls_patience,
        seed=seed,
        copied=STARTS[start],
    )
    return 100 * needle_accuracy(student)


# %%
@claim(
    "A patient student is better than one that sees the logits only",
    source="the paper's comparison with plain distillation",
)
def patience_helps(seeds: Sequence[int] = SEEDS) -> Evidence:
    gains = [score("skip", 2, s) - score("skip", 0, s) for s in seeds]
    return Evidence(
        holds=clear(gains),
        measured="skip gains "
        + ", ".join(f"{gain:.1f}" for gain in gains)
        + " points, seed by seed; the teacher is right in"
        f" {percent(needle_accuracy(needle_teacher()), 1)}",
        expected="0.3 to 1.5 points over plain distillation on six"
        " tasks (averages in the authors' repository, 6 layers)",
    )


# %% [markdown]
# Now the maps. Where a line below is flat, the map does not matter;
# what keeps the lines apart is the seed.


# %%
@claim(
    "Which layers the student follows matters less than its seed; even"
    " the reversed map does as well",
    source="Yu et al. 2025, arXiv:2502.04499; the paper prefers skip",
)
def maps_hardly_matter(seeds: Sequence[int] = SEEDS) -> Evidence:
    scores = {m: [score(m, 2, s) for s in seeds] for m in MAPS}
    none = [score("skip", 0, s) for s in seeds]
    means = {m: mean(scores[m]) for m in MAPS}
    between_maps = max(means.values()) - min(means.values())
    by_seed = [mean(s) for s in zip(*scores.values(), strict=True)]
    between_seeds = max(by_seed) - min(by_seed)
    fig, ax = figure(
        "The seed separates students, the map hardly does",
        alt="Accuracy of students with no aligned layer and with four"
        " layer maps, one line for each seed. The lines are far apart;"
        " each is nearly flat over the four maps, and a little lower"
        " without alignment.",
    )
    ticks = ["none", *MAPS]
    for k, seed in enumerate(seeds):
        line = [none[k], *(scores[m][k] for m in MAPS)]
        colour = (BLUE, VERMILLION, GREEN)[k % 3]
        ax.plot(range(len(ticks)), line, "o-", color=colour)
        label(ax, 4, line[-1], f"seed {seed}", colour)
    ax.set_xticks(range(len(ticks)), ticks)
    ax.set(ylabel="accuracy, %")
    return Evidence(
        holds=between_maps < between_seeds / 2,
        measured=", ".join(f"{m} {means[m]:.1f} %" for m in MAPS)
        + f"; range of the maps {between_maps:.1f} points, of the"
        f" seeds {between_seeds:.1f}",
        expected="the paper: skip beats last by 0.05 to 1.4 points"
        " (authors' repository); Yu et al.: reverse does about as well",
        figure=fig,
    )


# %% [markdown]
# ## Why does the map hardly matter?
#
# Yu et al. look at the teacher *from the student's place*. Take the
# directions from the student's state to each layer of the teacher.
# When the angles between them are acute, a step towards one layer is a
# step towards all. We measure this for a student that is still random.
#
# Before one is impressed: *any* unrelated directions look like that.
# Three unit vectors at right angles form a triangle of 60° corners. So
# we draw random states as a control.


# %%
def seen_angles(states: Tensor, here: Tensor) -> Tensor:
    """Angles of the ways from `here` to states (M, n, d): (M, M)."""
    ways = directions(directions(states) - here)
    cosines = torch.einsum("ind,jnd->ijn", ways, ways).mean(-1)
    return cosines.clamp(-1, 1).acos().rad2deg()


@claim(
    "Seen from the student, the teacher's layers lie at acute angles to"
    " each other",
    source="Yu et al. 2025, arXiv:2502.04499",
)
def angles_are_acute() -> Evidence:
    tokens = needles(500, seed=103).tokens
    student = encoder(STUDENT_DEPTH, generator=seeded(5))
    with torch.no_grad():
        layers = student.trace(tokens)[1]
        here = directions(layers[1].hidden[:, 0])  # (n, d)
        states = torch.stack(
            [x.hidden[:, 0] for x in needle_teacher().trace(tokens)[1]]
        )  # (6, n, d)
    angles = seen_angles(states, here)
    noise = torch.randn(
        states.shape, generator=seeded(6), dtype=torch.float64
    )
    control = seen_angles(noise, here)[0, 1].item()
    fig, ax = figure(
        "Seen from the student, the layers lie at acute angles",
        alt="Angles between the directions to the teacher's six layers"
        " and those to its layers 1, 3 and 6. Neighbours are 10 to 36"
        " degrees apart, the first and the last some 50, a little less"
        " than the 60 of random states, which a dotted line shows.",
    )
    numbers = range(1, TEACHER_DEPTH + 1)
    for n, colour in ((1, VERMILLION), (3, GREEN), (6, BLUE)):
        ax.plot(numbers, angles[n - 1], "o-", color=colour)
        label(ax, 6, angles[n - 1, 5].item(), f"to {n}", colour)
    for angle, text, style in (
        (90, "a right angle", "--"),
        (control, "random states", ":"),
    ):
        ax.axhline(angle, color=GREY, ls=style, lw=1)
        label(ax, 2, angle, text, GREY, offset=(0, 8))
    ax.set(ylim=(-4, 99))
    ax.set(xlabel="from the teacher's layer", ylabel="angle, degrees")
    return Evidence(
        holds=bool(angles.max() < 90),
        measured=f"the widest angle, of layers 1 and 6, is"
        f" {angles.max().item():.0f}°; between neighbours it is at most"
        f" {angles.diagonal(1).max().item():.0f}°; between random"
        f" states it is {control:.0f}°",
        expected="acute: below 90°; 60° for random states",
        figure=fig,
    )


# %% [markdown]
# ## How many layers?
#
# The same student with none, one, two or all three of its layers
# aligned. With all three, its last layer follows the teacher's last.


# %%
@claim(
    "Two aligned layers help; the last one, which the logits cover,"
    " adds no clear gain",
    source="the paper leaves the last layer out",
)
def number_of_layers(seeds: Sequence[int] = SEEDS) -> Evidence:
    counts = range(STUDENT_DEPTH + 1)
    rows = [[score("skip", k, s) for s in seeds] for k in counts]
    means = [mean(row) for row in rows]
    two = [b - a for a, b in zip(rows[0], rows[2], strict=True)]
    third = [b - a for a, b in zip(rows[2], rows[3], strict=True)]
    return Evidence(
        holds=clear(two) and not clear(third),
        measured="; ".join(
            f"{k} aligned: {value:.1f} %"
            for k, value in zip(counts, means, strict=True)
        ),
        expected="more than none; all but the last are enough",
    )


# %% [markdown]
# ## What matters more: where the student starts
#
# The map says which layers the student should *resemble*. The start
# says which layers it *copies*. The two are easily confused, as both
# are called the choice of layers. Here no layer is aligned; only the
# start differs. (The longer the training, the less it should count;
# ours is short.)


# %%
@claim(
    "Which layers the student starts from matters far more than which"
    " it follows, and the first ones are best",
    source="Wang et al. 2023, arXiv:2305.15032",
)
def start_matters(seeds: Sequence[int] = SEEDS[:2]) -> Evidence:
    means = {
        name: mean(score("skip", 0, s, name) for s in seeds)
        for name in STARTS
    }
    best = means.pop("first layers")
    maps = [mean(score(m, 2, s) for s in seeds) for m in MAPS]
    fig, ax = figure(
        "The start matters far more than the map",
        alt="Accuracy of students by where they start, and by which"
        " layers they follow. A student from the teacher's first layers"
        " reaches over 90 percent, all other starts about 60; the four"
        " maps, from the first layers, lie together.",
    )
    rows = [f"start: {name}" for name in STARTS]
    rows += [f"follow: {m}" for m in MAPS]
    values = [best, *means.values(), *maps]
    colours = [VERMILLION] * len(STARTS) + [BLUE] * len(MAPS)
    ax.barh(range(len(rows)), values, color=colours)
    for k, value in enumerate(values):
        label(ax, value, k, f"{value:.0f}", colours[k])
    ax.set_yticks(range(len(rows)), rows)
    ax.invert_yaxis()
    ax.grid(False, axis="y")
    ax.set(xlabel="accuracy, %", xlim=(0, 105))
    span = max(maps) - min(maps)
    return Evidence(
        holds=best - max(means.values()) > 10 * span,
        measured=f"from the first layers {best:.0f} %; "
        + "; ".join(f"{name} {x:.0f} %" for name, x in means.items())
        + f"; the four maps span {span:.1f} points",
        expected="lower layers are better, by up to 17.8 points (QNLI,"
        " as reported)",
        figure=fig,
    )


# %% [markdown]
# ## What we learnt
#
# - The loss is a cosine distance. The code's is smaller by layers
#   times width, so its β does not carry over.
# - Patience helps a little. *Which* layers the student follows hardly
#   matters: seeds differ more than maps. Seen from the student, the
#   teacher's layers lie at acute angles, but so do random states.
# - Where the student *starts* matters most. That, not the map, is the
#   choice of layers to get right.
