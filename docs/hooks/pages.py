"""Which files are pages: the notes join the site, and the catalog makes the navigation.

The other hooks and the templates find the papers and their verdicts in `config.extra`.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import get_args

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

from papers.catalog import Catalog, CatalogError, Paper, Question, load
from papers.ledger import LedgerError, harvest

QUESTIONS = get_args(Question)
MEETINGS = ("index", "september-10", "september-29", "ideas", "unknown-task")
"""Pages of docs/questions and docs/meetings, in order."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Read the notes and the verdicts, and lay out the navigation."""
    root = Path(config.docs_dir).parent
    try:
        papers = load(root)
        verdicts = harvest(papers, root)
    except (CatalogError, LedgerError) as error:
        raise PluginError(str(error)) from None
    _require_pairs(papers, Path(config.docs_dir) / "notebooks")
    config.extra.update(papers=papers, verdicts=verdicts, labels=_labels(papers))
    config.nav = [
        {"Home": "index.md"},
        {
            "Papers": [
                {"All papers": "papers.md"},
                "paths.md",
                "notation.md",
            ]
        },
        {"Lineage": "lineage.md"},
        {"Questions": ["questions/index.md", *(f"questions/{name}.md" for name in QUESTIONS)]},
        {"Claims": "claims.md"},
        {"Figures": "figures.md"},
        {"Atlas": "atlas.md"},
        {"Study": "study.md"},
        {"Losses": ["bench.md", "vocabulary.md", "trust.md"]},
        {"Meetings": [f"meetings/{name}.md" for name in MEETINGS]},
        {"Guide": "guide.md"},
    ]
    if not config.repo_url:
        config.edit_uri = None
    return config


@event_priority(100)  # before the other hooks look for the files of papers
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every note at papers/<key>/."""
    root = str(Path(config.docs_dir).parent)
    for key, label in config.extra["labels"].items():
        note = File(f"papers/{key}.md", root, config.site_dir, config.use_directory_urls)
        note.edit_uri = f"../papers/{key}.md"  # relative to the edit_uri of docs/
        Page(label, note, config)
        files.append(note)
    return files


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Put notes and notebooks below Papers, each kind in a row by year.

    The navigation does not list them: every page holds it, so that a site of a thousand papers
    would be a million entries. The table of papers lists them once.
    """
    section = next(item for item in nav.items if item.title == "Papers")
    for path in ("papers/{}.md", "notebooks/{}.ipynb"):
        found = (files.get_file_from_path(path.format(key)) for key in config.extra["papers"])
        row = [file.page for file in found if file and file.page]
        for page in row:
            page.parent = section
        for before, after in pairwise(row):
            before.next_page, after.previous_page = after, before
    return nav


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Give a note its template, and its links, which hold in the forge, their target here."""
    if not page.file.src_uri.startswith("papers/"):
        return markdown
    paper: Paper = config.extra["papers"][Path(page.file.src_uri).stem]
    page.meta.update(paper=paper, template="note.html", description=paper.summary)
    if paper.status != "draft":
        del page.meta["status"]  # the theme would mark it in the navigation
    markdown = markdown.replace("](../docs/", "](../").replace("](../snippets/", "](../downloads/")
    return f"<!-- head -->\n\n{markdown}"


def _require_pairs(papers: Catalog, folder: Path) -> None:
    notebooks = {path.stem for path in folder.glob("*.ipynb")}
    problems = [
        f"papers/{key}.md: no executed notebook docs/notebooks/{key}.ipynb; "
        f"write it with: python -m snippets run {key}"
        for key in papers
        if key not in notebooks
    ] + [
        f"docs/notebooks/{key}.ipynb: the notebook has no note papers/{key}.md"
        for key in sorted(notebooks - set(papers))
    ]
    if problems:
        raise PluginError("\n".join(problems))


def _labels(papers: Catalog) -> dict[str, str]:
    """Name papers; with an initial where two would read the same: "P. Chen et al. 2019"."""
    labels = {key: _label(paper) for key, paper in papers.items()}
    shared = Counter(labels.values())
    return {
        key: f"{papers[key].authors[0][0]}. {label}" if shared[label] > 1 else label
        for key, label in labels.items()
    }


def _label(paper: Paper) -> str:
    """Name a paper as a reading group does: "Hinton et al. 2015"."""
    surnames = [author.split()[-1] for author in paper.authors]
    names = " & ".join(surnames) if len(surnames) <= 2 else f"{surnames[0]} et al."
    return f"{names} {paper.year}"
