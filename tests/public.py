"""Every public loss, its forms to run included, and inputs for it.

Tests of all losses draw from here. The inputs come from the signatures,
by way of `snippets.study.cases`, so a new loss needs no line here.
"""

import importlib
import inspect
import pkgutil
import re
import typing
from pathlib import Path

import torch
from jaxtyping import Float

import snippets.lab.fast
from snippets.hinton2015 import kd_loss
from snippets.study import cases

NO_LOSS = {
    "agarwal2024.jensen_shannon": "a part of generalized_jsd_loss, of log-probabilities",
    "ge2018.select_samples": "a selection, of no gradient; tests/selection.py has its own rules",
    "luo2016.select_neurons": "a selection, of no gradient; tests/selection.py has its own rules",
    "phuong2019.closed_form_student": "a solution, in place of training",
    "phuong2019.risk_bound": "a bound, of a function and a number",
    "zagoruyko2017.attention_map": "a part of attention_transfer_loss; gives a map",
    "zhou2020.complexity": "a measure of data",
    "zhou2020.faithfulness": "a measure of data",
}
"""Public functions of the scripts that are no losses, and why."""

VALUES = {"beta": (0, 1), "p": (1, 3), "weight": (0.5, 1), "divergence": ("forward", "reverse")}
"""Options to be tested besides their defaults; those of a variant are in its type."""


def public_names():
    """What the scripts offer: functions that check their arguments, and what notes show.

    A draft offers nothing yet.
    """
    keys = cases.papers()
    shown = {
        match[1]
        for key in keys
        for match in re.finditer(
            r"^::: snippets\.(\w+\.\w+)$", Path(f"papers/{key}.md").read_text("utf-8"), re.M
        )
    }
    checked = {
        f"{key}.{name}"
        for key in keys
        for name, value in vars(importlib.import_module(f"snippets.{key}")).items()
        if is_typed(value) and value.__module__ == f"snippets.{key}"
    }
    return {name for name in shown | checked if not inspect.isclass(_named(name))}


def is_typed(value):
    """Whether it is a function under the decorator `typed`."""
    name = kd_loss.__code__.co_qualname
    return inspect.isfunction(value) and value.__code__.co_qualname == name


def _named(name):
    key, attribute = name.split(".")
    return getattr(importlib.import_module(f"snippets.{key}"), attribute)


def _forms_to_run():
    for module in pkgutil.iter_modules(snippets.lab.fast.__path__):
        path = f"lab.fast.{module.name}"
        for name, value in vars(importlib.import_module(f"snippets.{path}")).items():
            if is_typed(value):
                yield cases.describe(path, name)


PLAIN = tuple(cases.describe(*name.split(".")) for name in sorted(public_names() - {*NO_LOSS}))
FAST = tuple(_forms_to_run())
LOSSES = PLAIN + FAST


def options_of(method):
    """The options to test a loss with: none, and each other value of each."""
    found = [{}]
    for name, parameter in inspect.signature(method.function).parameters.items():
        values = VALUES.get(name, ())
        if typing.get_origin(parameter.annotation) is typing.Literal:
            values = typing.get_args(parameter.annotation)
        found += [{name: value} for value in values if value != parameter.default]
    return found


def learned(method):
    """The names of the tensors that get a gradient."""
    learners = method.of("student") or method.of("teacher")
    return [a.name for a in learners if a.dtype is Float]


def evaluated(method, arguments, option):
    """The value, and the gradients by name."""
    leaves = {
        name: arguments[name].detach().clone(memory_format=torch.preserve_format).requires_grad_()
        for name in learned(method)
    }
    value = method.function(**{**arguments, **leaves}, **option)
    value.backward()
    return value.detach(), {name: leaf.grad for name, leaf in leaves.items()}


def widened(arguments):
    """The same numbers in float64."""
    return {
        name: x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x
        for name, x in arguments.items()
    }
