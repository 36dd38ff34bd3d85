"""The study's record: a table of all runs, a summary, pictures."""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import scikit_posthocs
from matplotlib.figure import Figure

from snippets.lab.plots import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    VERMILLION,
    alternative_text,
    figure,
    png,
)
from snippets.study import store
from snippets.study.grid import Grid
from snippets.study.methods import (
    HINTON,
    LEFT_OUT,
    METHODS,
    NONE,
    SMOOTHING,
)
from snippets.study.problems import PAIRS, REGIMES
from snippets.study.runs import Outcome, Run
from snippets.study.statistics import (
    Comparison,
    Estimate,
    Line,
    Ranking,
    lines,
    ranking,
)

CONTROLS = (NONE, SMOOTHING)
"""Methods without a teacher."""

TABLE, SUMMARY = "study.parquet", "study.json"


def write(
    grid: Grid, results: Mapping[Run, Outcome], folder: Path
) -> list[Path]:
    """Write the record of a finished study; returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    found = lines(results)
    ranks = ranking(found)
    store.write_table(folder / TABLE, results)
    figures = {"fidelity": fidelity_picture(found)}
    if any(line.over_none for line in found):
        figures["gains"] = gains_picture(found)
    if ranks:
        figures["ranks"] = ranks_picture(ranks)
    content = summary(grid, results, found, ranks)
    content["pictures"] = {
        name: _picture(drawn, folder / f"study-{name}.png")
        for name, drawn in figures.items()
    }
    (folder / SUMMARY).write_text(
        json.dumps(content, ensure_ascii=False, indent=1) + "\n",
        encoding="utf-8",
    )
    names = [p["file"] for p in content["pictures"].values()]
    return [folder / name for name in (TABLE, SUMMARY, *names)]


def _picture(drawn: Figure, path: Path) -> dict[str, Any]:
    """Write a picture, and say how a page shows it."""
    image, width = png(drawn)
    path.write_bytes(image)
    return {
        "file": path.name,
        "alt": alternative_text(drawn),
        "width": width,
    }


def summary(
    grid: Grid,
    results: Mapping[Run, Outcome],
    found: Sequence[Line],
    ranks: Ranking | None,
) -> dict[str, Any]:
    """Put what the page shows into plain numbers."""
    teachers = {
        pair: 100
        * fmean(
            [
                outcome.teacher_accuracy
                for run, outcome in results.items()
                if run.pair == pair and not run.search
            ]
        )
        for pair in grid.pairs
    }
    return {
        "data": grid.data,
        "seeds": grid.seeds,
        "epochs": grid.epochs,
        "runs": sum(grid.size()),
        "pairs": {p: PAIRS[p] for p in grid.pairs},
        "regimes": {r: REGIMES[r] for r in grid.regimes},
        "methods": {
            m: {"label": METHODS[m].label, "paper": METHODS[m].paper}
            for m in grid.methods
        },
        "left_out": LEFT_OUT,
        "teachers": {p: round(x, 1) for p, x in teachers.items()},
        "lines": [_line(line) for line in found],
        "ranks": ranks
        and {
            "cells": ranks.cells,
            "friedman": float(f"{ranks.friedman:.1g}"),
            "mean": {m: round(r, 2) for m, r in ranks.ranks.items()},
        },
        "answers": {
            regime: _answer([x for x in found if x.regime == regime])
            for regime in grid.regimes
        },
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "pair": line.pair,
        "regime": line.regime,
        "method": line.method,
        "weight": line.weight,
        "accuracy": _percent(line.accuracy),
        "agreement": _percent(line.agreement),
        "over_none": _comparison(line.over_none),
        "over_kd": _comparison(line.over_kd),
    }


def _answer(found: Sequence[Line]) -> dict[str, Any]:
    """Sum up a regime: what soft targets gain, and what beats what."""
    kd = [
        x.over_none.gain.mean
        for x in found
        if x.over_none and x.method == HINTON
    ]
    return {
        "kd": [round(x, 1) for x in (min(kd), max(kd))] if kd else None,
        "over_none": _counts([x.over_none for x in found]),
        "over_kd": _counts(
            [x.over_kd for x in found if x.method not in CONTROLS]
        ),
    }


def _counts(given: Sequence[Comparison | None]) -> dict[str, int]:
    """Count what gains and what loses beyond the noise."""
    compared = [c for c in given if c]
    return {
        "compared": len(compared),
        "better": sum(c.clear and c.gain.mean > 0 for c in compared),
        "worse": sum(c.clear and c.gain.mean < 0 for c in compared),
    }


def _percent(estimate: Estimate) -> list[float]:
    return [
        round(100 * estimate.mean, 1),
        round(100 * estimate.interval, 1),
    ]


def _comparison(found: Comparison | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "gain": round(found.gain.mean, 1),
        "interval": round(found.gain.interval, 1),
        "p": float(f"{found.p:.1g}"),
        "effect": round(found.effect, 1)
        if math.isfinite(found.effect)
        else None,
        "clear": found.clear,
    }


def gains_picture(found: Sequence[Line]) -> Figure:
    """Draw every method's gain over no distillation, cell by cell."""
    compared = [x for x in found if x.over_none]
    methods = [m for m in METHODS if m in {x.method for x in compared}]
    cells = list(dict.fromkeys((x.regime, x.pair) for x in compared))
    fig, ax = figure(
        "Points gained over no distillation; bold: beyond the noise",
        alt="A matrix of methods by regimes and pairs. Each cell shows"
        " how many points of accuracy the method gains over training"
        " without a teacher. The table below has the same numbers.",
        size=(1.6 + 0.62 * len(cells), 1.5 + 0.3 * len(methods)),
    )
    ax.grid(False)
    for line in compared:
        gain = line.over_none
        assert gain is not None
        x = cells.index((line.regime, line.pair))
        y = methods.index(line.method)
        size = gain.gain.mean
        ax.fill_between(
            [x - 0.5, x + 0.5],
            y - 0.5,
            y + 0.5,
            color=BLUE if size > 0 else VERMILLION,
            alpha=min(abs(size) / 15, 1) * 0.28,
            lw=0,
        )
        ax.text(
            x,
            y,
            f"{round(size, 1) + 0:+.1f}".replace("-", "−"),
            ha="center",
            va="center",
            fontsize=8,
            color=GREY,
            weight="bold" if gain.clear else "normal",
        )
    ax.set(
        xlim=(-0.5, len(cells) - 0.5), ylim=(len(methods) - 0.5, -0.5)
    )
    ax.set_yticks(
        range(len(methods)), [METHODS[m].label for m in methods]
    )
    ax.set_xticks(
        range(len(cells)),
        [
            f"{regime}\n{pair.replace('-', '→')}"
            for regime, pair in cells
        ],
        fontsize=7,
    )
    ax.tick_params(length=0)
    return fig


def fidelity_picture(found: Sequence[Line]) -> Figure:
    """Draw accuracy against agreement with the teacher."""
    regimes = list(dict.fromkeys(x.regime for x in found))
    fig, axes = figure(
        "Who agrees with the teacher is right more often",
        alt="Accuracy of each method in each pair against the share of"
        " test pictures on which student and teacher agree, one colour"
        " and marker a regime. The points lie along the diagonal.",
        size=(5.6, 4),
    )
    styles = zip(
        regimes,
        (BLUE, VERMILLION, GREEN, PURPLE),
        ("o", "s", "^", "D"),
        strict=False,
    )
    for regime, colour, marker in styles:
        own = [x for x in found if x.regime == regime]
        axes.plot(
            [100 * x.agreement.mean for x in own],
            [100 * x.accuracy.mean for x in own],
            marker,
            color=colour,
            ms=4,
            alpha=0.7,
            label=REGIMES[regime],
        )
    axes.legend(fontsize=8, labelcolor=GREY, frameon=False)
    axes.set(
        xlabel="agreement with the teacher, %",
        ylabel="test accuracy, %",
    )
    return fig


def ranks_picture(ranks: Ranking) -> Figure:
    """Draw the critical-difference diagram."""
    fig, ax = figure(
        "Mean rank over all cells; a bar joins what cannot be told apart",
        alt="Critical-difference diagram. Methods by mean rank, the"
        " best first: "
        + ", ".join(
            f"{METHODS[m].label} {rank:.1f}"
            for m, rank in ranks.ranks.items()
        )
        + ".",
        size=(7.4, 1.4 + 0.2 * len(ranks.ranks)),
    )
    ax.grid(False)
    ax.tick_params(colors=GREY)
    names = {m: METHODS[m].label for m in ranks.ranks}
    with warnings.catch_warnings():
        # The library writes into pandas frames of its own.
        warnings.simplefilter("ignore", FutureWarning)
        scikit_posthocs.critical_difference_diagram(
            {names[m]: rank for m, rank in ranks.ranks.items()},
            ranks.p_values.rename(index=names, columns=names),
            ax=ax,
            label_fmt_left="{label} {rank:.1f}  ",
            label_fmt_right="  {rank:.1f} {label}",
            text_h_margin=0.3,
            label_props={"size": 8},
            color_palette=dict.fromkeys(names.values(), GREY),
            marker_props={"color": BLUE},
            crossbar_props={"color": VERMILLION},
        )
    return fig
