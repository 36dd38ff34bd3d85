"""The interactive figures: right numbers, fresh files, and alive in a browser."""

import itertools
import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from papers.catalog import ROOT
from snippets import hinton2015
from snippets.study import figures
from tests.test_browser import address, browser, page

__all__ = ["address", "browser", "page"]  # fixtures

FOLDER = ROOT / "docs" / "figures"
NAMES = list(figures.FIGURES)
NOTES = {
    "temperature": "hinton2015",
    "projection": "phuong2019",
    "relations": "park2019",
}
"""The note that shows a figure, besides the page of figures."""

DATA = """(figure, field) => {
  const tables = Object.keys(figure.view._runtime.data).map((name) => figure.view.data(name));
  return tables.filter((rows) => rows?.length && field in rows[0]);
}"""
"""All tables of a live figure that have a field."""


def stored(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files as they are written now."""
    folder = tmp_path_factory.mktemp("figures")
    written = figures.write(folder)
    assert {path.name for path in written} == {f"{n}.{e}" for n in NAMES for e in ("json", "png")}
    return folder


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two specs differ, by more than 2 in the sixth digit."""
    if isinstance(one, dict) and isinstance(other, dict) and list(one) == list(other):
        return [d for key in one for d in differences(one[key], other[key], f"{place}.{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, (x, y) in pairs for d in differences(x, y, f"{place}[{i}]")]
    if isinstance(one, float) and isinstance(other, int | float):
        return [] if math.isclose(one, other, rel_tol=2e-5, abs_tol=2e-6) else [place]
    return [] if one == other else [place]


def test_differences_are_found():
    spec = stored("temperature")
    changed = json.loads(json.dumps(spec))
    assert differences(spec, changed) == []
    row = changed["concat"][1]["data"]["values"][0]
    row["KL"] *= 1.0001
    assert differences(spec, changed) == [".concat[1].data.values[0].KL"]


@pytest.mark.parametrize("name", NAMES)
def test_files_are_what_is_written_now(made: Path, name: str):
    assert {path.stem for path in FOLDER.iterdir()} == set(NAMES)
    fresh = json.loads((made / f"{name}.json").read_text(encoding="utf-8"))
    # The bench writes 1.0 and 1 alike.
    assert differences(fresh, stored(name)) == []
    sizes = [
        struct.unpack(">II", (folder / f"{name}.png").read_bytes()[16:24])
        for folder in (made, FOLDER)
    ]
    assert sizes[0] == sizes[1]
    assert sizes[1][0] // 2 == stored(name)["usermeta"]["width"]


@pytest.mark.parametrize("name", NAMES)
def test_figures_speak_and_name_no_other_host(name: str):
    spec = stored(name)
    assert len(spec["description"]) > 100
    assert spec["usermeta"]["caption"]
    assert "://" not in json.dumps(spec)


class TestNumbers:
    def test_temperatures_are_the_loss(self):
        bars, curves = stored("temperature")["concat"]
        for row in curves["data"]["values"]:
            shown = [x for x in bars["data"]["values"] if x["image"] == row["image"]]
            v, z = (
                torch.tensor([[x[who] for x in shown]], dtype=torch.float64)
                for who in ("teacher", "student")
            )
            loss = hinton2015.kd_loss(z, v, temperature=row["T"]).item()
            assert row["T² · KL"] == pytest.approx(loss, rel=1e-4)
            assert row["KL"] == pytest.approx(loss / row["T"] ** 2, rel=1e-4)
            p = (v[0] / row["T"]).softmax(-1)
            assert row["top"] == pytest.approx(p.max().item(), rel=1e-4)
            assert row["first"] == p.argmax()

    def test_projections_lie_on_the_circle_and_angles_never_rise(self):
        rows = figures.students()
        ends = [row for row in rows if row["k"] is None]
        for row in ends:
            assert row["along"] ** 2 + row["across"] ** 2 == pytest.approx(row["along"], abs=1e-5)
        angles = [row["angle"] for row in ends]
        assert all(after <= before + 1e-5 for before, after in itertools.pairwise(angles))
        assert angles[8] > 10 > 1e-4 > max(angles[9:])
        for end in ends:
            last = next(
                row for row in rows if row["n"] == end["n"] and row["k"] == max(figures.DOUBLINGS)
            )
            assert last["along"] == pytest.approx(end["along"], abs=1e-3)
            assert last["across"] == pytest.approx(end["across"], abs=1e-3)

    def test_relations_see_shear_only(self):
        for moves in ((40, 1, 0), (0, 0.5, 0), (-100, 1.5, 0)):
            losses = figures.relation_losses(*moves)
            assert losses["features"] > 0.1
            assert max(abs(losses["distances"]), abs(losses["angles"])) < 1e-12
        assert min(figures.relation_losses(0, 1, 0.5).values()) > 0.001

    def test_forward_fits_match_moments(self):
        """Of normal distributions, that with the teacher's mean and variance has the least KL."""
        left = figures.SHARE
        for row in figures.fits():
            if row["beta"] == 0:
                gap = row["gap"]
                assert row["mean"] == pytest.approx((0.5 - left) * gap, abs=0.01)
                variance = figures.SPREAD**2 + left * (1 - left) * gap**2
                assert row["width"] == pytest.approx(variance**0.5, rel=0.01)

    def test_fits_are_minima(self):
        for gap, beta in ((4, 0.0), (4, 0.5), (4, 0.8), (4, 0.85), (2, 1.0), (6, 0.5)):
            log_p = figures.two_modes(gap)
            mean, width = figures.fitted(gap, beta)

            def cost(mean, width, log_p=log_p, beta=beta):
                return figures.divergence(log_p, figures.gaussian(mean, width), beta).item()

            best = cost(mean, width)
            for dm in (-4, -1, -0.01, 0.01, 1, 4):
                assert cost(mean + dm, width) > best
            for dw in (-1, -0.01, 0.01, 1):
                assert cost(mean, width + dw) > best

    def test_divergences_do_what_the_page_says(self):
        rows = {(row["gap"], row["beta"]): row for row in figures.fits()}
        assert min(rows[4, beta]["width"] for beta in (0, 0.5)) > 2
        assert rows[4, 1]["width"] < 0.75
        assert rows[4, 1]["mean"] < -1.9
        jump = {
            gap: min(b for b in figures.BETAS if rows[gap, b]["width"] < 1) for gap in (4, 5, 6)
        }
        assert jump[4] > jump[5] > jump[6] > 0
        overlapping = [rows[2, beta]["width"] for beta in figures.BETAS]
        assert max(overlapping) - min(overlapping) < 0.1


def live(page: Page, name: str) -> Locator:
    figure = page.locator(f"#figure-{name}")
    figure.scroll_into_view_if_needed()
    expect(figure).to_have_class("interactive interactive--live")
    return figure


def tables(figure: Locator, field: str) -> list[list[dict[str, Any]]]:
    return figure.evaluate(DATA, field)


def set_signals(figure: Locator, **signals: float | str) -> None:
    figure.evaluate(
        """(figure, signals) => {
          for (const [name, value] of Object.entries(signals)) figure.view.signal(name, value);
          return figure.view.runAsync().then(() => null);
        }""",
        signals,
    )


@pytest.mark.parametrize("name", NAMES)
def test_sliders_move_by_keyboard_and_redraw(page: Page, name: str):
    page.goto("figures/")
    figure = live(page, name)
    sliders = figure.locator("input[type=range]")
    assert sliders.count() >= 1
    for i in range(sliders.count()):
        slider, says = sliders.nth(i), figure.locator(".interactive__says")
        before = slider.input_value(), figure.locator("svg").inner_html(), says.inner_text()
        slider.focus()
        expect(slider).to_be_focused()
        page.keyboard.press("ArrowRight")
        expect(slider).not_to_have_value(before[0])
        expect(says).not_to_have_text(before[2])
        assert figure.locator("svg").inner_html() != before[1]
    for label in figure.locator("input, select").all():
        assert label.evaluate("input => input.labels[0]?.textContent.trim()")
    expect(figure.locator(".interactive__live")).to_have_attribute(
        "aria-label", stored(name)["description"]
    )


@pytest.mark.parametrize("name", NAMES)
def test_print_shows_the_still_and_screen_the_live_figure(page: Page, name: str):
    page.goto("figures/")
    figure = live(page, name)
    still, svg = figure.locator("img"), figure.locator(".interactive__live svg")
    assert still.get_attribute("alt") == stored(name)["description"]
    expect(still).to_be_hidden()
    expect(svg).to_be_visible()
    page.emulate_media(media="print")
    expect(still).to_be_visible()
    assert still.evaluate("image => image.naturalWidth") > 1000
    expect(svg).to_be_hidden()


def test_page_is_narrow_and_light_and_dark(page: Page):
    page.set_viewport_size({"width": 360, "height": 800})
    page.goto("figures/")
    for name in NAMES:
        figure = live(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        box = figure.locator(".interactive__live")
        assert box.evaluate("box => box.scrollWidth <= box.clientWidth")
    slider = figure.locator("input[type=range]").first
    slider.focus()
    page.keyboard.press("ArrowRight")
    moved, text = slider.input_value(), figure.locator("svg text").first
    light = text.get_attribute("fill")
    page.evaluate("document.body.setAttribute('data-md-color-scheme', 'slate')")
    expect(text).not_to_have_attribute("fill", light)
    assert figure.locator("input[type=range]").first.input_value() == moved
    assert figure.locator("input[type=range]").count() == 2


@pytest.mark.parametrize("name", NOTES)
def test_notes_show_their_figure(page: Page, name: str):
    page.goto(f"papers/{NOTES[name]}/")
    live(page, name)


def test_other_pages_load_no_vega(page: Page):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("papers/romero2015/")
    page.wait_for_load_state("networkidle")
    assert asked
    assert not [url for url in asked if "vega" in url]


def test_without_scripts_the_still_is_shown(page: Page, address: str):
    context = page.context.browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(f"{address}figures/")
    for name in NAMES:
        expect(plain.locator(f"#figure-{name} img")).to_be_visible()
        expect(plain.locator(f"#figure-{name} .interactive__controls")).to_be_hidden()
    context.close()


def test_the_browser_softens_as_the_loss_does(page: Page):
    page.goto("figures/")
    figure = live(page, "temperature")
    logits = stored("temperature")["concat"][0]["data"]["values"]
    for image in {row["image"] for row in logits}:
        for t in (1, 4, 20):
            set_signals(figure, image=image, T=t)
            bars = tables(figure, "p")[0]
            assert len(bars) == 20
            for who in ("teacher", "student"):
                chosen = [row[who] for row in logits if row["image"] == image]
                p = (torch.tensor(chosen, dtype=torch.float64) / t).softmax(-1)
                found = [row["p"] for row in bars if row["who"] == who]
                assert found == pytest.approx(p.tolist(), rel=1e-9)


def test_the_browser_computes_the_relational_losses(page: Page):
    page.goto("figures/")
    figure = live(page, "relations")
    for moves in ((0, 1, 0), (40, 1, 0), (-135, 0.25, 1), (90, 1.5, -0.7), (5, 0.8, 0.05)):
        turn, scale, shear = moves
        set_signals(figure, turn=turn, scale=scale, shear=shear)
        found = {row["name"]: row["loss"] for rows in tables(figure, "loss") for row in rows}
        assert found == pytest.approx(figures.relation_losses(*moves), rel=1e-4, abs=1e-9)


def test_the_browser_finds_the_fit_of_its_sliders(page: Page):
    page.goto("figures/")
    figure = live(page, "divergences")
    for gap, beta in ((0, 0), (4, 0.15), (4, 0.85), (5.5, 0.55), (6, 1)):
        set_signals(figure, gap=gap, beta=beta)
        mean, log_width = figures.fitted(gap, beta)
        fit = figure.evaluate("figure => figure.view.signal('fit')")
        assert (fit["gap"], fit["beta"]) == (gap, beta)
        assert (fit["mean"], fit["width"]) == pytest.approx(
            (mean, math.exp(log_width)), rel=1e-4, abs=1e-5
        )
        density = next(rows for rows in tables(figure, "density") if rows)
        for who, log_p in (
            ("teacher", figures.two_modes(gap)),
            ("student", figures.gaussian(mean, log_width)),
        ):
            step = (figures.GRID[1] - figures.GRID[0]).item()
            exact = dict(zip(figures.GRID.tolist(), (log_p.exp() / step).tolist(), strict=True))
            for row in density:
                if row["who"] == who:
                    near = min(exact, key=lambda x, at=row["x"]: abs(x - at))
                    assert row["density"] == pytest.approx(exact[near], abs=1e-3)
