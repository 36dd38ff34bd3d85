"""A new paper's pair, from templates that pass every check."""

import functools
import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.markup import escape
from rich.prompt import InvalidResponse, Prompt

from papers.catalog import KEY, ROOT, by_arxiv, load

ARXIV = re.compile(r"\d{4}\.\d{4,5}")

TARGETS = {
    "note.md.jinja": "papers/{key}.md",
    "script.py.jinja": "snippets/{key}.py",
}
"""Which file each template becomes."""

SMALL_WORDS = {"a", "an", "are", "do", "does", "is", "on", "the"}
"""Words that tell no title from another."""


class ScaffoldError(Exception):
    """Why no pair was made: the argument, and what it must be."""


@dataclass(frozen=True)
class Facts:
    """What a pair is made from; what is `None` is not yet known.

    Attributes:
        key: First author and year, as in `hinton2015`.
        title: The paper's title.
        arxiv: Its arXiv id, as in `1503.02531`.
        authors: Its authors, separated by commas; without them, the
            note names the author that the key names.
    """

    key: str | None = None
    title: str | None = None
    arxiv: str | None = None
    authors: str | None = None

    def missing(self) -> list[str]:
        """List what is needed and not known, as the user writes it."""
        needed = {
            "KEY": self.key,
            "--title": self.title,
            "--arxiv": self.arxiv,
        }
        return [name for name, value in needed.items() if value is None]


def ask(facts: Facts) -> Facts:
    """Ask on the terminal for what is not known.

    An answer that will not do is asked for again, with the reason. The
    key comes last, since the rest proposes it.

    Raises:
        ScaffoldError: if what is known already will not do.
    """
    _refuse_bad(facts)
    title = facts.title or _answer("Title", title_problem)
    arxiv = facts.arxiv or _answer(
        "arXiv id, as in 1503.02531", arxiv_problem
    )
    key, authors = facts.key, facts.authors
    if key is None:
        authors = authors or _answer(
            "Authors, separated by commas", authors_problem
        )
        key = _answer(
            "Key", key_problem, propose_key(title, arxiv, authors)
        )
    return Facts(key, title, arxiv, authors)


def make_pair(facts: Facts) -> list[str]:
    """Write the note and the script of a new paper.

    Returns:
        The paths written, relative to the repository.

    Raises:
        ScaffoldError: if a fact is missing; the key is ill-formed or
            taken; or the title, the arXiv id or the authors are none,
            or the id is another note's. Nothing is written then.
    """
    _refuse_bad(facts)
    key, title, arxiv = facts.key, facts.title, facts.arxiv
    if key is None or title is None or arxiv is None:
        missing = ", ".join(facts.missing())
        raise ScaffoldError(f"{missing}: must be given")
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
    named = re.sub(r"\d.*", "", key).capitalize()
    values = {
        "key": key,
        "title": title,
        "arxiv": arxiv,
        "year": _year(arxiv),
        "authors": _names(facts.authors or named),
    }
    written = []
    for template, target in TARGETS.items():
        path = target.format(key=key)
        text = environment.get_template(template).render(values)
        (ROOT / path).write_text(text, encoding="utf-8")
        written.append(path)
    return written


def propose_key(title: str, arxiv: str, authors: str) -> str | None:
    """Make a key: first author's surname, year, a word if it is taken.

    Returns:
        A key that is free, or `None` where the surname has no Latin
        letter, or the longer key is taken too.
    """
    surname = _letters(_names(authors)[0].split()[-1])
    key = f"{surname}{_year(arxiv)}"
    words = [_letters(word) for word in re.split(r"[\W_]+", title)]
    telling = [word for word in words if word not in SMALL_WORDS]
    candidates = [key, *(key + word for word in telling[:1])]
    return next((k for k in candidates if not key_problem(k)), None)


def key_problem(key: str) -> str | None:
    """Say why a key will not do, or nothing."""
    if not KEY.fullmatch(key):
        return (
            f"'{key}' is no key: first author and year, as in"
            " hinton2015"
        )
    for target in TARGETS.values():
        path = target.format(key=key)
        if (ROOT / path).exists():
            return f"{path} exists already"
    return None


def title_problem(title: str) -> str | None:
    """Say why a title will not do, or nothing."""
    if not title.strip() or "\n" in title:
        return "must be one line of text"
    return None


def arxiv_problem(arxiv: str) -> str | None:
    """Say why an arXiv id will not do, or nothing."""
    if not ARXIV.fullmatch(arxiv):
        return f"'{arxiv}' is no arXiv id, as in 1503.02531"
    holder = by_arxiv(load()).get(arxiv)
    if holder:
        return f"{arxiv} is already the id of papers/{holder}.md"
    return None


def authors_problem(authors: str) -> str | None:
    """Say why a list of authors will not do, or nothing."""
    if not _names(authors) or "\n" in authors:
        return "must be at least one name"
    return None


def _refuse_bad(facts: Facts) -> None:
    for name, value, problem in (
        ("KEY", facts.key, key_problem),
        ("--title", facts.title, title_problem),
        ("--arxiv", facts.arxiv, arxiv_problem),
        ("--authors", facts.authors, authors_problem),
    ):
        reason = None if value is None else problem(value)
        if reason:
            raise ScaffoldError(f"{name}: {reason}")


def _answer(
    question: str,
    problem: Callable[[str], str | None],
    proposal: str | None = None,
) -> str:
    """Ask until the answer has no problem."""

    class Question(Prompt):
        def process_response(self, value: str) -> str:
            value = value.strip()
            reason = problem(value)
            if reason:
                raise InvalidResponse(escape(reason))
            return value

    if proposal is None:
        return Question.ask(question)
    return Question.ask(question, default=proposal)


def _year(arxiv: str) -> int:
    # The first four digits of an arXiv id are year and month.
    return 2000 + int(arxiv[:2])


def _names(authors: str) -> list[str]:
    return [name.strip() for name in authors.split(",") if name.strip()]


def _letters(word: str) -> str:
    """Write a word in the letters of a key: "Vü" becomes "vu"."""
    plain = unicodedata.normalize("NFKD", word).lower()
    return re.sub(r"[^a-z]", "", plain)
