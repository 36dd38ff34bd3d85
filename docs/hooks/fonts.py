"""The characters of all formulas travel in the style sheet: a page paints them at once.

KaTeX's fonts are large, and a browser asks for them only when it knows the page and its style. So
each font is there once more, cut to the characters that some page shows in it. What the cut one
lacks a browser takes from the whole font, whose rule stands before it.
"""

from __future__ import annotations

import io
import re
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable
from html import unescape
from pathlib import Path

from fontTools import subset
from mkdocs.config.defaults import MkDocsConfig

LETTERS = re.compile(r'<span(?: class="([^"]*)")?[^>]*>([^<]+)')
FONT_FACE = re.compile(r"@font-face\{[^}]*KaTeX_([\w-]+)\.woff2[^}]*\}")
SOURCE = re.compile(r"src:[^;}]*")
FONTS = {
    "mathnormal": "Math-Italic",
    "mathcal": "Caligraphic-Regular",
    "mathbb": "AMS-Regular",
    "amsrm": "AMS-Regular",
    "mathbf": "Main-Bold",
    "small-op": "Size1-Regular",
    "large-op": "Size2-Regular",
    **{f"delimsizing size{n}": f"Size{n}-Regular" for n in range(1, 5)},
}
"""The font that KaTeX's style sheet gives to a class; it is Main-Regular for all others."""


def on_post_build(config: MkDocsConfig) -> None:
    """Add the cut fonts to the sheet, which docs/hooks/styles.py has written."""
    if config.extra["serving"]:
        return
    folder = Path(config.site_dir, "assets")
    sheet = folder / "styles.css"
    text = sheet.read_text(encoding="utf-8")
    shown = _characters(config.extra.get("formulas", ()))
    faces = [
        _cut(face, folder / "vendor" / "katex" / "fonts" / f"KaTeX_{face[1]}.woff2", shown[face[1]])
        for face in FONT_FACE.finditer(text)
        if face[1] in shown
    ]
    sheet.write_text(text + "".join(faces), encoding="utf-8")


def _characters(formulas: Iterable[str]) -> dict[str, set[str]]:
    """Collect the characters that formulas show in each font."""
    shown: dict[str, set[str]] = defaultdict(set)
    for formula in formulas:
        for classes, text in LETTERS.findall(formula):
            fonts = (font for name, font in FONTS.items() if name in classes)
            shown[next(fonts, "Main-Regular")].update(unescape(text))
    return shown


def _cut(face: re.Match[str], path: Path, shown: set[str]) -> str:
    """Return the rule of a font that holds only what is shown, in itself."""
    # The font without the space could not be a text's first, whose heights browsers want to know.
    points = sorted({*map(ord, shown), ord(" ")})
    options = subset.Options(flavor="woff2", hinting=False, name_IDs=[])
    font = subset.load_font(path, options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=points)
    cutter.subset(font)
    made = io.BytesIO()
    subset.save_font(font, made, options)
    source = f'src:url("data:font/woff2;base64,{b64encode(made.getvalue()).decode()}")'
    reach = "unicode-range:" + ",".join(f"U+{point:X}" for point in points)
    return SOURCE.sub(f"{source};{reach}", face[0], count=1)
