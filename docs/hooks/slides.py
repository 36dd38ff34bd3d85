"""What a deck is: a paper's note and executed notebook as slides, at slides/<key>/.

The note gives the text, the notebook the claims with their pictures, the script the code. nbconvert
makes the page (docs/overrides/slides/), reveal.js shows it. `mkdocs serve` makes no decks: they
would cost time at every change.
"""

from __future__ import annotations

import ast
import json
import logging
import math
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url
from nbconvert.exporters import SlidesExporter, TemplateExporter
from nbconvert.filters import Highlight2HTML
from nbformat import NotebookNode, from_dict

from papers.catalog import Paper
from papers.ledger import CLAIM_MIME

log = logging.getLogger("mkdocs.hooks.slides")

REVEAL = ("dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js")

# What fits, in pixels of a slide of 1280 × 720, at the sizes of docs/assets/slides.css and with
# the widest of its fonts; tests/test_slides.py measures every slide in a browser.
ROOM = 560
GAP = 16
LINE, LETTERS = 39, 70
ROW, ROW_LINE, ROW_LETTERS = 44, 34, 62
FORMULA, FORMULA_LINE = 100, 50
CODE_LINES = 18

ASKED = re.compile(r"\*\*.+?\*\*", re.DOTALL)
"""What the group said or asked, at the start of a paragraph."""

CLAIMS = 3
"""How many claims a deck shows at most."""

DEFINITION = (ast.FunctionDef, ast.ClassDef)

Cell = dict[str, Any]
"""A cell of a notebook. Made here, and so not validated one by one, which would take long."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every paper's deck, and what it loads. This runs when all other files are known."""
    if config.extra["serving"]:
        return files
    root = Path(config.docs_dir).parent
    reveal = root / "node_modules" / "reveal.js"
    for name in REVEAL:
        if not (reveal / name).is_file():
            raise PluginError(f"reveal.js is not installed (no {name}); run: make assets")
        address = f"assets/vendor/reveal/{name}"
        files.append(File.generated(config, address, abs_src_path=str(reveal / name)))
    export = exporter(root)
    for key, paper in config.extra["papers"].items():
        html = deck(paper, root, partial(_address, key=key, files=files), export)
        files.append(File.generated(config, f"slides/{key}/index.html", content=html))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Tell the bar of a paper that there are slides to link to."""
    page.meta["slides"] = "paper" in page.meta and not config.extra["serving"]
    return markdown


class DeckExporter(SlidesExporter):
    """nbconvert's exporter of slides, without its last step, which takes half of its time.

    It would parse the page again, to mend pictures without alternative text, which ours have.
    """

    def from_notebook_node(  # type: ignore[override]
        self, nb: NotebookNode, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[str, dict[str, Any]]:
        """Make the page with the template alone."""
        return TemplateExporter.from_notebook_node(self, nb, resources, **kw)


def exporter(root: Path) -> SlidesExporter:
    """Make nbconvert's exporter with our template; one serves all decks."""
    export = DeckExporter(
        template_name="slides",
        extra_template_basedirs=[str(root / "docs" / "overrides")],
        exclude_anchor_links=True,
        optimistic_validation=True,  # once, not after each step
        reveal_url_prefix="../../assets/vendor/reveal",
    )
    export.register_filter("highlight_code", Highlight2HTML(pygments_lexer="python"))
    return export


def deck(paper: Paper, root: Path, address: Callable[[str], str], export: SlidesExporter) -> str:
    """Make a paper's deck.

    Args:
        paper: The paper; its note is the text of the slides.
        root: The root of the repository, with the notebook and the scripts.
        address: Maps a link of the note to its target as seen from the deck.
        export: What `exporter` makes.

    Returns:
        The deck, an HTML page.
    """
    body = re.sub(r"\]\(([^)\s]+)\)", lambda link: f"]({address(link[1])})", paper.body)
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", body, re.DOTALL | re.MULTILINE))
    notebook = json.loads((root / f"docs/notebooks/{paper.key}.ipynb").read_text(encoding="utf-8"))

    def text(name: str) -> Iterator[Cell]:
        return _stack(name, _texts(_blocks(sections[name])))

    cells = [
        *_title(paper, sections["In short"], address),
        *text("The problem"),
        *_loss(sections["The loss"], root),
        *_claims(notebook),
        *text("Paper and code differ"),
        *_discussion(sections["From the group's discussion"]),
    ]
    names = {"title": paper.title, "language_info": {"name": "python"}}
    slides = {"nbformat": 4, "nbformat_minor": 4, "metadata": names, "cells": cells}
    html, _ = export.from_notebook_node(from_dict(slides))
    return html


def _address(link: str, key: str, files: Files) -> str:
    """Turn a link that holds in the forge, between files, into one that holds in a deck."""
    target = urlsplit(link)
    if target.scheme or target.netloc:
        return link
    path = posixpath.normpath(posixpath.join("papers", target.path or f"{key}.md"))
    file = files.get_file_from_path(
        path.removeprefix("docs/").replace("snippets/", "downloads/", 1)
    )
    if file is None:
        log.warning("papers/%s.md: no page for the link %s of its slides", key, link)
        return link
    anchor = f"#{target.fragment}" if target.fragment else ""
    return get_relative_url(file.url, f"slides/{key}/") + anchor


# Slides are runs of cells. The first cell of each says what it starts.


def _stack(heading: str, pages: Iterable[list[Cell]]) -> Iterator[Cell]:
    """Make one slide of several pages, which lie below each other."""
    every = list(pages)
    for number, page in enumerate(every, 1):
        count = f" <small>{number} of {len(every)}</small>" if len(every) > 1 else ""
        # As HTML: nbconvert would give a Markdown heading a mark to link to.
        yield _prose(f"<h2>{heading}{count}</h2>", "slide" if number == 1 else "subslide")
        yield from page


def _prose(text: str, kind: str = "-") -> Cell:
    return {
        "cell_type": "markdown",
        "metadata": {"slideshow": {"slide_type": kind}},
        "source": text,
    }


def _code(source: str = "", outputs: Iterable[dict[str, Any]] = ()) -> Cell:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": list(outputs),
        "source": source,
    }


def _title(paper: Paper, in_short: str, address: Callable[[str], str]) -> tuple[Cell, Cell]:
    """Say what the paper is, and where its note and notebook are."""
    note = address(f"{paper.key}.md")
    notebook = address(f"../docs/notebooks/{paper.key}.ipynb")
    year = str(paper.year)
    lines = [
        f"<h1>{escape(paper.title)}</h1>",
        ", ".join(paper.authors),
        paper.venue if year in paper.venue else f"{paper.venue} · {year}",
        f"**{paper.summary}**",
        f"[The note]({note}) · [The notebook]({notebook}) · [The paper]({paper.link})",
    ]
    return _prose("\n\n".join(lines), "slide"), _prose(in_short, "notes")


def _loss(section: str, root: Path) -> Iterator[Cell]:
    """Show the formulas and the symbols, then the functions that fit on a slide."""
    blocks = [part for block in _blocks(section) for part in _formulas(block)]
    named = [block.removeprefix("::: ") for block in blocks if block.startswith("::: ")]
    text = [block for block in blocks if not block.startswith("::: ")]
    sources = (_source(name, root) for name in named)
    fitting = [source for source in sources if source.count("\n") < CODE_LINES]
    yield from _stack(
        "The loss",
        [
            *_texts(text),
            *([_code(source)] for source in fitting),
        ],
    )


def _source(name: str, root: Path) -> str:
    """Give the code of a function or class without its docstrings."""
    module, _, member = name.rpartition(".")
    path = f"{module.replace('.', '/')}.py"
    text = (root / path).read_text(encoding="utf-8")
    for node in _parsed(text).body:
        if isinstance(node, DEFINITION) and node.name == member:
            kept = set().union(*map(_lines, [*node.decorator_list, node]))
            for part in ast.walk(node):
                if isinstance(part, DEFINITION) and ast.get_docstring(part, clean=False):
                    kept -= _lines(part.body[0])
            lines = text.splitlines()
            return "\n".join(lines[number - 1] for number in sorted(kept))
    raise PluginError(f"{path}: no '{member}', which a note shows with ':::'")


def _lines(node: ast.expr | ast.stmt) -> set[int]:
    """Give the numbers of the lines that hold a part of the code."""
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


@cache
def _parsed(text: str) -> ast.Module:
    """Parse a script once, for all its functions."""
    return ast.parse(text)


def _claims(notebook: dict[str, Any]) -> Iterator[Cell]:
    """Show some claims as the notebook does, each picture on a page of its own."""
    pages = []
    for card, picture in _chosen(list(_tested(notebook))):
        pages.append([_code(outputs=[card])])
        if picture:
            text = escape(card["data"][CLAIM_MIME]["text"], quote=False)
            pages.append([_prose(f"<p>{text}</p>"), _code(outputs=[picture])])
    return _stack("Claims, tested", pages)


Tested = tuple[dict[str, Any], dict[str, Any] | None]
"""The card of a claim and its picture, if it has one, as outputs of the notebook."""


def _tested(notebook: dict[str, Any]) -> Iterator[Tested]:
    """Find the claims; a claim's picture is the output behind its card."""
    for cell in notebook["cells"]:
        outputs = cell.get("outputs", [])
        for output, following in zip(outputs, [*outputs, {}][1:], strict=True):
            if CLAIM_MIME in output.get("data", {}):
                yield output, following if "image/png" in following.get("data", {}) else None


def _chosen(claims: list[Tested]) -> list[Tested]:
    """Choose two or three claims: one that fails, if any, then those with pictures."""

    def verdict(claim: Tested) -> str:
        return str(claim[0]["data"][CLAIM_MIME]["verdict"])

    pictured = [claim for claim in claims if claim[1]]
    failing = [claim for claim in claims if verdict(claim) == "fails"]
    failing.sort(key=lambda claim: claim[1] is None)
    chosen = failing[:1]
    chosen += [claim for claim in pictured if claim not in chosen][: CLAIMS - len(chosen)]
    plain = sorted(claims, key=lambda claim: verdict(claim) == "untested")
    chosen += [claim for claim in plain if claim not in chosen][: max(0, CLAIMS - 1 - len(chosen))]
    return [claim for claim in claims if claim in chosen]


def _discussion(section: str) -> Iterator[Cell]:
    """Show what was asked; what was answered goes to the speaker's notes."""
    answers: list[list[str]] = []
    for block in _blocks(section):
        if ASKED.match(block) or not answers:
            answers.append([])
        answers[-1].append(block)
    asked = [(ASKED.match(answer[0]) or [answer[0]])[0] for answer in answers]
    whole = dict(zip(asked, answers, strict=True))
    pages = []
    for page in _pages(asked, gap=2 * GAP):
        notes = "\n\n".join(block for question in page for block in whole[question])
        pages.append([_prose("\n\n".join(page)), _prose(notes, "notes")])
    return _stack("From the group's discussion", pages)


# How a note's text is cut into pages.


def _blocks(section: str) -> list[str]:
    """Cut a section into paragraphs, formulas, tables and items of lists."""
    blocks = re.split(r"\n(?:\s*\n)+|\n(?=- |\d+\. )", section.strip())
    return [block for block in blocks if block.strip() and not block.startswith("<!--")]


def _formulas(block: str) -> list[str]:
    """Put formulas that share a line on lines of their own: a slide is not that wide."""
    if not block.startswith("$$"):
        return [block]
    parts = re.split(r",?\s*\\qquad\s*", block.strip("$\n "))
    if any(part.count("{") != part.count("}") for part in parts):
        return [block]
    return [f"$$\n{part}\n$$" for part in parts]


def _texts(blocks: Iterable[str]) -> list[list[Cell]]:
    """Make pages of blocks."""
    return [[_prose("\n\n".join(page))] for page in _pages(blocks)]


def _pages(blocks: Iterable[str], gap: int = GAP) -> list[list[str]]:
    """Fill pages with blocks, as many as fit, in their order."""
    pages: list[list[str]] = []
    room = 0
    for block in chain.from_iterable(map(_table_parts, blocks)):
        height = _height(block) + gap
        if not pages or height > room:
            pages.append([])
            room = ROOM
        pages[-1].append(block)
        room -= height
    return pages


def _table_parts(block: str) -> list[str]:
    """Cut a table that is higher than a page, each part with the head."""
    if not block.startswith("|"):
        return [block]
    head, rows = block.splitlines()[:2], block.splitlines()[2:]
    size = math.ceil(len(rows) / math.ceil(_height(block) / ROOM))
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    return ["\n".join([*head, *part]) for part in parts]


def _height(block: str) -> int:
    """Estimate how many pixels a block takes."""
    if block.startswith("$$"):
        return FORMULA + FORMULA_LINE * block.count("\\\\")
    if block.startswith("|"):
        rows = [_plain(row) for row in block.splitlines() if not row.startswith("|--")]
        return sum(ROW + ROW_LINE * (len(row) // ROW_LETTERS) for row in rows)
    return LINE * math.ceil(len(_plain(block)) / LETTERS)


def _plain(markdown: str) -> str:
    """Drop what is not read: the targets of links, marks of emphasis, names of commands."""
    without_links = re.sub(r"\]\([^)]*\)", "]", markdown)
    return re.sub(r"\\[a-zA-Z]+|[*$^{}\[\]|]", "", without_links)
