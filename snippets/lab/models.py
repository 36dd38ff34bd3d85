"""Small models in float64, initialised from an explicit generator."""

import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def mlp(
    *widths: int,
    generator: torch.Generator,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Build a fully connected network on flattened inputs.

    Args:
        widths: Sizes of the input, the hidden layers and the output.
        generator: Source of the initial weights.
        activation: Makes the module between two layers.

    Returns:
        Flatten, then linear layers with activations between. Slicing
        gives a hidden layer: `model[:3]` ends with the first one.
    """

    def build() -> nn.Sequential:
        layers: list[nn.Module] = [nn.Flatten()]
        for size_in, size_out in itertools.pairwise(widths):
            layers += [nn.Linear(size_in, size_out), activation()]
        return nn.Sequential(*layers[:-1])

    return initialised(build, generator=generator)


def cnn(
    channels: Sequence[int],
    classes: int,
    *,
    inputs: int = 1,
    generator: torch.Generator,
) -> nn.Sequential:
    """Build a convolutional network on (B, C, H, W) images.

    Args:
        channels: Width of each 3×3 convolution; every one after the
            first halves the height and the width.
        classes: Size of the output.
        inputs: Channels C of the images.
        generator: Source of the initial weights.

    Returns:
        Convolutions with ReLU, a mean over the image, a linear layer.
        `model[: 2 * k]` ends with the k-th feature map.
    """

    def build() -> nn.Sequential:
        layers: list[nn.Module] = []
        size_in = inputs
        for depth, size_out in enumerate(channels):
            stride = 1 if depth == 0 else 2
            layers += [
                nn.Conv2d(size_in, size_out, 3, stride, padding=1),
                nn.ReLU(),
            ]
            size_in = size_out
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(size_in, classes))

    return initialised(build, generator=generator)


def initialised(
    build: Callable[[], M], *, generator: torch.Generator
) -> M:
    """Build a module and draw its weights from `generator` alone.

    Weights are uniform with He's variance 2 / fan-in, biases zero.
    """
    # On "meta" nothing is drawn, so the global generator is untouched.
    with torch.device("meta"):
        module = build()
    module = module.to(torch.float64).to_empty(device="cpu")
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_uniform_(parameter, generator=generator)
        else:
            nn.init.zeros_(parameter)
    return module
