# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# Note: [papers/chen2019dafl.md](../papers/chen2019dafl.md).
#
# # Data-Free Learning of Student Networks
#
# Hanting Chen, Yunhe Wang, Chang Xu and others, 2019
# ([arXiv:1904.01186](https://arxiv.org/abs/1904.01186)).
#
# The teacher is there, its training data is not. DAFL trains a
# *generator* whose images please the teacher, and distils on those.
# This script builds the generator's loss, checks it exactly, and then
# asks the wider question: we distil on data A and test on data B.
# What must A have?

# %%
import functools
import math
from collections.abc import Sequence
from statistics import mean
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from snippets.hinton2015 import kd_loss
from snippets.lab.checks import (
    full_precision,
    require_at_least,
    require_samples,
    typed,
)
from snippets.lab.claims import Evidence, claim
from snippets.lab.data import digits, jitter, seeded
from snippets.lab.models import mlp
from snippets.lab.plots import BLUE, GREY, VERMILLION, figure, label
from snippets.lab.report import below, percent
from snippets.lab.train import accuracy, fit, fit_classifier

# %% [markdown]
# ## The loss
#
# Three wishes for a batch of generated images. The teacher should be
# sure of each; its features should be active; and over the batch all
# classes should come up equally often.


# %%
@typed
def generator_loss(
    teacher_logits: Float[Tensor, "batch classes"],
    teacher_features: Float[Tensor, "batch *dims"],
    *,
    activation: float = 0.1,
    information: float = 5.0,
    variant: Literal["paper", "code"] = "paper",
) -> Float[Tensor, ""]:
    r"""How little a batch of generated images pleases the teacher.

    $$\frac1B \sum_b -\log p^{(b)}_{t_b} - \alpha \cdot
    \mathrm{mean}\,|f| + \beta \sum_c \bar p_c \log \bar p_c, \qquad
    t_b = \arg\max_c v^{(b)}_c, \quad \bar p = \frac1B \sum_b p^{(b)}$$

    Nothing is detached: the gradient has to reach the generator
    through the teacher. Freeze the teacher's weights instead.

    Args:
        teacher_logits: The teacher's $v$ on the images, (B, C).
        teacher_features: Its features $f$ before the last layer,
            (B, …).
        activation: The $\alpha$. The code's MNIST value; CIFAR has
            0.01, with a one-hot term of weight 0.05.
        information: The $\beta$, 5 for MNIST and CIFAR.
        variant: "code" takes the logarithm of the last term to base
            10, which divides that term by $\ln 10 \approx 2.303$.

    Returns:
        A scalar in nats, at least $-\alpha \max|f| - \beta \log C$.

    Raises:
        TypeError: batches that differ, or tensors that are no floats.
        ValueError: a weight negative or not finite; an empty batch.

    Source: the one-hot, activation and information entropy losses of
    the paper; `DAFL-train.py` of Data-Efficient-Model-Compression.
    """
    require_at_least(0, activation=activation, information=information)
    require_samples(
        teacher_logits=teacher_logits, teacher_features=teacher_features
    )
    v = full_precision(teacher_logits)
    f = full_precision(teacher_features)
    log_p = v.log_softmax(-1)  # (B, C)
    t = v.argmax(-1, keepdim=True)  # the pseudo-label, (B, 1)
    one_hot = -log_p.gather(-1, t).mean()  # L_oh
    active = -f.abs().mean()  # L_a
    # A class of probability 0 gets a finite log, so 0 · log 0 is 0.
    finite = log_p.clamp(min=torch.finfo(log_p.dtype).min)
    log_mean = finite.logsumexp(0) - math.log(len(v))  # log p̄, (C,)
    entropy = (log_mean.exp() * log_mean).sum()  # L_ie
    if variant == "code":
        entropy = entropy / math.log(10)
    return one_hot + activation * active + information * entropy


# %% [markdown]
# ## Exact checks
#
# **How low can it go?** The third term is the negative entropy of the
# batch's mean prediction: 0 for one class, $-\beta \log C$ for all
# alike. To base 10 its pull is 2.3 times weaker. The first term is at
# least 0. So only the features decide whether the loss has a bound.


# %%
@claim(
    "The loss is at least −α max|f| − β log C, reached where |f| is"
    " constant and predictions are sure and balanced; log10 divides"
    " the last term by ln 10",
    source="from the formula; log10: the authors' code",
)
def lower_bound() -> Evidence:
    slack, worst = math.inf, 0.0
    for seed in range(50):
        draw = torch.randn(
            2, 64, 10, generator=seeded(seed), dtype=torch.float64
        )
        v, f = 3 * draw[0], draw[1]
        floor = -0.1 * f.abs().max() - 5 * math.log(10)
        loss = generator_loss(v, f)
        slack = min(slack, (loss - floor).item())
        bare = generator_loss(v, f, information=0.0)
        code = generator_loss(v, f, variant="code")
        ratio = (loss - bare) / (code - bare)
        worst = max(worst, abs(ratio.item() - math.log(10)))
    for classes in (2, 10, 100):
        sure = 1e3 * torch.eye(classes, dtype=torch.float64)
        loss = generator_loss(sure, torch.ones_like(sure))
        gap = loss + 0.1 + 5 * math.log(classes)
        worst = max(worst, gap.abs().item())
    return Evidence(
        holds=slack > 0 and worst < 1e-9,
        measured="50 random batches lie above; the bound for 2, 10 and"
        f" 100 classes, and the factor: error {below(worst, 1e-9)}",
        expected="a tight bound; the factor ln 10 = 2.303",
    )


# %% [markdown]
# **The gradient shows who asks for what.** With $p$ the prediction for
# one image, the one-hot term pulls each image to its own best class,
# by $(p_c - [c = t])/B$. The information term pulls *each* image by
# $\beta\,p_c\,(\log \bar p_c - \sum_k p_k \log \bar p_k)/B$: away from
# the classes that the batch already has. Where $p$ is one-hot this is
# zero: an image of which the teacher is sure no longer moves.


# %%
@claim(
    "The two terms on the logits move no image of which the teacher is"
    " sure, not even in a collapsed batch",
    source="not in the paper: from the formula",
)
def gradient_by_hand() -> Evidence:
    v = 3 * torch.randn(
        64, 10, generator=seeded(0), dtype=torch.float64
    )
    v.requires_grad_()
    (found,) = torch.autograd.grad(
        generator_loss(v, torch.zeros_like(v)), v
    )
    p = v.detach().softmax(-1)
    hot = nn.functional.one_hot(p.argmax(-1), 10)
    log_mean = p.mean(0).log()
    pull = p * (log_mean - (p * log_mean).sum(-1, keepdim=True))
    gap = (found - (p - hot + 5 * pull) / len(p)).abs().max()
    # A collapsed batch: every image is surely of class 0.
    stuck = 1e3 * torch.eye(10, dtype=torch.float64)[:1].repeat(64, 1)
    stuck.requires_grad_()
    loss = generator_loss(stuck, torch.zeros_like(stuck))
    (none,) = torch.autograd.grad(loss, stuck)
    return Evidence(
        holds=gap.item() < 1e-12 and none.abs().max().item() < 1e-12,
        measured=f"formula met with error {below(gap, 1e-12)}; in a"
        " surely collapsed batch the gradient is"
        f" {below(none.abs().max(), 1e-12)}",
        expected="equal; zero, although the information term is worst",
    )


# %% [markdown]
# ## A teacher and a generator
#
# Digits of 8×8 pixels. The teacher learns from 500 of them; 500 others
# are at hand for making the data A; B is the 500 test digits. The
# generator is a small fully connected network that turns 32 random
# numbers into an image. It is trained first, then it draws A. (The
# authors train it and the student at the same time, but the student
# sends it no gradient.)

# %%
SEEDS = (0, 1, 2)


@functools.cache
def trained_teacher(seed: int) -> nn.Sequential:
    """Train a teacher of two layers of 128; `[:-1]` are features."""
    generator = seeded(seed)
    own = digits().train.where(torch.arange(500))
    model = mlp(64, 128, 128, 10, generator=generator)
    fit_classifier(
        model,
        own.images,
        own.labels,
        generator=generator,
        augment=functools.partial(jitter, generator=generator),
        epochs=30,
    )
    return model


@functools.cache
def generated(
    seed: int, activation: float = 0.1, information: float = 5.0
) -> Tensor:
    """Train a generator for the teacher; draw 500 of its images."""
    generator = seeded(300 + seed)
    teacher = trained_teacher(seed)
    net = mlp(32, 128, 64, generator=generator)
    weighted = functools.partial(
        generator_loss, activation=activation, information=information
    )

    def draw(count: int) -> Tensor:
        noise = torch.randn(
            count, 32, generator=generator, dtype=torch.float64
        )
        return net(noise).sigmoid().view(count, 1, 8, 8)

    def loss(batch: Tensor) -> Tensor:
        f = teacher[:-1](draw(len(batch)))
        return weighted(teacher[-1](f), f)

    # Every batch is new, so an epoch is as long as we like.
    fit(
        net, loss, 10_000, generator=generator, epochs=1, batch_size=100
    )
    with torch.no_grad():
        return draw(500)


def coverage(seed: int, images: Tensor) -> float:
    """Count the classes in A: exp of the mean prediction's entropy."""
    p = trained_teacher(seed)(images).softmax(-1).mean(0)
    return torch.special.entr(p).sum().exp().item()


# %% [markdown]
# **Why three terms?** To be sure of every image is easy: make one
# image again and again. That is what the one-hot term alone does. The
# activation term does not keep it from that.


# %%
@claim(
    "The one-hot term alone collapses to one class; the information"
    " term brings the others back",
    source="the reason for the information entropy loss",
)
def collapse(seeds: Sequence[int] = SEEDS) -> Evidence:
    alone, active, spread, full = (
        [coverage(s, generated(s, *weights)) for s in seeds]
        for weights in ((0, 0), (0.1, 0), (0, 5), (0.1, 5))
    )
    return Evidence(
        # Below two classes is one; nine is all but one.
        holds=max(alone + active) < 2 and min(spread + full) > 9,
        measured=f"classes in use: {mean(alone):.1f} of 10 with the"
        f" one-hot term alone, {mean(active):.1f} with activation,"
        f" {mean(spread):.1f} with information, {mean(full):.1f} with"
        " all three",
        expected="one, one, about all, about all",
    )


# %% [markdown]
# ## Distil on A, test on B
#
# One teacher, one kind of student, ten kinds of A. Only the teacher's
# logits on A are used, never a label. All have 500 images (250 with
# half of the classes) and the student takes equally many steps.


# %%
def sources(seed: int) -> dict[str, Tensor]:
    """Make every data set A from the digits that are at hand."""
    generator = seeded(100 + seed)
    real = digits().train.where(torch.arange(500, 1000))
    x = real.images
    n = len(x)
    pixels = torch.randint(n, (n, 64), generator=generator)
    pixels = x.view(n, 64)[pixels, torch.arange(64)]  # (n, 64)
    quarters = x.view(n, 2, 4, 2, 4).transpose(2, 3)
    quarters = quarters.reshape(n, 4, 4, 4)  # (n, 4, 4, 4)
    order = torch.rand(n, 4, generator=generator).argsort(1)
    moved = quarters[torch.arange(n)[:, None], order]
    moved = moved.view(n, 2, 2, 4, 4).transpose(2, 3)
    smooth = 4 * torch.randn(
        n, 1, 4, 4, generator=generator, dtype=torch.float64
    )
    resize = functools.partial(
        nn.functional.interpolate, scale_factor=2
    )
    other = torch.randperm(n, generator=generator)
    return {
        "real digits": x,
        "real, without the 3": x[real.labels != 3],
        "mixtures of two digits": (x + x[other]) / 2,
        "quarters shuffled": moved.reshape(n, 1, 8, 8),
        "noise, real pixel values": pixels.view(n, 1, 8, 8),
        "real, only 0 to 4": x[real.labels < 5],
        "real at half size": resize(nn.functional.avg_pool2d(x, 2)),
        "smooth noise": resize(smooth, mode="bilinear").sigmoid(),
        "DAFL's generator": generated(seed),
        "uniform noise": torch.rand(
            n, 1, 8, 8, generator=generator, dtype=torch.float64
        ),
    }


def distance(seed: int, images: Tensor) -> float:
    """Measure how far B's features are from A's nearest; spread 1."""
    features = trained_teacher(seed)[:-1]
    b = features(digits().test.images)
    nearest = torch.cdist(b, features(images)).amin(1).mean()
    return (nearest / torch.cdist(b, b).mean()).item()


def distilled(seed: int, images: Tensor) -> float:
    """Distil the teacher on `images`; return the accuracy on B."""
    generator = seeded(200 + seed)
    soft = trained_teacher(seed)(images)
    student = mlp(64, 64, 64, 10, generator=generator)
    fit(
        student,
        lambda batch: kd_loss(student(images[batch]), soft[batch]),
        len(images),
        generator=generator,
        epochs=100 // -(-len(images) // 100),
        batch_size=100,
        learning_rate=1e-2,
    )
    return accuracy(student, digits().test.images, digits().test.labels)


@functools.cache
def measured(seeds: Sequence[int]) -> dict[str, tuple[float, ...]]:
    """Accuracy on B, distance and coverage of each A, mean of seeds."""
    made = {s: sources(s) for s in seeds}
    return {
        name: tuple(
            mean(measure(s, made[s][name]) for s in seeds)
            for measure in (distilled, distance, coverage)
        )
        for name in made[seeds[0]]
    }


@claim(
    "A need not be real digits, nor have every class: mixtures,"
    " shuffled quarters and noise with the right pixel values will do,"
    " uniform noise will not",
    source="the group's question; not in the paper",
)
def what_may_a_be(seeds: Sequence[int] = SEEDS) -> Evidence:
    got = {name: row[0] for name, row in measured(seeds).items()}
    test = digits().test
    teacher = mean(
        accuracy(trained_teacher(s), test.images, test.labels)
        for s in seeds
    )
    fig, ax = figure(
        "Much that is not a digit can teach digits; some noise cannot",
        alt="Bars: accuracy on test digits of students distilled on ten"
        " kinds of data. Real digits, also without the 3, and mixtures"
        " of two are near the teacher's level; shuffled quarters and"
        " noise with real pixel values come next; then only 0 to 4,"
        " half-size digits, smooth noise; DAFL's generator and uniform"
        " noise are last.",
        size=(7.2, 3.9),
    )
    names = list(got)[::-1]
    for row, name in enumerate(names):
        mine = name.startswith("DAFL")
        colour = VERMILLION if mine else BLUE
        ax.barh(row, 100 * got[name], color=colour)
        label(ax, 0, row, f"{100 * got[name]:.0f}", "white")
    ax.axvline(100 * teacher, color=GREY, ls="--", lw=1)
    label(ax, 100 * teacher, len(names) - 0.2, "teacher", GREY)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="accuracy on B, %", xlim=(0, 110))
    poor = got["uniform noise"]
    good = list(got.values())[1:5]
    return Evidence(
        holds=min(good) > 0.7 and poor < 0.6,
        measured=f"teacher {percent(teacher)}; student on real digits"
        f" {percent(got['real digits'])}, without the 3"
        f" {percent(good[0])}, mixtures {percent(good[1])}, quarters"
        f" {percent(good[2])}, pixel-value noise {percent(good[3])},"
        f" uniform noise {percent(poor)}",
        expected="above 70 %, and below 60 % for uniform noise: bounds"
        " of ours, set after a first look",
        figure=fig,
    )


# %% [markdown]
# **Is the generator worth its training?** Its rival is noise that
# costs nothing: 4×4 random numbers, blown up to 8×8. It knows that
# pictures are smooth, and nothing about the teacher.


# %%
@claim(
    "The generator's images teach better than smooth noise",
    source="implied by the method",
    expect=False,
)
def generator_beats_noise(seeds: Sequence[int] = SEEDS) -> Evidence:
    got = {name: row[0] for name, row in measured(seeds).items()}
    dafl, smooth = got["DAFL's generator"], got["smooth noise"]
    return Evidence(
        holds=dafl > smooth,
        measured=f"DAFL {percent(dafl)}, smooth noise"
        f" {percent(smooth)}, uniform noise"
        f" {percent(got['uniform noise'])}, noise with real pixel"
        f" values {percent(got['noise, real pixel values'])}",
        expected="better",
    )


# %% [markdown]
# Our explanation: nothing in the loss says what a digit looks like.
# Many images please the teacher without being near a digit, and a
# fully connected generator finds those. The authors' generator is
# convolutional with batch normalisation, ours is neither. So this
# speaks about the *loss*, not about their whole system.
#
# **What of A predicts success?** Two candidates, both seen through the
# teacher: how many classes A covers, and how near A's features come to
# those of B.


# %%
def rank_correlation(x: Tensor, y: Tensor) -> float:
    """Compute Spearman's coefficient; there are no ties."""
    ranks = torch.stack([x, y]).argsort(-1).argsort(-1).double()
    return torch.corrcoef(ranks)[0, 1].item()


@claim(
    "Features near those of B predict success; covering all classes"
    " does not suffice",
    source="the group's question; not in the paper",
)
def what_predicts(seeds: Sequence[int] = SEEDS) -> Evidence:
    rows = measured(seeds)
    got, gap, classes = torch.tensor(list(rows.values())).T
    near, cover = (rank_correlation(x, got) for x in (gap, classes))
    fig, axes = figure(
        "Nearness to B tells more than covering all classes",
        alt="Two scatter plots of accuracy on B for ten data sets A."
        " Left: it falls with the distance of B's features from those"
        " of A. Right: it rises with the number of classes covered,"
        " with two exceptions far below: half-size digits and DAFL's"
        " generator cover more than nine classes.",
        columns=2,
        size=(7.6, 3.4),
    )
    mine, half = (
        list(rows).index(name)
        for name in ("DAFL's generator", "real, only 0 to 4")
    )
    for ax, x, name in zip(
        axes,
        (gap, classes),
        ("distance of B's features from A", "classes covered by A"),
        strict=True,
    ):
        ax.plot(x, 100 * got, "o", color=BLUE)
        ax.plot(x[mine], 100 * got[mine], "o", color=VERMILLION)
        label(
            ax,
            x[mine].item(),
            100 * got[mine].item(),
            "DAFL",
            VERMILLION,
            offset=(-7, 0),
            ha="right",
        )
        ax.set(xlabel=name, ylim=(30, 100))
    axes[0].set(ylabel="accuracy on B, %")
    return Evidence(
        # By chance, ten ranks reach 0.79 once in a hundred times.
        holds=near < -0.79
        and -near > abs(cover)
        and classes[mine] > classes[half]
        and got[mine] < got[half],
        measured=f"rank correlation with the accuracy: distance"
        f" {near:.2f}, classes covered {cover:.2f}; DAFL covers"
        f" {classes[mine]:.1f} classes and gives {percent(got[mine])},"
        f" real 0 to 4 cover {classes[half]:.1f} and give"
        f" {percent(got[half])}",
        expected="distance below −0.79 and the stronger of the two;"
        " DAFL covers more classes and gives less",
        figure=fig,
    )


# %%
@claim(
    "A student without data comes close to its teacher on MNIST and"
    " CIFAR",
    source="the paper's tables, as reported",
)
def paper_numbers() -> Evidence:
    return Evidence(
        holds=None,
        measured="not run: it needs the paper's data and networks",
        expected="teacher to student: MNIST 98.91 to 98.20 %, CIFAR-10"
        " 95.58 to 92.22 %, CIFAR-100 77.84 to 74.47 %, as reported",
    )


# %% [markdown]
# ## What we learnt
#
# - The information term prevents the collapse to one class, but it
#   cannot undo one of which the teacher is sure: no gradient is left.
# - To please the teacher is not to look like the data. Our generator
#   covers all classes and teaches less than smooth noise.
# - A may miss a class and hold no digit. It must make the teacher's
#   features come near those that B makes. (We measured this for ten
#   A; it is a correlation, and it needs B to be computed.)
