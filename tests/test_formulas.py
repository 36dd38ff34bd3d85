"""Formulas are set in the build: these, and nothing that only looks like one."""

import logging
import re
from html import unescape
from types import SimpleNamespace
from typing import Any, cast

import pytest

from docs.hooks import formulas

PAGE: Any = SimpleNamespace(file=SimpleNamespace(src_uri="papers/some2020.md"))


@pytest.fixture(scope="module", autouse=True)
def node():
    """Node, which is let go in the end."""
    yield
    formulas.on_shutdown()


def put(body: str) -> str:
    html = f"<html><head><title>$x$</title></head><body>{body}</body></html>"
    return formulas.on_post_page(html, PAGE, cast("Any", SimpleNamespace(extra={})))


def sources(html: str) -> list[str]:
    found = re.findall(r"<annotation encoding=\"application/x-tex\">(.*?)</annotation>", html, re.S)
    return [unescape(tex) for tex in found]


@pytest.mark.parametrize(
    ("text", "tex", "display"),
    [
        (r"<span>\(T^2\)</span>", "T^2", False),
        (r"<div>\[a &lt; b\]</div>", "a < b", True),
        (r"<p>so $p_T$ it is</p>", "p_T", False),
        ("<p>$$\na = b\n$$</p>", "\na = b\n", True),
        (r"<p>$\text{a \$ b}$</p>", r"\text{a \$ b}", False),
    ],
)
def test_every_kind_of_formula_is_set(text: str, tex: str, display: bool):
    html = put(text)
    assert sources(html) == [tex]
    assert ("katex-display" in html) == display


def test_several_stand_side_by_side():
    assert sources(put(r"<p>$a$, $$b$$, \(c\) and \[d\]</p>")) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "body",
    [
        "<pre><span>$a$</span></pre>",
        "<code>$a$</code>",
        "<script>f(`$a$`)</script>",
        '<img alt="$a$">',
        "<!-- $a$ > $b$ -->",
        "<svg><title>$a$</title></svg>",
        "<p>for $5</p>",
        "<p>for $5 or <b>more</b> than $6</p>",
    ],
)
def test_the_rest_is_left_as_it_is(body: str):
    assert body in put(body)


def test_the_head_is_left_as_it_is():
    assert "<title>$x$</title>" in put("<p>$x$</p>")


def test_a_wrong_formula_is_named_and_stays(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        html = put(r"<p>$\nosuch$</p>")
    assert r"$\nosuch$" in html
    (record,) = caplog.records
    assert "papers/some2020.md" in record.getMessage()
    assert r"\nosuch" in record.getMessage()
