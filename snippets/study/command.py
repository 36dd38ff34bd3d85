"""`python -m snippets study`: the search, the final runs, the report."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from papers.catalog import ROOT
from snippets.study import cluster, report, store
from snippets.study.grid import QUICK, Grid
from snippets.study.runs import Outcome, Run

RECORD = ROOT / "docs" / "data"
"""Where the full study's record is committed."""

FOLDER = ROOT / ".study"
"""Where each run leaves its result."""

SAME = 1e-9
"""Accuracies that differ by less are the same."""

Stage = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""Shows the progress of so many runs; what it gives counts one."""


def grid_of(*, quick: bool, **chosen: object) -> Grid:
    """Make the grid from what was chosen; the rest is as it stands.

    Raises:
        StudyError: a method, pair, regime or data set that is unknown.
    """
    base = QUICK if quick else Grid()
    return replace(
        base,
        **{name: value for name, value in chosen.items() if value},  # type: ignore[arg-type]
    )


def conduct(
    grid: Grid,
    folder: Path,
    known: Mapping[Run, Outcome],
    *,
    scheduler: str | None,
    workers: int,
    stage: Stage,
) -> dict[Run, Outcome]:
    """Do what is missing of a study, and return all of its results.

    Args:
        grid: What to compare.
        folder: Where each run's result is written and looked for.
        known: Results that need no file.
        scheduler: Address of a Dask cluster; None starts a local one.
        workers: Processes of the local cluster.
        stage: Shows the progress of the search and the final runs.

    Raises:
        StudyError: see `cluster.execute` and `store.read`.
    """

    def complete(name: str, runs: Sequence[Run]) -> dict[Run, Outcome]:
        due = store.missing(folder, runs, known)
        with stage(name, len(due)) as done:
            cluster.execute(
                due,
                folder,
                scheduler=scheduler,
                workers=workers,
                done=done,
            )
        store.sweep(folder, runs)
        own = {run: known[run] for run in runs if run in known}
        rest = [run for run in runs if run not in known]
        return own | store.read(folder, rest)

    found = complete("search", grid.searches())
    return found | complete("final runs", grid.finals(found))


def record(folder: Path = RECORD) -> dict[Run, Outcome]:
    """Read the committed results; none where there are none."""
    path = folder / report.TABLE
    return store.read_table(path) if path.exists() else {}


def plan(
    grid: Grid,
    folder: Path,
    known: Mapping[Run, Outcome],
    past: Mapping[Run, Outcome],
    workers: int,
) -> str:
    """Say what a study consists of, what is missing, what it costs.

    Args:
        grid: What to compare.
        folder: Where results are looked for.
        known: Results that need no file.
        past: Runs that tell how long others take.
        workers: How many go on at once.
    """
    due = [
        (run.method, run.pair)
        for run in store.missing(folder, grid.searches(), known)
    ]
    if due:  # the weights, and so the names, of the rest are not known
        due += [
            (method, cell.pair) for cell, method in grid.entries()
        ] * grid.seeds
    else:
        rest = [run for run in grid.searches() if run not in known]
        finals = grid.finals({**known, **store.read(folder, rest)})
        due = [
            (run.method, run.pair)
            for run in store.missing(folder, finals, known)
        ]
    search, final = grid.size()
    return (
        f"{len(grid.methods)} methods, {len(grid.pairs)} pairs,"
        f" {len(grid.regimes)} regimes, {grid.seeds} seeds\n"
        f"{search} runs of the search and {final} final runs\n"
        f"{len(due)} to do: {_cost(due, past, workers)}"
    )


def _cost(
    due: Sequence[tuple[str, str]],
    past: Mapping[Run, Outcome],
    workers: int,
) -> str:
    """Estimate the time of runs (method, pair) from earlier ones."""
    if not due:
        return "nothing"
    took = defaultdict(list)
    for run, outcome in past.items():
        took[run.method, run.pair].append(outcome.seconds)
    if not took:
        return "no earlier run tells how long they take"
    typical = fmean(fmean(times) for times in took.values())
    seconds = sum(fmean(took.get(x, [typical])) for x in due)
    minutes = max(1, round(seconds / workers / 60))
    return f"about {minutes} minute(s) with {workers} worker(s)"


def differences(
    results: Mapping[Run, Outcome], known: Mapping[Run, Outcome]
) -> tuple[int, int]:
    """Count runs that are in the record, and those that differ there."""
    both = results.keys() & known.keys()
    differ = [
        run
        for run in both
        if abs(results[run].test_accuracy - known[run].test_accuracy)
        > SAME
    ]
    return len(both), len(differ)
