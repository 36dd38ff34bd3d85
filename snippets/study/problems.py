"""What a student is given: the data of each regime, and its teacher."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snippets.lab.data import Split, digits, seeded
from snippets.lab.models import cnn, mlp
from snippets.lab.train import fit_classifier
from snippets.study.runs import Cell, StudyError

PAIRS = {
    "mlp-mlp": ("mlp", "mlp"),
    "cnn-cnn": ("cnn", "cnn"),
    "cnn-mlp": ("cnn", "mlp"),
    "mlp-cnn": ("mlp", "cnn"),
}
"""Kinds of teacher and student, by name."""

REGIMES = {
    "all": "all labels",
    "few": "5 labels a class, the other pictures unlabelled",
    "noisy": "40 % of the labels drawn at random",
    "other": "three classes missing from the student's data",
}
"""What the student is given, by name."""

LABELS_A_CLASS = 5
NOISE = 0.4
MISSING = 3
"""How many classes, the last ones, the student's data lacks."""

TEACHER = {"mlp": (128, 64), "cnn": (16, 32, 32)}
STUDENT = {"mlp": (16, 16), "cnn": (4, 8, 8)}
"""Widths of the hidden layers."""

LEARNING_RATE = 1e-2


@dataclass(frozen=True)
class Source:
    """A data set: its parts, and the type to compute in."""

    train: Split
    valid: Split
    test: Split
    dtype: torch.dtype
    device: str = "cpu"

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(self.train.labels.max()) + 1


@dataclass(frozen=True)
class Problem:
    """The student's training data, and a teacher.

    The teacher has seen all training pictures with their right labels;
    what the student is given differs from regime to regime.
    """

    source: Source
    images: Tensor
    targets: Tensor  # right or wrong, as the regime has it
    labelled: Tensor  # True where the student may read its target
    teacher: nn.Sequential
    student_kind: str


@functools.cache
def load_digits() -> Source:
    """Take scikit-learn's digits, in float64."""
    parts = digits()
    return Source(parts.train, parts.valid, parts.test, torch.float64)


@functools.cache
def load_cifar100() -> Source:
    """Take CIFAR-100 from ./data, which torchvision fills if asked.

    Computes in float32, on a GPU where there is one. The last tenth of
    the training pictures is for validation.
    """
    try:
        from torchvision.datasets import CIFAR100
    except ImportError:
        raise StudyError(
            "cifar100 needs torchvision: pip install torchvision"
        ) from None

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def part(train: bool) -> Split:
        try:
            raw = CIFAR100("data", train=train)
        except RuntimeError as error:
            raise StudyError(
                "cifar100 is not in ./data; get it with: python -c"
                ' "import torchvision; torchvision.datasets.CIFAR100('
                "'data', download=True)\""
            ) from error
        images = torch.as_tensor(raw.data).permute(0, 3, 1, 2) / 255
        labels = torch.as_tensor(raw.targets)
        return Split(images.to(device), labels.to(device))

    seen, test = part(train=True), part(train=False)
    cut = len(seen) * 9 // 10
    return Source(
        seen.where(torch.arange(cut)),
        seen.where(torch.arange(cut, len(seen))),
        test,
        torch.float32,
        device,
    )


DATA = {"digits": load_digits, "cifar100": load_cifar100}
"""The data sets, by name."""


def problem(cell: Cell, seed: int) -> Problem:
    """Make what the student is given in a cell, for one seed."""
    source = DATA[cell.data]()
    teacher_kind, student_kind = PAIRS[cell.pair]
    split, labelled = regime_data(source, cell.regime, seed)
    return Problem(
        source=source,
        images=split.images,
        targets=split.labels,
        labelled=labelled,
        teacher=teacher(cell.data, teacher_kind, seed),
        student_kind=student_kind,
    )


def regime_data(
    source: Source, regime: str, seed: int
) -> tuple[Split, Tensor]:
    """Give the student's pictures and targets, and which it may read."""
    train, classes = source.train, source.classes
    generator = seeded(seed)
    readable = torch.ones(len(train), dtype=torch.bool)
    if regime == "other":
        train = train.where(train.labels < classes - MISSING)
        return train, readable[: len(train)]
    if regime == "few":
        order = torch.randperm(len(train), generator=generator)
        labels = train.labels.cpu()[order]
        readable[:] = False
        for label in range(classes):
            first = (labels == label).nonzero()[:LABELS_A_CLASS, 0]
            readable[order[first]] = True
    elif regime == "noisy":
        wrong = torch.rand(len(train), generator=generator) < NOISE
        drawn = torch.randint(
            classes, (len(train),), generator=generator
        )
        labels = torch.where(wrong, drawn, train.labels.cpu())
        train = Split(train.images, labels.to(train.labels))
    return train, readable


def network(
    source: Source, kind: str, widths: tuple[int, ...], seed: int
) -> nn.Sequential:
    """Build a network that fits the data set's pictures."""
    channels, height, width = source.train.images.shape[1:]
    generator = seeded(seed)
    if kind == "mlp":
        model = mlp(
            channels * height * width,
            *widths,
            source.classes,
            generator=generator,
        )
    else:
        model = cnn(
            widths,
            source.classes,
            inputs=channels,
            generator=generator,
        )
    return model.to(device=source.device, dtype=source.dtype)


@functools.lru_cache(maxsize=64)
def teacher(data: str, kind: str, seed: int) -> nn.Sequential:
    """Train a teacher on every right label; it is the same each time."""
    source = DATA[data]()
    model = network(source, kind, TEACHER[kind], seed)
    fit_classifier(
        model,
        source.train.images,
        source.train.labels,
        generator=seeded(seed),
        epochs=40,
        learning_rate=LEARNING_RATE,
    )
    return model
