"""Mutation testing of the losses: small faults are put into them, and the tests must notice.

    python -m tests.mutants [PAPER | PAPER.LOSS]…

Each function of `snippets` that a public loss reaches is mutated, one fault at a time, by the
operators of mutmut. mutmut itself passes by what is decorated, as every loss is, and collects the
tests anew for each mutant. Here pytest collects them once and runs them once, to see which test
enters which function. Then a forked process for each mutant swaps the function's code in place and
runs these tests, the shortest first, until one fails.

A mutant that no test kills needs a reason in tests/mutants.yml. One that runs out of time is not
killed.
"""

import argparse
import contextlib
import difflib
import functools
import gc
import inspect
import json
import logging
import os
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import libcst as cst
import pytest
import torch
import yaml
from hypothesis import Phase, settings
from libcst.metadata import MetadataWrapper
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

from tests.reach import function_of, nested, reached
from tests.trust import files

LEAST = 0.9
"""The share of a loss's mutants that the tests must kill."""

PATIENCE, GRACE = 5, 10
"""How many times as long as usual a test may take, and seconds on top."""

KILLED, SURVIVED, TIMED_OUT = OUTCOMES = ("killed", "survived", "timed_out")

RECORD = Path("docs/data/mutants.json")
REASONS = Path(__file__).with_suffix(".yml")

UNSAFE = "tests/test_transforms.py::test_the_default_backend"
"""It starts processes, which a forked process must not share."""


@dataclass(frozen=True)
class Mutant:
    """A faulty version of a function, and the lines that differ, each side joined to one."""

    was: str
    now: str
    code: CodeType


class Visitor(MutationVisitor):
    """Leaves out what is evaluated at the definition, and the wording of errors."""

    def __init__(self) -> None:
        super().__init__(mutation_operators, IgnoredCode(set(), set(), set()))

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        return isinstance(node, cst.Raise | cst.Parameters) or super()._skip_node_and_children(node)


def source_of(function: FunctionType) -> str:
    """Give the source of a function, without decorators."""
    module = cst.parse_module(textwrap.dedent(inspect.getsource(function)))
    return module.with_changes(
        header=[], body=[module.body[0].with_changes(decorators=[], leading_lines=[])]
    ).code


def mutants_of(function: FunctionType) -> Iterator[Mutant]:
    """Make every mutant of a function that compiles."""
    source = source_of(function)
    wrapper = MetadataWrapper(cst.parse_module(source))
    visitor = Visitor()
    wrapper.visit(visitor)
    for mutation in visitor.mutations:
        module = wrapper.module.deep_replace(mutation.original_node, mutation.mutated_node)
        with contextlib.suppress(SyntaxError):
            yield Mutant(*difference(source, module.code), compiled(module.code, function))


def compiled(source: str, function: FunctionType) -> CodeType:
    """Compile another version of a function."""
    namespace = dict(function.__globals__)
    exec(compile(source, "<mutant>", "exec"), namespace)
    return namespace[function.__name__].__code__


def difference(source: str, mutated: str) -> tuple[str, str]:
    """Give the lines that were there, and those that are there now."""
    lines = list(difflib.ndiff(source.splitlines(), mutated.splitlines()))
    return tuple(
        " ".join(line[2:].strip() for line in lines if line[0] == sign) for sign in ("-", "+")
    )


def made_by(function: FunctionType) -> list[FunctionType]:
    """Find a function itself, and all that it has made so far."""
    holders = gc.get_referrers(*nested(function.__code__))
    return [holder for holder in holders if isinstance(holder, FunctionType)]


@contextlib.contextmanager
def swapped(function: FunctionType, code: CodeType, made: list[FunctionType]) -> Iterator[None]:
    """Put other code into a function, and into those that it has made, for a while."""
    before = [one.__code__ for one in made]
    inner = {c.co_qualname: c for c in nested(code)}
    outside = function.__qualname__.removesuffix(function.__name__)
    try:
        for one in made:
            new = inner.get(one.__code__.co_qualname.removeprefix(outside))
            if new and len(new.co_freevars) == len(one.__code__.co_freevars):
                one.__code__ = new
        yield
    finally:
        for one, old in zip(made, before, strict=True):
            one.__code__ = old


class Run:
    """A plugin of pytest that runs the tests once as they are, and for each mutant again."""

    def __init__(self, names: list[str], jobs: int = 1, say: Callable[[str], Any] = print) -> None:
        self.names, self.jobs, self.say = names, jobs, say
        self.functions = {name: function_of(name) for name in names}
        self.mutants = {name: list(mutants_of(f)) for name, f in self.functions.items()}
        self.outcomes: dict[str, list[str]] = {}
        self.failed = False

    def pytest_configure(self, config: pytest.Config) -> None:
        config.option.tbstyle = "value"  # the longer ones take longer

    def pytest_collection(self) -> None:
        """Look for no simpler example once one fails: that may take longer than a test may."""
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("one failure", settings.default, phases=phases)
        settings.load_profile("one failure")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Take the place of pytest's own loop."""
        torch.set_num_threads(1)
        torch._logging.set_logs(dynamo=logging.ERROR)
        items = [item for item in session.items if item.nodeid != UNSAFE]
        self.say(f"{sum(map(len, self.mutants.values()))} mutants, {len(items)} tests")
        taken, entering = self.watch(items)
        torch.compiler.reset()
        for name in self.names:
            start = time.perf_counter()
            tests = sorted(entering[name], key=taken.__getitem__)
            self.outcomes[name] = self.kill(name, [(item, taken[item]) for item in tests])
            counts = Counter(self.outcomes[name])
            said = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES)
            self.say(f"{name}: {said} ({len(tests)} tests, {time.perf_counter() - start:.0f} s)")
        used = set().union(*entering.values())
        control = [(item, taken[item]) for item in items if item in used]
        if self.fork([contextlib.nullcontext], control) != [SURVIVED]:
            raise pytest.UsageError("the tests fail in a process of their own, without any mutant")
        return True

    def passes(self, item: pytest.Item) -> bool:
        """Run one test, its set-up included."""
        self.failed = False
        item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
        return not self.failed

    def watch(self, items: list[pytest.Item]) -> tuple[dict, dict]:
        """Run the tests as they are.

        Returns:
            The seconds that each took, and the tests that enter each function.
        """
        # By their ids: torch.compile makes code that has no hash.
        names = {id(code): n for n, f in self.functions.items() for code in nested(f.__code__)}
        entering: dict[str, list[pytest.Item]] = {name: [] for name in self.names}
        entered: set[str] = set()
        taken = {}

        def note(frame: Any, event: str, argument: Any) -> None:
            if event == "call" and id(frame.f_code) in names:
                entered.add(names[id(frame.f_code)])

        for item in items:
            entered.clear()
            start = time.perf_counter()
            sys.setprofile(note)
            try:
                passed = self.passes(item)
            finally:
                sys.setprofile(None)
            if not passed:
                raise pytest.UsageError(f"{item.nodeid} fails without any mutant")
            taken[item] = time.perf_counter() - start
            for name in entered:
                entering[name].append(item)
        return taken, entering

    def kill(self, name: str, tests: list[tuple[pytest.Item, float]]) -> list[str]:
        """Run the tests for each mutant of a function, some at the same time."""
        function = self.functions[name]
        made = made_by(function)
        faults = [functools.partial(swapped, function, m.code, made) for m in self.mutants[name]]
        return self.fork(faults, tests)

    def fork(self, states: list[Callable[[], Any]], tests: list) -> list[str]:
        """Run the tests in each of some states, which are entered for the fork alone."""
        outcomes: dict[int, str] = {}
        running: dict[int, int] = {}
        for number, state in enumerate(states):
            if len(running) == self.jobs:
                collect(running, outcomes)
            with state():
                pid = os.fork()
                if not pid:
                    self.end(tests)
            running[pid] = number
        while running:
            collect(running, outcomes)
        return [outcomes[number] for number in range(len(outcomes))]

    def end(self, tests: list[tuple[pytest.Item, float]]) -> None:
        """Run the tests and end the process: with 1 if one fails."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        try:
            for item, seconds in tests:
                signal.setitimer(signal.ITIMER_REAL, PATIENCE * seconds + GRACE)
                if not self.passes(item):
                    os._exit(1)
            os._exit(0)
        except BaseException:  # a test may end even pytest
            os._exit(1)


def collect(running: dict[int, int], outcomes: dict[int, str]) -> None:
    """Wait for one of our processes to end."""
    while True:
        for pid in running:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                late = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
                outcomes[running.pop(pid)] = TIMED_OUT if late else KILLED if status else SURVIVED
                return
        time.sleep(0.002)


def tests_run(run: Run, tests: list[str]) -> None:
    """Run tests with all mutants.

    Raises:
        RuntimeError: the tests fail without any.
    """
    without = [f"-pno:{plugin}" for plugin in ("terminal", "cacheprovider", "faulthandler")]
    options = ["-s", "-Wignore::pytest.PytestAssertRewriteWarning", *without]
    if pytest.main([*options, *tests], plugins=[run]):
        raise RuntimeError("the tests do not even pass without a mutant")


def reasons() -> dict[str, list[dict[str, str]]]:
    """Read why mutants survive, by function."""
    return yaml.safe_load(REASONS.read_text(encoding="utf-8"))


def survivors(run: Run) -> list[dict[str, str]]:
    """List the mutants that lived, with the reason or an empty one."""
    known = reasons()
    found = []
    for name, outcomes in sorted(run.outcomes.items()):
        why = {(r["was"], r["now"]): r["why"] for r in known.get(name, ())}
        for mutant, outcome in zip(run.mutants[name], outcomes, strict=True):
            if outcome == SURVIVED:
                lines = {"was": mutant.was, "now": mutant.now}
                reason = why.get((mutant.was, mutant.now), "")
                found.append({"function": name, **lines, "reason": reason})
    return found


def record_of(run: Run, losses: dict[tuple[str, str], set[str]]) -> dict[str, Any]:
    """Count the outcomes for each loss, by paper and name."""
    counted: dict[str, dict[str, dict[str, int]]] = {}
    for (paper, loss), names in sorted(losses.items()):
        counts = Counter(outcome for name in names for outcome in run.outcomes[name])
        counted.setdefault(paper, {})[loss] = {outcome: counts[outcome] for outcome in OUTCOMES}
    return {"losses": counted, "survivors": survivors(run)}


def merged(old: dict[str, Any], new: dict[str, Any], run: Run) -> dict[str, Any]:
    """Put the outcomes of some losses into the record of all."""
    papers = sorted({*old["losses"], *new["losses"]})
    losses = {p: {**old["losses"].get(p, {}), **new["losses"].get(p, {})} for p in papers}
    kept = [one for one in old["survivors"] if one["function"] not in run.names]
    survivors = sorted(kept + new["survivors"], key=lambda one: one["function"])
    ordered = {paper: dict(sorted(found.items())) for paper, found in losses.items()}
    return {"losses": ordered, "survivors": survivors}


def share(counts: dict[str, int]) -> float:
    """Give the share of mutants that were killed, 0 if there are none."""
    return counts[KILLED] / max(1, sum(counts.values()))


def main(arguments: list[str] | None = None) -> int:
    """Test the losses that are named, or all; 1 if too few mutants are killed."""
    from tests.public import LOSSES

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("losses", nargs="*", metavar="LOSS", help="a paper's, or one of them")
    parser.add_argument("--jobs", type=int, default=2, help="how many processes to run at a time")
    given = parser.parse_args(arguments)
    wanted = set(given.losses)
    methods = [m for m in LOSSES if not wanted or wanted & {m.paper, m.key}]
    if missing := wanted - {name for m in methods for name in (m.paper, m.key)}:
        parser.error(f"no such loss: {', '.join(sorted(missing))}")
    losses = {(m.paper, m.name): reached(m.function) for m in methods}
    run = Run(sorted(set().union(*losses.values())), given.jobs)
    tests_run(run, files())
    record = record_of(run, losses)
    whole = merged(json.loads(RECORD.read_text("utf-8")), record, run) if wanted else record
    RECORD.write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return report(record)


def report(record: dict[str, Any]) -> int:
    """Print the table and the survivors; 1 if a loss fails, or a reason lacks."""
    enough = True
    for paper, losses in record["losses"].items():
        for loss, counts in losses.items():
            enough &= share(counts) >= LEAST
            numbers = "".join(f"{counts[outcome]:6} {outcome}" for outcome in OUTCOMES)
            print(f"{paper + '.' + loss:48}{numbers}{share(counts):8.1%}")
    for one in record["survivors"]:
        reason = one["reason"] or "NO REASON"
        print(f"\n{one['function']}: {reason}\n- {one['was']}\n+ {one['now']}")
    return int(not enough or not all(one["reason"] for one in record["survivors"]))


if __name__ == "__main__":
    sys.exit(main())
