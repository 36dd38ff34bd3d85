"""The ledger: every claim and its verdict, harvested from the executed notebooks.

A verdict is written once, when a notebook runs, as a JSON bundle in the
output of the claim's cell. Nothing here computes or changes one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from papers.catalog import ROOT

CLAIM_MIME = "application/vnd.distillery.claim+json"
"""The type of a verdict among the outputs of a cell."""

VERDICTS = ("holds", "fails", "untested")
"""What a claim can be: reproduced here, not reproduced here, or not tested here."""


class LedgerError(Exception):
    """A notebook that cannot be read, with its path."""


class Verdict(BaseModel):
    """One claim of a paper, and what came out when it was tested."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paper: str
    """Key of the paper."""
    name: str
    """Name of the claim's function in the paper's script."""
    text: str
    """The claim, one sentence."""
    source: str
    """Where the paper makes it: section, equation, table."""
    expected: str
    """The paper's figure, or what the mathematics says."""
    measured: str
    """Ours."""
    verdict: Annotated[str, Field(pattern=f"^({'|'.join(VERDICTS)})$")]

    @property
    def page(self) -> str:
        """The claim's place on the site, relative to the root."""
        return f"notebooks/{self.paper}/#claim-{self.name}"


def harvest(keys: Iterable[str], root: Path = ROOT) -> dict[str, list[Verdict]]:
    """Read the verdicts of the papers `keys` from their notebooks.

    Returns:
        The verdicts by paper, in the order of the notebook. A paper without
        a notebook has none.

    Raises:
        LedgerError: naming the notebook that is not what the runner writes.
    """
    return {key: list(_verdicts(key, root)) for key in keys}


def counts(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Count how often each verdict was given."""
    given = [verdict.verdict for verdict in verdicts]
    return {verdict: given.count(verdict) for verdict in VERDICTS}


def _verdicts(key: str, root: Path) -> Iterator[Verdict]:
    path = root / "docs" / "notebooks" / f"{key}.ipynb"
    if not path.exists():
        return
    try:
        for output in _outputs(json.loads(path.read_text(encoding="utf-8"))):
            bundle = output.get("data", {}).get(CLAIM_MIME)
            if bundle:
                yield Verdict(paper=key, **bundle)
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise LedgerError(
            f"docs/notebooks/{path.name}: not a notebook of ours ({reason}); "
            f"write it again with: python -m snippets run {key} --force"
        ) from None


def _outputs(notebook: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for cell in notebook["cells"]:
        yield from cell.get("outputs", [])
