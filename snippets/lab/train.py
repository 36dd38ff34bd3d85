"""The one training loop, and the teacher that several scripts share."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from snippets.lab.data import digits, seeded
from snippets.lab.models import cnn


def fit(
    modules: nn.Module | Iterable[nn.Module],
    batch_loss: Callable[[Tensor], Tensor],
    samples: int,
    *,
    generator: torch.Generator,
    epochs: int = 30,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
) -> list[float]:
    """Train `modules` with Adam, its rate falling along a cosine to 0.

    Args:
        modules: What is trained; everything else stays as it is.
        batch_loss: Maps the indices of a batch (B,) to its loss.
        samples: Size of the training set.
        generator: Source of the order of the samples.
        epochs: Passes over the training set.
        batch_size: Samples in a step; the last one may have fewer.
        learning_rate: The rate at the start.

    Returns:
        The mean loss of each epoch.
    """
    trained = (
        [modules] if isinstance(modules, nn.Module) else [*modules]
    )
    parameters = [p for module in trained for p in module.parameters()]
    optimiser = torch.optim.Adam(
        parameters, lr=learning_rate, fused=True
    )
    steps = epochs * -(-samples // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, steps
    )
    history = []
    for _ in range(epochs):
        total = 0.0
        order = torch.randperm(samples, generator=generator)
        for batch in order.split(batch_size):
            optimiser.zero_grad()
            loss = batch_loss(batch)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(batch)
        history.append(total / samples)
    return history


def fit_classifier(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    generator: torch.Generator,
    augment: Callable[[Tensor], Tensor] = lambda images: images,
    **budget: Any,
) -> nn.Module:
    """Train `model` on labels, by cross-entropy; then freeze it.

    Args:
        model: Maps images (B, …) to logits (B, C).
        images: The training set.
        labels: Their classes.
        generator: Source of the order of the samples.
        augment: Changes the images of each batch, such as `jitter`.
        budget: `epochs`, `batch_size`, `learning_rate` of `fit`.

    Returns:
        The trained model, in no need of gradients: a teacher.
    """

    def loss(batch: Tensor) -> Tensor:
        logits = model(augment(images[batch]))
        return nn.functional.cross_entropy(logits, labels[batch])

    fit(model, loss, len(labels), generator=generator, **budget)
    return model.requires_grad_(False)


@functools.cache
def convolutional_teacher() -> nn.Sequential:
    """Train a network of 8, 16 and 32 channels on 1,000 digits.

    `model[:6]` gives its last feature maps, (B, 32, 2, 2).
    """
    generator = seeded(0)
    train = digits().train
    model = cnn((8, 16, 32), 10, generator=generator)
    fit_classifier(
        model,
        train.images,
        train.labels,
        generator=generator,
        epochs=10,
        learning_rate=1e-2,
    )
    return model


def fit_and_test(
    student: nn.Module,
    batch_loss: Callable[[Tensor], Tensor],
    samples: int,
    *,
    generator: torch.Generator,
    batch_size: int,
    adapters: Iterable[nn.Module] = (),
) -> float:
    """Train a convolutional student of few digits, and test it.

    Args:
        student: Maps images to logits.
        batch_loss: As for `fit`.
        samples: Size of its training set.
        generator: Source of the order of the samples.
        batch_size: Samples in a step.
        adapters: What is trained with it, and not used in the test.

    Returns:
        The accuracy on the test set of the digits.
    """
    fit(
        [student, *adapters],
        batch_loss,
        samples,
        generator=generator,
        epochs=20,
        batch_size=batch_size,
        learning_rate=1e-2,
    )
    test = digits().test
    return accuracy(student, test.images, test.labels)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of `images` whose top class is the label."""
    return (model(images).argmax(-1) == labels).double().mean().item()
