"""The atlas as pictures: two matrices, and a chart of exponents."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
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

MARKS: Mapping[str, tuple[str, str]] = {
    "works": ("✓", GREEN),
    "adapted": ("+", BLUE),
    "smaller": ("<", PURPLE),
    "larger": (">", PURPLE),
    "refused": ("✗", VERMILLION),
    "alone": ("✓", GREEN),
    "together": ("=", BLUE),
    "student": ("s", PURPLE),
    "changed": ("✗", VERMILLION),
    "unseen": ("–", GREY),
}
"""The mark and the colour of each cell."""

DOTS = {
    "batch": ("o", BLUE, 0.22),
    "features": ("s", VERMILLION, 0.0),
    "positions": ("^", GREEN, -0.22),
}
"""Marker, colour and height of each axis that grows."""

Rows = Sequence[Mapping[str, Any]]


def write(data: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the pictures, and note their alternative texts in `data`."""
    drawn = {
        "use": _use(data),
        "unchanged": _unchanged(data),
        "growth": _growth(data),
    }
    paths = []
    data["pictures"] = {}
    for name, fig in drawn.items():
        content, width = png(fig)
        path = folder / f"atlas-{name}.png"
        path.write_bytes(content)
        paths.append(path)
        data["pictures"][name] = {
            "file": path.name,
            "alt": alternative_text(fig),
            "width": width,
        }
    return paths


def _use(data: Mapping[str, Any]) -> Figure:
    rows = data["methods"]
    columns = data["columns"]
    headings = [
        f"other {name}" for name in columns["differences"].values()
    ] + list(columns["conditions"].values())
    cells = [
        [*row["differences"].values(), *row["conditions"].values()]
        for row in rows
    ]
    width = [row["differences"]["width"] for row in rows]
    met = sum(how not in ("unseen", "refused") for how in width)
    seen = sum(how != "unseen" for how in width)
    boxed = sum(r["conditions"]["black_box"] == "works" for r in rows)
    title = (
        f"{met} of the {seen} losses that see widths can bridge them;"
        f" {boxed} of {len(rows)} need only the teacher's output"
    )
    return _matrix(title, rows, headings, cells)


def _unchanged(data: Mapping[str, Any]) -> Figure:
    rows = data["methods"]
    cells = [list(row["unchanged"].values()) for row in rows]
    turned = [row["unchanged"]["rotation"] for row in rows]
    title = (
        f"{turned.count('alone')} losses ignore a rotation of the"
        f" student, {turned.count('together')} more one of both sides"
    )
    return _matrix(
        title, rows, list(data["columns"]["unchanged"].values()), cells
    )


def _matrix(
    title: str,
    rows: Rows,
    headings: Sequence[str],
    cells: Sequence[Sequence[str]],
) -> Figure:
    """Draw one mark a cell, names to the left, headings on top."""
    fig, ax = figure(
        title,
        alt=f"{title}. The table below has the same cells.",
        size=(3.2 + 0.46 * len(headings), 1.9 + 0.24 * len(rows)),
    )
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            mark, colour = MARKS[cell]
            ax.text(
                x, y, mark, color=colour, ha="center", va="center",
                weight="bold", size=12,
            )  # fmt: skip
    ax.set_xticks(
        range(len(headings)), headings, rotation=55, ha="left"
    )
    ax.set(xlim=(-0.5, len(headings) - 0.5))
    _names(ax, rows)
    return fig


def _growth(data: Mapping[str, Any]) -> Figure:
    rows = data["methods"]
    measures = {"time": "time", "memory": "peak memory"}
    most = {
        name: max(
            (k, f"{r['paper']}.{r['name']}")
            for r in rows
            for k in r["growth"][name].values()
            if k is not None
        )
        for name in measures
    }
    title = (
        f"In memory, {most['memory'][1]} grows fastest:"
        f" as n to the power of {most['memory'][0]}"
    )
    fig, axes = figure(
        title,
        alt=f"{title}. For each loss, the exponents with which time and"
        " peak memory grow with batch, features and positions; the"
        " table below has the numbers.",
        columns=2,
        size=(8.6, 1.6 + 0.24 * len(rows)),
    )
    for ax, (measure, name) in zip(axes, measures.items(), strict=True):
        for axis, (marker, colour, height) in DOTS.items():
            dots = [
                (row["growth"][measure][axis], y - height)
                for y, row in enumerate(rows)
                if row["growth"][measure][axis] is not None
            ]
            xs, ys = zip(*dots, strict=True)
            ax.plot(xs, ys, marker, ms=4, color=colour, label=axis)
        ax.set(xlabel=f"exponent of the {name}", xlim=(0, None))
        _names(ax, rows)
        ax.xaxis.set_ticks_position("bottom")
    axes[1].set_yticklabels([])
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(
        handles,
        labels,
        loc="outside lower right",
        ncols=3,
        frameon=False,
        labelcolor=GREY,
    )
    return fig


def _names(ax: Axes, rows: Rows) -> None:
    """Write the methods' names from above, and the headings on top."""
    names = [f"{row['paper']}  {row['name']}" for row in rows]
    ax.set_yticks(range(len(rows)), names)
    ax.set(ylim=(len(rows) - 0.4, -0.6))
    ax.xaxis.set_ticks_position("top")
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
