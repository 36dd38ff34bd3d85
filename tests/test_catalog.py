"""The catalog: what a note must hold, and how errors name it."""

import shutil

import pytest

from papers import catalog
from papers.catalog import SECTIONS, CatalogError, Paper, by_arxiv, load
from papers.ledger import LedgerError, counts, harvest

NOTE = (catalog.ROOT / "papers" / "hinton2015.md").read_text()


@pytest.fixture
def root(tmp_path):
    """A project with one pair, hinton2015, whose note a test may spoil."""
    for folder in ("papers", "snippets", "docs/notebooks"):
        (tmp_path / folder).mkdir(parents=True)
    write(tmp_path, "hinton2015", NOTE)
    return tmp_path


def write(root, key, note):
    (root / "papers" / f"{key}.md").write_text(note)
    (root / "snippets" / f"{key}.py").touch()


def problems(root):
    with pytest.raises(CatalogError) as error:
        load(root)
    return error.value.problems


class TestLoading:
    def test_a_typed_record(self, root):
        paper = load(root)["hinton2015"]
        assert isinstance(paper, Paper)
        assert paper.authors[0] == "Geoffrey Hinton"
        assert paper.link == "https://arxiv.org/abs/1503.02531"
        assert "## In short" in paper.body

    def test_a_draft_may_lack_its_chinese_summary(self, root):
        note = NOTE.replace("summary_zh: ", "# ").replace("status: complete", "status: draft")
        write(root, "hinton2015", note)
        assert load(root)["hinton2015"].summary_zh is None

    def test_ordered_by_year_then_key(self, root):
        write(root, "zzz2014", NOTE.replace("year: 2015", "year: 2014").replace("1503", "1401"))
        write(root, "abc2015", NOTE.replace("1503", "1501"))
        assert list(load(root)) == ["zzz2014", "abc2015", "hinton2015"]

    def test_from_arxiv_id_to_key(self, root):
        assert by_arxiv(load(root)) == {"1503.02531": "hinton2015"}

    def test_bibtex(self, root):
        bibtex = load(root)["hinton2015"].bibtex
        assert bibtex.startswith("@misc{hinton2015,\n")
        assert "author = {Geoffrey Hinton and Oriol Vinyals and Jeff Dean}" in bibtex
        assert bibtex.count("{") == bibtex.count("}")


@pytest.mark.parametrize(
    ("old", "new", "field", "message"),
    [
        ("year: 2015", "year: 2015\nstars: 5", "stars", "unknown field; allowed: title, authors"),
        ("year: 2015", "year: 2015\nkey: other", "key", "unknown field"),
        ("year: 2015\n", "", "year", "missing field"),
        ("year: 2015", "year: long ago", "year", "valid integer"),
        ('arxiv: "1503.02531"', 'arxiv: "1503"', "arxiv", "match"),
        ('arxiv: "1503.02531"\n', "", "front matter", "one of arxiv, doi, url is needed"),
        ("knowledge: [response]", "knowledge: [magic]", "knowledge.0", "'response', 'feature'"),
        ("knowledge: [response]", "knowledge: []", "knowledge", "at least 1"),
        ("  data:", "  why:", "questions.why", "'applicability', 'transfer', 'data'"),
        ("status: complete", "status: done", "status", "'draft' or 'complete'"),
        (
            "status: complete",
            "status: complete\nbuilds_on: [ba2014]",
            "builds_on",
            "no paper 'ba2014'",
        ),
        (
            "status: complete",
            "status: complete\ncontradicts: [ba2014]",
            "contradicts",
            "no paper 'ba2014'; known: hinton2015",
        ),
        (
            "status: complete",
            "status: complete\ncorrects: [hinton2015]",
            "corrects",
            "'hinton2015' is the paper itself; drop it",
        ),
        ("status: complete", "status: complete\ncorrects: ba2014", "corrects", "valid list"),
        ("title: Dist", "title: [Dist", "front matter", "not valid YAML"),
        ("---\ntitle", "title", "front matter", "must start with '---'"),
        ("summary_zh: ", "# ", "front matter", "summary_zh is needed in a complete note"),
        ("summary_zh: ", "summary_zh: In English. #", "summary_zh", "match"),
        ("## The loss\n", "## Our loss\n", "body", "missing section '## The loss'"),
        ("## In short", "## Cite\n\n## In short", "body", "in this order: In short"),
    ],
)
def test_a_spoilt_note_is_named_with_its_field(root, old, new, field, message):
    assert old in NOTE
    write(root, "hinton2015", NOTE.replace(old, new, 1))
    assert any(
        problem.startswith(f"papers/hinton2015.md: {field}: ") and message in problem
        for problem in problems(root)
    ), problems(root)


class TestTogether:
    def test_two_notes_with_one_arxiv_id(self, root):
        write(root, "other2015", NOTE)
        assert problems(root) == [
            "papers/other2015.md: arxiv: 1503.02531 is already the id of papers/hinton2015.md"
        ]

    def test_half_a_pair(self, root):
        (root / "snippets" / "hinton2015.py").unlink()
        (root / "snippets" / "ba2014.py").touch()
        assert problems(root) == [
            "papers/hinton2015.md: the note has no script snippets/hinton2015.py",
            "snippets/ba2014.py: the script has no note papers/ba2014.md",
        ]

    def test_a_name_that_is_no_key(self, root):
        shutil.move(root / "papers" / "hinton2015.md", root / "papers" / "Hinton.md")
        assert "'Hinton' is no key: first author and year, as in hinton2015" in problems(root)[0]

    def test_all_problems_at_once(self, root):
        write(root, "hinton2015", NOTE.replace("year: 2015", "").replace("## Cite", "## Quote"))
        assert len(problems(root)) == 2


class TestLedger:
    def test_a_notebook_of_another_make(self, root):
        (root / "docs/notebooks/hinton2015.ipynb").write_text('{"cells": [{"outputs": [3]}]}')
        with pytest.raises(LedgerError, match=r"docs/notebooks/hinton2015.ipynb: not a notebook"):
            harvest(["hinton2015"], root)

    def test_no_notebook_no_verdict(self, root):
        assert harvest(["hinton2015"], root) == {"hinton2015": []}

    def test_the_projects_verdicts(self):
        verdicts = harvest(["hinton2015"])["hinton2015"]
        assert counts(verdicts) == {"holds": 9, "fails": 0, "untested": 1}
        assert verdicts[0].name == "gradient_identity"
        assert verdicts[0].page == "notebooks/hinton2015/#claim-gradient_identity"


def test_the_notes_sections_are_the_templates():
    template = catalog.ROOT / "snippets" / "lab" / "templates" / "note.md.jinja"
    headings = [line[3:] for line in template.read_text().splitlines() if line.startswith("## ")]
    assert headings == list(SECTIONS)
