"""The methods that are compared: each one's loss, on the same networks.

A method is a signal that is added to the cross-entropy. Names that
start with `kd+` add it to Hinton's soft targets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from snippets.fang2021 import seed_loss
from snippets.ge2018 import select_samples, selective_loss
from snippets.hinton2015 import kd_loss
from snippets.kim2018 import (
    Paraphraser,
    Translator,
    factor_transfer_loss,
)
from snippets.lab.data import seeded
from snippets.lab.models import initialised
from snippets.lab.train import fit
from snippets.luo2016 import neuron_loss, select_neurons
from snippets.park2019 import angle_loss, distance_loss
from snippets.romero2015 import hint_loss
from snippets.study.problems import PAIRS, STUDENT, Problem
from snippets.zagoruyko2017 import (
    attention_transfer_loss,
    gradient_attention_loss,
)

M = TypeVar("M", bound=nn.Module)


class View(NamedTuple):
    """What a network shows of a batch.

    The embedding (B, d) is what its last layer reads; the maps (B, C,
    H, W) come from a CNN's second convolution. An MLP's maps are its
    embedding, as pictures of one pixel.
    """

    logits: Tensor
    embedding: Tensor
    maps: Tensor


def view(model: nn.Sequential, images: Tensor) -> View:
    """Run a network, and keep what the methods compare."""
    if isinstance(model[0], nn.Conv2d):
        maps = model[:4](images)
        embedding = model[4:-1](maps)
    else:
        embedding = model[:-1](images)
        maps = embedding[..., None, None]
    return View(model[-1](embedding), embedding, maps)


@dataclass
class Batch:
    """Some of the student's data, as both networks see it."""

    index: Tensor
    images: Tensor
    targets: Tensor
    labelled: Tensor
    student: View
    teacher: View


@dataclass
class Signal:
    """One loss of the teacher's knowledge, and what it trains."""

    loss: Callable[[Batch], Tensor]
    modules: Sequence[nn.Module] = field(default_factory=list)


@dataclass(frozen=True)
class Setting:
    """What a signal is made for."""

    problem: Problem
    student: nn.Sequential
    teacher_view: View  # of all the student's pictures
    seed: int

    def made(self, build: Callable[[], M]) -> M:
        """Draw a module that is trained beside the student."""
        module = initialised(build, generator=seeded(self.seed))
        return module.to(self.teacher_view.logits)

    def regressor(self, width: int) -> nn.Module:
        """Map the student's embedding to `width` numbers.

        It is FitNets' regressor of 1×1, for pictures of one pixel.
        """
        own = STUDENT[self.problem.student_kind][-1]
        return self.made(lambda: nn.Linear(own, width))


def soft_targets(_: Setting) -> Signal:
    """Hinton's: the teacher's distribution at temperature 4."""
    return Signal(
        lambda batch: kd_loss(
            batch.student.logits, batch.teacher.logits, temperature=4
        )
    )


def hint(setting: Setting) -> Signal:
    """FitNets: the teacher's embedding, through a regressor."""
    width = setting.teacher_view.embedding.shape[1]
    regressor = setting.regressor(width)

    def loss(batch: Batch) -> Tensor:
        mapped = regressor(batch.student.embedding)
        return hint_loss(mapped, batch.teacher.embedding)

    return Signal(loss, [regressor])


def attention(_: Setting) -> Signal:
    """Where the feature maps are large."""
    return Signal(
        lambda batch: attention_transfer_loss(
            batch.student.maps, batch.teacher.maps
        )
    )


def gradient(setting: Setting) -> Signal:
    """How the cross-entropy changes with each pixel."""

    def at_input(model: nn.Sequential, batch: Batch) -> Tensor:
        images = batch.images[batch.labelled].requires_grad_()
        cost = nn.functional.cross_entropy(
            model(images),
            batch.targets[batch.labelled],
            reduction="sum",
        )
        (gradient,) = torch.autograd.grad(
            cost, images, create_graph=model is setting.student
        )
        return gradient

    return Signal(
        lambda batch: gradient_attention_loss(
            at_input(setting.student, batch),
            at_input(setting.problem.teacher, batch),
        )
    )


def factor(setting: Setting) -> Signal:
    """A paraphraser's code of the teacher's maps."""
    maps = setting.teacher_view.maps
    paraphraser = setting.made(lambda: Paraphraser(maps.shape[1]))
    fit(
        paraphraser,
        lambda index: hint_loss(paraphraser(maps[index]), maps[index]),
        len(maps),
        generator=seeded(setting.seed),
        epochs=5,
    )
    with torch.no_grad():
        code = paraphraser.encode(maps)
    translator = setting.made(
        lambda: Translator(STUDENT["cnn"][1], paraphraser.factors)
    )
    return Signal(
        lambda batch: factor_transfer_loss(
            translator(batch.student.maps), code[batch.index]
        ),
        [translator],
    )


def distance(_: Setting) -> Signal:
    """RKD's distances between the pictures of a batch."""
    return Signal(
        lambda batch: distance_loss(
            batch.student.embedding, batch.teacher.embedding
        )
    )


def angle(_: Setting) -> Signal:
    """RKD's angles between the pictures of a batch."""
    return Signal(
        lambda batch: angle_loss(
            batch.student.embedding, batch.teacher.embedding
        )
    )


def neurons(setting: Setting) -> Signal:
    """The half of the teacher's neurons that best tell its classes."""
    features, logits = (
        setting.teacher_view.embedding,
        setting.teacher_view.logits,
    )
    chosen = select_neurons(
        features, logits.argmax(1), features.shape[1] // 2
    )
    regressor = setting.regressor(len(chosen))

    def loss(batch: Batch) -> Tensor:
        mapped = regressor(batch.student.embedding)
        return neuron_loss(mapped, batch.teacher.embedding[:, chosen])

    return Signal(loss, [regressor])


def selective(setting: Setting) -> Signal:
    """The teacher's embedding, on the cleaner half of the pictures."""
    features, logits = (
        setting.teacher_view.embedding,
        setting.teacher_view.logits,
    )
    answers = logits.argmax(1)
    half = len(answers) // (2 * len(answers.unique()))
    clean = torch.zeros_like(answers, dtype=torch.bool)
    clean[select_samples(features, answers, half)] = True
    regressor = setting.regressor(features.shape[1])

    def loss(batch: Batch) -> Tensor:
        mapped = regressor(batch.student.embedding)
        chosen = clean[batch.index]
        if not chosen.any():  # a small last batch may have none
            return mapped.new_zeros(())
        return selective_loss(
            mapped,
            batch.teacher.embedding,
            chosen,
        )

    return Signal(loss, [regressor])


def seed(setting: Setting) -> Signal:
    """SEED: which of 256 other pictures each picture resembles."""
    features = setting.teacher_view.embedding
    order = torch.randperm(
        len(features), generator=seeded(setting.seed)
    )
    queue = features[order[:256]]
    regressor = setting.regressor(features.shape[1])

    def loss(batch: Batch) -> Tensor:
        mapped = regressor(batch.student.embedding)
        return seed_loss(mapped, batch.teacher.embedding, queue)

    return Signal(loss, [regressor])


Maker = Callable[[Setting], Signal]


@dataclass(frozen=True)
class Method:
    """What is added to the cross-entropy, and the weights to try.

    A weight of 1 makes the signal as large as the cross-entropy at the
    first step, for each method alike.
    """

    label: str
    paper: str | None = None
    makers: tuple[Maker, ...] = ()
    weights: tuple[float, ...] = (0.03, 0.3, 3.0, 30.0)
    spatial: bool = False

    def fits(self, pair: str) -> bool:
        """Say whether both networks of the pair have what it needs."""
        return not self.spatial or PAIRS[pair] == ("cnn", "cnn")


NONE, SMOOTHING, HINTON = "none", "smoothing", "kd"

_ALONE = {
    "hint": ("hint", "romero2015", hint, False),
    "attention": ("attention", "zagoruyko2017", attention, True),
    "gradient": ("input gradient", "zagoruyko2017", gradient, False),
    "factor": ("factor", "kim2018", factor, True),
    "distance": ("distances", "park2019", distance, False),
    "angle": ("angles", "park2019", angle, False),
    "neurons": ("chosen neurons", "luo2016", neurons, False),
    "selective": ("chosen samples", "ge2018", selective, False),
    "seed": ("similarities", "fang2021", seed, False),
}

METHODS = {
    NONE: Method("no distillation", weights=(0.0,)),
    SMOOTHING: Method("label smoothing", weights=(0.03, 0.1, 0.3, 0.5)),
    HINTON: Method("soft targets", "hinton2015", (soft_targets,)),
    **{
        name: Method(label, paper, (maker,), spatial=spatial)
        for name, (label, paper, maker, spatial) in _ALONE.items()
    },
    **{
        f"kd+{name}": Method(
            f"soft targets + {label}",
            paper,
            (soft_targets, maker),
            spatial=spatial,
        )
        for name, (label, paper, maker, spatial) in _ALONE.items()
    },
}
"""Every method of the study, by name."""

LEFT_OUT = {
    "phuong2019": "linear classifiers of two classes",
    "jiao2020": "attention between tokens",
    "wang2020": "attention between tokens",
    "sun2019": "student and teacher of one width",
    "sanh2019": "student and teacher of one width",
    "kim2016": "sequences",
    "gu2018": "sequences",
    "gu2024": "sequences",
    "agarwal2024": "sequences",
    "zhou2020": "measures data, no loss",
    "chan2015": "sequences",
    "chen2019": "reviews that the teacher alone reads",
    "yang2020": "a graph",
    "zhang2022": "a graph; without one it is soft targets",
    "chen2019dafl": "trains a generator, not the student",
    "ruffy2019": "no loss of its own",
}
"""Papers of the site that are not in the study, and what they need."""
