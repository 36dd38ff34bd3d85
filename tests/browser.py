"""Find the browser of the browser tests, or get one.

    python -m tests.browser

prints which one it is. Without any, the browser tests are skipped; with
CI=true that is a failure.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)


def find_browser() -> str | None:
    """Return the path of an installed Chromium or Chrome, if there is one."""
    installed = [path for name in NAMES if (path := shutil.which(name))]
    downloaded = _playwrights_own()
    found = [*installed, *(place for place in (*PLACES, downloaded) if Path(place).is_file())]
    return found[0] if found else None


def _playwrights_own() -> str:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return playwright.chromium.executable_path


def _get_browser() -> None:
    """Try Playwright's own download, then, as root, Debian's package."""
    _attempt([sys.executable, "-m", "playwright", "install", "chromium"])
    if find_browser() is None and shutil.which("apt-get") and os.geteuid() == 0:
        _attempt(["apt-get", "update", "-qq"])
        _attempt(["apt-get", "install", "-y", "-qq", "chromium"])


def _attempt(command: list[str]) -> None:
    print(f"no browser yet; trying: {' '.join(command)}", flush=True)
    # What fails here is reported once, by the caller, as "no browser".
    subprocess.run(command, check=False, timeout=600, capture_output=True)


def main() -> int:
    """Say which browser the tests use; 1 if CI has none."""
    if find_browser() is None:
        _get_browser()
    found = find_browser()
    if found:
        print(f"browser: {found}")
        return 0
    print("browser: none found and none could be got; the browser tests are skipped")
    return 1 if os.environ.get("CI") == "true" else 0


if __name__ == "__main__":
    sys.exit(main())
