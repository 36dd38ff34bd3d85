"""Build a site of many made papers, and measure it against the limits.

    python -m tests.scale [COUNT…]

makes a copy of the project with COUNT pairs of a note and a notebook beside the real ones, builds
it, opens it in a browser, edits it while it is served, and prints a table. The papers are made of
the real ones' parts, so that text, formulas, code and pictures cost what real ones do.
"""

import argparse
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, cycle
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import psutil
import yaml

from papers.catalog import ROOT, load
from papers.ledger import CLAIM_MIME

LINES, CELLS, FIGURES = 300, 25, 4
"""What a made note and notebook have."""

COUNTS = (250, 500, 1000)
SERVED = 50
"""How many pairs are there when a served note is edited."""

ALL = 1000
"""How many pairs the limits on a build and on its pages are for."""

BUILD_SECONDS, BUILD_BYTES, DECK_SECONDS = 90.0, 1.5e9, 0.05
FILTER_SECONDS, SEARCH_SECONDS, EDIT_SECONDS = 0.1, 0.2, 2.0
GROWTH = 1.5
"""How much longer a pair may take among most pairs than among fewest: linear is 1."""

PICTURE = "image/png"
FORMULA = re.compile(r"(\$+)([^$]{8,}?)\1")
"""A formula longer than a symbol; each paper gets its own, as a set one is not set again."""


def make(root: Path, count: int, decks: bool = False) -> list[str]:
    """Copy the project into `root` and add `count` pairs.

    Returns:
        The keys of the pairs that were added, the oldest first.
    """
    for folder in ("docs", "papers", "snippets"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "node_modules").symlink_to(ROOT / "node_modules")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    hook = "  - docs/hooks/slides.py\n"
    assert hook in settings
    (root / "mkdocs.yml").write_text(settings if decks else settings.replace(hook, ""))
    made = Maker(root, count)
    for number in range(count):
        made.add(number)
    return made.keys


class Maker:
    """Makes papers from the parts of the real ones."""

    def __init__(self, root: Path, count: int) -> None:
        self.root = root
        self.real = load()
        self.notebooks = {
            key: json.loads((ROOT / f"docs/notebooks/{key}.ipynb").read_text(encoding="utf-8"))
            for key in self.real
        }
        bodies = (re.sub(r"```.*?```", "", p.body, flags=re.DOTALL) for p in self.real.values())
        self.prose = [
            block
            for body in bodies
            for block in re.split(r"\n{2,}", body.strip())
            if not re.search(r"^(#|:::|<|- |\d+\. |\|)", block, re.MULTILINE)
        ]
        self.keys = [f"{_surname(i)}{1991 + i * 35 // count}" for i in range(count)]

    def add(self, number: int) -> None:
        """Write one pair: note, script and notebook."""
        key, model = self.keys[number], list(self.real)[number % len(self.real)]
        rng = random.Random(number)
        script = (ROOT / f"snippets/{model}.py").read_text(encoding="utf-8")
        note, notebook = self._note(number, model, rng), self._notebook(model, rng)
        for path, text in {
            f"papers/{key}.md": FORMULA.sub(rf"\1\2\\kern{number / 1e6:.6f}em\1", note),
            f"snippets/{key}.py": script.replace(model, key),
            f"docs/notebooks/{key}.ipynb": notebook.replace(model, key),
        }.items():
            (self.root / path).write_text(text, encoding="utf-8")

    def _note(self, number: int, model: str, rng: random.Random) -> str:
        """Write a note of LINES lines, by its own authors, that builds on older ones."""
        key, paper = self.keys[number], self.real[model]
        fields = paper.model_dump(exclude={"key", "body"}, exclude_none=True, exclude_defaults=True)
        fields |= {
            "title": f"{paper.title}, as {_surname(number).capitalize()} has it",
            "authors": [f"Ann {_surname(number).capitalize()}", "Bob Second", "Cy Third"],
            "year": 1991 + number * 35 // len(self.keys),
            "arxiv": f"0000.{number:05}",
            # The first ones above all, as it is with papers.
            "builds_on": sorted(
                {self.keys[int(number * rng.random() ** 3)] for _ in range(rng.randrange(4))}
                - {key}
            ),
        }
        for name in ("corrects", "contradicts"):
            fields.pop(name, None)
        front = yaml.safe_dump(fields, allow_unicode=True, sort_keys=False)
        start, end = paper.body.replace(model, key).split("\n## From the group's discussion", 1)
        end = "\n## From the group's discussion" + end
        lines = f"---\n{front}---\n{start}\n".splitlines()
        room = LINES - len(lines) - len(end.strip("\n").splitlines())
        while room > 1:
            block = [*rng.choice(self.prose).splitlines(), ""]
            if len(block) <= room:
                lines += block
                room -= len(block)
        return "\n".join([*lines, *[""] * room, end.strip("\n"), ""])

    def _notebook(self, model: str, rng: random.Random) -> str:
        """Write a notebook of CELLS cells and FIGURES figures, each claim named once."""
        others = sorted(self.notebooks.keys() - {model})
        rng.shuffle(others)
        pool = [self.notebooks[model]["cells"], *(self.notebooks[k]["cells"][1:] for k in others)]
        cells: list[dict[str, Any]] = []
        named: set[str] = set()
        for cell in chain(*pool):
            claims = {
                b["name"] for o in cell.get("outputs", []) if (b := o["data"].get(CLAIM_MIME))
            }
            if len(cells) < CELLS and not claims & named:
                cells.append({**cell})
                named |= claims
        pictures = cycle(
            output
            for name in others
            for cell in self.notebooks[name]["cells"]
            for output in cell.get("outputs", [])
            if PICTURE in output.get("data", {})
        )
        left = FIGURES
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        for place, cell in enumerate(reversed(code)):
            kept = [o for o in cell["outputs"] if PICTURE not in o.get("data", {})]
            wanted = left - min(left, (len(code) - place - 1) // 2)
            cell["outputs"] = kept + [next(pictures) for _ in range(min(wanted, 1))]
            left -= min(wanted, 1)
        record = {**self.notebooks[model], "cells": cells}
        return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def _surname(number: int) -> str:
    """Name the author of a made paper in letters alone, which keys ask for."""
    letters = ""
    for _ in range(3):
        number, rest = divmod(number, 26)
        letters = ascii_lowercase[rest] + letters
    return f"maker{letters}"


@dataclass(frozen=True)
class Built:
    """What a build took: seconds, and the bytes of memory of all its processes at their peak."""

    seconds: float
    memory: int


def run_mkdocs(root: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start MkDocs in a copy of the project, in which it finds the copy's packages first."""
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    return subprocess.Popen(
        [sys.executable, "-m", "mkdocs", *arguments],
        cwd=root,
        env={**clean, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def build(root: Path) -> Built:
    """Build the site of `root` into root/site, strictly."""
    start, memory = time.perf_counter(), 0
    said: list[str] = []
    with run_mkdocs(
        root, "build", "--strict", "--quiet", "--site-dir", str(root / "site")
    ) as process:
        assert process.stdout
        reader = threading.Thread(target=said.extend, args=(process.stdout,))
        reader.start()
        while process.poll() is None:
            memory = max(memory, _memory(process.pid))
            time.sleep(0.1)
        reader.join()
    seconds = time.perf_counter() - start
    assert process.returncode == 0, "".join(said)
    return Built(seconds, memory)


def _memory(pid: int) -> int:
    """Add up what a process and its children hold."""
    total = 0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:  # it has just ended
        pass
    return total


@contextmanager
def served(root: Path) -> Iterator[str]:
    """Run `mkdocs serve` in `root`, and give its address as soon as it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    process = run_mkdocs(root, "serve", "--quiet", "--dev-addr", address)
    try:
        wait_for(f"http://{address}/", "", 300, process)
        yield f"http://{address}/"
    finally:
        process.terminate()
        process.communicate()


def wait_for(
    url: str, text: str, patience: float, process: subprocess.Popen[str] | None = None
) -> float:
    """Ask for a page until it has the text; return the seconds that took."""
    start = time.perf_counter()
    while time.perf_counter() - start < patience:
        if process and process.poll() is not None:
            raise RuntimeError(process.communicate()[0])
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                if text in answer.read().decode():
                    return time.perf_counter() - start
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.02)
    raise TimeoutError(f"{url}: no {text!r} within {patience} s")


def edit(note: Path, word: str) -> None:
    """Add a word to a note's first section."""
    text = note.read_text(encoding="utf-8")
    note.write_text(text.replace("## In short\n", f"## In short\n\n{word}\n", 1), encoding="utf-8")


def time_edits(root: Path, keys: list[str]) -> list[float]:
    """Edit a note of each key while the site is served; return how long each took to show."""
    taken = []
    with served(root) as address:
        for number, key in enumerate(keys):
            edit(root / "papers" / f"{key}.md", f"Edited{number}")
            taken.append(wait_for(f"{address}papers/{key}/", f"Edited{number}", 60))
            time.sleep(1)
    return taken


DECKS = """
import sys, time
from pathlib import Path
from docs.hooks.slides import deck, exporter
from papers.catalog import load
root = Path.cwd()
papers = [paper for key, paper in load(root).items() if key in sys.argv[1:]]
export = exporter(root)
deck(papers[0], root, str, export)
start = time.perf_counter()
for paper in papers[1:]:
    deck(paper, root, str, export)
print((time.perf_counter() - start) / len(papers[1:]))
"""


def time_decks(root: Path, keys: list[str]) -> float:
    """Make the decks of all but the first of `keys`; return the seconds for one."""
    command = [sys.executable, "-c", DECKS, *keys]
    made = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(made.stdout)


FILTERED = """async ([name, value]) => {
  const select = document.querySelector(`.filters select[name=${name}]`);
  const start = performance.now();
  select.value = value;
  select.dispatchEvent(new Event("change", { bubbles: true }));
  document.body.offsetHeight;  // lay the table out
  await new Promise(requestAnimationFrame);
  return (performance.now() - start) / 1000;
}"""

WATCH = """() => {
  window.found = 0;
  new MutationObserver(() => { window.found = performance.now(); }).observe(
    document.querySelector(".md-search-result__list"), { childList: true });
  document.querySelector("[data-md-component=search-query]").addEventListener(
    "keyup", () => { window.asked = performance.now(); window.found = 0; }, { capture: true });
}"""


def time_pages(site: Path, author: str) -> dict[str, float]:
    """Filter the tables and search in a browser; return the slowest of each in seconds."""
    from playwright.sync_api import sync_playwright

    from tests.browser import find_browser
    from tests.server import serve

    path = find_browser()
    with serve(site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(base_url=address)
        page.set_default_timeout(300_000)
        taken = {}
        for path, choices in {
            "papers/": [
                ("knowledge", "feature"),
                ("year", "2001"),
                ("year", ""),
                ("knowledge", ""),
            ],
            "claims/": [("verdict", "fails"), ("verdict", "holds"), ("verdict", "")],
        }.items():
            page.goto(path)
            page.wait_for_load_state("networkidle")  # its scripts start once it is painted
            taken[f"filter {path}"] = max(page.evaluate(FILTERED, [*c]) for c in choices)
        page.goto("")
        box = page.locator("[data-md-component=search-query]")
        start = time.perf_counter()
        box.click()
        box.press_sequentially("loss")  # the index is loaded once this has an answer
        page.locator(".md-search-result__item").first.wait_for(state="attached")
        taken["load the index"] = time.perf_counter() - start
        page.evaluate(WATCH)
        answers = []
        for query in ("temperature", "知识蒸馏", "student teacher", author, "kd_loss"):
            box.fill(query)
            box.press("End")
            page.wait_for_function("window.found > window.asked")
            answers.append(page.evaluate("(window.found - window.asked) / 1000"))
        taken["search"] = max(answers)
        browser.close()
        return taken


def main(arguments: list[str] | None = None) -> int:
    """Measure; 1 if a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("counts", nargs="*", type=int, default=COUNTS, metavar="COUNT")
    counts = sorted(parser.parse_args(arguments).counts)
    rows: list[tuple[str, float, float, str]] = []
    per_pair = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            root = Path(folder, str(count))
            keys = make(root, count)
            built = build(root)
            per_pair[count] = built.seconds / count
            share = count / ALL  # a fixed part is in it, too, so small counts say little
            rows += [
                (f"{count} pairs: build", built.seconds, BUILD_SECONDS * max(share, 1), "s"),
                (f"{count} pairs: memory", built.memory / 1e6, BUILD_BYTES / 1e6, "MB"),
            ]
            if count < counts[-1]:
                shutil.rmtree(root)
        rows.append(("a deck", 1000 * time_decks(root, keys[:21]), 1000 * DECK_SECONDS, "ms"))
        for name, seconds in time_pages(root / "site", keys[-1][:8]).items():
            limit = {"search": SEARCH_SECONDS, "filter papers/": FILTER_SECONDS}.get(name, 0)
            rows.append((name, 1000 * seconds, 1000 * limit, "ms"))
        rows.append(("growth per pair", per_pair[counts[-1]] / per_pair[counts[0]], GROWTH, "×"))
        shutil.rmtree(root)
        root = Path(folder, "served")
        taken = time_edits(root, make(root, SERVED, decks=True)[:5])
        rows.append((f"{SERVED} pairs: an edit shows", max(taken), EDIT_SECONDS, "s"))
    for name, value, limit, unit in rows:
        verdict = "" if not limit else "ok" if value <= limit else "TOO MUCH"
        wanted = f"≤ {limit:g}" if limit else ""
        print(f"{name:28}{value:10.2f} {unit:3}{wanted:>10}  {verdict}")
    return int(any(limit and value > limit for _, value, limit, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
