"""The record of trust: what the tests prove of each loss, taken from their run.

A test says what it proves by a mark,

    @pytest.mark.proves("against", "a scalar loop", kd_loss)

of a column, a phrase and the losses. The losses may be left out where a
parameter of the test is one, where its class has one as `function`, or where
the script that its module tests has but one. A phrase may be a function of the
test's class that gives None where there is nothing to say.

`make trust` writes what all tests of a phrase agree on. With `--collect-only`,
pytest writes what they would prove if they passed.
"""

import functools
import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

COLUMNS = ("against", "invariances", "inputs", "gradients", "transforms")

Proof = tuple[str, str, str, str]
"""Script, loss, column and phrase."""

PROVES = "proves"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--trust", metavar="FILE", help="write what the tests prove of each loss")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{PROVES}(column, phrase, *losses): what a test proves of losses"
    )
    config.pluginmanager.register(Record(config), "record of trust")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        found = list(proofs(item))
        if found:
            item.user_properties.append((PROVES, found))


def files() -> list[str]:
    """The modules of tests of losses."""
    tests = Path(__file__).parent
    papers = [path for path in tests.glob("test_*.py") if re.search(r"_[a-z]+\d{4}", path.stem)]
    every = [
        tests / f"test_{name}.py" for name in ("fast", "gradients", "hard_numbers", "transforms")
    ]
    return sorted(map(str, papers + every))


class Record:
    """Gathers reports, those of other processes too, and writes at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.file = None if hasattr(config, "workerinput") else config.getoption("--trust")
        self.collect_only = config.getoption("--collect-only")
        self.proved: set[Proof] = set()
        self.disproved: set[Proof] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if self.collect_only:
            for item in session.items:
                self.proved |= of_properties(item.user_properties)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.disproved |= of_properties(report.user_properties)
        elif report.passed and report.when == "call":
            self.proved |= of_properties(report.user_properties)

    def pytest_sessionfinish(self) -> None:
        if self.file:
            Path(self.file).write_text(text_of(self.proved - self.disproved), encoding="utf-8")


def of_properties(properties: list[tuple[str, Any]]) -> set[Proof]:
    return {tuple(proof) for name, found in properties if name == PROVES for proof in found}


def text_of(proved: set[Proof]) -> str:
    """The record as JSON: the same proofs give the same bytes."""
    record: dict[str, dict[str, dict[str, list[str]]]] = {}
    for key, loss, column, phrase in sorted(proved):
        columns = record.setdefault(key, {}).setdefault(loss, {name: [] for name in COLUMNS})
        columns[column].append(phrase)
    return json.dumps(record, ensure_ascii=False, indent=1) + "\n"


def proofs(item: pytest.Item) -> Iterator[Proof]:
    """What a test proves, of which losses."""
    for mark in item.iter_markers(PROVES):
        column, phrase, *losses = mark.args
        assert column in COLUMNS, f"{item.nodeid}: {column!r} is none of {COLUMNS}"
        if callable(phrase):
            phrase = phrase(item.cls)
        if phrase:
            for key, name in named(item, losses):
                yield key, name, column, phrase


def named(item: pytest.Item, losses: list[Any]) -> list[tuple[str, str]]:
    """Script and name of the losses that a test is about."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    found = losses or [x for x in map(function_of, parameters.values()) if x]
    if {"key", "name"} <= parameters.keys():
        return [(parameters["key"], parameters["name"])]
    if not found and getattr(item.cls, "function", None):
        found = [item.cls.function]
    if not found:
        found = list(only_loss(item.module.__name__.removeprefix("tests.test_")))
    assert found, f"{item.nodeid}: name the losses in its mark"
    functions = [function_of(x) for x in found]
    return [(f.__module__.split(".")[-1], f.__name__) for f in functions]


def function_of(value: Any) -> Callable[..., Any] | None:
    """The loss that a value is, or holds."""
    value = getattr(value, "function", value)
    while isinstance(value, functools.partial):
        value = value.func
    ours = inspect.isfunction(value) and value.__module__.startswith("snippets.")
    return value if ours else None


@functools.cache
def only_loss(key: str) -> tuple[Callable[..., Any], ...]:
    """The loss of a script that has one."""
    from tests.public import PLAIN

    own = [method.function for method in PLAIN if method.paper == key]
    return tuple(own) if len(own) == 1 else ()
