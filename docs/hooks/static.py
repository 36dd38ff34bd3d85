"""What is served as it is: KaTeX, the downloads of every paper, and the JSON at the root."""

from __future__ import annotations

import json
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from papers.catalog import by_arxiv

KATEX = ("katex.min.css", "katex.min.js", "contrib/auto-render.min.js", "fonts/*.woff2")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that docs/ does not hold.

    This runs after mkdocs-jupyter, which would make a page of every notebook.
    """
    root = Path(config.docs_dir).parent

    def add(path: str, source: Path) -> None:
        files.append(File.generated(config, path, abs_src_path=str(source)))

    katex = root / "node_modules" / "katex" / "dist"
    for pattern in KATEX:
        found = sorted(katex.glob(pattern))
        if not found:
            raise PluginError(f"KaTeX is not installed (no {pattern}); run: make assets")
        for source in found:
            add(f"assets/vendor/katex/{source.relative_to(katex).as_posix()}", source)
    for key in config.extra["papers"]:
        add(f"downloads/{key}.ipynb", root / "docs" / "notebooks" / f"{key}.ipynb")
        add(f"downloads/{key}.py", root / "snippets" / f"{key}.py")
    for name, content in {"claims": _claims(config), "papers": _papers(config)}.items():
        text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
        files.append(File.generated(config, f"{name}.json", content=text))
    return files


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
