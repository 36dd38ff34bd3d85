"""What is changed in the theme's script, so that a page is light and stays as it was painted."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

CHANGES = {
    # The index, which is larger than all else a page loads, is loaded once the search is opened,
    # as the theme does for files,
    '(location.protocol!=="file:"),': "(false),",
    # and to mark what was searched for on a page that a result leads to.
    '("search.highlight")?': '("search.highlight")&&/[?&]h=/.test(location.search)?',
    # It starts when the page is there: overrides/material/main.html sees to that.
    'h(document,"DOMContentLoaded",{once:!0}).subscribe(()=>e.next(document))': "e.next(document)",
    # Tables are in elements that scroll: access.py sees to that.
    '"table:not([class])"': '"table:not(*)"',
}


def on_post_build(config: MkDocsConfig) -> None:
    """Change the script, in which each of the places must still be there, once."""
    (script,) = Path(config.site_dir).glob("assets/javascripts/bundle.*.min.js")
    text = script.read_text(encoding="utf-8")
    for given, wanted in CHANGES.items():
        if text.count(given) != 1:
            raise PluginError(f"{script.name}: this version of the theme has no {given}")
        text = text.replace(given, wanted)
    script.write_text(text, encoding="utf-8")
