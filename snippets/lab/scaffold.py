"""A new paper's pair, from templates that pass every check."""

import functools
import json
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from papers.catalog import KEY, ROOT, by_arxiv, load

ARXIV = re.compile(r"\d{4}\.\d{4,5}")

TARGETS = {
    "note.md.jinja": "papers/{key}.md",
    "script.py.jinja": "snippets/{key}.py",
}
"""Which file each template becomes."""


class ScaffoldError(Exception):
    """Why no pair was made: the argument, and what it must be."""


def make_pair(key: str, title: str, arxiv: str) -> list[str]:
    """Write the note and the script of a new paper.

    Args:
        key: First author and year, as in `hinton2015`.
        title: The paper's title.
        arxiv: Its arXiv id, as in `1503.02531`.

    Returns:
        The paths written, relative to the repository.

    Raises:
        ScaffoldError: if the key is ill-formed or taken, or the title
            or the arXiv id is none, or is another note's. Nothing is
            written then.
    """
    _refuse_bad(key, title, arxiv)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    # A JSON string is a YAML string, whatever the title holds.
    environment.filters["yaml"] = functools.partial(
        json.dumps, ensure_ascii=False
    )
    facts = {
        "key": key,
        "title": title,
        "arxiv": arxiv,
        # The first four digits of an arXiv id are year and month.
        "year": 2000 + int(arxiv[:2]),
        "author": re.sub(r"\d.*", "", key).capitalize(),
    }
    written = []
    for template, target in TARGETS.items():
        path = target.format(key=key)
        text = environment.get_template(template).render(facts)
        (ROOT / path).write_text(text, encoding="utf-8")
        written.append(path)
    return written


def _refuse_bad(key: str, title: str, arxiv: str) -> None:
    if not KEY.fullmatch(key):
        raise ScaffoldError(
            f"KEY: '{key}' is no key: first author and year, as in"
            " hinton2015"
        )
    for target in TARGETS.values():
        path = target.format(key=key)
        if (ROOT / path).exists():
            raise ScaffoldError(f"KEY: {path} exists already")
    if not title.strip() or "\n" in title:
        raise ScaffoldError("--title: must be one line of text")
    if not ARXIV.fullmatch(arxiv):
        raise ScaffoldError(
            f"--arxiv: '{arxiv}' is no arXiv id, as in 1503.02531"
        )
    holder = by_arxiv(load()).get(arxiv)
    if holder:
        raise ScaffoldError(
            f"--arxiv: {arxiv} is already the id of papers/{holder}.md"
        )
