"""One plotting style, readable on a white and on a dark page.

Figures have no background of their own. Text and axes are a mid grey,
and the colours, from Okabe and Ito's palette for colour-blind readers,
keep a contrast of at least 3:1 on both grounds.
"""

import io
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
GREY = "#808080"

PIXELS_PER_INCH = 100
"""Size of a figure on the page; the file has twice as many."""

STYLE: Any = {
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.prop_cycle": cycler(color=[BLUE, VERMILLION, GREEN, PURPLE]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": GREY,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.titlesize": "medium",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.alpha": 0.25,
    "grid.color": GREY,
    "legend.frameon": False,
    "legend.labelcolor": GREY,
    "lines.linewidth": 1.8,
    "text.color": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
}


def figure(
    title: str,
    *,
    alt: str,
    columns: int = 1,
    size: tuple[float, float] = (6.4, 3.4),
) -> tuple[Figure, Any]:
    """Start a figure in the common style.

    Args:
        title: The finding, in a few words.
        alt: What the picture shows, for readers who cannot see it.
        columns: How many axes stand side by side.
        size: Width and height in inches.

    Returns:
        The figure and its axes: one `Axes`, or an array of them.
    """
    with matplotlib.rc_context(STYLE):
        # Not pyplot: it would keep global state and show figures twice.
        fig = Figure(figsize=size, layout="constrained")
        fig.set_label(alt)
        axes = fig.subplots(1, columns)
        for ax in np.atleast_1d(axes):
            ax.grid(True)
        fig.suptitle(title, color=GREY, x=0.01, ha="left")
    return fig, axes


def label(
    ax: Axes,
    x: float,
    y: float,
    text: str,
    colour: str,
    *,
    offset: tuple[float, float] = (6, 0),
    **options: Any,
) -> None:
    """Write `text` beside the point (x, y), in its line's colour."""
    ax.annotate(
        text,
        (x, y),
        xytext=offset,
        textcoords="offset points",
        color=colour,
        **{"va": "center", **options},
    )


def strips(
    ax: Axes, rows: Mapping[str, Sequence[float]], *colours: str
) -> None:
    """Draw rows of dots with a bar at each mean, and a line at 0.

    Args:
        ax: Where to draw.
        rows: The values of each row, by its name, from below.
        colours: One for each row.
    """
    for row, (values, colour) in enumerate(
        zip(rows.values(), colours, strict=True)
    ):
        ax.plot(values, [row] * len(values), "o", color=colour)
        ax.plot(
            [mean(values)] * 2, [row - 0.25, row + 0.25], color=GREY
        )
    ax.axvline(0, color=GREY, lw=1, ls=":")
    ax.set_yticks(range(len(rows)), rows)
    ax.set(ylim=(-0.6, len(rows) - 0.4))


def alternative_text(figure: Figure) -> str:
    """Return the alternative text that `figure` was made with."""
    text = figure.get_label()
    if not text:
        raise ValueError("the figure has no alternative text")
    return str(text)


def png(figure: Figure) -> tuple[bytes, int]:
    """Draw `figure`: the bytes of a PNG and its width on the page.

    The bytes are the same at every run: fixed resolution, no date and
    no version. A palette of 128 colours keeps the file small.
    """
    drawn = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(
            drawn,
            format="png",
            dpi=2 * PIXELS_PER_INCH,
            transparent=True,
            metadata={"Software": None},
        )
    small = io.BytesIO()
    image = Image.open(drawn).quantize(
        128, method=Image.Quantize.FASTOCTREE
    )
    image.save(small, format="png", optimize=True)
    return small.getvalue(), image.width // 2
