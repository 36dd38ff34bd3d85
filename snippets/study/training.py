"""One run: every method by the same loop, batches and budget."""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from snippets.lab.data import seeded
from snippets.lab.divergence import kl_divergence
from snippets.lab.train import accuracy, fit
from snippets.study.methods import (
    METHODS,
    SMOOTHING,
    Batch,
    Setting,
    View,
    view,
)
from snippets.study.problems import (
    LEARNING_RATE,
    STUDENT,
    Problem,
    network,
    problem,
)
from snippets.study.runs import Outcome, Run

BATCH, LABELLED_BATCH = 32, 16


def train(run: Run) -> Outcome:
    """Train one student, and measure it after the last step."""
    torch.set_num_threads(1)
    task = problem(run.cell, run.seed)
    start = time.perf_counter()
    source = task.source
    student = network(
        source, task.student_kind, STUDENT[task.student_kind], run.seed
    )
    objective, modules = objective_of(run, task, student)
    fit(
        [student, *modules],
        objective,
        len(task.images),
        generator=seeded(run.seed),
        epochs=run.epochs,
        batch_size=BATCH,
        learning_rate=LEARNING_RATE,
    )
    seconds = time.perf_counter() - start
    test = source.test
    with torch.no_grad():
        q = student(test.images).log_softmax(-1)
        p = task.teacher(test.images).log_softmax(-1)
    return Outcome(
        valid_accuracy=accuracy(
            student, source.valid.images, source.valid.labels
        ),
        test_accuracy=accuracy(student, test.images, test.labels),
        agreement=(p.argmax(-1) == q.argmax(-1)).double().mean().item(),
        divergence=kl_divergence(p, q).mean().item(),
        teacher_accuracy=accuracy(
            task.teacher, test.images, test.labels
        ),
        seconds=seconds,
    )


def objective_of(
    run: Run, task: Problem, student: nn.Sequential
) -> tuple[Callable[[Tensor], Tensor], list[nn.Module]]:
    """Make the loss of a batch of indices, and what it trains.

    It is the cross-entropy, plus `weight` times the mean of the
    method's signals, each divided by its size at the first step and
    multiplied by that of the cross-entropy: no scale of a loss gives
    its method a head start in the search.
    """
    method = METHODS[run.method]
    with torch.no_grad():
        known = view(task.teacher, task.images)
    setting = Setting(task, student, known, run.seed)
    signals = [maker(setting) for maker in method.makers]
    smoothing = run.weight if run.method == SMOOTHING else 0.0
    draw = batches(task, run.seed)
    units: list[float] = []

    def objective(index: Tensor) -> Tensor:
        batch = look(draw(index), task, student, known)
        labels = nn.functional.cross_entropy(
            batch.student.logits[batch.labelled],
            batch.targets[batch.labelled],
            label_smoothing=smoothing,
        )
        if not signals:
            return labels
        sizes = torch.stack([signal.loss(batch) for signal in signals])
        if not units:  # the first step
            units.extend(
                (labels / size).item() if size > 0 else 1.0
                for size in sizes
            )
        return labels + run.weight * (
            sizes @ sizes.new_tensor(units)
        ) / len(signals)

    return objective, [m for signal in signals for m in signal.modules]


def batches(task: Problem, seed: int) -> Callable[[Tensor], Tensor]:
    """Add labelled samples to a batch where labels are rare.

    The same pictures come in the same order whatever the method.
    """
    rare = task.labelled.nonzero()[:, 0]
    if len(rare) == len(task.labelled):
        return lambda index: index
    generator = seeded(seed)

    def draw(index: Tensor) -> Tensor:
        chosen = torch.randint(
            len(rare), (LABELLED_BATCH,), generator=generator
        )
        return torch.cat([index, rare[chosen]])

    return draw


def look(
    index: Tensor, task: Problem, student: nn.Sequential, known: View
) -> Batch:
    """Show a batch to the student, and recall the teacher's view."""
    images = task.images[index]
    return Batch(
        index=index,
        images=images,
        targets=task.targets[index],
        labelled=task.labelled[index],
        student=view(student, images),
        teacher=View(*(tensor[index] for tensor in known)),
    )
