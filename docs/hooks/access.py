"""What the theme's templates leave out for readers who hear a page instead of seeing it."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

SEARCH = 'data-md-component="search" role="dialog"'


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Give the search dialog a name."""
    return output.replace(SEARCH, f'{SEARCH} aria-label="Search"', 1)
