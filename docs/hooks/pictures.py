"""Pictures are files of a known size, loaded when near: a page is light and its text stays put."""

from __future__ import annotations

import posixpath
import re
import struct
from base64 import b64decode
from itertools import count
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

PICTURE = re.compile(r'<img (?P<before>[^>]*?)src="(?P<source>[^"]+)"(?P<after>[^>]*?)/?>')
WIDTH = re.compile(r'\bwidth="(\d+)"')
EMBEDDED = "data:image/png;base64,"


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Give every picture of a page a height, and in a build a file.

    `mkdocs serve` keeps pages from one build to the next, but no files; there they stay embedded.
    """
    folder = Path(config.site_dir, page.url)
    numbers = count(1)

    def put(found: re.Match[str]) -> str:
        source = found["source"]
        if source.startswith(EMBEDDED):
            data = b64decode(source.removeprefix(EMBEDDED))
            if not config.extra["serving"]:
                source = f"{next(numbers)}.png"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / source).write_bytes(data)
        elif source.endswith(".png"):
            path = posixpath.normpath(posixpath.join(page.url, source))  # no page yet
            data = Path(config.site_dir, path).read_bytes()
        else:
            return found[0]
        return f'<img {found["before"]}src="{source}"{found["after"]}{_room(found[0], data)}>'

    return PICTURE.sub(put, output)


def _room(tag: str, png: bytes) -> str:
    """Say how high a picture is at its width, and that it may come later."""
    width, height = struct.unpack(">II", png[16:24])
    shown = WIDTH.search(tag)
    size = f' width="{width}" height="{height}"'
    if shown:
        size = f' height="{round(height * int(shown[1]) / width)}"'
    return f'{size} loading="lazy" decoding="async"'
