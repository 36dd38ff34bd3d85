"""The decks: whole, readable from the back of a room, and made in no time."""

import json
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from bs4 import BeautifulSoup, Tag
from mkdocs.config import load_config
from mkdocs.structure.files import get_files
from playwright.sync_api import Page, expect

from docs.hooks import slides as slides_hook
from papers.catalog import ROOT, load
from papers.ledger import CLAIM_MIME, harvest
from tests import test_browser
from tests.server import serve
from tests.test_site import KEY, build

PAPERS = load()
VERDICTS = harvest(PAPERS)
HEADINGS = [
    "The problem",
    "The loss",
    "Claims, tested",
    "Paper and code differ",
    "From the group's discussion",
]
HIDDEN = r"^:::.*|<!--.*?-->|\$\$[^$]*\$\$|\]\([^)]*\)"
"""What a section holds besides its words: code, markers, formulas, targets of links."""
WIDTH, HEIGHT, SMALLEST = 1280, 720, 24

browser = test_browser.browser
page = test_browser.page

MEASURE = """() => Reveal.getSlides().map(slide => {
  const { h, v } = Reveal.getIndices(slide);
  Reveal.slide(h, v);
  const frame = slide.querySelector(".frame");
  const place = frame.getBoundingClientRect();
  const inside = parseFloat(getComputedStyle(frame).paddingBottom);
  const parts = [...frame.querySelectorAll("*")].filter(
    part => !part.closest(".notes, svg, .katex-mathml")
  );
  // A formula counts with its own size, not with those of its indices.
  const words = parts.filter(part => part.matches(".katex") || !part.closest(".katex")
    && [...part.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  const image = frame.querySelector("img");
  return {
    at: `${h}.${v}`,
    frame: [place.width, place.height, frame.scrollWidth, frame.scrollHeight],
    right: Math.max(...parts.map(part => part.getBoundingClientRect().right - place.left)),
    bottom: Math.max(...[...frame.children].filter(part => part.offsetHeight).map(
      part => part.getBoundingClientRect().bottom - place.top)) + inside,
    hidden: parts.filter(part => getComputedStyle(part).overflowX !== "visible"
      && part.scrollWidth > part.clientWidth + 1).map(part => part.className),
    smallest: Math.min(...words.map(part => parseFloat(getComputedStyle(part).fontSize))),
    formulas: frame.querySelectorAll(".katex").length,
    raw: parts.filter(part => !part.closest(".katex, pre, code")
      && [...part.childNodes].some(node => node.nodeType === 3 && node.data.includes("$"))).length,
    image: image && [image.naturalWidth, image.getBoundingClientRect().height],
  };
})"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("slides") / "site"
    result = build(folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def decks(site: Path) -> dict[str, BeautifulSoup]:
    """Every deck by the key of its paper."""
    return {
        key: BeautifulSoup((site / f"slides/{key}/index.html").read_text("utf-8"), "html.parser")
        for key in PAPERS
    }


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The address at which the site is served."""
    with serve(site) as address:
        yield address


def slides(deck: BeautifulSoup) -> list[Tag]:
    """The slides of a deck; each holds its pages."""
    return deck.select(".slides > section")


def test_deck_goes_from_title_to_discussion(decks: dict[str, BeautifulSoup]) -> None:
    for key, deck in decks.items():
        title, *others = slides(deck)
        assert title.h1, key
        assert title.h1.get_text() == PAPERS[key].title
        headings = [{re.sub(r" \d+ of \d+$", "", h.text) for h in s.select("h2")} for s in others]
        assert headings == [{heading} for heading in HEADINGS], key
        for slide in slides(deck):
            pages = slide.select(":scope > section")
            assert pages, key
            numbers = [small.text for small in slide.select("h2 small")]
            n = len(pages)
            assert numbers == ([f"{i} of {n}" for i in range(1, n + 1)] if n > 1 else []), key


def test_title_links_to_note_and_notebook(site: Path, decks: dict[str, BeautifulSoup]) -> None:
    for key, deck in decks.items():
        links = [str(link["href"]) for link in slides(deck)[0].select("p a")][:2]
        assert links == [f"../../papers/{key}/", f"../../notebooks/{key}/"]
        assert all((site / "slides" / key / link / "index.html").is_file() for link in links)


def test_nothing_of_the_note_is_lost(decks: dict[str, BeautifulSoup]) -> None:
    for key, deck in decks.items():
        _, problem, loss, _, differences, discussion = slides(deck)
        body = PAPERS[key].body
        for slide, heading in (
            (problem, "The problem"),
            (loss, "The loss"),
            (differences, "Paper and code differ"),
            (discussion, "From the group's discussion"),
        ):
            section = body.split(f"\n## {heading}\n")[1].split("\n## ")[0]
            words = re.sub(HIDDEN, " ", section, flags=re.MULTILINE)
            shown = set(re.findall(r"[a-z]{4,}", slide.get_text()))
            assert set(re.findall(r"[a-z]{4,}", words)) - shown <= {"qquad"}, (key, heading)


def test_differences_keep_their_numbers(decks: dict[str, BeautifulSoup]) -> None:
    for key, deck in decks.items():
        section = PAPERS[key].body.split("\n## Paper and code differ\n")[1].split("\n## ")[0]
        numbers = [int(number) for number in re.findall(r"^(\d+)\. ", section, re.MULTILINE)]
        shown: list[int] = []
        for items in slides(deck)[4].select("ol"):
            first = int(str(items.get("start", 1)))
            shown += range(first, first + len(items.select(":scope > li")))
        assert shown == numbers, key


def test_claims_are_shown_as_in_the_notebook(decks: dict[str, BeautifulSoup]) -> None:
    for key, deck in decks.items():
        claims = {f"claim-{verdict.name}": verdict for verdict in VERDICTS[key]}
        cards = slides(deck)[3].select(".claim")
        assert min(2, len(claims)) <= len(cards) <= 3, key
        names = [str(card["id"]) for card in cards]
        assert names == [name for name in claims if name in names], key
        for card in cards:
            verdict = claims[str(card["id"])]
            assert f"claim--{verdict.verdict}" in card.get_attribute_list("class")
            figures = [figure.get_text() for figure in card.select("dd")]
            assert figures == [verdict.expected, verdict.measured]
        if any(verdict.verdict == "fails" for verdict in claims.values()):
            assert any(claims[name].verdict == "fails" for name in names), key


def test_claims_bring_their_pictures(decks: dict[str, BeautifulSoup]) -> None:
    for key, deck in decks.items():
        path = ROOT / "docs" / "notebooks" / f"{key}.ipynb"
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        pictures: dict[str, tuple[str, str]] = {}
        for cell in cells:
            name = ""
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                name = data[CLAIM_MIME]["name"] if CLAIM_MIME in data else name
                if "image/png" in data and name:
                    source = "data:image/png;base64," + data["image/png"].replace("\n", "")
                    pictures[f"claim-{name}"] = source, output["metadata"]["image/png"]["alt"]
        claims = slides(deck)[3]
        names = [str(card["id"]) for card in claims.select(".claim")]
        shown = [(str(image["src"]), str(image["alt"])) for image in claims.select("img")]
        assert shown == [pictures[name] for name in names if name in pictures], key
        assert len(shown) >= min(2, len(pictures)), key


def test_code_is_that_of_the_script(decks: dict[str, BeautifulSoup]) -> None:
    shown = 0
    scripts = "".join(path.read_text("utf-8") for path in (ROOT / "snippets").rglob("*.py"))
    for key, deck in decks.items():
        for block in slides(deck)[2].select("pre"):
            shown += 1
            assert '"""' not in block.get_text(), key
            for line in block.get_text().splitlines():
                assert f"{line}\n" in scripts, key
    assert shown


def test_answers_are_in_the_notes(decks: dict[str, BeautifulSoup]) -> None:
    for key, deck in decks.items():
        for part in slides(deck)[-1].select(":scope > section"):
            notes = part.select_one("aside.notes")
            assert notes, key
            asked = [question.get_text() for question in part.select(".frame > p")]
            told = [paragraph.get_text() for paragraph in notes.select("p, li")]
            assert asked, key
            for question in asked:
                assert any(text.startswith(question) and text != question for text in told), key


def test_nothing_comes_from_another_host(site: Path, decks: dict[str, BeautifulSoup]) -> None:
    for key, deck in decks.items():
        sources = [str(part["src"]) for part in deck.select("[src]")]
        sources += [str(part["href"]) for part in deck.select("link[href]")]
        files = [source for source in sources if not source.startswith("data:image/png")]
        assert len(files) >= 7
        for source in files:
            assert not urlsplit(source).scheme
            assert not urlsplit(source).netloc
            assert (site / "slides" / key / source).is_file(), source
        scripts = [str(part.string) for part in deck.select("script:not([src]), style")]
        assert not [text for text in scripts if "//" in text.replace(" // ", "")]
        # The styles are shared, not in every deck.
        assert not deck.select("style")


@pytest.mark.parametrize("key", PAPERS)
def test_slides_fit_a_projector(page: Page, key: str) -> None:
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    page.goto(f"slides/{key}/")
    page.wait_for_function("Reveal.isReady()")
    page.evaluate("document.fonts.ready")
    measured = page.evaluate(MEASURE)
    assert len(measured) == page.locator(".frame").count() >= len(HEADINGS) + 1
    for slide in measured:
        assert slide["frame"] == [WIDTH, HEIGHT, WIDTH, HEIGHT], slide
        assert slide["right"] <= WIDTH - 50, slide
        assert slide["bottom"] <= HEIGHT + 1, slide
        assert not slide["hidden"], slide
        assert not slide["raw"], slide
        assert slide["smallest"] >= SMALLEST, slide
        if slide["image"]:
            width, height = slide["image"]
            assert width > 0, slide
            assert height >= HEIGHT / 2, slide
    assert sum(slide["formulas"] for slide in measured) > 0
    expect(page.locator(".katex-error")).to_have_count(0)


def test_speaker_sees_the_notes(page: Page) -> None:
    page.goto(f"slides/{KEY}/")
    page.wait_for_function("Reveal.isReady()")
    last = page.locator(".slides > section").last.locator(".notes").first
    page.evaluate("Reveal.slide(Reveal.getTotalSlides(), 0)")
    with page.expect_popup() as popup:
        page.keyboard.press("s")
    told = popup.value.locator(".speaker-controls-notes .value")
    expect(told).to_contain_text((last.locator("p").first.text_content() or "")[:40])


def test_decks_follow_the_system(page: Page) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(f"slides/{KEY}/")
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        colour = page.evaluate("getComputedStyle(document.querySelector('.reveal')).color")
        assert ground != colour
        grounds.add(ground)
    assert len(grounds) == 2


def _addresses(command: str) -> set[str]:
    config = load_config(str(ROOT / "mkdocs.yml"))
    config.plugins.on_startup(command=command, dirty=False)
    config = config.plugins.on_config(config)
    files = config.plugins.on_files(get_files(config), config=config)
    return {file.dest_uri for file in files if file.dest_uri.startswith("slides/")}


def test_only_a_build_makes_decks() -> None:
    assert _addresses("serve") == set()
    assert _addresses("build") == {f"slides/{key}/index.html" for key in PAPERS}


def test_deck_is_made_in_no_time() -> None:
    export = slides_hook.exporter(ROOT)
    spent = []
    for paper in PAPERS.values():
        start = time.process_time()
        assert "</html>" in slides_hook.deck(paper, ROOT, str, export)
        spent.append(time.process_time() - start)
    assert statistics.median(spent) <= 3 * 0.05  # a slow machine may take three times as long
