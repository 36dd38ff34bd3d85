"""The site in a browser: formulas and plots shown, tables filtered, nothing fetched elsewhere."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest
from PIL import Image, ImageStat
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from papers.catalog import ROOT, load
from papers.ledger import harvest
from tests.browser import find_browser
from tests.server import serve
from tests.test_site import build

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAPERS = load()
VERDICTS = [verdict for verdicts in harvest(PAPERS).values() for verdict in verdicts]
SITE_PAGES = [
    *(
        "",
        "papers/",
        "paths/",
        "notation/",
        "lineage/",
        "claims/",
        "bench/",
        "vocabulary/",
        "trust/",
        "guide/",
    ),
]
PAPER_PAGES = [f"{folder}/{key}/" for key in PAPERS for folder in ("papers", "notebooks")]
WHOLE = [key for key, paper in PAPERS.items() if paper.status == "complete"]
WHOLE_PAGES = [page for page in PAPER_PAGES if page.split("/")[1] in WHOLE]
"""Those that are no draft's."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address at which the built site is served."""
    site: Path = tmp_path_factory.mktemp("browser") / "site"
    result = build(site)
    assert result.returncode == 0, result.stderr
    with serve(site) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser, or a skip that says why."""
    path = find_browser()
    if path is None:
        message = "no Chromium or Chrome found"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


def cut_off(context: BrowserContext, address: str) -> None:
    """Let no page reach any host but this one, as in a reading room without the Internet."""
    host = urlsplit(address).netloc
    context.route(lambda url: urlsplit(url).netloc not in ("", host), lambda route: route.abort())


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page that fails the test on a console error or a request to another host."""
    context = browser.new_context(base_url=address, viewport={"width": 1280, "height": 900})
    cut_off(context, address)
    page = context.new_page()
    wrong: list[str] = []
    host = urlsplit(address).netloc

    def check_host(url: str) -> None:
        if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != host:
            wrong.append(url)

    page.on("request", lambda request: check_host(request.url))
    page.on("response", lambda r: wrong.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
    page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    context.close()
    assert not wrong


@pytest.mark.parametrize("path", [*SITE_PAGES, *PAPER_PAGES])
def test_page_fits_and_its_formulas_are_set(page: Page, path: str) -> None:
    page.goto(path)
    expect(page.locator("h1")).to_have_count(1)
    expect(page.locator(".katex-error")).to_have_count(0)
    if path in WHOLE_PAGES:
        expect(page.locator("article .katex").first).to_be_visible()
    page.add_style_tag(content="* { content-visibility: visible !important }")  # lay out all
    for width in (360, 768, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, width


def test_no_other_host_can_be_reached(browser: Browser, address: str, tmp_path: Path) -> None:
    """Otherwise the tests would not prove that pages work in full without one."""
    (tmp_path / "index.html").write_text("<p>Elsewhere.</p>", encoding="utf-8")
    reach = "url => fetch(url, {mode: 'no-cors'}).then(() => true, () => false)"
    for cut in (False, True):
        with browser.new_context() as context, serve(tmp_path) as elsewhere:
            if cut:
                cut_off(context, address)
            page = context.new_page()
            page.goto(address)
            assert page.evaluate(reach, address)
            assert page.evaluate(reach, elsewhere) != cut


@pytest.mark.parametrize("folder", ["papers", "notebooks"])
def test_formulas_need_no_javascript(browser: Browser, address: str, folder: str) -> None:
    with browser.new_context(base_url=address, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{folder}/hinton2015/")
        formula = page.locator("article .katex-html").first
        formula.scroll_into_view_if_needed()
        expect(formula).to_be_visible()


def test_links_into_a_page_find_their_place(page: Page) -> None:
    """What is not yet laid out has only an estimated height."""
    for path in ("papers/hinton2015/", "notebooks/hinton2015/"):
        page.goto(path)
        places = page.locator("article :is(h2, .claim)[id]").evaluate_all(
            "places => places.map(place => place.id)"
        )
        assert len(places) > 5
        for place in places:
            page.goto("about:blank")
            page.goto(f"{path}#{place}")
            page.wait_for_timeout(200)
            top, rest = page.evaluate(
                """id => [
                  document.getElementById(id).getBoundingClientRect().top,
                  document.documentElement.scrollHeight - innerHeight - scrollY,
                ]""",
                place,
            )
            assert 40 < top < 100 or (rest < 1 and top < 900), (path, place, top)


@pytest.mark.parametrize("key", PAPERS)
def test_plots_and_verdicts_are_shown(page: Page, key: str) -> None:
    page.goto(f"notebooks/{key}/")
    pictures = page.locator("article .output img")
    assert pictures.count() >= (2 if key in WHOLE else 1)
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()  # it is loaded when near
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    expect(page.locator(".claim")).to_have_count(sum(v.paper == key for v in VERDICTS))


def test_bar_leads_from_note_to_notebook_and_download(page: Page) -> None:
    key = next(iter(PAPERS))
    page.goto(f"papers/{key}/")
    page.locator(".bar").get_by_text("Notebook", exact=True).click()
    page.wait_for_url(f"**/notebooks/{key}/")
    with page.expect_download() as download:
        page.locator(".bar").get_by_text("Download .ipynb").click()
    assert download.value.suggested_filename == f"{key}.ipynb"


def test_claim_links_to_its_card(page: Page) -> None:
    verdict = VERDICTS[0]
    page.goto(f"papers/{verdict.paper}/")
    page.locator(f"td a[href$='#claim-{verdict.name}']").click()
    expect(page.locator(f"#claim-{verdict.name}")).to_be_in_viewport()


def test_papers_are_filtered_and_the_address_keeps_it(page: Page) -> None:
    page.goto("papers/")
    rows = page.locator("tbody tr:visible")
    expect(rows).to_have_count(len(PAPERS))
    for name, field in (("knowledge", "knowledge"), ("task", "tasks"), ("question", "questions")):
        values = page.locator(f"select[name={name}] option").evaluate_all(
            "options => options.map(option => option.value).filter(Boolean)"
        )
        assert values
        for value in values:
            page.select_option(f"select[name={name}]", value)
            matching = [paper for paper in PAPERS.values() if value in getattr(paper, field)]
            expect(rows).to_have_count(len(matching))
            count = f"{len(matching)} of {len(PAPERS)} papers"
            expect(page.locator(".filters output")).to_have_text(count)
        page.reload()
        expect(page.locator(f"select[name={name}]")).to_have_value(values[-1])
        expect(rows).to_have_count(len(matching))
        page.select_option(f"select[name={name}]", "")
    assert urlsplit(page.url).query == ""


def test_papers_are_filtered_by_year_and_verdict_from_the_address(page: Page) -> None:
    given = {key: {v.verdict for v in VERDICTS if v.paper == key} for key in PAPERS}
    matching = {
        "verdict=holds": sum(verdicts == {"holds"} for verdicts in given.values()),
        "verdict=fails": sum("fails" in verdicts for verdicts in given.values()),
        "verdict=untested": sum("untested" in verdicts for verdicts in given.values()),
        "year=2019&verdict=fails": sum(
            paper.year == 2019 and "fails" in given[key] for key, paper in PAPERS.items()
        ),
    }
    for year in {paper.year for paper in PAPERS.values()}:
        matching[f"year={year}"] = sum(paper.year == year for paper in PAPERS.values())
    for query, count in matching.items():
        page.goto(f"papers/?{query}")
        expect(page.locator("tbody tr:visible")).to_have_count(count)
    page.select_option("select[name=year]", "")
    page.select_option("select[name=verdict]", "untested")
    assert urlsplit(page.url).query == "verdict=untested"


WATCH = """() => {
  window.found = 0;
  new MutationObserver(() => { window.found = performance.now(); }).observe(
    document.querySelector(".md-search-result__list"), { childList: true });
  document.querySelector("[data-md-component=search-query]").addEventListener(
    "keyup", () => { window.asked = performance.now(); window.found = 0; }, { capture: true });
}"""
"""Note when a key was last let go, and when results last came."""


@pytest.mark.parametrize(
    ("query", "wanted", "among"),
    [
        ("知识蒸馏", "hinton2015", 3),
        ("软标签", "hinton2015", 2),
        ("软目标", "luo2016", 3),
        ("温度", "hinton2015", 2),
        ("注意力", "zagoruyko2017", 2),
        ("序列级", "kim2016", 2),
        ("temperature", "hinton2015", 3),
        ("relation", "park2019", 3),
        ("Hinton", "hinton2015", 1),
        ("Adriana Romero", "romero2015", 1),
        ("1503.02531", "hinton2015", 1),
        ("arXiv:1904.05068", "park2019", 1),
        ("kd_loss", "hinton2015", 1),
    ],
)
def test_search_finds_english_chinese_authors_and_ids(
    page: Page, query: str, wanted: str, among: int
) -> None:
    page.goto("")
    box = page.locator("[data-md-component=search-query]")
    box.click()
    box.press_sequentially("loss")  # the index is loaded once this has an answer
    expect(page.locator(".md-search-result__item").first).to_be_attached(timeout=20_000)
    page.evaluate(WATCH)
    box.fill(query)
    box.press("End")  # an input method lets a key go, too
    page.wait_for_function("window.found > window.asked")
    waited = page.evaluate("window.found - window.asked")
    results = page.locator(".md-search-result__item > a").evaluate_all(
        "links => links.map(link => new URL(link.href).pathname)"
    )
    assert f"/papers/{wanted}/" in results[:among], results[:5]
    assert waited < 200


def test_what_was_searched_for_is_marked(page: Page) -> None:
    page.goto("papers/hinton2015/?h=temperature")
    mark = page.locator("article mark").first
    expect(mark).to_be_attached(timeout=20_000)
    assert (mark.text_content() or "").lower().startswith("temperature")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_link_to_a_note_shows_what_it_is_about(
    page: Page, scheme: Literal["light", "dark"]
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto("papers/romero2015/")
    card, paper = page.get_by_role("tooltip"), PAPERS["hinton2015"]
    link = page.locator("article p a[href='../hinton2015/']").first
    link.hover()
    expect(card).to_be_visible()
    expect(card).to_contain_text(paper.title)
    expect(card).to_contain_text(paper.summary)
    expect(card.locator("[lang=zh]")).to_have_text(str(paper.summary_zh))
    colours = card.evaluate(
        "card => [card, document.body].map(e => getComputedStyle(e).backgroundColor)"
    )
    assert colours[0] == colours[1]
    card.hover()  # one may point at it, and it stays
    page.wait_for_timeout(400)
    expect(card).to_be_visible()
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()
    page.mouse.move(0, 0)
    link.focus()
    expect(card).to_be_visible()
    expect(link).to_have_attribute("aria-describedby", "preview")
    page.keyboard.press("Tab")
    expect(link).not_to_have_attribute("aria-describedby", "preview")
    page.locator(".bar a").first.hover()
    page.wait_for_timeout(600)
    expect(card).to_be_hidden()


@pytest.mark.parametrize(
    "path", ["papers/hinton2015/", "notebooks/hinton2015/", "claims/", "lineage/", "atlas/"]
)
def test_print_is_the_text_alone_and_whole(page: Page, path: str) -> None:
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 without its margins, at 96 dpi
    page.emulate_media(media="print", color_scheme="dark")
    page.goto(path)
    for part in (".md-header", ".md-sidebar", ".md-footer", ".bar", ".filters", ".headerlink"):
        for element in page.locator(part).all():
            expect(element).to_be_hidden()
    expect(page.locator("article h1")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    cut = page.locator("article :is(td, th, img, svg, svg a, pre, .katex)").evaluate_all(
        """(elements, width) => elements
          .filter(element => element.getBoundingClientRect().right > width)
          .map(element => element.outerHTML.slice(0, 90))""",
        718,
    )
    assert cut == []
    links = page.locator("article p a[href^=http]")
    for link in links.all()[:5]:
        after = link.evaluate("link => getComputedStyle(link, '::after').content")
        assert str(link.get_attribute("href")) in after


def test_ledger_is_filtered_from_the_address(page: Page) -> None:
    for verdict in ("holds", "fails", "untested"):
        page.goto(f"claims/?verdict={verdict}")
        shown = sum(v.verdict == verdict for v in VERDICTS)
        expect(page.locator("tbody tr:visible")).to_have_count(shown)
    key = next(iter(PAPERS))
    page.goto(f"claims/?paper={key}")
    shown = sum(v.paper == key for v in VERDICTS)
    expect(page.locator("tbody tr:visible")).to_have_count(shown)
    values = page.locator("select[name=question] option").evaluate_all(
        "options => options.map(option => option.value).filter(Boolean)"
    )
    assert set(values) == {question for paper in PAPERS.values() for question in paper.questions}
    for question in values:
        page.goto(f"claims/?question={question}&verdict=holds")
        shown = sum(
            v.verdict == "holds" and question in PAPERS[v.paper].questions for v in VERDICTS
        )
        expect(page.locator("tbody tr:visible")).to_have_count(shown)
        count = f"{shown} of {len(VERDICTS)} claims"
        expect(page.locator(".filters output")).to_have_text(count)


def test_names_fit_their_boxes_on_the_map(page: Page) -> None:
    """A name inside its box overlaps no other: tests/test_lineage.py holds the boxes apart."""
    for path in ("", "lineage/"):
        page.goto(path)
        for width in (360, 768, 1440):
            page.set_viewport_size({"width": width, "height": 800})
            boxes = page.locator(".lineage svg a").evaluate_all(
                """links => links.flatMap(link => {
                  const box = link.querySelector("rect").getBoundingClientRect();
                  return [...link.querySelectorAll("text")].map(text => {
                    const name = text.getBoundingClientRect();
                    return {
                      name: text.textContent,
                      size: parseFloat(getComputedStyle(text).fontSize),
                      fits: name.left > box.left && name.right < box.right
                        && name.top >= box.top && name.bottom <= box.bottom,
                    };
                  });
                })"""
            )
            assert len(boxes) >= len(PAPERS)
            assert [box for box in boxes if not box["fits"] or box["size"] < 12] == []


def test_map_leads_to_a_note(page: Page) -> None:
    page.goto("")
    page.locator(".lineage svg a[data-key=park2019]").click()
    page.wait_for_url("**/papers/park2019/")


def test_tables_are_whole_without_javascript(browser: Browser, address: str) -> None:
    with browser.new_context(base_url=address, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("claims/")
        expect(page.locator("tbody tr:visible")).to_have_count(len(VERDICTS))
        expect(page.locator(".filters")).to_be_hidden()


def test_scheme_follows_the_system(page: Page) -> None:
    schemes: dict[Literal["light", "dark"], str] = {"light": "default", "dark": "slate"}
    page.goto("")
    for wanted, scheme in [*schemes.items()] * 2:
        page.emulate_media(color_scheme=wanted)
        expect(page.locator("body")).to_have_attribute("data-md-color-scheme", scheme)


def test_scheme_can_be_chosen(page: Page) -> None:
    page.goto("")
    for name, scheme in (("light", "default"), ("dark", "slate"), ("system", "default")):
        page.get_by_title(f"Switch to {name} mode").locator("visible=true").click()
        expect(page.locator("body")).to_have_attribute("data-md-color-scheme", scheme)


AXE = (ROOT / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
KINDS = [
    *("", "papers/", "papers/hinton2015/", "notebooks/hinton2015/", "slides/hinton2015/"),
    *("claims/", "atlas/", "study/", "figures/", "lineage/", "paths/", "notation/", "guide/"),
    *("questions/", "questions/data/", "meetings/", "meetings/september-10/"),
    *("bench/", "vocabulary/", "trust/"),
]
"""One page of each kind."""

SCHEMES: list[Literal["light", "dark"]] = ["light", "dark"]
SHOTS = ROOT / "screenshots"


def violations(page: Page) -> list[tuple[str, str, str]]:
    """What axe-core finds that keeps a reader out."""
    page.wait_for_load_state("networkidle")
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [(v["id"], v["help"], v["nodes"][0]["html"]) for v in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", KINDS)
def test_no_barrier(page: Page, path: str, scheme: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=scheme)
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(path)
        assert not violations(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_barrier_in_chinese(page: Page, scheme: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto("papers/hinton2015/")
    expect(page.locator("article [lang=zh]")).to_be_visible()
    box = page.locator("[data-md-component=search-query]")
    box.click()
    box.press_sequentially("知识蒸馏")
    expect(page.locator(".md-search-result__item").first).to_be_visible(timeout=20_000)
    assert not violations(page)


@pytest.mark.parametrize("path", KINDS)
def test_pages_look_right(page: Page, path: str) -> None:
    """Every page at three widths and in both schemes, for people to look at in screenshots/."""
    SHOTS.mkdir(exist_ok=True)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        page.goto(path)
        for width in (360, 768, 1440):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(300)  # the header's tabs fade in
            name = path.strip("/").replace("/", "-") or "home"
            shot = page.screenshot(path=SHOTS / f"{name}-{width}-{scheme}.png")
            with Image.open(io.BytesIO(shot)) as picture:
                assert picture.size == (width, 900)
                light = ImageStat.Stat(picture.convert("L"))
            assert light.stddev[0] > 5, "nothing is shown"
            assert (light.median[0] > 128) == (scheme == "light"), (width, scheme)
