"""Ask Lighthouse whether pages are fast, on a phone as it simulates one.

    python -m tests.lighthouse [SITE]

builds the site, or takes a built one, serves it as GitHub Pages does, and prints the median of
three runs for one page of each kind. It ends with 1 if a target is missed. Scores depend on how
busy the machine is, so this is a command and not a test.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from docs.hooks.formulas import find_node
from papers.catalog import ROOT
from tests.browser import find_browser
from tests.server import serve

LIGHTHOUSE = ROOT / "node_modules" / "lighthouse" / "cli" / "index.js"
RUNS = 3
PAGES = ("", "papers/", "papers/hinton2015/", "notebooks/hinton2015/")
SCORES = {"performance": 95, "accessibility": 100, "best-practices": 95}
"""The lowest score of each category that will do, of 100."""

PAINT = {"papers/hinton2015/": 1.6}
"""The seconds within which the largest part of a page must be painted."""

Figures = dict[str, float]


def audit(address: str, browser: str) -> Figures:
    """Run Lighthouse once: the score of each category, and the seconds to the largest paint."""
    flags = "--headless=new --no-sandbox --disable-gpu"
    arguments = [
        *(
            find_node(),
            str(LIGHTHOUSE),
            address,
            "--quiet",
            "--output=json",
            f"--chrome-flags={flags}",
        ),
        f"--only-categories={','.join(SCORES)}",
    ]
    done = subprocess.run(
        arguments, env={**os.environ, "CHROME_PATH": browser}, capture_output=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"error: Lighthouse failed\n{done.stderr.decode()}")
    report = json.loads(done.stdout)
    scores = {name: 100 * report["categories"][name]["score"] for name in SCORES}
    milliseconds = report["audits"]["largest-contentful-paint"]["numericValue"]
    return {**scores, "paint": milliseconds / 1000}


def missed(page: str, figures: Figures) -> list[str]:
    """Name the targets that a page misses."""
    wrong = [name for name, least in SCORES.items() if round(figures[name]) < least]
    return wrong + ["paint"] * (figures["paint"] > PAINT.get(page, float("inf")))


def report(site: Path, browser: str) -> int:
    """Print a line for each page; 1 if any misses a target."""
    print(f"{'page':24}", *(f"{name:>15}" for name in (*SCORES, "paint, s")))
    failed = False
    with serve(site) as address:
        for page in PAGES:
            runs = [audit(address + page, browser) for _ in range(RUNS)]
            figures = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            wrong = missed(page, figures)
            failed |= bool(wrong)
            scores = [f"{figures[name]:15.0f}" for name in SCORES]
            marks = f"  ✗ {', '.join(wrong)}" if wrong else ""
            print(f"/{page:23}", *scores, f"{figures['paint']:15.2f}{marks}", flush=True)
    return int(failed)


def main() -> int:
    """Build the site where none is given, and report."""
    browser = find_browser()
    if browser is None:
        print("error: no Chromium or Chrome found; python -m tests.browser gets one")
        return 1
    if len(sys.argv) > 1:
        return report(Path(sys.argv[1]), browser)
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"]
        subprocess.run([*build, "--site-dir", folder], cwd=ROOT, check=True)
        return report(Path(folder), browser)


if __name__ == "__main__":
    sys.exit(main())
