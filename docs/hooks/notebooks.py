"""What a notebook page is: the cells of the executed record, below the paper's bar."""

from __future__ import annotations

import hashlib
import logging
import os
import posixpath
import re
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from markdown.extensions.toc import nest_toc_tokens
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from mkdocs.structure.toc import get_toc

from papers.catalog import Paper
from papers.cells import Cells, render

log = logging.getLogger("mkdocs.hooks.notebooks")

LINK = re.compile(r'(<a [^>]*?href=")([^"]+)(?=")')
ANCHOR = re.compile(r' id="([^"]+)"')
TEMPLATE = "notebook.html"

MANY = 100
"""From so many notebooks on, another process renders them while this one renders the notes."""

pools: list[ProcessPoolExecutor] = []
futures: dict[Path, Future[Cells]] = {}


class Record(File):
    """The file of a notebook, which is a page although it is no Markdown."""

    def is_documentation_page(self) -> bool:
        """Let it have an address and a page as Markdown has."""
        return True


class NotebookPage(Page):
    """A page whose content is made when the page is, and dropped then.

    The cells of a thousand notebooks, with their pictures, would fill the memory.
    """

    def __init__(self, paper: Paper, label: str, file: File, config: MkDocsConfig) -> None:
        super().__init__(label, file, config)
        self.paper = paper
        self.path = Path(str(file.abs_src_path))
        if self.edit_url:  # what to edit is the script
            self.edit_url = self.edit_url.replace(
                f"docs/notebooks/{paper.key}.ipynb", f"snippets/{paper.key}.py"
            )

    def read_source(self, config: MkDocsConfig) -> None:
        """Take template and title. There is no Markdown, and nothing for the search."""
        self.markdown = ""
        self.meta = {
            "paper": self.paper,
            "title": f"{self.paper.title}, the notebook",
            "template": TEMPLATE,
            "search": {"exclude": True},
            # docs/hooks/keep.py sees by it whether the page has changed.
            "digest": hashlib.sha256(self.path.read_bytes()).hexdigest(),
        }

    def render(self, config: MkDocsConfig, files: Files) -> None:
        """Keep what is needed to make the content later."""
        self.content, self.toc, self.files = "", get_toc([]), files

    def fill(self) -> None:
        """Set the cells, with links to pages, and the contents."""
        future = futures.pop(self.path, None)
        cells = future.result() if future else render(self.path)
        self.content = _resolve_links(cells.html.decode(), self, self.files)
        self.toc = get_toc(nest_toc_tokens(cells.headings))
        self.present_anchor_ids = set(ANCHOR.findall(self.content))


@event_priority(50)  # before docs/hooks/static.py adds the records for download
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make every notebook a page, and if they are many, let another process start on them."""
    pages = []
    for key, paper in config.extra["papers"].items():
        file = files.get_file_from_path(f"notebooks/{key}.ipynb")
        assert file is not None  # docs/hooks/pages.py has looked
        files.remove(file)
        record = Record(file.src_uri, config.docs_dir, config.site_dir, config.use_directory_urls)
        files.append(record)
        pages.append(NotebookPage(paper, config.extra["labels"][key], record, config))
    if len(pages) >= MANY:
        # Not forked: this process may have threads.
        pool = ProcessPoolExecutor(max(1, (os.cpu_count() or 1) - 1), get_context("spawn"))
        pools.append(pool)
        futures.update({page.path: pool.submit(render, page.path) for page in pages})
    return files


@event_priority(-100)  # after the search plugin, which would comb through the pictures
def on_page_context(
    context: dict[str, Any], page: Page, config: MkDocsConfig, nav: Navigation
) -> dict[str, Any]:
    """Make the content."""
    if isinstance(page, NotebookPage) and page.meta["template"] == TEMPLATE:
        page.fill()
    return context


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Drop the content."""
    if isinstance(page, NotebookPage):
        page.content = ""
    return output


def on_post_build(config: MkDocsConfig) -> None:
    """End the other process."""
    _end()


def on_build_error(error: Exception) -> None:
    """End it also where a page is wrong."""
    _end()


def _end() -> None:
    for pool in pools:
        pool.shutdown(cancel_futures=True)
    pools.clear()
    futures.clear()


def _resolve_links(html: str, page: Page, files: Files) -> str:
    """Turn links that hold in the forge, between files, into links between pages."""

    def resolve(found: re.Match[str]) -> str:
        before, href = found.groups()
        target = urlsplit(href)
        if target.scheme or target.netloc or not target.path:
            return found[0]
        path = posixpath.normpath(posixpath.join("docs/notebooks", target.path))
        file = files.get_file_from_path(
            path.removeprefix("docs/").replace("snippets/", "downloads/", 1)
        )
        if file is None:
            log.warning("%s: no page for the link %s", page.file.src_uri, href)
            return found[0]
        anchor = f"#{target.fragment}" if target.fragment else ""
        return before + file.url_relative_to(page.file) + anchor

    return LINK.sub(resolve, html)
