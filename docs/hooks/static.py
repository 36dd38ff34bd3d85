"""What is served as it is: KaTeX and Vega, the downloads of every paper, the JSON at the root."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from papers.catalog import by_arxiv

VENDORED = {
    "katex": ("katex.min.css", "katex.min.js", "contrib/auto-render.min.js", "fonts/*.woff2"),
    "vega": ("vega.min.js",),
    "vega-lite": ("vega-lite.min.js",),
}
"""What pages load of each npm package, from its folder of built files."""

GITHUB = "https://github.com/"
COLAB = "https://colab.research.google.com/github/"

SETUP = """\
# Set-up: on Colab, get the code that this notebook imports.
import importlib.util
import sys

if importlib.util.find_spec("snippets") is None:
    if "google.colab" not in sys.modules:
        raise ModuleNotFoundError(
            "this notebook imports its repository's code: clone"
            " {repository}, then: make lab"
        )
    # Colab has PyTorch and the other large libraries already.
    %pip install --quiet git+{repository} beartype jaxtyping
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that docs/ does not hold."""
    root = Path(config.docs_dir).parent

    def add(path: str, source: Path) -> None:
        files.append(File.generated(config, path, abs_src_path=str(source)))

    for package, patterns in VENDORED.items():
        folder = root / "node_modules" / package / ("dist" if package == "katex" else "build")
        for pattern in patterns:
            found = sorted(folder.glob(pattern))
            if not found:
                raise PluginError(f"{package} is not installed (no {pattern}); run: make assets")
            for source in found:
                add(f"assets/vendor/{package}/{source.relative_to(folder).as_posix()}", source)
        add(f"assets/vendor/{package}/LICENSE", folder.parent / "LICENSE")
    for key in config.extra["papers"]:
        record = root / "docs" / "notebooks" / f"{key}.ipynb"
        if config.repo_url:
            notebook = with_setup(record.read_text(encoding="utf-8"), config.repo_url).encode()
            files.append(File.generated(config, f"downloads/{key}.ipynb", content=notebook))
        else:
            add(f"downloads/{key}.ipynb", record)
        add(f"downloads/{key}.py", root / "snippets" / f"{key}.py")
    for name, content in {"claims": _claims(config), "papers": _papers(config)}.items():
        text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
        files.append(File.generated(config, f"{name}.json", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Tell the bar of a paper where Colab finds the notebook, if it does.

    The workflow puts the downloads, which have a set-up cell, on a branch of this name.
    """
    repository = config.repo_url.rstrip("/").removesuffix(".git") if config.repo_url else ""
    if "paper" in page.meta and repository.startswith(GITHUB):
        notebook = f"blob/notebooks/{page.meta['paper'].key}.ipynb"
        page.meta["colab"] = f"{COLAB}{repository.removeprefix(GITHUB)}/{notebook}"
    return markdown


def with_setup(record: str, repository: str) -> str:
    """Add to a notebook, below its title, a cell that gets the code it imports.

    The record itself has none: it knows no address, and a fork has another. The copy for download
    is made when the site is built, where `repo_url` tells it.
    """
    notebook = json.loads(record)
    source = SETUP.format(repository=repository.rstrip("/"))
    cell: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "id": "set-up",
        "metadata": {},
        "outputs": [],
        "source": source,
    }
    notebook["cells"].insert(1, cell)
    # What it says of the script and the record holds for the record alone.
    notebook["metadata"].pop("distillery", None)
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _claims(config: MkDocsConfig) -> list[dict[str, str]]:
    """Every claim with its verdict, and its address relative to the root."""
    return [
        {**verdict.model_dump(), "url": verdict.page}
        for verdicts in config.extra["verdicts"].values()
        for verdict in verdicts
    ]


def _papers(config: MkDocsConfig) -> dict[str, str]:
    """The address of each paper's note, relative to the root, by arXiv id."""
    return {arxiv: f"papers/{key}/" for arxiv, key in by_arxiv(config.extra["papers"]).items()}
