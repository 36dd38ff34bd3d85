"""Claims that run: a function tests a claim and returns its evidence.

Importing a script only defines its claims. Running it, as a script
or as a notebook, calls each one where it stands and shows the verdict
below: a card and, if there is one, a plot.
"""

import functools
import html
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure

from snippets.lab.plots import alternative_text, png

# The ledger finds a verdict by this type (papers/ledger.py reads it).
CLAIM_MIME = "application/vnd.distillery.claim+json"

MARKS = {
    "holds": "✓ holds",
    "fails": "✗ does not reproduce here",
    "untested": "– not tested here",
}


class UnexpectedVerdictError(Exception):
    """A claim came out otherwise than its script declares."""


@dataclass(frozen=True)
class Evidence:
    """What a claim's test found.

    Attributes:
        holds: The verdict; None for a claim that cannot be tested
            here, as where it needs the paper's own data.
        measured: Our figure, rounded so that every CPU prints it.
        expected: The paper's figure, or what the mathematics says.
        figure: A plot from `snippets.lab.plots.figure`.
    """

    holds: bool | None
    measured: str
    expected: str
    figure: Figure | None = None

    def __post_init__(self) -> None:
        # NumPy's and torch's booleans are no JSON; Python's are.
        if self.holds is not None:
            object.__setattr__(self, "holds", bool(self.holds))

    @property
    def verdict(self) -> str:
        """`holds`, `fails` or `untested`."""
        if self.holds is None:
            return "untested"
        return "holds" if self.holds else "fails"


@dataclass(frozen=True)
class Claim:
    """What a script says about a claim before it is tested."""

    name: str
    text: str
    source: str
    expect: bool


def claim(
    text: str, *, source: str, expect: bool = True
) -> Callable[[Callable[..., Evidence]], Callable[..., Evidence]]:
    """Declare that the function below tests the claim `text`.

    Args:
        text: The claim in one sentence; `$…$` is mathematics.
        source: Where the paper makes it: section, equation, table.
        expect: False for a claim found *not* to reproduce here. It is
            published as failing, and noticed if it ever holds.

    Returns:
        A decorator. The function keeps its signature, so that tests
        can call it with smaller settings; its `claim` attribute holds
        the declaration.

    Raises:
        UnexpectedVerdictError: when run, if not as expected.
        TypeError: when called, if no `Evidence` comes back.
    """

    def decorate(
        test: Callable[..., Evidence],
    ) -> Callable[..., Evidence]:
        declared = Claim(test.__name__, text, source, expect)

        @functools.wraps(test)
        def checked(*args: Any, **kwargs: Any) -> Evidence:
            evidence = test(*args, **kwargs)
            if not isinstance(evidence, Evidence):
                raise TypeError(
                    f"claim {test.__name__} returned"
                    f" {type(evidence).__name__}, expected Evidence"
                )
            return evidence

        checked.claim = declared  # type: ignore[attr-defined]
        if _runs_as_main(test):
            with _one_thread():
                _show_verdict(declared, checked())
        return checked

    return decorate


def show(
    illustrate: Callable[..., Figure | str],
) -> Callable[..., Figure | str]:
    """Declare an illustration: a figure or text without a verdict."""
    if _runs_as_main(illustrate):
        with _one_thread():
            shown = illustrate()
        if isinstance(shown, Figure):
            _show_figure(shown)
        elif isinstance(shown, str):
            print(shown)
        else:
            raise TypeError(
                f"illustration {illustrate.__name__} returned"
                f" {type(shown).__name__}, expected a figure or text"
            )
    return illustrate


def claims_of(module: object) -> list[Claim]:
    """List the claims that a script declares, in its order."""
    return [
        value.claim
        for value in vars(module).values()
        if isinstance(getattr(value, "claim", None), Claim)
    ]


def _runs_as_main(function: Callable[..., Any]) -> bool:
    return function.__globals__["__name__"] == "__main__"


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sum in one order on every machine: threads split the sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _show_verdict(declared: Claim, evidence: Evidence) -> None:
    _display(_card(declared, evidence))
    if evidence.figure is not None:
        _show_figure(evidence.figure)
    if evidence.holds not in (None, declared.expect):
        raise UnexpectedVerdictError(
            f"claim {declared.name}: declared with"
            f" expect={declared.expect}, but it {evidence.verdict}:"
            f" {evidence.measured}"
        )


def _card(declared: Claim, evidence: Evidence) -> "_Output":
    mark = MARKS[evidence.verdict]
    bundle = {
        "name": declared.name,
        "text": declared.text,
        "source": declared.source,
        "expected": evidence.expected,
        "measured": evidence.measured,
        "verdict": evidence.verdict,
    }
    plain = (
        f"{mark}: {declared.text} ({declared.source})\n"
        f"  expected: {evidence.expected}\n"
        f"  measured: {evidence.measured}"
    )
    safe = {name: html.escape(text) for name, text in bundle.items()}
    card = (
        f'<div class="claim claim--{evidence.verdict}"'
        f' id="claim-{declared.name}">\n'
        f'<p><strong class="claim__verdict">{mark}</strong>'
        f" {safe['text']} <cite>{safe['source']}</cite></p>\n"
        f"<dl><dt>Expected</dt><dd>{safe['expected']}</dd>"
        f"<dt>Measured</dt><dd>{safe['measured']}</dd></dl>\n</div>"
    )
    return _Output(
        {"text/plain": plain, "text/html": card, CLAIM_MIME: bundle}
    )


def _show_figure(figure: Figure) -> None:
    image, width = png(figure)
    alt = alternative_text(figure)
    _display(
        _Output(
            {"text/plain": f"[figure] {alt}", "image/png": image},
            {"image/png": {"width": width, "alt": alt}},
        )
    )


class _Output:
    """A bundle that Jupyter shows richly and a terminal as text."""

    def __init__(
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.data = data
        self.metadata = metadata or {}

    def __repr__(self) -> str:
        return str(self.data["text/plain"])

    def _repr_mimebundle_(
        self, **_: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.data, self.metadata


def _display(output: _Output) -> None:
    # Imported late: whoever only wants a loss needs no IPython.
    from IPython.display import display

    display(output)
