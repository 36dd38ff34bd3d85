"""What the search finds: authors first, and Chinese.

The theme's search splits a query in Chinese at the terms of its index. Without a mark between them,
a whole sentence would be one term. A mark after each character makes every word findable, whatever
words a dictionary knows; `separator` in mkdocs.yml names the mark.
"""

from __future__ import annotations

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority

HAN = re.compile(r"([\u3400-\u9fff])\u200b*")
MARK = "\u200b"
"""A space without width."""


@event_priority(100)  # before the search plugin writes its index
def on_post_build(config: MkDocsConfig) -> None:
    """Set the marks, and tag the head of each note with its authors, which rank highest."""
    authors = {f"papers/{key}/": paper.authors for key, paper in config.extra["papers"].items()}
    for entry in config.plugins["material/search"].search_index.entries:  # type: ignore[attr-defined]
        for field in ("title", "text"):
            entry[field] = HAN.sub(rf"\1{MARK}", entry[field])
        if entry["location"] in authors:
            entry["tags"] = authors[entry["location"]]
