"""What fills a page: a marker such as `<!-- claims -->` becomes the template fill/claims.html.

A marker may say what it is about: in `<!-- trust park2019.distance_loss -->`, the template's
`about` is what follows its name.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from jinja2 import TemplateNotFound
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

from papers.ledger import counts

MARKER = re.compile(r"<!-- (\w+)(?: ([\w.]+))? -->")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let a build have one set of templates, compiled once, and not for each page."""
    config.theme.get_env = cache(config.theme.get_env)  # type: ignore[method-assign]
    return config


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace every marker of a Markdown page."""
    if not page.file.src_uri.endswith(".md") or not MARKER.search(html):
        return html
    env = config.theme.get_env()

    def fill(marker: re.Match[str]) -> str:
        try:
            template = env.get_template(f"fill/{marker[1]}.html")
        except TemplateNotFound:
            names = [Path(name).stem for name in env.list_templates() if name.startswith("fill/")]
            raise PluginError(
                f"{page.file.src_uri}: no marker '{marker[0]}'; known: {', '.join(names)}"
            ) from None
        return template.render(
            **config.extra,
            page=page,
            about=marker[2],
            paper=page.meta.get("paper"),
            base_url=get_relative_url(".", page.url),
            counts=counts,
        )

    return MARKER.sub(fill, html)
