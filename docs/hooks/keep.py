"""What `mkdocs serve` keeps: rendered Markdown, and finished pages of notes and notebooks.

MkDocs makes every page anew at each change. Here a page is made again only if something that it is
made of has changed, as a digest shows. So are the parsed scripts that mkdocstrings reads, and the
compiled templates. Nothing is kept on disk: a build starts from nothing.

The templates of notes and notebooks must take what they show from `page` and the settings: what
else lies in `config.extra`, such as other papers, is not in the digest of a finished page.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jinja2
from jinja2.bccache import Bucket
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.livereload import LiveReloadServer
from mkdocs.plugins import event_priority
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page
from mkdocs.structure.toc import TableOfContents

MADE_OF = ("mkdocs.yml", "docs/overrides", "docs/hooks", "docs/data/*.json", "papers/*.py")
"""What all pages are made of, beside their own sources."""

FINISHED = "kept.html"
"""A template that makes nothing: the page is there."""


@dataclass
class Rendered:
    """What Markdown became, before other hooks have filled it."""

    digest: str
    content: str
    toc: TableOfContents
    anchors: set[str] | None
    title: str | None


@dataclass
class Finished:
    """A whole page."""

    digest: str
    html: str = ""


rendered: dict[str, Rendered] = {}
finished: dict[str, Finished] = {}
"""By the page's source."""

digests: dict[str, str] = {}
"""Of what pages share, in this build; empty unless the command is `serve`."""

parsed: dict[str, Any] = {}
"""What mkdocstrings has read of the scripts, by their digest."""

commands: list[str] = []


class Compiled(jinja2.BytecodeCache):
    """Compiled templates; Jinja itself sees by a checksum whether one's source has changed."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Hand a template over."""
        if bucket.key in self.kept:
            bucket.bytecode_from_string(self.kept[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Take a template in."""
        self.kept[bucket.key] = bucket.bytecode_to_string()


compiled = Compiled()


def on_startup(command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
    """Remember the command; and look for garbage less often, as a site is millions of objects."""
    commands.append(command)
    gc.set_threshold(100_000, 20, 50)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Tell the other hooks whether the command is `serve`, where an edit should show at once."""
    config.extra["serving"] = commands[-1:] == ["serve"]
    return config


def on_serve(
    server: LiveReloadServer, config: MkDocsConfig, builder: Callable[..., None]
) -> LiveReloadServer:
    """Look for no garbage in what the first build has left: most of it is kept."""
    gc.freeze()
    return server


@event_priority(-100)  # when all files are known
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Digest what all pages share: links depend on which files there are."""
    if config.extra["serving"]:
        root = Path(config.docs_dir).parent
        sources = sorted(file.src_uri for file in files)
        digests["all"] = _digest(*sources, *_bytes(root, MADE_OF))
        digests["code"] = _digest(*_bytes(root, ["snippets/**/*.py"]))
        _keep_parsed(config)
        config.theme.get_env().bytecode_cache = compiled
    return files


def _keep_parsed(config: MkDocsConfig) -> None:
    """Give mkdocstrings, whose handler is new in each build, what it has read and compiled."""
    handler = config.plugins["mkdocstrings"].get_handler("python")  # type: ignore[attr-defined]
    collections = (handler._modules_collection, handler._lines_collection)
    handler.env.bytecode_cache = compiled
    if digests["code"] not in parsed:
        parsed.clear()
    handler._modules_collection, handler._lines_collection = parsed.setdefault(
        digests["code"], collections
    )


@event_priority(-100)  # after other hooks have changed the Markdown
def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Give a page its earlier content if it would come out the same."""
    if not digests:
        return markdown
    path = page.file.src_uri
    digest = _digest(digests["all"], digests["code"] if "\n::: " in markdown else "", markdown)
    known = rendered.get(path)
    if known and known.digest == digest:
        page.render = partial(_restore, page, known)  # type: ignore[method-assign]
    elif path.endswith(".md"):
        render = page.render
        page.render = partial(_render, page, digest, render)  # type: ignore[method-assign]
    return markdown


def _restore(page: Page, known: Rendered, config: MkDocsConfig, files: Files) -> None:
    page.content, page.toc = known.content, known.toc
    page.present_anchor_ids, page._title_from_render = known.anchors, known.title


def _render(page: Page, digest: str, render: Any, config: MkDocsConfig, files: Files) -> None:
    render(config, files)
    rendered[page.file.src_uri] = Rendered(
        digest, page.content or "", page.toc, page.present_anchor_ids, page._title_from_render
    )


def on_env(env: jinja2.Environment, config: MkDocsConfig, files: Files) -> jinja2.Environment:
    """Find the notes and notebooks that would come out the same."""
    for file in files.documentation_pages() if digests else ():
        page = file.page
        if page is None or "paper" not in page.meta:
            continue
        around = [(p.title, p.url) if p else None for p in (page.previous_page, page.next_page)]
        given = (digests["all"], page.title, page.edit_url, page.meta, around, page.content)
        digest = _digest(repr(given), *map(str, page.toc))
        if finished.get(file.src_uri, Finished("")).digest == digest:
            page.meta["template"] = FINISHED
        else:
            finished[file.src_uri] = Finished(digest)
    return env


@event_priority(-100)  # after other hooks have changed the page
def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Put finished pages in their places, and keep new ones."""
    known = finished.get(page.file.src_uri)
    if not known:
        return output
    if page.meta["template"] != FINISHED:
        known.html = output
    return known.html


def _digest(*parts: str) -> str:
    """Digest texts, each with its length, so that none runs into the next."""
    made = hashlib.sha256()
    for part in parts:
        made.update(f"{len(part)}:{part}".encode())
    return made.hexdigest()


def _bytes(root: Path, patterns: Iterable[str]) -> list[str]:
    """Digest the files that fit, or lie in folders that do; with their names."""
    found = (path for pattern in patterns for path in root.glob(pattern))
    files = (file for path in found for file in ([path] if path.is_file() else path.rglob("*")))
    return [
        f"{file} {hashlib.sha256(file.read_bytes()).hexdigest()}"
        for file in sorted(files)
        if file.is_file() and "__pycache__" not in file.parts
    ]
