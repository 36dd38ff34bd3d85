"""The forms to run on the site: their tabs, what they were tested against, what they cost."""

import ast
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser, Page, expect

from papers.catalog import ROOT, load
from tests.test_browser import AXE, browser, page
from tests.test_site import build, copy
from tests.test_weight import address, site

__all__ = ["address", "browser", "copy", "page", "site"]  # fixtures

PAPERS = load()
DATA = ROOT / "docs" / "data"
LOSSES = [
    (loss["paper"], loss["name"])
    for loss in json.loads((DATA / "atlas.json").read_text(encoding="utf-8"))["methods"]
]


def forms_to_run() -> dict[tuple[str, str], tuple[str, str]]:
    """The code without its docstring, and the docstring's start, by paper and name."""
    found = {}
    for path in (ROOT / "snippets" / "lab" / "fast").glob("*.py"):
        if path.stem not in PAPERS:
            continue
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                lines = text.splitlines()
                doc, first = node.body[0], node.decorator_list[0].lineno
                kept = lines[first - 1 : doc.lineno - 1] + lines[doc.end_lineno : node.end_lineno]
                said = ast.get_docstring(node) or ""
                found[path.stem, node.name] = "\n".join(kept), said.split("\n\n")[0]
    return found


FORMS = forms_to_run()


def words(element: Tag | str) -> str:
    """The text with single spaces, without the marks of code."""
    text = element if isinstance(element, str) else element.get_text()
    return " ".join(text.replace("`", "").split())


def parse(site: Path, address: str) -> BeautifulSoup:
    return BeautifulSoup((site / address / "index.html").read_text(encoding="utf-8"), "html.parser")


def test_every_form_to_run_has_its_tab_and_no_other_loss_has_one(site: Path) -> None:
    shown = {}
    for key in PAPERS:
        for tabs in parse(site, f"papers/{key}").select(".tabbed-set"):
            heading = tabs.find_previous("h3")
            assert isinstance(heading, Tag)
            assert [label.get_text() for label in tabs.select("label")] == ["As written", "To run"]
            shown[key, str(heading["id"]).removeprefix(f"snippets.{key}.")] = tabs
    assert FORMS.keys() == shown.keys()
    assert len(FORMS) > 5
    for (key, name), tabs in shown.items():
        written, run = tabs.select(".tabbed-block")
        code, said = FORMS[key, name]
        module = f"snippets.lab.fast.{key}"
        blocks = [block.get_text().strip() for block in run.select("pre")]
        assert blocks[:2] == [f"from {module} import {name}", code]
        assert words(said) in words(run)
        why = ast.get_docstring(ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text()))
        assert all(words(part) in words(run) for part in str(why).split("\n\n")[1:])
        assert code not in [block.get_text().strip() for block in written.select("pre")]
        assert re.search(rf"^def {name}\(", written.select("pre")[0].get_text(), re.MULTILINE)
        assert not run.select("h1, h2, h3, h4, h5, h6, [id]")


def test_no_anchor_is_there_twice(site: Path) -> None:
    for folder in [*(f"papers/{key}" for key in PAPERS), "vocabulary"]:
        ids = [str(element["id"]) for element in parse(site, folder).select("[id]")]
        assert sorted(set(ids)) == sorted(ids), folder


def test_search_knows_one_of_the_two_forms(site: Path) -> None:
    text = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    for key, name in FORMS:
        assert f"def {name}" in text
        assert f"snippets.lab.fast.{key} import" not in text


def test_forms_over_rows_lead_to_the_page_on_them(site: Path) -> None:
    """Only links; tests/test_site.py sees that all of them lead somewhere."""
    target = "/vocabulary/#snippets.lab.fast.rows.mean_divergence"
    for key, name in FORMS:
        text = (ROOT / f"snippets/lab/fast/{key}.py").read_text(encoding="utf-8")
        run = parse(site, f"papers/{key}").find(id=f"{name}-run")
        assert run
        tabs = run.find_parent(class_="tabbed-set")
        assert isinstance(tabs, Tag)
        links = [urljoin(f"/papers/{key}/", str(a["href"])) for a in tabs.select("a[href]")]
        assert (target in links) == ("import" in text and "mean_divergence" in text)


def test_the_page_on_vocabularies_shows_the_code_and_counts_right(site: Path) -> None:
    page = parse(site, "vocabulary")
    for name in ("rows.generalized_jsd", "rows.mean_divergence", "linear.linear_divergence_loss"):
        assert page.find(id=f"snippets.lab.fast.{name}")
    listed = [a.get_text(strip=True) for a in page.select(".md-nav--primary a")]
    assert listed[listed.index("Speed and memory") + 1] == "A large vocabulary"
    article = page.article
    assert article
    text, mebibyte = words(article), 2**20 / 4  # numbers of float32
    assert f"{8 * 256 * 32000 / 1e6:.1f} million numbers" in text
    assert f"{8 * 256 * 32000 / mebibyte:.0f} MiB" in text
    assert f"fill {8 * 256 * 1024 / mebibyte:.0f} MiB" in text
    assert f"The logits are {32000 / 1024:.0f} times as large" in text
    assert f"128 tokens are {128 * 32000 / mebibyte:.1f} MiB" in text
    assert f"The head's gradient, {32000 * 1024 / mebibyte:.0f} MiB" in text


def bench(peer: str, *losses: tuple[str, str]) -> dict[str, Any]:
    """A record in which the form to run takes half the time of ours, and a fifth of a peer's."""

    def form(milliseconds: float, megabytes: float) -> dict[str, Any]:
        spread = [milliseconds] * 3
        return {"milliseconds": spread, "megabytes": megabytes, "agrees": "yes", "note": ""}

    return {
        "machine": {
            **{"date": "2026-01-01", "processor": "Made up", "cores": 1, "threads": 1},
            **{"python": "3", "torch": "2"},
        },
        "peers": {peer: "1"},
        "method": {"dtype": "float32"},
        "picture": {"file": "atlas-use.png", "alt": "Only for a test, of no meaning", "width": 900},
        "cases": [
            {
                **{"paper": paper, "loss": loss, "name": loss, "shape": [7, 11]},
                "forms": {"plain": form(10, 40), "to run": form(5, 0.2), peer: form(25, 2)},
                "bounds": {},
                "rivals": {"time": peer, "memory": peer},
                "ratios": {"time": 0.2, "memory": 0.5},
                "met": {},
            }
            for paper, loss in losses
        ],
    }


def test_boxes_and_tables_say_what_the_records_say(copy: Path) -> None:
    tested = {
        "against": ["a loop over zyxwv pairs", "3 < 4"],
        "invariances": ["renaming"],
        "inputs": [],
        "gradients": ["slopes"],
        "transforms": ["none"],
    }
    losses = [("park2019", "angle_loss"), ("linear", "linear_divergence_loss")]
    for name, record in {
        "trust": {"park2019": {"angle_loss": tested}, "hinton2015": {"distillation_loss": tested}},
        "bench": bench("Some peer", *losses),
        "mutants": {
            "losses": {"park2019": {"angle_loss": {"killed": 9, "survived": 1, "timed_out": 0}}},
            "survivors": [{"function": "f", "was": "a < b", "now": "a <= b", "reason": "qponm"}],
        },
    }.items():
        (copy / "docs" / "data" / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    result = build(copy / "site", copy)
    assert result.returncode == 0, result.stderr
    park, hinton = (parse(copy / "site", f"papers/{key}") for key in ("park2019", "hinton2015"))
    (box,) = park.select(".trust")  # none for distance_loss
    heading = box.find_previous("h3")
    assert heading
    assert "angle_loss" in heading.get_text()
    assert [row.get_text(" ", strip=True) for row in box.select("dl > div")] == [
        "Compared with a loop over zyxwv pairs; 3 < 4",
        "Invariances renaming",
        "Gradients slopes",
        "Transforms none",
        "Faults of 10 small faults put into its code, one at a time, the tests noticed 9;"
        " 1 change nothing that they could notice, here is why",
    ]
    assert "qponm" in words(parse(copy / "site", "trust"))
    assert [[c.get_text() for c in row.select("td")] for row in box.select("tbody tr")] == [
        ["7 × 11", "the form as written", "0.50", "0.03"],
        ["7 × 11", "Some peer", "0.20", "0.50"],
    ]
    runs = [tabs.select(".tabbed-block")[1] for tabs in park.select(".tabbed-set")]
    said = "it takes 0.50 of the time of the form as written, and 0.03 of its memory"
    assert [said in words(run) for run in runs] == [False, True]
    (box,) = hinton.select(".trust")
    assert not box.select("table")
    vocabulary = parse(copy / "site", "vocabulary")
    assert len(vocabulary.select(".trust")) == 1
    measured = [p.get_text() for p in vocabulary.select("p") if "Measured on" in p.get_text()]
    assert len(measured) == 1
    assert "Some peer" in measured[0]
    assert "zyxwv" not in (copy / "site/search/search_index.json").read_text(encoding="utf-8")


@pytest.mark.skipif(not (DATA / "trust.json").is_file(), reason="there is no record yet")
def test_every_loss_says_what_it_was_tested_against(site: Path) -> None:
    record = json.loads((DATA / "trust.json").read_text(encoding="utf-8"))
    for key, name in LOSSES:
        box = parse(site, f"papers/{key}").find(id=f"snippets.{key}.{name}")
        assert box, (key, name)
        assert record.get(key, {}).get(name), (key, name)
        text = words(str(box.find_next(class_="trust").get_text()))  # type: ignore[union-attr]
        for phrases in record[key][name].values():
            assert all(words(phrase) in text for phrase in phrases), (key, name)


@pytest.mark.skipif(not (DATA / "bench.json").is_file(), reason="there is no record yet")
def test_every_form_to_run_says_what_it_costs(site: Path) -> None:
    for key, name in FORMS:
        run = parse(site, f"papers/{key}").find(id=f"{name}-run")
        assert run
        tabs = run.find_parent(class_="tabbed-set")
        assert isinstance(tabs, Tag)
        assert "of the time of the form as written" in words(tabs), (key, name)


def test_a_click_or_an_arrow_shows_the_other_form(page: Page) -> None:
    page.goto("papers/park2019/")
    tabs = page.locator(".tabbed-set").first
    written, run = tabs.locator(".tabbed-block").all()
    expect(written).to_be_visible()
    expect(run).to_be_hidden()
    tabs.get_by_text("To run", exact=True).click()
    expect(run).to_be_visible()
    expect(written).to_be_hidden()
    expect(run.locator("pre").first).to_have_text(
        re.compile("^from snippets.lab.fast.park2019 import distance_loss\n?$")
    )
    tabs.locator("input:checked").focus()
    page.keyboard.press("ArrowLeft")
    expect(written).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(run).to_be_visible()
    expect(page.locator(".tabbed-set").nth(1).locator(".tabbed-block").first).to_be_visible()


def test_an_address_opens_the_form_to_run(page: Page) -> None:
    page.goto("papers/kim2016/#word_kd_loss-run")
    expect(page.locator(".tabbed-block").nth(1)).to_be_visible()


def test_tabs_need_no_javascript(browser: Browser, address: str) -> None:
    with browser.new_context(base_url=address, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("papers/hinton2015/")
        page.get_by_text("To run", exact=True).click()
        expect(page.locator(".tabbed-block").nth(1)).to_be_visible()


def test_both_forms_are_printed(page: Page) -> None:
    page.emulate_media(media="print")
    page.goto("papers/kim2018/")
    for block in page.locator(".tabbed-set").locator("label, .tabbed-block").all():
        expect(block).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_form_to_run_fits_and_is_no_barrier(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    for path in ("papers/park2019/", "vocabulary/"):
        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto(path)
        for label in page.get_by_text("To run", exact=True).all():
            label.click()
        for summary in page.locator("article .doc summary").all():
            summary.click()
        page.evaluate(AXE)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        assert not [(v["id"], v["help"], v["nodes"][0]["html"]) for v in found]
        page.add_style_tag(content="* { content-visibility: visible !important }")  # lay out all
        for width in (360, 768, 1440):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
