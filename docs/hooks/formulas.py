r"""Formulas are set when the site is built, so that no page loads what sets them.

They are written $…$ or $$…$$ in notebooks and claims; \(…\) and \[…\] is what Python-Markdown
makes of them elsewhere. Node runs KaTeX once for a whole build.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.hooks.formulas")

WITHOUT = r"(pre|code|script|style|textarea|option|noscript|svg)\b"
"""The tags between which there are no formulas."""

PARTS = re.compile(
    # What holds none: code and the like, comments; tags, with the text up to a formula's mark.
    rf"<{WITHOUT}.*?</\1>|<!--.*?-->|(?:<(?!{WITHOUT}|!--)[^>]*>[^<$\\]*)+"
    r"|\$\$(?P<display>[^<$]+)\$\$|\\\[(?P<block>[^<]+?)\\\]"
    r"|\\\((?P<inline>[^<]+?)\\\)|\$(?P<short>(?:[^<$\\]|\\[^<])+)\$",
    re.DOTALL,
)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Set the formulas of a page."""

    def put(part: re.Match[str]) -> str:
        kind = part.lastgroup
        if kind is None:
            return part[0]
        answer = katex(unescape(part[kind]), kind in ("display", "block"))
        if "error" in answer:
            log.warning("%s: %s", page.file.src_uri, answer["error"])
            return part[0]
        config.extra.setdefault("formulas", set()).add(answer["html"])
        return answer["html"]

    head, end, body = output.partition("</head>")
    return head + end + PARTS.sub(put, body)


def on_shutdown() -> None:
    """Let Node go."""
    if _node.cache_info().currsize:
        _node().communicate()
        _node.cache_clear()


@functools.cache
def katex(tex: str, display: bool) -> dict[str, str]:
    """Return a formula's `html`, or the `error` in it."""
    node = _node()
    assert node.stdin
    assert node.stdout
    print(json.dumps([tex, display]), file=node.stdin, flush=True)
    answer: dict[str, str] = json.loads(node.stdout.readline() or "{}")
    if not answer:
        raise PluginError("Node could not run KaTeX; run: make assets")
    return answer


def find_node() -> str:
    """Return the path of Node, which may be that of the virtual environment."""
    places = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    path = shutil.which("node", path=places)
    if path is None:
        raise PluginError("Node is not installed; run: make assets")
    return path


@functools.cache
def _node() -> subprocess.Popen[str]:
    """Start Node with the script that sets formulas."""
    command = [find_node(), str(Path(__file__).with_suffix(".mjs"))]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    )
