"""What the theme's templates leave out for readers who hear a page instead of seeing it."""

from __future__ import annotations

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

SEARCH = 'data-md-component="search" role="dialog"'


SCROLLS = re.compile(r'<pre>(?:<span></span>)?<code(?=>)|<div class="(?:arithmatex|table)"')


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Give the search dialog a name, and let the keyboard reach code, formulas and tables.

    They may scroll. Once a reader sees what need not, scripts take it out of the keyboard's way.
    """
    named = output.replace(SEARCH, f'{SEARCH} aria-label="Search"', 1)
    return SCROLLS.sub(r'\g<0> tabindex="0"', named)
