"""What a notebook page is: the cells of mkdocs-jupyter's page, without its weight."""

from __future__ import annotations

import json
import logging
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from bs4 import BeautifulSoup, Tag
from markdown.extensions.toc import nest_toc_tokens, slugify_unicode, unique
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page
from mkdocs.structure.toc import get_toc

log = logging.getLogger("mkdocs.hooks.notebooks")

CODE, OUTPUT, PROSE = "highlight-ipynb", "jp-OutputArea-output", "jp-MarkdownOutput"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Give a notebook page its template, and keep its code out of the search index."""
    if not _is_notebook(page):
        return markdown
    paper = config.extra["papers"][page.file.name]
    page.meta.update(
        paper=paper,
        title=f"{paper.title}, the notebook",
        template="notebook.html",
        search={"exclude": True},
    )
    if page.edit_url:  # what to edit is the script
        page.edit_url = page.edit_url.replace(
            f"docs/notebooks/{paper.key}.ipynb", f"snippets/{paper.key}.py"
        )
    return markdown


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keep the cells: no JupyterLab styles and scripts, no second copy of the code."""
    if not _is_notebook(page):
        return html
    soup = BeautifulSoup(html, "html.parser")
    cells = BeautifulSoup("", "html.parser")
    # By name and class: a selector would try each of a page's thousands of spans.
    for element in soup.find_all("div", class_=[CODE, OUTPUT, PROSE]):
        cells.append(_cell(element))
    _drop_title(cells)
    _link_headings(cells, page)
    _describe_pictures(cells, Path(str(page.file.abs_src_path)))
    _resolve_links(cells, page, files)
    return str(cells)


def _is_notebook(page: Page) -> bool:
    return page.file.src_uri.endswith(".ipynb")


def _cell(element: Tag) -> Tag:
    """Reduce one cell's prose, code or output to what the theme knows how to set."""
    classes = {CODE: "highlight", OUTPUT: "output"}
    given = element.get_attribute_list("class")
    element.attrs = {"class": next((classes[name] for name in given if name in classes), "prose")}
    if element["class"] == "highlight" and element.pre:
        element.pre.name = "code"
        element.code.wrap(Tag(name="pre"))  # type: ignore[union-attr]
    return element


def _drop_title(cells: Tag) -> None:
    """Take out the title, which the template sets, and the line above it."""
    if cells.h1:
        for line in cells.h1.find_previous_siblings():
            line.decompose()
        cells.h1.decompose()


def _link_headings(cells: Tag, page: Page) -> None:
    """Give every heading an id in any script, and make the page's contents from them."""
    taken: set[str] = set()
    tokens = []
    for heading in cells.find_all(["h2", "h3", "h4"]):
        for anchor in heading.find_all("a", class_="anchor-link"):
            anchor.decompose()
        name = heading.get_text().strip()
        heading["id"] = unique(slugify_unicode(name, "-"), taken)
        tokens.append({"level": int(heading.name[1]), "id": heading["id"], "name": name})
        link = Tag(name="a", attrs={"class": "headerlink", "href": f"#{heading['id']}"})
        link.string = "¶"
        heading.append(link)
    page.toc = get_toc(nest_toc_tokens(tokens))


def _describe_pictures(cells: Tag, notebook: Path) -> None:
    """Give each picture the alternative text that its output carries."""
    pictures = cells.find_all("img", src=re.compile("^data:image/png"))
    for picture, text in zip(pictures, _alternative_texts(notebook), strict=True):
        picture["alt"] = text


def _alternative_texts(notebook: Path) -> Iterator[str]:
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                yield output["metadata"].get("image/png", {}).get("alt", "")


def _resolve_links(cells: Tag, page: Page, files: Files) -> None:
    """Turn links that hold in the forge, between files, into links between pages."""
    for link in cells.find_all("a", href=True):
        target = urlsplit(str(link["href"]))
        if target.scheme or target.netloc or not target.path:
            continue
        path = posixpath.normpath(posixpath.join("docs/notebooks", target.path))
        file = files.get_file_from_path(
            path.removeprefix("docs/").replace("snippets/", "downloads/", 1)
        )
        if file is None:
            log.warning("%s: no page for the link %s", page.file.src_uri, link["href"])
            continue
        anchor = f"#{target.fragment}" if target.fragment else ""
        link["href"] = file.url_relative_to(page.file) + anchor
