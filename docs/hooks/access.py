"""What the theme's templates leave out for readers who hear a page instead of seeing it."""

from __future__ import annotations

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

SEARCH = 'data-md-component="search" role="dialog"'
TABLE = re.compile("<table>.*?</table>", re.DOTALL)
SCROLLS = re.compile(r'<pre>(?:<span></span>)?<code(?=>)|<div class="(?:arithmatex|table)"')


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Give the search dialog a name, and let the keyboard reach code, formulas and tables.

    They may scroll. Once a reader sees what need not, scripts take it out of the keyboard's way.
    """
    named = output.replace(SEARCH, f'{SEARCH} aria-label="Search"', 1)
    wrapped = TABLE.sub(_wrapped, named)
    return SCROLLS.sub(r'\g<0> tabindex="0"', wrapped)


def _wrapped(table: re.Match[str]) -> str:
    """Put a table into an element that scrolls, if it isn't in one."""
    tag_before = table.string.rfind("<", 0, table.start())
    inside = table.string.startswith('<div class="table', tag_before)
    return table[0] if inside else f'<div class="table">{table[0]}</div>'
