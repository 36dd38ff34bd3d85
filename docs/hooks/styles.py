"""One style sheet for all pages, as each one that a page waits for costs a phone another trip."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

THEME = ("assets/stylesheets/main.*.css", "assets/stylesheets/palette.*.css")
ADDRESS = re.compile(r"url\((?!['\"]?(?:data:|#))(['\"]?)([^)'\"]+)")
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
    (site / "assets" / "styles.css").write_text(text, encoding="utf-8")


def _moved(path: Path, folder: Path) -> str:
    """Return a sheet whose addresses hold in another folder."""
    here = posixpath.relpath(path.parent.as_posix(), folder.as_posix())

    def move(found: re.Match[str]) -> str:
        return f"url({found[1]}{posixpath.normpath(posixpath.join(here, found[2]))}"

    return ADDRESS.sub(move, SOURCE_MAP.sub("", path.read_text(encoding="utf-8")))
