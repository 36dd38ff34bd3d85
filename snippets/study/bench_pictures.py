"""The benchmark as a picture: shares of the best other package."""

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

MARKS = {
    "to run": ("o", VERMILLION, 7),
    "plain": ("s", BLUE, 5),
    "torchdistill": ("^", GREEN, 5),
    "TRL": ("D", GREEN, 4),
    "KD-Lib": ("v", PURPLE, 5),
    "Liger-Kernel": ("P", PURPLE, 5),
}
"""Marker, colour and size of each form."""

BOUNDS = {"memory": "bound: memory", "products": "bound: products"}

Cases = Sequence[Mapping[str, Any]]


def write(data: dict[str, Any], folder: Path) -> Path:
    """Draw the picture, and note its alternative text in `data`."""
    drawn = ratios(data["cases"])
    content, width = png(drawn)
    path = folder / "bench.png"
    path.write_bytes(content)
    data["picture"] = {
        "file": path.name,
        "alt": alternative_text(drawn),
        "width": width,
    }
    return path


def ratios(measured: Cases) -> Figure:
    """Draw time and memory of all forms, as shares of the rival's."""
    rows = [case for case in measured if case["ratios"]]
    title = _finding(rows)
    fig, axes = figure(
        title,
        alt=f"{title}. For each loss, time and memory of every form as"
        " a share of the best other one; the table has the numbers.",
        columns=2,
        size=(9.0, 1.9 + 0.36 * len(rows)),
    )
    for ax, measure in zip(axes, ("time", "memory"), strict=True):
        for y, case in enumerate(rows):
            _row(ax, y, case, measure)
        ax.axvline(1, color=GREY, lw=1, ls=":")
        ax.set(
            xscale="log",
            xlabel=f"{measure}, share of the best other",
            ylim=(len(rows) - 0.4, -0.6),
        )
        ax.set_yticks(range(len(rows)), [_name(case) for case in rows])
    axes[1].set_yticklabels([])
    found = {
        label: handle
        for ax in axes
        for handle, label in zip(
            *ax.get_legend_handles_labels(), strict=True
        )
    }
    fig.legend(
        found.values(),
        found.keys(),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        labelcolor=GREY,
    )
    return fig


def _row(
    ax: Axes, y: int, case: Mapping[str, Any], measure: str
) -> None:
    """Draw one case's marks, in units of its rival."""
    key = "milliseconds" if measure == "time" else "megabytes"
    sizes = {
        name: form[key][0] if measure == "time" else max(1, form[key])
        for name, form in case["forms"].items()
        if "absent" not in form
    }
    unit = sizes[case["rivals"][measure]]
    for name, size in sizes.items():
        marker, colour, points = MARKS[name]
        other = case["forms"][name]["agrees"] == "no"
        ax.plot(
            size / unit,
            y,
            marker,
            ms=points,
            color=colour,
            mfc="none" if other else colour,
            ls="none",
            label=None if other else name,
        )
    if measure == "time":
        for name, bound in case["bounds"].items():
            ax.plot(
                bound / unit, y, "|", ms=13, mew=2, color=GREY,
                ls="none", label=f"{BOUNDS[name]}",
            )  # fmt: skip


def _finding(rows: Cases) -> str:
    shares = [row["ratios"]["time"] for row in rows]
    faster = sum(share < 1 for share in shares)
    return (
        f"Our form to run is faster than the best other in {faster} of"
        f" {len(rows)} cases, at best {1 / min(shares):.1f} times"
    )


def _name(case: Mapping[str, Any]) -> str:
    return f"{case['name']}  {'×'.join(map(str, case['shape']))}"
