"""The cells of an executed notebook as HTML: prose, code and outputs, for the site to set.

What every notebook page of nbconvert or JupyterLab carries beside them, half a megabyte of styles
and scripts, is never made.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from typing import Any

import mistune
from markdown.extensions.toc import slugify_unicode, unique
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

HEADING = re.compile(r"<h([2-4])>(.*?)</h\1>", re.DOTALL)
TITLE = re.compile(r"^.*</h1>\s*", re.DOTALL)
"""The title, which the site sets, and the line above it."""

PYTHON, PLAIN = PythonLexer(), HtmlFormatter(nowrap=True)
ESCAPES = re.compile(r"\x1b\[[\d;]*m")
"""How a terminal is told of colours."""

FORMULA = re.compile(r"(?<!\\)(\${1,2})(?!\$).+?(?<!\\)\1", re.DOTALL)
MARK = re.compile("\ue000(\\d+)\ue000")
"""What stands for a formula while Markdown is read, to which _ and * would say something."""

MARKDOWN = mistune.create_markdown(escape=False, plugins=["strikethrough", "table", "url"])


@dataclass(frozen=True)
class Cells:
    """What a page shows of a notebook, and its headings as tokens of Python-Markdown's toc."""

    html: bytes
    """In UTF-8, half as large as a string with characters such as ✓."""
    headings: list[dict[str, Any]]


def render(path: Path) -> Cells:
    """Turn the notebook at `path` into HTML.

    Links are left as they are in the forge, between files.

    Raises:
        ValueError: if it is no JSON.
        KeyError: if it is JSON, but no notebook of ours.
    """
    headings: list[dict[str, Any]] = []
    parts = []
    for cell in json.loads(path.read_bytes())["cells"]:
        if cell["cell_type"] == "markdown":
            prose = TITLE.sub("", _prose(_text(cell["source"])), count=1)
            prose = HEADING.sub(lambda found: _heading(found, headings), prose)
            parts.append(f'<div class="prose">\n{prose}</div>')
        elif cell["cell_type"] == "code":
            code = highlight(_text(cell["source"]), PYTHON, PLAIN)
            parts.append(f'<div class="highlight"><pre><code>{code}</code></pre></div>')
            parts += [f'<div class="output">\n{_output(o)}\n</div>' for o in cell["outputs"]]
    return Cells("\n".join(parts).encode(), headings)


def _prose(source: str) -> str:
    """Turn Markdown into HTML, the formulas as they are."""
    formulas: list[str] = []

    def put_by(found: re.Match[str]) -> str:
        formulas.append(escape(found[0], quote=False))
        return f"\ue000{len(formulas) - 1}\ue000"

    html = str(MARKDOWN(FORMULA.sub(put_by, source)))
    return MARK.sub(lambda mark: formulas[int(mark[1])], html)


def _heading(found: re.Match[str], headings: list[dict[str, Any]]) -> str:
    """Give a heading an id in any script, and note it for the page's contents."""
    level, html = found.groups()
    name = unescape(re.sub(r"<[^>]+>", "", html)).strip()
    anchor = unique(slugify_unicode(name, "-"), {heading["id"] for heading in headings})
    headings.append({"level": int(level), "id": anchor, "name": name})
    link = f'<a class="headerlink" href="#{escape(anchor)}">¶</a>'
    return f'<h{level} id="{escape(anchor)}">{html}{link}</h{level}>'


def _output(output: dict[str, Any]) -> str:
    """Show what a cell gave: HTML before a picture before text."""
    data = output.get("data", {})
    if "text/html" in data:
        return _text(data["text/html"])
    if "image/png" in data:
        source = _text(data["image/png"]).replace("\n", "")
        given = {"alt": "", **output["metadata"].get("image/png", {})}
        sizes = "".join(f' {name}="{given[name]}"' for name in ("width", "height") if name in given)
        return f'<img alt="{escape(given["alt"])}"{sizes} src="data:image/png;base64,{source}">'
    if output["output_type"] == "error":
        text = "\n".join(output["traceback"])
    else:
        text = _text(output.get("text") or data.get("text/plain", ""))
    plain = escape(ESCAPES.sub("", text))
    return f"<pre>{plain}</pre>"


def _text(source: str | list[str]) -> str:
    """Join what the format allows to be a list of lines."""
    return source if isinstance(source, str) else "".join(source)
