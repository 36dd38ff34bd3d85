"""One letter, one meaning: the notes' tables of symbols against the page on notation.

A note keeps to a meaning if its table shares a word with the page's. Whose logits or probabilities
a letter stands for is not compared, nor what no table explains.
"""

import re

import pytest

from papers import catalog

PAPERS = catalog.load()
PAGE = (catalog.ROOT / "docs" / "notation.md").read_text()

# What says whose or how, and not what.
EMPTY = (
    "a all also an and are as at before by each first for from get gets had has have how in is it"
    " its last many minus no not note numbers of on one only or over own part parts says student"
    " such teacher that the their them they this to what where which with"
)
BASE = re.compile(r"(\\(?:hat|bar|mathcal) *)?\{?(\\[a-z]+|[A-Za-z]+)")


def rows(text):
    """Read the rows of the first table whose head starts with "Symbol"."""
    table = re.search(r"^\| Symbol \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [
        [cell.strip() for cell in row.strip("|").split(" | ")]
        for row in (table[1] if table else "").splitlines()
    ]


def symbols(cell):
    """Give the letters that a cell explains, without their indices and arguments."""
    for formula in re.findall(r"\$([^$]+)\$", cell):
        for symbol in re.split(r", *(?![^()]*\))", formula):
            if base := BASE.match(symbol):
                yield re.sub(r"[ {]", "", base[0])


def words(cell):
    """Give the stems of the words that carry a cell's meaning."""
    prose = re.sub(r"\$[^$]*\$|[,;]? *(which|the paper) writes.*|'s\b", " ", cell)
    return {word[:5] for word in re.findall(r"[a-z]+", prose.lower()) if word not in EMPTY.split()}


def page(text):
    """Read the page: the words of each symbol's meaning, and the notes with another one."""
    meanings, others = {}, {}
    for symbol, meaning, other in rows(text):
        explained = list(symbols(symbol))
        for part in re.split(r"(?=\$[^$]+\$: )", other):
            named = re.match(r"\$([^$]+)\$: ", part)
            for base in symbols(named[0]) if named else explained:
                keys = re.findall(r"papers/(\w+)\.md", part)
                others.setdefault(base, set()).update(keys)
        for base in explained:
            meanings.setdefault(base, set()).update(words(meaning))
    return meanings, others


def redefined(text, meanings):
    """Give the symbols whose meaning in a note shares no word with that on the page."""
    return {
        base
        for symbol, meaning, *_ in rows(text)
        for base in symbols(symbol)
        if base in meanings and meanings[base].isdisjoint(words(meaning))
    }


MEANINGS, OTHERS = page(PAGE)


@pytest.mark.parametrize("key", [key for key in PAPERS if PAPERS[key].status == "complete"])
class TestNotes:
    def test_a_symbol_means_what_the_page_says_or_is_listed_there(self, key):
        assert rows(PAPERS[key].body)
        listed = {base for base, keys in OTHERS.items() if key in keys}
        assert redefined(PAPERS[key].body, MEANINGS) <= listed

    def test_what_is_listed_is_used(self, key):
        formulas = " ".join(re.findall(r"\$+([^$]+)\$", PAPERS[key].body))
        letters = set(re.findall(r"\\[a-zA-Z]+|[A-Za-z]", formulas))
        assert {base for base, keys in OTHERS.items() if key in keys} <= letters


def test_the_page_explains_every_symbol():
    assert len(MEANINGS) > 20
    assert all(MEANINGS.values())


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("| $p$ | probabilities of the student | |", set()),
        ("| $p$ | pressure of the student | |", {"p"}),
        ("| $B$, $C_t$ | channels of the teacher; the paper writes classes | |", {"B", "C"}),
        ("| $\\hat y_i$ | a label | |", {"\\haty"}),
        ("| $LS_i$ | structure of a node | |", set()),
    ],
)
def test_another_meaning_is_found(row, found):
    note = f"| Symbol | Meaning | Shape |\n|---|---|---|\n{row}\n"
    assert redefined(note, MEANINGS) == found


def test_the_page_says_which_symbol_a_note_means_otherwise():
    row = "| $m$, $n$ | mask | $n$: nodes in [A](papers/a2000.md); rows in [B](papers/b2000.md) |"
    table = f"| Symbol | Meaning | Other |\n|---|---|---|\n{row}\n"
    assert page(table)[1] == {"n": {"a2000", "b2000"}, "m": set()}
