"""Results on disk: one whole Parquet file per run, or none."""

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from snippets.study.runs import Outcome, Run, StudyError

RUN = [f.name for f in fields(Run)]
OUTCOME = [f.name for f in fields(Outcome)]


def path_of(folder: Path, run: Run) -> Path:
    """Name the file of a run."""
    return folder / f"{run.digest}.parquet"


def write(folder: Path, run: Run, outcome: Outcome) -> None:
    """Write the result of a run.

    Raises:
        StudyError: see `write_table`.
    """
    write_table(path_of(folder, run), {run: outcome})


def write_table(path: Path, results: Mapping[Run, Outcome]) -> None:
    """Write results as a table: whoever looks sees all of it, or none.

    The rows have an order of their own, so that equal results make
    equal bytes.

    Raises:
        StudyError: the disk is full, or the folder cannot be written.
    """
    rows = [
        {**asdict(run), **asdict(outcome)}
        for run, outcome in sorted(
            results.items(), key=lambda item: repr(item[0])
        )
    ]
    # One name per writer, so that two of them do not mix their bytes.
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            pq.write_table(pa.Table.from_pylist(rows), file)
            file.flush()
            os.fsync(file.fileno())
        try:
            part.replace(path)
        except FileNotFoundError:
            if not path.exists():  # else swept: another was first
                raise
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise StudyError(
            f"{path}: cannot be written: {error.strerror or error}"
        ) from None


def read(folder: Path, runs: Iterable[Run]) -> dict[Run, Outcome]:
    """Read the results that are there.

    Raises:
        StudyError: a file that is not whole, or another run's.
    """
    results = {}
    for run in runs:
        path = path_of(folder, run)
        if path.exists():
            found = read_table(path)
            if list(found) != [run]:
                raise StudyError(
                    f"{path}: not the result of this run; delete the"
                    " file to run it again"
                )
            results.update(found)
    return results


def read_table(path: Path) -> dict[Run, Outcome]:
    """Read a table of results.

    Raises:
        StudyError: a file that is not whole, or not one of ours.
    """
    try:
        # Read as bytes: Parquet would take a missing end for a folder.
        rows: list[dict[str, Any]] = pq.read_table(
            pa.BufferReader(path.read_bytes())
        ).to_pylist()
        return {
            Run(**{name: row.pop(name) for name in RUN}): Outcome(**row)
            for row in rows
        }
    except (pa.ArrowException, KeyError, TypeError) as error:
        raise StudyError(
            f"{path}: not a whole result of the study ({error}); delete"
            " the file to run it again"
        ) from None


def missing(
    folder: Path, runs: Iterable[Run], known: Mapping[Run, Outcome]
) -> list[Run]:
    """List the runs that have no result yet."""
    there = (
        {path.name for path in folder.glob("*.parquet")}
        if folder.is_dir()
        else set()
    )
    return [
        run
        for run in runs
        if run not in known and path_of(folder, run).name not in there
    ]


def sweep(folder: Path, runs: Iterable[Run]) -> None:
    """Remove what killed writers of these runs, now done, have left."""
    digests = {run.digest for run in runs}
    for part in folder.glob("*.part"):
        if part.name.partition(".")[0] in digests:
            part.unlink(missing_ok=True)
