"""One run of the study, its name, and what it found."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields

PROTOCOL = 1
"""Counts up with each change that makes earlier results obsolete."""


class StudyError(Exception):
    """What stops the study; its text is all that the user sees."""


@dataclass(frozen=True)
class Cell:
    """Where methods are compared: like meets like only within one."""

    data: str
    pair: str
    regime: str
    epochs: int


@dataclass(frozen=True)
class Run(Cell):
    """One training run, and all that it depends on."""

    method: str
    weight: float
    seed: int
    search: bool
    protocol: int = PROTOCOL

    @property
    def digest(self) -> str:
        """A name that changes with each field."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @property
    def cell(self) -> Cell:
        """Where this run is compared."""
        return Cell(*(getattr(self, f.name) for f in fields(Cell)))


@dataclass(frozen=True)
class Outcome:
    """What a run found, after its last step.

    `agreement` is the share of test pictures on which the student
    answers as its teacher does, `divergence` the mean KL(teacher ‖
    student) on them in nats: how faithful the student is.
    """

    valid_accuracy: float
    test_accuracy: float
    agreement: float
    divergence: float
    teacher_accuracy: float
    seconds: float
