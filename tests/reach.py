"""Which of our functions a loss reaches, by the names in its code."""

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any


def nested(code: CodeType) -> Iterator[CodeType]:
    """Give a function's code, and that of all functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from nested(constant)


def name_of(function: FunctionType) -> str:
    """Name a function as in `hinton2015.kd_loss`."""
    return f"{function.__module__}.{function.__qualname__}".removeprefix("snippets.")


def function_of(name: str) -> FunctionType:
    """Find a function by its name, bare of decorators."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            value = importlib.import_module(f"snippets.{'.'.join(parts[:end])}")
        except ModuleNotFoundError:
            continue
        return inspect.unwrap(functools.reduce(getattr, parts[end:], value))
    raise LookupError(name)


def reached(loss: Callable[..., Any]) -> set[str]:
    """Name the functions of ours that a loss reaches by their names, itself included."""
    found: set[str] = set()
    seen: set[int] = set()
    waiting: list[Any] = [loss]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, FunctionType):
            value = inspect.unwrap(value)
            if not is_ours(value):
                continue
            root = name_of(value).split(".<locals>")[0]
            if "<lambda>" not in root:
                found.add(root)
            waiting += used_by(value)
        elif is_ours(value if isinstance(value, type) else type(value)):
            waiting += methods_of(value)
    return found


def is_ours(value: Any) -> bool:
    """Whether a function or class is written in `snippets`."""
    module = value.__module__ or ""
    written = getattr(value, "__code__", None)
    return module.startswith("snippets.") and not (
        written and written.co_filename != sys.modules[module].__file__
    )


def used_by(function: FunctionType) -> Iterator[Any]:
    """Give what the names in a function stand for, and what it closes over."""
    for cell in function.__closure__ or ():
        yield cell.cell_contents
    for code in nested(function.__code__):
        values = [function.__globals__[n] for n in code.co_names if n in function.__globals__]
        for value in values:
            if isinstance(value, ModuleType) and value.__name__.startswith("snippets."):
                yield from (vars(value)[n] for n in code.co_names if n in vars(value))
            else:
                yield value


def methods_of(value: Any) -> Iterator[Any]:
    """Give the methods of a class, or of an instance, whose own fields are given, too."""
    cls = value if isinstance(value, type) else type(value)
    for held in vars(cls).values():
        yield getattr(held, "__func__", held)
    if value is not cls:
        yield from getattr(value, "__dict__", {}).values()
