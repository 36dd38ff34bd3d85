"""What the search finds: authors first, and Chinese.

The theme's search splits a query in Chinese at the terms of its index. Without a mark between them,
a whole sentence would be one term. A mark after each character makes every word findable, whatever
words a dictionary knows; `separator` in mkdocs.yml names the mark.

The pages are put into the index here: the theme's own parser, which is written for any HTML, would
take a fifth of the time of a build.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import lru_cache
from html import unescape
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

HAN = re.compile(r"([\u3400-\u9fff])\u200b*")
MARK = "\u200b"
"""A space without width."""

HEADING = re.compile(r'<h(\d)(?= )[^>]* id="([^"]+)"[^>]*>(.*?)</h\d>', re.DOTALL)
EXCLUDED = re.compile(
    r'<(\w+)[^>]* data-search-exclude.*?</\1>|<a [^>]*class="headerlink".*?</a>', re.DOTALL
)
TAG = re.compile(r"<(/?)(\w+)[^>]*>")
KEPT = {"p", "pre", "code", "li", "ol", "ul", "sub", "sup"}
"""What the theme shows of a text's form in the results."""

SPACE = re.compile(r"(<pre>.*?</pre>)|\s+", re.DOTALL)
CHARACTER = re.compile(r"&(?!lt;|gt;|amp;)#?\w+;")

BUDGET = 3_500_000
"""How many letters the texts of the index have at most: a browser reads them within seconds."""

Entry = dict[str, Any]


@event_priority(100)  # before the search plugin reads the page
def on_page_context(
    context: dict[str, Any], page: Page, config: MkDocsConfig, nav: Navigation
) -> dict[str, Any]:
    """Put a page into the index, section by section."""
    if not page.meta.get("search", {}).get("exclude"):
        title = str(page.meta.get("title", page.title))
        _index(config).extend(map(dict, _sections(page.url, title, page.content or "")))
        page.meta["search"] = {"exclude": True}  # for the plugin
    return context


@event_priority(100)  # before the search plugin writes its index
def on_post_build(config: MkDocsConfig) -> None:
    """Set the marks, and tag the head of each note with its authors, which rank highest."""
    authors = {f"papers/{key}/": paper.authors for key, paper in config.extra["papers"].items()}
    for entry in _index(config):
        for field in ("title", "text"):
            entry[field] = HAN.sub(rf"\1{MARK}", entry[field])
        if entry["location"] in authors:
            entry["tags"] = authors[entry["location"]]
    _index(config)[:] = lighter(_index(config), BUDGET)


def lighter(entries: list[Entry], budget: int) -> list[Entry]:
    """Make the index of a large site smaller: one entry for a page, its sections cut to fit.

    A browser's answer takes the longer the more entries and the more text there are.

    Args:
        entries: The index, by page, the head of each page first.
        budget: How many letters all texts may have.

    Returns:
        The entries themselves if they fit. Else one for each page, in which every section has its
        heading and so many letters that the longest ones pay for all.
    """
    if sum(len(entry["text"]) for entry in entries) <= budget:
        return entries
    plain = [{**e, "title": _plain(e["title"]), "text": _plain(e["text"])} for e in entries]
    lengths = [len(entry["text"]) for entry in plain]
    room = bisect_right(range(max(lengths)), budget, key=lambda n: sum(min(n, m) for m in lengths))
    pages: dict[str, Entry] = {}
    for entry in plain:
        page = entry["location"].partition("#")[0]
        text = entry["text"][: max(room - 1, 0)]
        if page in pages:
            pages[page]["text"] += f" {entry['title']}: {text}"
        else:
            pages[page] = {**entry, "location": page, "text": text}
    return list(pages.values())


def _plain(html: str) -> str:
    """Drop the tags: a text that is cut may not end within one."""
    return TAG.sub("", html)


def _index(config: MkDocsConfig) -> list[Entry]:
    """Get what the search plugin will write."""
    return config.plugins["material/search"].search_index.entries  # type: ignore[attr-defined]


@lru_cache(maxsize=200)  # pages that are the same when served again
def _sections(url: str, title: str, content: str) -> list[Entry]:
    """Cut a page where a heading can be linked to; what comes before belongs to its title."""
    head, *parts = HEADING.split(EXCLUDED.sub("", content))
    if parts[:1] == ["1"]:  # what is below the page's title is its head
        title, head, parts = _text(parts[2]), head + parts[3], parts[4:]
    return [
        {"location": url, "title": title, "text": _text(head)},
        *(
            {"location": f"{url}#{anchor}", "title": _text(heading), "text": _text(html)}
            for anchor, heading, html in zip(parts[1::4], parts[2::4], parts[3::4], strict=True)
        ),
    ]


def _text(html: str) -> str:
    """Reduce HTML to what the index keeps: no attributes, few tags, single spaces."""
    light = TAG.sub(lambda tag: f"<{tag[1]}{tag[2]}>" if tag[2] in KEPT else "", html)
    light = SPACE.sub(lambda found: found[1] or " ", light)
    return CHARACTER.sub(lambda found: unescape(found[0]), light).strip()
