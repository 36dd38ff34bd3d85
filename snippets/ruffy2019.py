# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# Script of the note [papers/ruffy2019.md](../papers/ruffy2019.md).
#
# # The State of Knowledge Distillation for Classification
#
# Fabian Ruffy and Karanbir Chahal, 2019
# ([arXiv:1912.10850](https://arxiv.org/abs/1912.10850)).
#
# A dozen ways to distil, one protocol: the same networks, the same
# budget, the same schedule. Hinton's plain distillation and its
# relatives came out on top, feature methods below plain training. But
# what exactly was compared? This script reads the objectives as they
# were coded, changes one term at a time, and asks which differences
# are larger than the noise.

# %%
import ast
import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from snippets.hinton2015 import distillation_loss
from snippets.lab.checks import require_at_least, typed
from snippets.lab.claims import Evidence, claim
from snippets.lab.data import digits, jitter, seeded
from snippets.lab.models import initialised, mlp
from snippets.lab.plots import (
    BLUE,
    GREY,
    VERMILLION,
    figure,
    label,
)
from snippets.lab.report import below, clear, gains, mean_sd
from snippets.lab.train import fit, fit_classifier
from snippets.park2019 import angle_loss, distance_loss
from snippets.romero2015 import hint_loss

# %% [markdown]
# ## The loss
#
# The paper has no loss of its own. Its code has one objective per
# method. The one under the name RKD is this: labels and soft targets,
# half each, as in plain distillation, and *on top of them* the two
# relational losses, with large weights.


# %%
@typed
def rkd_objective(
    student_logits: Float[Tensor, "batch classes"],
    teacher_logits: Float[Tensor, "batch classes"],
    targets: Int[Tensor, "batch"],
    student_features: Float[Tensor, "batch student_width"],
    teacher_features: Float[Tensor, "batch teacher_width"],
    *,
    alpha: float = 0.5,
    temperature: float = 5.0,
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
) -> Float[Tensor, ""]:
    r"""Labels, soft targets and relations, weighted as in the code.

    $$(1-\lambda)\,\mathcal L_{\mathrm{CE}} + \lambda\, T^2\,
    \mathrm{KL}(p_T \| q_T) + w_D\, \mathcal L_D + w_A\, \mathcal L_A$$

    With both weights 0 it is the code's KD, with $\lambda = 0$ labels
    and relations without Hinton's term, and with all three 0 plain
    training. A term of weight 0 is left out.

    Args:
        student_logits: The student's logits, (B, C).
        teacher_logits: The teacher's, (B, C); get no gradient.
        targets: The labels, (B,).
        student_features: The student's features before its last
            layer, (B, Ds).
        teacher_features: The teacher's, (B, Dt); get no gradient.
        alpha: The $\lambda$, weight of the soft targets, in [0, 1].
        temperature: The $T$ of both softmaxes.
        distance_weight: The $w_D$, at least 0.
        angle_weight: The $w_A$, at least 0.

    Returns:
        A scalar. The relational losses are means over all B² and B³
        entries, the variant "code" of `park2019`.

    Raises:
        TypeError: shapes that differ, or targets that are no integers.
        ValueError: an alpha outside [0, 1], a temperature not
            positive, a weight negative or not finite, an empty batch,
            fewer than 2 samples for the distances or 3 for the angles.

    Source: `KDTrainer` and `RKDTrainer` of karanchahal/distiller,
    whose defaults are ours.
    """
    require_at_least(
        0, distance_weight=distance_weight, angle_weight=angle_weight
    )
    total = distillation_loss(  # (1 − λ) CE + λ T² KL
        student_logits,
        teacher_logits,
        targets,
        temperature=temperature,
        alpha=alpha,
    )
    relations = {
        distance_loss: distance_weight,
        angle_loss: angle_weight,
    }
    for loss, weight in relations.items():
        if weight > 0:  # + w_D L_D + w_A L_A
            total = total + weight * loss(
                student_features, teacher_features, variant="code"
            )
    return total


# %% [markdown]
# ## Exact checks
#
# **Two changes at once.** We write the repository's RKD out by hand,
# from PyTorch's own losses, and compare. Its distance from plain
# training is the relational term *and* Hinton's. The repository's
# feature methods, SFD and OH, add their term to the labels alone.


# %%
@claim(
    "What was compared under the name RKD is Hinton's whole loss plus"
    " 25 times the distance and 50 times the angle loss",
    source="authors' code: KDTrainer, RKDTrainer",
)
def rkd_contains_hinton() -> Evidence:
    draw = functools.partial(
        torch.randn, generator=seeded(0), dtype=torch.float64
    )
    z, v, s, t = draw(16, 10), draw(16, 10), draw(16, 8), draw(16, 6)
    y = torch.arange(16) % 10
    soft = nn.functional.kl_div(
        (z / 5).log_softmax(-1), (v / 5).softmax(-1), reduction="sum"
    )
    hinton = (
        0.5 * nn.functional.cross_entropy(z, y) + 0.5 * 25 * soft / 16
    )
    relation = 25 * distance_loss(s, t, variant="code")
    relation += 50 * angle_loss(s, t, variant="code")
    gap = (
        (rkd_objective(z, v, y, s, t) - hinton - relation).abs().item()
    )
    return Evidence(
        holds=gap < 1e-12,
        measured=f"difference {below(gap, 1e-12)}",
        expected="equal",
    )


# %% [markdown]
# **A sweep that stands still.** To tune the temperature, the code
# goes through five temperatures and five weights $\lambda$. The line
# that should set the temperature has a colon where it needs an equals
# sign. That is an *annotation*: Python notes it and assigns nothing.
# So all 25 runs have the default, $T = 5$.


# %%
@claim(
    "The repository's sweep of temperature and λ never changes the"
    " temperature: its 25 runs are five settings, five times each",
    source="authors' code: test_kdparam",
)
def sweep_stands_still() -> Evidence:
    line = 'params["T_student"]: T'
    (statement,) = ast.parse(line).body
    noted = isinstance(statement, ast.AnnAssign)
    run = set()
    grid = [
        *itertools.product((1, 5, 10, 15, 20), (0.1, 0.4, 0.5, 0.7, 1))
    ]
    for temperature, alpha in grid:
        params = {"lambda_student": 0.5, "T_student": 5}
        params["lambda_student"] = alpha
        exec(line, {"params": params, "T": temperature})
        run.add((params["T_student"], params["lambda_student"]))
    temperatures = {temperature for temperature, _ in run}
    return Evidence(
        holds=noted and temperatures == {5} and len(run) == 5,
        measured=f"{len(grid)} settings announced, {len(run)} run;"
        f" temperatures run: {sorted(temperatures)}",
        expected="25 settings, T = 1, 5, 10, 15, 20",
    )


# %% [markdown]
# ## One term at a time
#
# A common protocol, small: one teacher, trained on 1,000 digits;
# students with two layers of 32 that see 100 of them; everybody has
# 30 epochs. A *seed* draws the 100 images and the student's start, the
# same for every method. Labels alone, a relation (RKD's 25 and 50),
# or a hint (a linear regressor to the teacher's 32 features, squared
# error, weight 1) are each run with Hinton's term and without. Two
# methods are compared seed by seed, and a difference counts if its
# mean is above twice its standard error.


# %%
SEEDS = range(5)


@dataclass(frozen=True)
class Method:
    """What is added to the labels."""

    hinton: bool = False
    relation: bool = False
    hint: bool = False
    augment: bool = False


@dataclass(frozen=True)
class Result:
    """What a student got right in the test set, and when."""

    right: Tensor  # which images, (500,)
    accuracy: float  # after the last epoch
    best: float  # after the best one


@functools.cache
def teacher() -> nn.Sequential:
    """Train the one teacher; `[:-1]` gives its features."""
    train = digits().train
    model = mlp(64, 128, 32, 10, generator=seeded(0))
    fit_classifier(
        model,
        train.images,
        train.labels,
        generator=seeded(0),
        epochs=20,
    )
    return model


@functools.cache
def student(method: Method, seed: int, subset: int) -> Result:
    """Train a student on the `subset`-th draw of 100 images."""
    generator = seeded(1000 + seed)
    test = digits().test
    few = digits().train.drawn(100, seed=subset)
    x, y = few.images, few.labels
    model = mlp(64, 32, 32, 10, generator=generator)
    regressor = initialised(
        lambda: nn.Linear(32, 32), generator=generator
    )
    relation = float(method.relation)
    steps = itertools.count()
    curve = []

    @torch.no_grad()
    def right() -> Tensor:
        return model(test.images).argmax(-1) == test.labels

    def objective(images: Tensor, labels: Tensor) -> Tensor:
        s, t = model[:-1](images), teacher()[:-1](images)
        loss = rkd_objective(
            model[-1](s),
            teacher()[-1](t),
            labels,
            s,
            t,
            alpha=0.5 * method.hinton,
            distance_weight=25 * relation,
            angle_weight=50 * relation,
        )
        if method.hint:
            loss = loss + hint_loss(regressor(s), t, variant="code")
        return loss

    def batch_loss(batch: Tensor) -> Tensor:
        if next(steps) % 4 == 0:  # an epoch begins
            curve.append(right().double().mean().item())
        loss = objective(x[batch], y[batch])
        if method.augment:  # half on moved images, as the code does
            moved = jitter(x[batch], generator=generator)
            loss = (loss + objective(moved, y[batch])) / 2
        return loss

    fit(
        [model, regressor],
        batch_loss,
        100,
        generator=generator,
        epochs=30,
        batch_size=25,
        learning_rate=1e-2,
    )
    curve.append(right().double().mean().item())
    return Result(right(), curve[-1], max(curve))


def accuracy(method: Method, seed: int) -> float:
    """Test accuracy on the seed's own draw of images."""
    return student(method, seed, seed).accuracy


# %%
LABELS, KD = Method(), Method(hinton=True)
RELATION, RKD = Method(relation=True), Method(True, relation=True)
HINT, KD_HINT = Method(hint=True), Method(True, hint=True)


@claim(
    "RKD beats a feature method by clearly less once both carry"
    " Hinton's term, or neither does",
    source="not in the paper: asked by the group",
)
def lead_shrinks_like_for_like(
    seeds: Sequence[int] = SEEDS,
) -> Evidence:
    fig, ax = figure(
        "Hinton's term lifts whatever it is added to",
        alt="Test accuracies of five seeds for labels alone, with a"
        " hint and a relation, each without and with Hinton's term."
        " Without it, the hint's mean lies below the labels' and the"
        " relation's above. With it every mean is higher, and the"
        " relation's equals that of Hinton's term alone.",
    )
    rows = (
        ("labels", LABELS, KD),
        ("labels + hint", HINT, KD_HINT),
        ("labels + relation", RELATION, RKD),
    )
    for row, (_, *methods) in enumerate(rows):
        for method, colour, shift in zip(
            methods, (VERMILLION, BLUE), (0.13, -0.13), strict=True
        ):
            found = [100 * accuracy(method, seed) for seed in seeds]
            heights = [row + shift] * len(found)
            ax.plot(found, heights, "o", color=colour, alpha=0.7, ms=5)
            ax.plot(fmean(found), row + shift, "|", color=colour, ms=18)
    ax.set_yticks(range(3), [name for name, *_ in rows])
    ax.set(xlabel="test accuracy, %", ylim=(-0.5, 2.9))
    label(ax, 82, 2.7, "without Hinton's term", VERMILLION)
    label(ax, 90, 2.7, "with", BLUE)
    compare = functools.partial(gains, accuracy, seeds=seeds)
    lead, both, neither = (
        fmean(compare(a, b))
        for a, b in ((RKD, HINT), (RKD, KD_HINT), (RELATION, HINT))
    )
    # What the lead loses is what Hinton's term gives to either.
    to_hint, to_relation = (
        compare(KD_HINT, HINT),
        compare(RKD, RELATION),
    )
    return Evidence(
        holds=clear(to_hint) and clear(to_relation),
        measured=f"as compared there, RKD leads the hint by {lead:.1f}"
        f" points; with Hinton's term in both by {both:.1f}, in neither"
        f" by {neither:.1f}. The term gives the hint"
        f" {mean_sd(to_hint, 1)} points, the relation"
        f" {mean_sd(to_relation, 1)}",
        expected="CIFAR-10: RKD 90.22 with it; SFD 87.47, OH 87.09"
        " without (Table 3)",
        figure=fig,
    )


# %% [markdown]
# The remaining lead is RKD's own: relations help these students more
# than a hint does. But on top of Hinton's term they add nothing that
# rises above the seeds.


# %%
@claim(
    "On top of Hinton's term, RKD is no better than plain distillation",
    source="Table 3",
)
def rkd_adds_nothing(seeds: Sequence[int] = SEEDS) -> Evidence:
    added = gains(accuracy, RKD, KD, seeds)
    alone = gains(accuracy, RELATION, LABELS, seeds)
    return Evidence(
        holds=clear(alone) and not clear(added),
        measured=f"RKD minus KD {mean_sd(added, 1)} points; the same"
        f" relation on labels alone adds {mean_sd(alone, 1)}",
        expected="RKD 90.22, KD 90.33; one run each",
    )


# %% [markdown]
# ## What is noise?
#
# Every number of the paper's tables is one run, tested on 10,000
# images. Two sources of noise can be told apart. *Sampling*: another
# test set would give other accuracies. *Seeds*: another start gives
# another network, which is right about other images.
#
# If two networks differ on a share $d$ of the images (one is right,
# the other wrong), the difference of their accuracies has a standard
# error of about $\sqrt{d / n}$. We measure $d$ for KD students that
# differ by the seed alone. They are right about as often as the
# paper's networks, so we take $d$ over, with $n = 10{,}000$. This is
# an estimate; the paper's own runs would give the true one.


# %%
TABLE_3 = {
    "TAKD": 90.57,
    "UDA": 90.52,
    "MKD": 90.34,
    "KD": 90.33,
    "RKD": 90.22,
    "no KD": 89.42,
    "SFD": 87.47,
    "OH": 87.09,
}
WITH_HINTON = ("TAKD", "UDA", "MKD", "KD", "RKD")


@claim(
    "The differences among the methods that carry Hinton's term are"
    " smaller than the noise of one run",
    source="Table 3",
)
def ranking_is_noise(seeds: Sequence[int] = SEEDS) -> Evidence:
    students = [student(KD, seed, 0) for seed in seeds]
    differ = fmean(
        (a.right != b.right).double().mean().item()
        for a, b in itertools.combinations(students, 2)
    )
    noise = 200 * math.sqrt(differ / 10_000)  # two standard errors
    spread = [TABLE_3[name] for name in WITH_HINTON]
    widest = max(spread) - min(spread)
    below_plain = TABLE_3["no KD"] - TABLE_3["SFD"]
    fig, ax = figure(
        "One cloud with Hinton's term, and two methods below it",
        alt="The eight accuracies of the paper's Table 3 as points with"
        " bars of the noise. The five methods that carry Hinton's term"
        " lie near 90.4 percent and their bars overlap. Plain training"
        " is a little below, SFD and OH far below.",
    )
    for row, (name, value) in enumerate(reversed(TABLE_3.items())):
        colour = BLUE if name in WITH_HINTON else VERMILLION
        colour = GREY if name == "no KD" else colour
        ax.errorbar(value, row, xerr=noise, fmt="o", color=colour)
    ax.set_yticks(range(len(TABLE_3)), [*reversed(TABLE_3)])
    label(ax, 88.6, 5.5, "with Hinton's term", BLUE)
    label(ax, 88.6, 0.5, "feature methods without", VERMILLION)
    ax.set(xlabel="accuracy on CIFAR-10, % (as in Table 3)")
    return Evidence(
        holds=widest < noise < below_plain,
        measured=f"KD students of other seeds differ on"
        f" {100 * differ:.1f} % of the images; two standard errors are"
        f" then {noise:.2f} points on 10,000. Their accuracies:"
        f" {mean_sd([100 * s.accuracy for s in students], 1)} %",
        expected=f"RKD to KD 0.11 points, all five {widest:.2f}; no KD"
        f" to SFD {below_plain:.2f}",
        figure=fig,
    )


# %% [markdown]
# **The best epoch.** The code reports the best test accuracy of all
# epochs. That picks the test set's luck. For all the students above,
# we compare it with the last epoch. Our test set has 500 images, so
# there is more luck to pick than among the paper's 10,000.


# %%
@claim(
    "Reporting the best epoch on the test set flatters a run by more"
    " than the difference of RKD and KD",
    source="authors' code: Trainer.train",
)
def best_epoch_flatters(seeds: Sequence[int] = SEEDS) -> Evidence:
    methods = (LABELS, KD, HINT, KD_HINT, RELATION, RKD)
    flattery = [
        100 * (result.best - result.accuracy)
        for method in methods
        for result in (student(method, seed, seed) for seed in seeds)
    ]
    return Evidence(
        holds=fmean(flattery) > 0.11,
        measured=f"best minus last epoch: {fmean(flattery):.2f} points"
        f" on average over {len(flattery)} students,"
        f" {max(flattery):.1f} at most",
        expected="an honest choice gains 0; RKD to KD is 0.11 points",
    )


# %% [markdown]
# ## Distillation and augmentation
#
# The paper's own proposal, UDA: average the distillation loss on the
# images and on changed ones, which the teacher answers too. We move
# the digits by up to one pixel. What augmentation adds to distillation
# is small: our five seeds did not settle it, so here are eight.


# %%
@claim(
    "Distillation and data augmentation together do better than either"
    " alone",
    source="abstract; Table 4",
)
def augmentation_adds(seeds: Sequence[int] = range(8)) -> Evidence:
    moved, both = Method(augment=True), Method(True, augment=True)
    compare = functools.partial(gains, accuracy, seeds=seeds)
    alone = {
        "augmentation": compare(moved, LABELS),
        "KD": compare(KD, LABELS),
        "both": compare(both, LABELS),
    }
    over = {
        "augmentation": compare(both, moved),
        "KD": compare(both, KD),
    }

    def points(found: dict[str, list[float]]) -> str:
        return ", ".join(
            f"{k} {mean_sd(v, 1)}" for k, v in found.items()
        )

    return Evidence(
        holds=all(clear(gain) for gain in over.values()),
        measured=f"{len(seeds)} seeds, points above labels alone:"
        f" {points(alone)}; both above {points(over)}",
        expected="CIFAR-10: 1.00, 1.43, both 1.88, not their sum",
    )


# %% [markdown]
# ## What we learnt
#
# - The comparison changed two things at once. Give Hinton's term to
#   none, and RKD's lead over a feature method falls by a third, here;
#   give it to both, and it halves. The rest of the lead is RKD's own.
# - On top of Hinton's term RKD adds nothing that can be told from the
#   seeds. The paper's table, read with its noise, says the same.
# - One run per method cannot rank methods that lie within half a
#   point. Nor can the best of many epochs or of a sweep.
