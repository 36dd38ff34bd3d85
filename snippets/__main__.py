"""The command line: python -m snippets, with a command."""

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from papers import catalog, ledger
from snippets.lab import notebooks, scaffold
from snippets.lab.notebooks import NotebookError

REMEDY = {
    "stale": "the script or what it imports has changed",
    "missing": "the script has no notebook",
    "edited": "the notebook was changed by hand",
    "unreadable": "the notebook is not what the runner writes",
}
"""What is wrong with a notebook that is not fresh."""


Tell = Callable[[str, str], None]
"""Takes a key and how it went."""


class CommandError(Exception):
    """What stops a command; its text is all that the user sees."""


def run(options: argparse.Namespace) -> None:
    """Execute the scripts whose notebooks are not fresh."""
    keys = options.keys or notebooks.script_keys()
    unknown = sorted(set(keys) - set(notebooks.script_keys()))
    if unknown:
        raise CommandError(
            f"no script for {', '.join(unknown)}; there are:"
            f" {', '.join(notebooks.script_keys())}"
        )
    due = [
        key
        for key in keys
        if options.force or notebooks.state(key) != "fresh"
    ]
    if not due:
        print(f"nothing to run: {len(keys)} notebook(s) are fresh")
        return
    failures = []
    with (
        ThreadPoolExecutor(options.jobs) as pool,
        _progress(due) as tell,
    ):
        futures = {
            pool.submit(notebooks.execute, key): key for key in due
        }
        for future in as_completed(futures):
            key, error = futures[future], future.exception()
            tell(key, "failed" if error else "done")
            if isinstance(error, NotebookError):
                failures.append(str(error))
            elif error:
                raise error
    if failures:
        raise CommandError("\n\n".join(sorted(failures)))


def check(_: argparse.Namespace) -> None:
    """Verify notes, pairs and notebooks without executing anything."""
    problems = []
    try:
        papers = catalog.load()
        ledger.harvest(papers)
    except catalog.CatalogError as error:
        problems += error.problems
    except ledger.LedgerError as error:
        problems.append(str(error))
    for key in notebooks.script_keys():
        state = notebooks.state(key)
        if state != "fresh":
            problems.append(
                f"docs/notebooks/{key}.ipynb: {state}: {REMEDY[state]};"
                f" run: python -m snippets run {key}"
            )
    problems += [
        f"docs/notebooks/{key}.ipynb: orphaned: no script"
        f" snippets/{key}.py; delete the notebook"
        for key in notebooks.orphans()
    ]
    if problems:
        raise CommandError("\n".join(problems))
    print(f"{len(papers)} pair(s) in order")


def show_list(_: argparse.Namespace) -> None:
    """Print a table of the papers, their claims and verdicts."""
    papers = catalog.load()
    verdicts = ledger.harvest(papers)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("key", "title", "claims", "verdicts", "age"):
        table.add_column(column, no_wrap=column != "title")
    for key, paper in papers.items():
        given = ledger.counts(verdicts[key])
        table.add_row(
            key,
            escape(paper.title),
            str(len(verdicts[key])),
            f"✓ {given['holds']}  ✗ {given['fails']}"
            f"  – {given['untested']}",
            _age(key),
        )
    console = Console()
    if not console.is_terminal:
        # A pipe has no width: keep each paper on one line.
        console = Console(width=200)
    console.print(table)


def new(options: argparse.Namespace) -> None:
    """Make a pair from the templates, and its first notebook."""
    facts = scaffold.Facts(
        options.key, options.title, options.arxiv, options.authors
    )
    try:
        if facts.missing():
            _require_terminal(facts.missing(), options.refuse)
            facts = scaffold.ask(facts)
        written = scaffold.make_pair(facts)
    except scaffold.ScaffoldError as error:
        raise CommandError(str(error)) from None
    except EOFError:
        print()
        raise CommandError("no answer; nothing was written") from None
    for path in written:
        print(f"wrote {path}")
    key = str(facts.key)
    notebooks.execute(key)
    python = ".venv/bin/python -m snippets"
    print(
        f"wrote docs/notebooks/{key}.ipynb\n\n"
        "Next:\n"
        f"  1. write the loss and its claims in snippets/{key}.py\n"
        "     (make lab opens it as a notebook)\n"
        f"  2. {python} run {key}\n"
        f"  3. tell the paper in papers/{key}.md; make serve shows it\n"
        "  4. make test"
    )


def _require_terminal(
    missing: Sequence[str], refuse: Callable[[str], None]
) -> None:
    """Refuse, as a wrong call, where nobody can be asked."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        names = ", ".join(missing)
        refuse(
            f"the following arguments are required: {names}"
            " (on a terminal, new asks for them)"
        )


def study(options: argparse.Namespace) -> None:
    """Compare all methods on equal terms."""
    # Here, since no other command needs Dask, pandas and Arrow.
    from snippets.study import command, report
    from snippets.study.runs import StudyError

    full = not (options.quick or any(_chosen(options).values()))
    folder = options.results or command.FOLDER
    out = options.out or (command.RECORD if full else folder / "report")
    try:
        grid = command.grid_of(quick=options.quick, **_chosen(options))
        record = command.record()
        known = {} if options.fresh or options.quick else record
        if options.dry_run:
            print(
                command.plan(
                    grid, folder, known, record, options.workers
                )
            )
            return
        results = command.conduct(
            grid,
            folder,
            known,
            scheduler=options.scheduler,
            workers=options.workers,
            stage=_stage,
        )
        for path in report.write(grid, results, out):
            print(f"wrote {path}")
    except StudyError as error:
        raise CommandError(str(error)) from None
    same, differ = command.differences(results, record)
    if options.quick or options.fresh:
        print(f"{same} run(s) are in the record, {differ} differ there")


def _chosen(options: argparse.Namespace) -> dict[str, object]:
    """The parts of the grid that the user chose."""
    names = ("methods", "pairs", "regimes", "seeds", "data", "epochs")
    return {name: getattr(options, name) for name in names}


def atlas(_: argparse.Namespace) -> None:
    """Measure where each method applies."""
    from snippets.study import atlas, cases, command

    try:
        written = atlas.write(command.RECORD)
    except cases.AtlasError as error:
        raise CommandError(str(error)) from None
    for path in written:
        print(f"wrote {path}")


def figures(_: argparse.Namespace) -> None:
    """Compute the interactive figures."""
    from snippets.study import figures

    for path in figures.write(catalog.ROOT / "docs" / "figures"):
        print(f"wrote {path}")


def bench(options: argparse.Namespace) -> None:
    """Compare our losses with other packages'."""
    from snippets.study import bench

    try:
        measured = bench.measure(quick=options.quick)
    except bench.BenchError as error:
        raise CommandError(str(error)) from None
    record = None if options.quick else catalog.ROOT / "docs" / "data"
    out = options.out or record
    for path in bench.write(measured, out) if out else []:
        print(f"wrote {path}")


def parser() -> argparse.ArgumentParser:
    """Describe the commands."""
    main = argparse.ArgumentParser(
        prog="python -m snippets",
        description="Run, check, list and add the papers' scripts.",
    )
    commands = main.add_subparsers(dest="command", required=True)

    command = commands.add_parser(
        "run",
        help="execute scripts and write their notebooks",
        description="Execute the scripts whose notebook is stale,"
        " missing or edited, and write docs/notebooks/KEY.ipynb.",
    )
    command.add_argument(
        "keys", nargs="*", metavar="KEY", help="a paper; default: all"
    )
    command.add_argument(
        "-j",
        "--jobs",
        type=_positive,
        default=os.cpu_count(),
        metavar="N",
        help="notebooks at a time (default: one per core)",
    )
    command.add_argument(
        "--force", action="store_true", help="run the fresh ones too"
    )
    command.set_defaults(act=run)

    command = commands.add_parser(
        "check",
        help="verify notes, pairs and notebooks",
        description="Name every note that is malformed, every half of a"
        " pair, every stale, missing, edited or orphaned notebook."
        " Executes nothing.",
    )
    command.set_defaults(act=check)

    command = commands.add_parser(
        "list",
        help="show papers, claims and verdicts",
        description="Show each paper's key, title, number of claims,"
        " verdicts (✓ holds, ✗ fails, – not tested), and how long ago"
        " its notebook was recorded.",
    )
    command.set_defaults(act=show_list)

    command = commands.add_parser(
        "new",
        help="add a paper",
        description="Make papers/KEY.md and snippets/KEY.py from the"
        " templates, and run them. They pass every check at once. On a"
        " terminal, what is not given is asked for.",
    )
    command.add_argument(
        "key",
        nargs="?",
        metavar="KEY",
        help="first author and year, as in hinton2015",
    )
    command.add_argument("--title", help="the paper's title")
    command.add_argument(
        "--arxiv", metavar="ID", help="as in 1503.02531"
    )
    command.add_argument(
        "--authors",
        metavar="NAMES",
        help="separated by commas, given names first; default: the one"
        " in KEY",
    )
    command.set_defaults(act=new, refuse=command.error)

    command = commands.add_parser(
        "study",
        help="compare all methods on equal terms",
        description="Train students by every method, in every pair of"
        " networks and every regime of data, and write docs/data. A"
        " study that was stopped goes on where it was.",
    )
    _study_options(command)
    command.set_defaults(act=study)

    command = commands.add_parser(
        "atlas",
        help="measure where each method applies",
        description="Call every loss on tensors of differing sizes, and"
        " write docs/data/atlas.json and its picture.",
    )
    command.set_defaults(act=atlas)

    command = commands.add_parser(
        "figures",
        help="compute the interactive figures",
        description="Write the specifications and the still pictures of"
        " the interactive figures into docs/figures.",
    )
    command.set_defaults(act=figures)

    command = commands.add_parser(
        "bench",
        help="compare time and memory with other packages",
        description="Call our losses and those of the packages that are"
        " installed side by side, and write docs/data/bench.json and"
        " its picture. `make bench` installs the packages.",
    )
    command.add_argument(
        "--quick",
        action="store_true",
        help="small sizes, few rounds: a check, no result",
    )
    command.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where data and picture go (default: docs/data; with"
        " --quick, nowhere)",
    )
    command.set_defaults(act=bench)
    return main


def _study_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--quick",
        action="store_true",
        help="4 methods, 2 pairs, 2 regimes, 3 seeds: minutes",
    )
    command.add_argument(
        "--dry-run",
        action="store_true",
        help="say what there is to do and what it costs; do nothing",
    )
    command.add_argument(
        "--fresh",
        action="store_true",
        help="do not use the committed results",
    )
    for name in ("methods", "pairs", "regimes"):
        command.add_argument(
            f"--{name}",
            type=lambda text: tuple(text.split(",")),
            metavar="A,B,…",
            help=f"only these {name}",
        )
    command.add_argument("--seeds", type=_positive, metavar="N")
    command.add_argument(
        "--epochs", type=_positive, metavar="N", help="of each student"
    )
    command.add_argument(
        "--data",
        metavar="NAME",
        help="digits, or cifar100 where torchvision has it in ./data",
    )
    command.add_argument(
        "--scheduler",
        metavar="tcp://HOST:PORT",
        help="a Dask cluster that is there; default: a local one",
    )
    command.add_argument(
        "--workers",
        type=_positive,
        default=os.cpu_count(),
        metavar="N",
        help="processes of the local cluster (default: one per core)",
    )
    command.add_argument(
        "--results",
        type=Path,
        metavar="FOLDER",
        help="where each run leaves its result (default: .study)",
    )
    command.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where the tables and pictures go (default: docs/data for"
        " the full study, else FOLDER/report)",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, or 1 with what is wrong on stderr."""
    options = parser().parse_args(arguments)
    try:
        options.act(options)
    except catalog.CatalogError as error:
        return _fail(error.problems)
    except (CommandError, NotebookError, ledger.LedgerError) as error:
        return _fail(str(error).splitlines())
    except OSError as error:
        return _fail([f"{error.filename}: {error.strerror}"])
    except KeyboardInterrupt:
        return 130
    return 0


def _fail(lines: Sequence[str]) -> int:
    print("error: " + "\n".join(lines), file=sys.stderr)
    return 1


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


@contextmanager
def _progress(
    keys: Sequence[str],
) -> Iterator[Tell]:
    """Tell how far we are: by a bar, or by lines off a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda key, how: print(f"{key}: {how}", flush=True)
        return
    with Progress(console=console) as bar:
        task = bar.add_task("notebooks", total=len(keys))

        def tell(key: str, how: str) -> None:
            bar.console.print(f"{key}: {how}")
            bar.advance(task)

        yield tell


@contextmanager
def _stage(name: str, runs: int) -> Iterator[Callable[[], None]]:
    """Count the runs of a stage: by a bar, or by lines off a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        print(f"{name}: {runs} to do", flush=True)
        counter = itertools.count(1)

        def count() -> None:
            done = next(counter)
            if done % max(1, runs // 10) == 0:
                print(f"{name}: {done} of {runs}", flush=True)

        yield count
        return
    with Progress(
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        console=console,
    ) as bar:
        task = bar.add_task(name, total=runs)
        yield lambda: bar.advance(task)


def _age(key: str) -> str:
    """How long ago the notebook was recorded, by git or by its date."""
    path = notebooks.NOTEBOOKS / f"{key}.ipynb"
    if not path.exists():
        return "never run"
    relative = path.relative_to(notebooks.ROOT)
    found = subprocess.run(
        ["git", "log", "-1", "--format=%ct", "--", relative],
        cwd=notebooks.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = found.stdout.strip() if found.returncode == 0 else ""
    days = (
        time.time() - float(seconds or path.stat().st_mtime)
    ) / 86400
    return "today" if days < 1 else f"{days:.0f} d"


if __name__ == "__main__":
    sys.exit(main())
