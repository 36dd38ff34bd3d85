"""What a page weighs on the wire, and the server by which that is measured."""

import gzip
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bs4 import BeautifulSoup
from mkdocs.exceptions import PluginError
from playwright.sync_api import Browser

from docs.hooks import theme
from papers.catalog import load
from tests.server import serve
from tests.test_browser import browser
from tests.test_site import build

__all__ = ["browser"]  # a fixture

PAPERS = load()
NOTE, NOTEBOOK, HTML = 250_000, 350_000, 80_000
"""Bytes that a first visit may load, with gzip: a note, a notebook, and its HTML alone; the
pictures of a notebook do not count."""

WEIGHTS = """() => performance.getEntries()
  .filter(entry => entry.transferSize)
  .map(entry => [new URL(entry.name).pathname.slice(1), entry.transferSize])"""
"""What the browser has loaded, with the 300 bytes that it counts for each answer's headers."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("weight") / "site"
    result = build(folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The address at which the site is served."""
    with serve(site) as address:
        yield address


def weigh(browser: Browser, address: str, path: str) -> dict[str, int]:
    """Load a page for the first time; what it loads, by path, and each part's bytes."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.goto(f"{address}{path}")
        page.wait_for_load_state("networkidle")
        return dict(page.evaluate(WEIGHTS))


@pytest.mark.parametrize("key", PAPERS)
def test_notes_are_light(browser: Browser, address: str, key: str) -> None:
    loaded = weigh(browser, address, f"papers/{key}/")
    assert "assets/styles.css" in loaded
    assert sum(loaded.values()) <= NOTE, loaded


@pytest.mark.parametrize("key", PAPERS)
def test_notebooks_are_light(browser: Browser, address: str, key: str) -> None:
    path = f"notebooks/{key}/"
    loaded = weigh(browser, address, path)
    figures = {part for part in loaded if part.startswith(path) and part.endswith(".png")}
    assert loaded[path] <= HTML
    assert sum(size for part, size in loaded.items() if part not in figures) <= NOTEBOOK, loaded


@pytest.mark.parametrize("path", ["", "papers/", "papers/hinton2015/", "notebooks/hinton2015/"])
def test_nothing_is_loaded_before_it_is_wanted(browser: Browser, address: str, path: str) -> None:
    loaded = weigh(browser, address, path)
    assert len(loaded) > 5
    assert not [part for part in loaded if "search_index" in part or "lunr" in part]
    assert not [part for part in loaded if "katex" in part]
    assert [part for part in loaded if part.endswith(".css")] == ["assets/styles.css"]


PLACES = """
window.places = () => [...document.querySelectorAll("article *")].map(part => {
  const { left, top, width, height } = part.getBoundingClientRect();
  return [part.tagName, left + scrollX, top + scrollY, width, height].join(" ");
});
addEventListener("DOMContentLoaded", () => {
  const style = document.createElement("style");
  style.textContent = "* { content-visibility: visible !important }"; // lay out all
  document.head.append(style);
});
addEventListener("load", () => { window.early = places(); });
"""
"""Where each part of a page is, and how large; and that before scripts are fetched."""


@pytest.mark.parametrize(
    "path", ["", "papers/", "papers/hinton2015/", "notebooks/hinton2015/", "study/", "guide/"]
)
def test_scripts_move_nothing(browser: Browser, address: str, path: str) -> None:
    """They are fetched when the page is painted: who reads by then should not lose the place."""
    with browser.new_context(viewport={"width": 412, "height": 823}) as context:
        page = context.new_page()
        page.add_init_script(PLACES)
        with page.expect_response("**/access.js"):
            page.goto(f"{address}{path}")
        page.wait_for_load_state("networkidle")
        early, late = page.evaluate("[early, places()]")
        assert len(early) > 50
        assert set(early) <= set(late)


WIDTHS = """() => [...document.querySelectorAll("article .katex-html span:not(:has(*))")].map(
  part => `${part.textContent} ${part.getBoundingClientRect().width}`
)"""
"""How wide each piece of a formula is."""

WHOLE = """async () => {
  const [{ cssRules: rules }] = document.styleSheets;
  for (let n = rules.length; n--; ) {
    if (/^@font-face.*data:/s.test(rules[n].cssText)) document.styleSheets[0].deleteRule(n);
  }
  document.body.offsetWidth; // lay out anew
  await document.fonts.ready;
}"""
"""Drop the fonts that are in the style sheet, so that the whole ones are fetched."""


def test_formulas_are_as_wide_as_in_the_whole_fonts(browser: Browser, address: str) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        fetched: list[str] = []
        page.on("request", lambda request: fetched.append(request.url))
        page.goto(f"{address}notation/")
        cut = page.evaluate(WIDTHS)
        assert not [url for url in fetched if url.endswith(".woff2")]
        page.evaluate(WHOLE)
        assert len([url for url in fetched if url.endswith(".woff2")]) > 2
        assert len(cut) > 50
        assert page.evaluate(WIDTHS) == cut


def test_a_character_that_no_page_has_comes_from_the_whole_font(
    browser: Browser, address: str
) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{address}notation/")
        with page.expect_request("**/KaTeX_Main-Regular.woff2"):
            page.locator("article .katex-html .mord").first.evaluate("""part => {
              part.className = "mord";
              part.textContent = "⋈";
            }""")


@pytest.mark.parametrize("lost", theme.CHANGES)
def test_another_version_of_the_theme_is_noticed(tmp_path: Path, lost: str) -> None:
    script = tmp_path / "assets" / "javascripts" / "bundle.0.min.js"
    script.parent.mkdir(parents=True)
    config: Any = SimpleNamespace(site_dir=tmp_path)
    script.write_text(";".join(theme.CHANGES), encoding="utf-8")
    theme.on_post_build(config)
    assert script.read_text(encoding="utf-8") == ";".join(theme.CHANGES.values())
    script.write_text(";".join(set(theme.CHANGES) - {lost}), encoding="utf-8")
    with pytest.raises(PluginError, match=re.escape(lost)):
        theme.on_post_build(config)


def test_the_sheet_has_rules_for_all_that_pages_have(site: Path) -> None:
    """And for what scripts make; those for what nothing makes are left out."""
    sheet = (site / "assets" / "styles.css").read_text(encoding="utf-8")
    theme = (site / "assets" / "stylesheets").glob("*.css")
    source = "".join(path.read_text(encoding="utf-8") for path in theme)
    pages = (path.read_text(encoding="utf-8") for path in site.rglob("*.html"))
    shown = {
        c for page in pages for found in re.findall(r'class="([^"]*)"', page) for c in found.split()
    }
    made = {"md-search-result__item", "md-tooltip2", "md-code__nav"}
    ruled = {name for name in shown | made if re.search(rf"\.{re.escape(name)}(?![\w-])", source)}
    assert len(ruled) > 80
    assert made < ruled
    assert {n for n in ruled if not re.search(rf"\.{re.escape(n)}(?![\w-])", sheet)} == set()
    assert ".admonition-title" in source
    assert ".admonition-title" not in sheet
    assert sheet.count("{") == sheet.count("}")


def test_pictures_are_files_that_keep_their_room(site: Path) -> None:
    seen = 0
    for path in site.rglob("*.html"):
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for picture in page.select("article img"):
            seen += 1
            assert (path.parent / str(picture["src"])).is_file(), path
            assert int(str(picture["width"])) > 0
            assert int(str(picture["height"])) > 0
            assert picture["loading"] == "lazy"
    assert seen > 2 * len(PAPERS)


def answer(address: str, path: str, **headers: str) -> tuple[int, Message, bytes]:
    """Ask the server; redirects are followed."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(address + path, headers=names)) as reply:
            return reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("papers/", "text/html; charset=utf-8"),
        ("assets/styles.css", "text/css; charset=utf-8"),
        ("assets/filter.js", "application/javascript; charset=utf-8"),
        ("papers.json", "application/json; charset=utf-8"),
    ],
)
def test_server_compresses_text(address: str, site: Path, path: str, kind: str) -> None:
    file = site / path / "index.html" if path.endswith("/") else site / path
    status, headers, body = answer(address, path, accept_encoding="gzip")
    assert (status, headers["Content-Type"]) == (200, kind)
    assert headers["Cache-Control"] == "max-age=600"
    assert headers["Content-Encoding"] == "gzip"
    assert int(headers["Content-Length"]) == len(body) < file.stat().st_size
    assert gzip.decompress(body) == file.read_bytes()
    _, headers, body = answer(address, path)
    assert "Content-Encoding" not in headers
    assert body == file.read_bytes()


def test_server_sends_pictures_as_they_are(address: str, site: Path) -> None:
    path = "data/atlas-use.png"
    _, headers, body = answer(address, path, accept_encoding="gzip")
    assert headers["Content-Type"] == "image/png"
    assert "Content-Encoding" not in headers
    assert body == (site / path).read_bytes()


def test_server_knows_folders_and_what_is_missing(address: str, site: Path) -> None:
    assert answer(address, "papers")[2] == answer(address, "papers/?year=2019")[2]
    for path in ("nothing/", "assets/", "assets/nothing.png"):
        status, headers, body = answer(address, path)
        assert (status, headers["Content-Type"]) == (404, "text/html; charset=utf-8")
        assert body == (site / "404.html").read_bytes()
