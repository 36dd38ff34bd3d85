"""The grid: which runs make a study, and the search before them."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from snippets.study.methods import METHODS
from snippets.study.problems import DATA, PAIRS, REGIMES
from snippets.study.runs import Cell, Outcome, Run, StudyError

SEARCH_SEEDS = (1000, 1001)
"""Seeds of the search; the final runs use others, from 0."""

Entry = tuple[Cell, str]
"""A method in a cell."""

Results = Mapping[Run, Outcome]


@dataclass(frozen=True)
class Grid:
    """Methods, pairs and regimes, each with each, on some seeds.

    Raises:
        StudyError: a name that is not known, fewer than two seeds.
    """

    methods: Sequence[str] = tuple(METHODS)
    pairs: Sequence[str] = tuple(PAIRS)
    regimes: Sequence[str] = tuple(REGIMES)
    seeds: int = 10
    data: str = "digits"
    epochs: int = 10

    def __post_init__(self) -> None:
        for what, given, known in (
            ("method", self.methods, METHODS),
            ("pair", self.pairs, PAIRS),
            ("regime", self.regimes, REGIMES),
            ("data set", [self.data], DATA),
        ):
            unknown = [name for name in given if name not in known]
            if unknown:
                raise StudyError(
                    f"no {what} {', '.join(unknown)}; there are:"
                    f" {', '.join(known)}"
                )
        if self.seeds < 2:
            raise StudyError(f"seeds must be at least 2: {self.seeds}")
        if self.epochs < 1:
            raise StudyError(
                f"epochs must be at least 1: {self.epochs}"
            )

    def entries(self) -> list[Entry]:
        """Every cell with every method that fits its pair."""
        return [
            (Cell(self.data, pair, regime, self.epochs), method)
            for pair, regime, method in itertools.product(
                self.pairs, self.regimes, self.methods
            )
            if METHODS[method].fits(pair)
        ]

    def searches(self) -> list[Run]:
        """The runs that choose the weights, the same for each method.

        A method with one weight needs none.
        """
        return [
            _run(entry, weight, seed, search=True)
            for entry in self.entries()
            if len(METHODS[entry[1]].weights) > 1
            for weight in METHODS[entry[1]].weights
            for seed in SEARCH_SEEDS
        ]

    def finals(self, found: Results) -> list[Run]:
        """The runs that are compared, with the weights the search found."""
        chosen = best_weights(found)
        return [
            _run(entry, weight, seed, search=False)
            for entry in self.entries()
            for weight in [
                chosen.get(entry, METHODS[entry[1]].weights[0])
            ]
            for seed in range(self.seeds)
        ]

    def size(self) -> tuple[int, int]:
        """Count the runs of the search, and those that are compared."""
        return len(self.searches()), len(self.entries()) * self.seeds


QUICK = Grid(
    methods=("none", "kd", "hint", "kd+hint"),
    pairs=("mlp-mlp", "cnn-mlp"),
    regimes=("all", "few"),
    seeds=3,
)
"""A study of minutes, to see that all is in order."""


def best_weights(found: Results) -> dict[Entry, float]:
    """Choose by mean validation accuracy; the smaller weight of equals."""
    tried: dict[Entry, dict[float, list[float]]] = {}
    for run, outcome in found.items():
        if run.search:
            weights = tried.setdefault((run.cell, run.method), {})
            accuracies = weights.setdefault(run.weight, [])
            accuracies.append(outcome.valid_accuracy)
    return {
        entry: min(weights, key=lambda w: (-fmean(weights[w]), w))
        for entry, weights in tried.items()
    }


def _run(
    entry: Entry, weight: float, seed: int, *, search: bool
) -> Run:
    cell, method = entry
    return Run(
        **asdict(cell),
        method=method,
        weight=weight,
        seed=seed,
        search=search,
    )
