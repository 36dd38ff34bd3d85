"""What an essay rests on: links to claims with their verdicts, and where each remark is answered.

In a page under docs/, `[some words](claim:park2019.labels_come_last)` becomes a link to that claim
with its verdict behind it; `[](claim:…)` shows the claim's own words. `docs/meetings/remarks.yml`
maps each remark of the group to the place on the site that answers it.
"""

from __future__ import annotations

import posixpath
import re
from html import escape
from pathlib import Path

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

CLAIM = re.compile(r"\[([^\]]*)\]\(claim:(\w+)\.(\w+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give the templates the group's remarks."""
    path = Path(config.docs_dir, "meetings", "remarks.yml")
    config.extra["remarks"] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn every link to a claim into one to its cell, with its verdict."""
    if not CLAIM.search(markdown):
        return markdown
    claims = {
        (verdict.paper, verdict.name): verdict
        for verdicts in config.extra["verdicts"].values()
        for verdict in verdicts
    }
    partial = config.theme.get_env().get_template("partials/verdict.html").module

    def link(found: re.Match[str]) -> str:
        words, paper, name = found.groups()
        try:
            verdict = claims[paper, name]
        except KeyError:
            raise PluginError(
                f"{page.file.src_uri}: no claim {paper}.{name}; {paper} has: "
                + ", ".join(known for key, known in claims if key == paper)
            ) from None
        target = posixpath.relpath(
            f"notebooks/{paper}.ipynb", posixpath.dirname(page.file.src_uri) or "."
        )
        mark = partial.mark(verdict.verdict)  # type: ignore[attr-defined]
        return f"[{words or escape(verdict.text)}]({target}#claim-{name}){mark}"

    return CLAIM.sub(link, markdown)
