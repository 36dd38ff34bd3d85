"""The catalog: every note's front matter as a validated, typed record.

>>> from papers.catalog import load
>>> load()["hinton2015"].title
'Distilling the Knowledge in a Neural Network'
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

ROOT = Path(__file__).resolve().parent.parent
"""The root of the repository."""

KEY = re.compile(r"[a-z]+\d{4}[a-z]*")
"""First author, year, and a short word where two papers would collide."""

SECTIONS = (
    "In short",
    "The problem",
    "The loss",
    "Paper and code differ",
    "Claims, tested",
    "What it answers",
    "Criticism and follow-ups",
    "From the group's discussion",
    "Cite",
)
"""The level-2 headings of a note, in this order."""

Knowledge = Literal["response", "feature", "attention", "relation", "sequence", "data"]
"""Where the method takes the teacher's knowledge from."""

Task = Literal[
    "classification",
    "face-recognition",
    "language-modelling",
    "language-understanding",
    "node-classification",
    "recommendation",
    "representation-learning",
    "speech-recognition",
    "translation",
]

Question = Literal["applicability", "transfer", "data", "guarantees", "evidence"]
"""The group's five questions, one word each."""

Requirement = Literal[
    "teacher-logits",
    "teacher-features",
    "teacher-gradients",
    "labels",
    "training-data",
    "same-classes",
    "same-width",
    "same-heads",
    "same-spatial-size",
    "same-vocabulary",
    "several-samples",
    "trained-adapter",
]
"""What a method cannot do without."""

RELATIONS = ("builds_on", "corrects", "contradicts")
"""The fields that name other papers: what the paper itself says of them.

It *builds on* those whose loss, method or question it takes over, *corrects* those in which it says
what is wrong or unclear and mends it, and *contradicts* those that its own results speak against.
"""

Sentence = Annotated[str, Field(min_length=1)]
Chinese = Annotated[str, Field(pattern=r"^[^\n]*[\u4e00-\u9fff][^\n]*。$")]
"""One sentence with Chinese characters, and a Chinese full stop at its end."""

Url = Annotated[str, Field(pattern=r"^https?://\S+$")]


SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Where PyYAML was built with libyaml, ten times as fast."""


class CatalogError(Exception):
    """What is wrong with the notes, one problem a line, each naming file and field."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Paper(BaseModel):
    """One paper: what its note says of it in front matter, and the note's text.

    `key` and `body` come from the file; every other field from the front matter.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: Annotated[str, Field(pattern=rf"^{KEY.pattern}$")]
    title: Sentence
    authors: Annotated[list[Sentence], Field(min_length=1)]
    venue: Sentence
    year: Annotated[int, Field(ge=1990, le=2100)]
    arxiv: Annotated[str, Field(pattern=r"^(\d{4}\.\d{4,5}|[a-z-]+/\d{7})$")] | None = None
    doi: Annotated[str, Field(pattern=r"^10\.\S+/\S+$")] | None = None
    url: Url | None = None
    code: Url | None = None
    summary: Sentence
    summary_zh: Chinese | None = None
    knowledge: Annotated[list[Knowledge], Field(min_length=1)]
    tasks: Annotated[list[Task], Field(min_length=1)]
    requires: list[Requirement] = []
    questions: Annotated[dict[Question, Sentence], Field(min_length=1)]
    builds_on: list[str] = []
    corrects: list[str] = []
    contradicts: list[str] = []
    status: Literal["draft", "complete"]
    body: str

    @model_validator(mode="after")
    def _has_a_source(self) -> Paper:
        if not (self.arxiv or self.doi or self.url):
            raise ValueError("one of arxiv, doi, url is needed")
        return self

    @model_validator(mode="after")
    def _is_complete(self) -> Paper:
        if self.status == "complete" and not self.summary_zh:
            raise ValueError("summary_zh is needed in a complete note: one sentence in Chinese")
        return self

    @property
    def link(self) -> str:
        """Where the paper can be read: arXiv before DOI before any other page."""
        if self.arxiv:
            return f"https://arxiv.org/abs/{self.arxiv}"
        return f"https://doi.org/{self.doi}" if self.doi else str(self.url)

    @property
    def bibtex(self) -> str:
        """The paper's BibTeX entry."""
        fields = {
            "title": f"{{{self.title}}}",
            "author": " and ".join(self.authors),
            "year": str(self.year),
            "note": self.venue,
            "eprint": self.arxiv,
            "archivePrefix": "arXiv" if self.arxiv else None,
            "doi": self.doi,
            "url": self.link,
        }
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
        return "\n".join([f"@misc{{{self.key},", *lines, "}"])


Catalog = Mapping[str, Paper]
"""Papers by key, in reading order: by year, then key."""


def load(root: Path = ROOT) -> Catalog:
    """Read and validate every note under `root`.

    Returns:
        The papers by key, ordered by year, then key.

    Raises:
        CatalogError: every problem at once, each line naming file and field.
    """
    problems: list[str] = []
    papers: list[Paper] = []
    for path in sorted((root / "papers").glob("*.md")):
        try:
            papers.append(_read(path))
        except CatalogError as error:
            problems += error.problems
    papers.sort(key=lambda paper: (paper.year, paper.key))
    problems += _across(papers, known={path.stem for path in (root / "papers").glob("*.md")})
    problems += _unpaired(root)
    if problems:
        raise CatalogError(problems)
    return {paper.key: paper for paper in papers}


def by_arxiv(catalog: Catalog) -> dict[str, str]:
    """Map each arXiv id to the key of its paper."""
    return {paper.arxiv: key for key, paper in catalog.items() if paper.arxiv}


def _read(path: Path) -> Paper:
    name = f"papers/{path.name}"
    front, body = _split(name, path.read_text(encoding="utf-8"))
    problems = [f"{name}: body: {problem}" for problem in _section_problems(body)]
    for field in ("key", "body"):
        if field in front:
            problems.append(f"{name}: {field}: unknown field; allowed: {_allowed()}")
    try:
        paper = Paper.model_validate({**front, "key": path.stem, "body": body})
    except ValidationError as error:
        problems = [_describe(name, detail) for detail in error.errors()] + problems
    if problems:
        raise CatalogError(problems)
    return paper


def _split(name: str, text: str) -> tuple[dict[str, object], str]:
    match = re.match(r"---\n(.*?\n)---\n(.*)", text, flags=re.DOTALL)
    if not match:
        raise CatalogError([f"{name}: front matter: the file must start with '---' … '---'"])
    try:
        front = yaml.load(match[1], Loader=SAFE_LOADER)
    except yaml.YAMLError as error:
        raise CatalogError([f"{name}: front matter: not valid YAML: {_one_line(error)}"]) from None
    if not isinstance(front, dict) or not all(isinstance(field, str) for field in front):
        raise CatalogError([f"{name}: front matter: must be 'field: value' lines"])
    return front, match[2]


def _section_problems(body: str) -> list[str]:
    prose = re.sub(r"^```.*?^```", "", body, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^## (.+?)\s*$", prose, flags=re.MULTILINE)
    missing = [section for section in SECTIONS if section not in found]
    if missing:
        return [f"missing section '## {section}'" for section in missing]
    if tuple(found) != SECTIONS:
        return [f"the '## ' sections must be, in this order: {', '.join(SECTIONS)}"]
    return []


def _across(papers: list[Paper], known: set[str]) -> list[str]:
    """Find what only shows when the notes are seen together."""
    problems = []
    holders: dict[str, str] = {}
    for paper in papers:
        name = f"papers/{paper.key}.md"
        for relation in RELATIONS:
            for key in getattr(paper, relation):
                if key == paper.key:
                    problems.append(f"{name}: {relation}: '{key}' is the paper itself; drop it")
                elif key not in known:
                    problems.append(
                        f"{name}: {relation}: no paper '{key}'; known: {', '.join(sorted(known))}"
                    )
        if paper.arxiv:
            first = holders.setdefault(paper.arxiv, name)
            if first != name:
                problems.append(f"{name}: arxiv: {paper.arxiv} is already the id of {first}")
    return problems


def _unpaired(root: Path) -> list[str]:
    notes = {path.stem for path in (root / "papers").glob("*.md")}
    scripts = {
        path.stem for path in (root / "snippets").glob("*.py") if not path.name.startswith("__")
    }
    return [
        *(
            f"papers/{key}.md: the note has no script snippets/{key}.py"
            for key in sorted(notes - scripts)
        ),
        *(
            f"snippets/{key}.py: the script has no note papers/{key}.md"
            for key in sorted(scripts - notes)
        ),
    ]


def _describe(name: str, detail: object) -> str:
    """Say one pydantic error as 'file: field: what is allowed'."""
    assert isinstance(detail, dict)
    parts = [str(part) for part in detail["loc"] if part != "[key]"]
    field = ".".join(parts) or "front matter"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        message = f"unknown field; allowed: {_allowed()}"
    elif detail["type"] == "missing":
        message = "missing field"
    elif detail["loc"] == ("key",):
        message = f"'{detail['input']}' is no key: first author and year, as in hinton2015"
    return f"{name}: {field}: {message}"


def _allowed() -> str:
    return ", ".join(field for field in Paper.model_fields if field not in ("key", "body"))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
