"""One style sheet for all pages, as each one that a page waits for costs a phone another trip.

Nearly half of the theme's and KaTeX's rules are for what no page here has, and are left out.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

THEME = ("assets/stylesheets/main.*.css", "assets/stylesheets/palette.*.css")
ADDRESS = re.compile(r"url\((?!['\"]?(?:data:|#))(['\"]?)([^)'\"]+)")
RULE = re.compile(r"([^{}@;]+)(\{[^{}]*\})")
COMMA = re.compile(r",(?![^()]*\))")
CLASSES = re.compile(r'class="([^"]*)"')
CLASS = re.compile(r"\.([A-Za-z_][\w-]*)")
INSIDE = re.compile(r"\([^()]*\)")
ICON = re.compile(r"(--[\w-]+):url\([^)]*\);?")
SOURCE_MAP = re.compile(r"/\*# sourceMappingURL=[^*]*\*/")

sheets: list[str] = []
"""The sheets besides the theme's, in their order."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Take the sheets from the theme, which would link to each."""
    sheets[:] = config.extra_css
    config.extra_css = []
    return config


def on_post_build(config: MkDocsConfig) -> None:
    """Write the one sheet; overrides/material/main.html links to it."""
    site = Path(config.site_dir)
    paths = [path for pattern in THEME for path in sorted(site.glob(pattern))]
    paths += [site / sheet for sheet in sheets]
    text = "".join(_moved(path, site / "assets") for path in paths)
    if not config.extra["serving"]:
        text = _used(text, site)
    (site / "assets" / "styles.css").write_text(text, encoding="utf-8")


def _moved(path: Path, folder: Path) -> str:
    """Return a sheet whose addresses hold in another folder."""
    here = posixpath.relpath(path.parent.as_posix(), folder.as_posix())

    def move(found: re.Match[str]) -> str:
        return f"url({found[1]}{posixpath.normpath(posixpath.join(here, found[2]))}"

    return ADDRESS.sub(move, SOURCE_MAP.sub("", path.read_text(encoding="utf-8")))


def _used(text: str, site: Path) -> str:
    """Leave out the rules for classes that no page has and no script names, and their icons."""
    pages = (path.read_text(encoding="utf-8") for path in site.rglob("*.html"))
    lists = {found for page in pages for found in CLASSES.findall(page)}
    known = {name for found in lists for name in found.split()}
    for script in site.rglob("*.js"):
        known.update(re.findall(r"[\w-]+", script.read_text(encoding="utf-8")))

    def is_used(selector: str) -> bool:
        while INSIDE.search(selector):  # one of :is(…) may do, and none of :not(…) need be there
            selector = INSIDE.sub("", selector)
        # A script may put a name and its --modifier together.
        names = CLASS.findall(selector)
        return all(name in known or name.split("--")[0] in known for name in names)

    def keep(rule: re.Match[str]) -> str:
        selectors = COMMA.split(rule[1])
        if any(one.count("(") != one.count(")") for one in selectors):
            return rule[0]  # cut in the wrong place
        kept = ",".join(filter(is_used, selectors))
        return kept and kept + rule[2]

    text = RULE.sub(keep, text)
    return ICON.sub(lambda icon: icon[0] if f"var({icon[1]})" in text else "", text)
