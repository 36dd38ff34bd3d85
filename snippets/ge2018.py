# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# Script of the note [papers/ge2018.md](../papers/ge2018.md).
#
# # Low-resolution Face Recognition in the Wild via Selective Knowledge Distillation
#
# Shiming Ge, Shengwei Zhao, Chenyu Li and Jia Li, 2018
# ([arXiv:1811.09998](https://arxiv.org/abs/1811.09998)).
#
# A teacher sees sharp faces, a student blurred ones. The student learns
# to predict the teacher's features, but only those of *selected* faces,
# clean and not repetitive. This script asks three things. What can a
# blurred picture tell at all? Does a selection find dirty samples? And
# does it pay on clean data too?

# %%
import functools
from collections.abc import Sequence
from statistics import mean, stdev

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from snippets.lab.checks import (
    full_precision,
    require_at_least,
    require_labelled,
    require_samples,
    require_true,
    typed,
)
from snippets.lab.claims import Evidence, claim
from snippets.lab.data import Split, digits, seeded
from snippets.lab.models import mlp
from snippets.lab.plots import (
    BLUE,
    GREY,
    VERMILLION,
    figure,
    label,
)
from snippets.lab.report import below, clear, mean_sd, percent
from snippets.lab.train import accuracy, fit, fit_classifier
from snippets.lab.vectors import directions

# %% [markdown]
# ## The loss
#
# The paper chooses samples by a sparse graph problem whose exact form
# we do not know. What follows is **our reconstruction** from its
# description: per class, take samples whose features are close to
# their own class and far from others, and unlike each other.


# %%
def purity(z: Tensor, groups: Tensor) -> Tensor:
    """Cosine to the own class minus that to the nearest other, (n,)."""
    sums = z.new_zeros(int(groups.max()) + 1, z.shape[1])
    centres = directions(sums.index_add_(0, groups, z))  # (C, d)
    cosine = z @ centres.mT  # (n, C)
    own = nn.functional.one_hot(groups).bool()
    return cosine[own] - cosine.masked_fill(own, -torch.inf).amax(-1)


@typed
def select_samples(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    per_class: int,
    *,
    redundancy: float = 1.0,
) -> Int[Tensor, "selected"]:
    r"""Choose clean samples of each class that differ.

    In each class one after the other, each time the sample of highest

    $$\underbrace{\cos(z_i, c_{y_i}) - \max_{c \ne y_i} \cos(z_i, c_c)
    }_{\text{purity}} - \lambda \cdot \frac1{|S|} \sum_{j \in S}
    \max(0, \cos(z_i, z_j))$$

    where $z$ are the features minus their mean over all samples, $c_c$
    is the sum of the unit vectors $z_i / \|z_i\|$ of class $c$, and $S$
    are the samples of the class chosen so far. Nothing changes if all
    features are shifted, rotated or scaled alike.

    Args:
        features: The teacher's features on n samples, (n, d).
        labels: The classes of the samples, (n,).
        per_class: How many samples of each class; all of them where a
            class has fewer.
        redundancy: The $\lambda$ above; 0 asks for purity alone.

    Returns:
        Indices, class by class in the order of choice, (selected,).

    Raises:
        TypeError: labels that are no integers, or too many or few.
        ValueError: a `per_class` below 1; a redundancy negative or not
            finite; features not finite; no samples; one class only.

    Source: our reconstruction of the paper's selection. The paper
    solves a sparse graph optimisation problem; see the note.
    """
    require_samples(features=features)
    x = full_precision(features).detach()
    require_at_least(1, per_class=per_class)
    require_at_least(0, redundancy=redundancy)
    require_labelled(x, labels)
    x = x / x.abs().max().clamp_min(torch.finfo(x.dtype).tiny)
    z = directions(x - x.mean(0))  # (n, d)
    groups = labels.unique(return_inverse=True)[1]
    pure = purity(z, groups)  # (n,)
    chosen = []
    for group in range(int(groups.max()) + 1):
        members = (groups == group).nonzero()[:, 0]
        alike = (z[members] @ z[members].mT).clamp_min(0)
        shared = torch.zeros_like(pure[members])  # Σ_j cos₊
        free = torch.ones_like(members, dtype=torch.bool)
        for step in range(min(per_class, len(members))):
            score = pure[members] - redundancy * shared / max(step, 1)
            best = score.masked_fill(~free, -torch.inf).argmax()
            shared, free[best] = shared + alike[best], False
            chosen.append(members[best])
    return torch.stack(chosen)


@typed
def selective_loss(
    student: Float[Tensor, "batch d"],
    teacher: Float[Tensor, "batch d"],
    selected: Bool[Tensor, "batch"],
) -> Float[Tensor, ""]:
    r"""Regress the teacher's features on the selected samples.

    $$\mathcal L = \frac1{|S|} \sum_{i \in S} \big\| f^T_i - f^S_i
    \big\|^2$$

    What is not selected has no say, whatever its features are. The
    value is symmetric in the two tensors; the gradient is not, it goes
    to the student only. The paper adds a classification loss.

    Args:
        student: The student's features $f^S$ on low-resolution
            images, mapped to the teacher's width, (B, d).
        teacher: The teacher's features $f^T$ on the same images in
            high resolution, (B, d); get no gradient.
        selected: True for the samples in $S$, (B,).

    Returns:
        A scalar in squared units of the features, 0 where they agree.

    Raises:
        TypeError: shapes that differ, features that are no floats, a
            `selected` that is no mask.
        ValueError: an empty batch, or no sample selected.

    Source: the regression term of the paper, as reported; there is no
    official code.
    """
    require_samples(student=student)
    require_true(selected=selected)
    error = full_precision(student) - full_precision(teacher).detach()
    error = torch.where(selected[:, None], error, 0)  # (B, d)
    return error.square().sum() / selected.sum()


# %% [markdown]
# ## What can low resolution tell?
#
# Our sharp pictures are the 8×8 digits. For the student, each block of
# 2×2 pixels is averaged, and the result enlarged again. That is a
# linear map $P$ with a null space: what lies there is gone.
#
# Whatever the student, it gives two pictures with the same $Px$ the
# same answer. So it cannot predict both of their teacher's features.
# For a *linear* student the floor has a closed form: the variance of
# the features $F$ that is left after regression on $Px$,
#
# $$\mathrm{tr}\big(\Sigma_{FF} - \Sigma_{FP}\, \Sigma_{PP}^{+}\,
# \Sigma_{PF}\big) .$$

# %%
SEEDS = (0, 1, 2)


def low_resolution(images: Tensor, size: int = 4) -> Tensor:
    """Average blocks to size×size, enlarge to 8×8 again."""
    small = nn.functional.adaptive_avg_pool2d(images, size)
    return nn.functional.interpolate(small, size=8)


@functools.cache
def teacher(seed: int) -> nn.Sequential:
    """A teacher on sharp pictures; `[:5]` gives its 32 features."""
    generator = seeded(seed)
    train = digits().train
    model = mlp(
        64, 128, 32, 10, generator=generator, activation=nn.Tanh
    )
    fit_classifier(
        model,
        train.images,
        train.labels,
        generator=generator,
        epochs=20,
    )
    return model


def floors(size: int, seed: int) -> tuple[float, float]:
    """Share of the features' variance left: formula, least squares."""
    images = digits().train.images
    features = teacher(seed)[:5](images)
    f = features - features.mean(0)  # (n, 32)
    p = low_resolution(images, size).flatten(1)  # (n, 64)
    p = p - p.mean(0)
    inverse = torch.linalg.pinv(p.mT @ p, hermitian=True, rtol=1e-10)
    explained = (f.mT @ p @ inverse @ p.mT @ f).trace()
    fitted = p @ torch.linalg.pinv(p, rtol=1e-6) @ f
    total = f.square().sum()
    left = (f - fitted).square().sum() / total
    return (1 - explained / total).item(), left.item()


@claim(
    "What low resolution erases, no linear student can copy; the"
    " closed form gives how much that is",
    source="least squares; not in the paper",
)
def resolution_floor(seeds: Sequence[int] = SEEDS) -> Evidence:
    sizes = (8, 4, 2, 1)
    pairs = [[floors(size, seed) for seed in seeds] for size in sizes]
    worst = max(abs(a - b) for row in pairs for a, b in row)
    left = [mean(b for _, b in row) for row in pairs]
    fig, ax = figure(
        "Fewer pixels, fewer features that a student can predict",
        alt="Share of the variance of the teacher's features that a"
        " linear student cannot predict: 7 percent from 8 by 8 pixels,"
        " a quarter from 4 by 4, 71 percent from 2 by 2, nearly all"
        " from a single value.",
    )
    bars = ax.bar(range(4), [100 * share for share in left], color=BLUE)
    ax.bar_label(bars, [percent(share) for share in left], color=BLUE)
    ax.set_xticks(range(4), [f"{size}×{size}" for size in sizes])
    ax.set(xlabel="pixels", ylabel="variance left, %", ylim=(0, 110))
    return Evidence(
        holds=worst < 1e-9 and left == sorted(left),
        measured=f"formula and least squares agree to"
        f" {below(worst, 1e-9)}; left: "
        + ", ".join(
            f"{percent(share)} from {size}×{size}"
            for size, share in zip(sizes, left, strict=True)
        ),
        expected="equal; more left the fewer pixels",
        figure=fig,
    )


# %% [markdown]
# ## Does the selection find dirty samples?
#
# The student's transfer set has 500 digits. For a share of them the
# teacher is shown *another* picture, as when a face found on the web
# carries the wrong name. One in ten of those is of the right class by
# chance. We select 25 of each class, about half.


# %%
@functools.cache
def transfer_set(
    share: float, dirt: str, seed: int
) -> tuple[Split, Tensor, Tensor]:
    """Digits, the teacher's features on them, and which are dirty.

    `dirt` says what is wrong: the teacher's "pictures" or the "labels".
    """
    generator = seeded(100 + seed)
    train = digits().train
    order = torch.randperm(len(train), generator=generator)
    clean, wrong = (train.where(part) for part in order.split(500))
    dirty = torch.arange(500) < round(500 * share)
    shown, labels = clean.images.clone(), clean.labels.clone()
    if dirt == "pictures":
        shown[dirty] = wrong.images[dirty]
    else:
        labels[dirty] = wrong.labels[dirty]
    features = teacher(seed)[:5](shown)
    return Split(clean.images, labels), features, dirty


def chosen(
    how: str, share: float, seed: int, dirt: str = "pictures"
) -> Tensor:
    """Indices of the transfer set whose features are regressed."""
    if how in ("all", "random", "labels"):
        size = {"all": 500, "random": 250, "labels": 0}[how]
        return torch.randperm(500, generator=seeded(seed))[:size]
    data, features, _ = transfer_set(share, dirt, seed)
    weight = float(how.partition("λ = ")[2] or 1)
    return select_samples(features, data.labels, 25, redundancy=weight)


def dirt_left(how: str, share: float, seeds: Sequence[int]) -> float:
    """Share of dirty samples among the chosen ones."""
    shares = [
        transfer_set(share, "pictures", seed)[2][
            chosen(how, share, seed)
        ]
        for seed in seeds
    ]
    return torch.cat(shares).double().mean().item()


@claim(
    "Among the selected samples dirt is less than half as frequent as"
    " in the transfer set",
    source="the paper's aim, by our reconstruction",
)
def selection_finds_dirt(seeds: Sequence[int] = SEEDS) -> Evidence:
    some, most = (dirt_left("selected", x, seeds) for x in (0.3, 0.6))
    return Evidence(
        holds=some < 0.3 / 2 and most < 0.6 / 2,
        measured=f"dirty among the selected: {percent(some)} of 30 %,"
        f" {percent(most)} of 60 %",
        expected="less than half of the share in the transfer set",
    )


# %% [markdown]
# ## Does selection pay?
#
# The student sees 4×4 pixels and learns *only* from the teacher's
# features, no label. On top comes the teacher's own last layer, so its
# accuracy shows what the features brought. It learns from all samples,
# from the selected ones, or from as many at random, in equally many
# steps. The error is divided by the variance of the features.


# %%
@functools.cache
def student(
    how: str, share: float, seed: int, dirt: str = "pictures"
) -> float:
    """Train a student; accuracy on low resolution, in percent.

    With "labels" in `how`, it classifies all samples, too.
    """
    data, features, _ = transfer_set(share, dirt, seed)
    images = low_resolution(data.images)
    picked, labelled = chosen(how, share, seed, dirt), "labels" in how
    mask = torch.zeros(500, dtype=torch.bool)
    mask[picked] = True
    used = torch.arange(500) if labelled else picked
    spread = (features - features.mean(0)).square().sum(1).mean()
    generator = seeded(300 + seed)
    model = mlp(64, 64, 32, 10, generator=generator, activation=nn.Tanh)

    def loss(batch: Tensor) -> Tensor:
        batch = used[batch]
        h, kept, terms = model[:4](images[batch]), mask[batch], []
        if kept.any():
            error = selective_loss(h, features[batch], kept)
            terms.append(error / spread)
        if labelled:
            answer, labels = model[4:](h), data.labels[batch]
            terms.append(nn.functional.cross_entropy(answer, labels))
        return torch.stack(terms).sum()

    fit(
        model,
        loss,
        len(used),
        generator=generator,
        epochs=80 * 500 // len(used),
        batch_size=250,
        learning_rate=2e-2,
    )
    head = model[4:] if labelled else teacher(seed)[5:]
    test = digits().test
    images = low_resolution(test.images)
    whole = nn.Sequential(model[:4], head)
    return 100 * accuracy(whole, images, test.labels)


def students(
    how: str, share: float, seeds: Sequence[int], dirt: str = "pictures"
) -> list[float]:
    return [student(how, share, seed, dirt) for seed in seeds]


def selection_gains(
    share: float, seeds: Sequence[int], dirt: str = "pictures"
) -> list[float]:
    """Points of the selected over all samples, seed by seed."""
    ours, every = (
        students(how, share, seeds, dirt) for how in ("selected", "all")
    )
    # Of 500 pictures each is 0.2 points: no rounding, and no "-0.0".
    pairs = zip(ours, every, strict=True)
    return [round(a - b, 1) + 0.0 for a, b in pairs]


@claim(
    "Where the teacher saw wrong pictures, the student of selected"
    " samples beats that of all samples",
    source="the paper's method, by our reconstruction",
)
def selection_pays_on_dirt(seeds: Sequence[int] = SEEDS) -> Evidence:
    shares = (0.0, 0.3, 0.6)
    fig, ax = figure(
        "The dirtier the teacher's pictures, the more selection pays",
        alt="Accuracy of the student against the share of wrong"
        " pictures, 0 to 60 percent. All three start near 86 percent."
        " The student of all samples falls to 74, that of a random"
        " half to 66; that of selected samples only to 84.",
    )
    means = {}
    for how, colour, spot in (
        ("selected", BLUE, (4, 9)),
        ("all", GREY, (4, 9)),
        ("random", VERMILLION, (-52, -8)),
    ):
        means[how] = [mean(students(how, x, seeds)) for x in shares]
        ax.plot(
            [100 * x for x in shares], means[how], "o-", color=colour
        )
        label(ax, 30, means[how][1], how, colour, offset=spot)
    ax.set(xlabel="wrong pictures, %", ylabel="accuracy, %")
    some, most = (selection_gains(x, seeds) for x in (0.3, 0.6))
    return Evidence(
        holds=clear(some) and clear(most) and mean(most) > mean(some),
        measured=f"selected over all: {mean(some):+.1f} points at 30 %"
        f" wrong pictures, {mean(most):+.1f} at 60 %",
        expected="gains above two standard errors, growing with the"
        " share",
        figure=fig,
    )


# %% [markdown]
# On clean data the selection only takes samples away. And if the
# *labels* are wrong but the pictures right, it throws out samples whose
# features are in order: the regression never reads a label. We call it
# no gain if the mean plus two standard errors stays below one point.


# %%
@claim(
    "Selection pays only where the teacher's pictures are wrong: not on"
    " clean data, and not against wrong labels",
    source="the group's question",
)
def selection_pays_only_on_dirt(
    seeds: Sequence[int] = SEEDS,
) -> Evidence:
    gains = {}
    for name, share, dirt in (
        ("60 % wrong pictures", 0.6, "pictures"),
        ("clean data", 0.0, "pictures"),
        ("60 % wrong labels", 0.6, "labels"),
    ):
        gains[name] = selection_gains(share, seeds, dirt)
    first, *others = gains.values()
    error = 1 / len(seeds) ** 0.5
    return Evidence(
        holds=clear(first)
        and all(mean(x) + 2 * error * stdev(x) < 1 for x in others),
        measured="selected over all, in points: "
        + ", ".join(
            f"{mean_sd(gain, 1)} on {name}"
            for name, gain in gains.items()
        ),
        expected="above two standard errors in the first case; below"
        " one point in the others",
    )


# %% [markdown]
# **"Remove features that are highly correlated."** Our $\lambda$ does
# that among samples. But a dirty sample is, above all, *unlike* the
# others of its class. So the two wishes of the group, purity and
# little redundancy, pull against each other.


# %%
@claim(
    "Avoiding correlated samples makes the selection better",
    source="the group's notes; the paper's graph, as reported",
    expect=False,
)
def less_redundancy_helps(seeds: Sequence[int] = SEEDS) -> Evidence:
    ways = {"λ = 0": "λ = 0", "λ = 1": "selected", "λ = 3": "λ = 3"}
    scores = [mean(students(w, 0.6, seeds)) for w in ways.values()]
    dirt = [percent(dirt_left(w, 0.6, seeds)) for w in ways.values()]
    return Evidence(
        holds=max(scores[1:]) > scores[0] + 1,
        measured="; ".join(
            f"{name}: {share} dirty, accuracy {score:.1f} %"
            for name, share, score in zip(
                ways, dirt, scores, strict=True
            )
        ),
        expected="a point more with λ > 0",
    )


# %% [markdown]
# ## Features and labels together
#
# The paper trains both at once: classify all samples, and regress on
# the selected ones.


# %%
@claim(
    "Regressing selected features helps a student that has the labels",
    source="abstract: to avoid a drop of the student's performance",
    expect=False,
)
def regression_helps_labels(seeds: Sequence[int] = SEEDS) -> Evidence:
    alone = students("labels", 0.0, seeds)
    both = students("labels and selected", 0.0, seeds)
    return Evidence(
        holds=mean(both) > mean(alone) + 1,
        measured=f"labels {mean_sd(alone, 1)} %, labels and features"
        f" {mean_sd(both, 1)} %",
        expected="a point or more above labels alone",
    )


# %% [markdown]
# Digits with labels need no teacher: about a quarter of its features
# cannot be seen in 4×4 pixels, and fifty labels a class suffice. The
# paper's case, many people with few pictures each, may well differ.


# %%
@claim(
    "The student needs 0.15 MB and recognises 418 faces a second on a"
    " CPU, 9,433 on a GPU",
    source="abstract",
)
def small_and_fast() -> Evidence:
    return Evidence(
        holds=None,
        measured="not run: it needs photographs of faces",
        expected="with little loss on low-resolution faces",
    )


# %% [markdown]
# ## What we learnt
#
# - Resolution sets a floor under the regression, and it is known in
#   closed form. No selection gets below it.
# - Selection by purity finds wrong pictures, and then it pays.
# - On clean data it does not pay, and neither against wrong labels:
#   what counts is whether the teacher's *features* are in order.
# - Penalising similar samples brings the dirty ones back.
