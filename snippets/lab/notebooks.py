"""From script to executed notebook, and nothing back.

A notebook in `docs/notebooks/` is the record of one run of a script.
Its metadata holds two digests: of the script with all that it imports
from `snippets`, which tells whether the record is stale; and of the
record itself, which tells whether somebody edited it.
"""

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]
"""The root of the repository."""

NOTEBOOKS = ROOT / "docs" / "notebooks"

CELL_TIMEOUT = 120
"""Seconds after which a cell that does not end has failed."""

State = Literal["fresh", "stale", "missing", "edited", "unreadable"]


class NotebookError(Exception):
    """A script that cannot become a notebook: where and why."""


def script_keys() -> list[str]:
    """List the keys of all scripts."""
    scripts = (ROOT / "snippets").glob("*.py")
    return sorted(p.stem for p in scripts if p.stem[:2] != "__")


def orphans() -> list[str]:
    """List the keys of notebooks that have no script."""
    notebooks = {path.stem for path in NOTEBOOKS.glob("*.ipynb")}
    return sorted(notebooks - set(script_keys()))


def state(key: str) -> State:
    """Tell whether the notebook of `key` is the record of its script.

    Raises:
        NotebookError: if the script or an import cannot be parsed.
    """
    path = _path(key)
    if not path.exists():
        return "missing"
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        digests = notebook["metadata"]["distillery"]
        source, record = digests["source"], digests["record"]
    except (ValueError, KeyError, TypeError):
        return "unreadable"
    if source != source_digest(key):
        return "stale"
    return "fresh" if record == _record_digest(notebook) else "edited"


def source_digest(key: str) -> str:
    """Digest a script and all that it imports from `snippets`."""
    digest = hashlib.sha256()
    for path in _sources(key):
        name = path.relative_to(ROOT).as_posix()
        digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def execute(key: str) -> None:
    """Run the script of `key` as a notebook and write its record.

    The record is replaced in one step, once every cell has run: an
    interrupted or failing run leaves the old one whole.

    Raises:
        NotebookError: naming the script and the cell that failed.
    """
    source = source_digest(key)
    notebook = _converted(key)
    _run_cells(key, notebook)
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["distillery"] = {"source": source}
    record = _record_digest(notebook)
    notebook.metadata["distillery"]["record"] = record
    text = json.dumps(
        notebook, indent=1, sort_keys=True, ensure_ascii=False
    )
    _replace(_path(key), text + "\n")


def _path(key: str) -> Path:
    return NOTEBOOKS / f"{key}.ipynb"


def _sources(key: str) -> list[Path]:
    module = f"snippets.{key}"
    upstream = _import_graph().find_upstream_modules(module)
    modules = {module, *upstream}
    # Importing a module also runs the packages that it lies in.
    packages = {name.rpartition(".")[0] for name in modules} - {""}
    return sorted(_file(name) for name in modules | packages)


@functools.cache
def _import_graph() -> Any:
    import grimp

    try:
        return grimp.build_graph("snippets", cache_dir=None)
    except grimp.exceptions.SourceSyntaxError as error:
        name = Path(error.filename).relative_to(ROOT)
        raise NotebookError(
            f"{name}: line {error.lineno}: not valid Python:"
            f" {(error.text or '').strip()}"
        ) from None


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return (
        path / "__init__.py"
        if path.is_dir()
        else path.with_suffix(".py")
    )


def _converted(key: str) -> Any:
    """Read a script as a notebook with stable cells and metadata."""
    import jupytext

    script = ROOT / "snippets" / f"{key}.py"
    notebook = jupytext.read(script, fmt="py:percent")
    kernel = notebook.metadata.get("kernelspec")
    if not kernel or kernel.get("name") != "python3":
        raise NotebookError(
            f"snippets/{key}.py: header: kernelspec must be python3"
        )
    notebook.metadata = type(notebook.metadata)(kernelspec=kernel)
    for index, cell in enumerate(notebook.cells):
        cell.id = f"{key}-{index:02d}"
        if cell.cell_type == "markdown":
            # The notebook lies one folder deeper than the script.
            cell.source = cell.source.replace(
                "](../papers/", "](../../papers/"
            )
    return notebook


def _run_cells(key: str, notebook: Any) -> None:
    from nbclient import NotebookClient
    from nbclient.exceptions import CellControlSignal, DeadKernelError

    started = [0]
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(ROOT)}},
        coalesce_streams=True,
        record_timing=False,
        store_widget_state=False,
        allow_errors=False,
        on_cell_execute=lambda cell_index, **_: started.append(
            cell_index
        ),
        # Kernels warn at start that they talk over local TCP.
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    try:
        # One thread a kernel: notebooks run side by side.
        client.execute(env={**os.environ, "OMP_NUM_THREADS": "1"})
    except (CellControlSignal, DeadKernelError, TimeoutError) as error:
        at = started[-1]
        failure = _failure(key, at + 1, notebook.cells[at], error)
        raise NotebookError(failure) from None


def _failure(key: str, number: int, cell: Any, error: Exception) -> str:
    """Say which cell failed: its number, its source, the traceback."""
    reason = f"{type(error).__name__}: {error}"
    traceback = ""
    for output in cell.get("outputs", []):
        if output.output_type == "error":
            reason = f"{output.ename}: {output.evalue}"
            traceback = "\n".join(output.traceback)
    rule = "-" * 72
    return (
        f"snippets/{key}.py: cell {number} failed: {reason}\n"
        f"{rule}\n{cell.source}\n{rule}\n{traceback}"
    ).rstrip()


def _record_digest(notebook: dict[str, Any]) -> str:
    """Digest a notebook without the digest that it carries."""
    plain = json.loads(json.dumps(notebook))
    plain["metadata"]["distillery"].pop("record", None)
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _replace(path: Path, text: str) -> None:
    """Write a file in one step, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
