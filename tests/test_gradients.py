"""Gradients of every public loss and learned module, against finite differences."""

import pytest
import torch
from torch import nn

from snippets.agarwal2024 import Walkers
from snippets.chen2019 import ASPECTS, Discriminator, Student
from snippets.gu2024 import Hump
from snippets.kim2018 import Paraphraser, Translator
from snippets.lab.data import seeded
from snippets.romero2015 import Regressor, SideBySide
from snippets.study import cases
from tests import public
from tests.public import FAST, LOSSES, PLAIN

EVERY = [
    pytest.param(
        method, option, id="-".join([method.key, *(f"{k}={v}" for k, v in option.items())])
    )
    for method in LOSSES
    for option in public.options_of(method)
]
SMOOTH = [case for case in EVERY if case.values[0] in PLAIN]

SMALL = {
    ("all", "batch"): 3,
    ("all", "length"): 3,
    ("all", "spatial"): 2,
    ("all", "width"): 3,
    ("all", "classes"): 4,
    ("all", "vocabulary"): 8,
    ("all", "depth"): 2,
}
"""Finite differences take two calls for each number of an input."""


def learner(method, option):
    """The loss of its learned tensors alone, and these."""
    arguments = cases.arguments_of(method, SMALL)
    names = public.learned(method)

    def loss(*tensors):
        given = dict(zip(names, tensors, strict=True))
        return method.function(**{**arguments, **given}, **option)

    return loss, [arguments[name].requires_grad_() for name in names]


@pytest.mark.parametrize(("method", "option"), EVERY)
@pytest.mark.proves("gradients", "the first derivative, by finite differences")
def test_first_derivative(method, option):
    loss, tensors = learner(method, option)
    assert torch.autograd.gradcheck(loss, tensors)


@pytest.mark.parametrize(("method", "option"), SMOOTH)
@pytest.mark.proves("gradients", "the second derivative, by finite differences")
def test_second_derivative(method, option):
    loss, tensors = learner(method, option)
    assert torch.autograd.gradgradcheck(loss, tensors)


@pytest.mark.parametrize("method", FAST, ids=lambda m: m.key)
def test_a_form_to_run_has_no_second_derivative_and_says_so(method):
    loss, tensors = learner(method, {})
    slopes = torch.autograd.grad(loss(*tensors), tensors, create_graph=True)
    with pytest.raises(NotImplementedError, match="the plain form"):
        torch.autograd.grad(sum(slope.square().sum() for slope in slopes), tensors)


def normal(*shape):
    return torch.randn(shape, generator=seeded(3), dtype=torch.float64)


def perceptron():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


MODULES = {
    "agarwal2024.Walkers": lambda: (Walkers(seeded(0)),),
    "chen2019.Discriminator": lambda: (Discriminator(2, seeded(0)), normal(2, 5, ASPECTS)),
    "chen2019.Student": lambda: (Student(1, seeded(0)), torch.tensor([0, 7, 7])),
    "gu2024.Hump": lambda: (Hump(0.3),),
    "kim2018.Paraphraser": lambda: (Paraphraser(4), normal(2, 4, 3, 3)),
    "kim2018.Translator": lambda: (Translator(3, 2), normal(2, 3, 3, 3)),
    "romero2015.Regressor": lambda: (Regressor(2, 3, kernel_size=2), normal(2, 2, 3, 3)),
    "romero2015.SideBySide": lambda: (
        SideBySide([perceptron(), perceptron()]),
        normal(5, 3),
    ),
}
"""Each network that a script defines, and what it reads."""


def test_every_module_is_here():
    assert MODULES.keys() == cases.modules().keys()


@pytest.mark.parametrize("name", MODULES)
def test_module(name):
    """By its input, where that is of floats, and by each of its weights."""
    torch.manual_seed(0)
    module, *inputs = MODULES[name]()
    module = module.double()
    names, weights = zip(*module.named_parameters(), strict=True)
    learned = [x.requires_grad_() for x in inputs if x.is_floating_point()]
    fixed = inputs[len(learned) :]

    def run(*tensors):
        given = dict(zip(names, tensors[len(learned) :], strict=True))
        return torch.func.functional_call(module, given, (*tensors[: len(learned)], *fixed))

    tensors = (*learned, *(w.detach().requires_grad_() for w in weights))
    assert torch.autograd.gradcheck(run, tensors, fast_mode=True)
