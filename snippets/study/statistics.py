"""What the results say: intervals, paired tests, ranks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import scikit_posthocs
from scipy import stats

from snippets.study.methods import HINTON, METHODS, NONE
from snippets.study.problems import PAIRS, REGIMES
from snippets.study.runs import Outcome, Run

LEVEL = 0.05
"""Of all tests, after correction."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and half of its 95 % interval."""

    mean: float
    interval: float


@dataclass(frozen=True)
class Comparison:
    """What a method gains over another, seed by seed, in points.

    `p` is that of the paired t-test, after Holm's correction for all
    methods of the cell. `effect` is the gain in standard deviations
    of the other method's seeds.
    """

    gain: Estimate
    p: float
    effect: float

    @property
    def clear(self) -> bool:
        """Is it beyond the noise?"""
        return self.p < LEVEL


@dataclass(frozen=True)
class Line:
    """A method in a cell."""

    pair: str
    regime: str
    method: str
    weight: float
    accuracy: Estimate
    agreement: Estimate
    over_none: Comparison | None
    over_kd: Comparison | None


@dataclass(frozen=True)
class Ranking:
    """Mean ranks over all cells, 1 being the best.

    `friedman` is the p-value of the test that all methods are alike,
    `same` the pairs that Nemenyi's test cannot tell apart.
    """

    ranks: Mapping[str, float]
    cells: int
    friedman: float
    p_values: pd.DataFrame


def table(results: Mapping[Run, Outcome]) -> pd.DataFrame:
    """Put the final runs into a table, one row each."""
    return pd.DataFrame(
        [
            {**asdict(run), **asdict(outcome)}
            for run, outcome in results.items()
            if not run.search
        ]
    )


def estimate(values: Sequence[float]) -> Estimate:
    """Average over seeds; Student's t gives the interval."""
    n = len(values)
    error = float(np.std(values, ddof=1)) / math.sqrt(n)
    return Estimate(
        float(np.mean(values)),
        float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * error,
    )


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct p-values for being many (Holm, 1979)."""
    adjusted, least = {}, 0.0
    ordered = sorted(p_values, key=lambda name: p_values[name])
    for position, name in enumerate(ordered):
        factor = len(ordered) - position
        least = max(least, min(1.0, factor * p_values[name]))
        adjusted[name] = least
    return adjusted


def comparisons(
    accuracy: pd.DataFrame, other: str
) -> dict[str, Comparison]:
    """Compare every method of a cell (seeds × methods) with `other`."""
    if other not in accuracy:
        return {}
    gains = {
        method: 100 * (accuracy[method] - accuracy[other])
        for method in accuracy.columns
        if method != other
    }
    p_values = {
        method: _paired_p(gain.to_numpy())
        for method, gain in gains.items()
    }
    noise = 100 * float(accuracy[other].std())
    corrected = holm(p_values)
    return {
        method: Comparison(
            gain=estimate(gain.to_list()),
            p=corrected[method],
            effect=float(gain.mean()) / noise if noise else math.inf,
        )
        for method, gain in gains.items()
    }


def _paired_p(gain: np.ndarray[Any, Any]) -> float:
    if np.ptp(gain) == 0:  # no scatter, no t
        return 1.0 if gain[0] == 0 else 0.0
    return float(stats.ttest_1samp(gain, 0).pvalue)


def lines(results: Mapping[Run, Outcome]) -> list[Line]:
    """Summarise every method in every cell."""
    found = []
    for (pair, regime), cell in table(results).groupby(
        ["pair", "regime"], sort=False
    ):
        accuracy = cell.pivot_table(
            index="seed", columns="method", values="test_accuracy"
        )
        over_none = comparisons(accuracy, NONE)
        over_kd = comparisons(accuracy, HINTON)
        for method, rows in cell.groupby("method", sort=False):
            found.append(
                Line(
                    pair=pair,
                    regime=regime,
                    method=method,
                    weight=float(rows["weight"].iloc[0]),
                    accuracy=estimate(rows["test_accuracy"].to_list()),
                    agreement=estimate(rows["agreement"].to_list()),
                    over_none=over_none.get(method),
                    over_kd=over_kd.get(method),
                )
            )
    order = [*PAIRS], [*REGIMES], [*METHODS]
    return sorted(
        found,
        key=lambda line: (
            order[1].index(line.regime),
            order[0].index(line.pair),
            order[2].index(line.method),
        ),
    )


def ranking(found: Sequence[Line]) -> Ranking | None:
    """Rank the methods that fit every pair, cell by cell.

    Returns:
        The ranks; None for fewer than three methods or two cells,
        where Friedman's test is not defined.
    """
    means = pd.DataFrame(
        [
            (f"{x.pair} {x.regime}", x.method, x.accuracy.mean)
            for x in found
        ],
        columns=["cell", "method", "accuracy"],
    ).pivot(index="cell", columns="method", values="accuracy")
    means = means.dropna(axis="columns")
    if means.shape[0] < 2 or means.shape[1] < 3:
        return None
    ranks = means.rank(axis="columns", ascending=False).mean()
    return Ranking(
        ranks=ranks.sort_values().to_dict(),
        cells=len(means),
        friedman=float(
            stats.friedmanchisquare(
                *(means[method] for method in means)
            ).pvalue
        ),
        p_values=scikit_posthocs.posthoc_nemenyi_friedman(means),
    )
