"""The interactive figures: Vega-Lite specs, and stills for print.

`write` makes `<name>.json` and `<name>.png` of each figure. All numbers
come from the papers' own losses. Where a slider has too many positions
for a table, the spec repeats the formula as a Vega expression; a test
compares what a browser then computes with the loss.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import torch
from matplotlib.figure import Figure
from scipy.optimize import minimize
from torch import Tensor

from snippets import hinton2015, park2019, phuong2019, romero2015
from snippets.lab.data import digits, seeded
from snippets.lab.divergence import kl_divergence
from snippets.lab.models import mlp
from snippets.lab.plots import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    VERMILLION,
    alternative_text,
    figure,
    label,
    png,
)
from snippets.lab.train import fit_classifier

WIDTH = 260
"""Of a panel, in pixels: it fits a telephone, and two fit a page."""

DIGITS = 6
"""To how many significant digits numbers are written."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Interactive:
    """A figure: its live chart, and the still that replaces it."""

    title: str
    caption: str
    chart: alt.ConcatChart
    still: Figure


def write(folder: Path) -> list[Path]:
    """Compute every figure, and write its spec and its still."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, make in FIGURES.items():
        drawn = make()
        content, width = png(drawn.still)
        picture = folder / f"{name}.png"
        picture.write_bytes(content)
        path = folder / f"{name}.json"
        text = json.dumps(spec(drawn, width), ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        written += [path, picture]
    return written


def spec(drawn: Interactive, width: int) -> dict[str, Any]:
    """Return the Vega-Lite spec, its colours of text left to the page.

    Args:
        drawn: The figure.
        width: The width of its still, in pixels.
    """
    with alt.data_transformers.enable(consolidate_datasets=False):
        found: dict[str, Any] = drawn.chart.to_dict()
    del found["$schema"], found["config"]
    return {
        "description": alternative_text(drawn.still),
        "usermeta": {
            "title": drawn.title,
            "caption": drawn.caption,
            "width": width,
        },
        **_rounded(found),
    }


def _rounded(part: Any) -> Any:
    """Round every number, so that all machines write the same."""
    if isinstance(part, float):
        return float(f"{part:.{DIGITS}g}")
    if isinstance(part, list):
        return [_rounded(item) for item in part]
    if isinstance(part, dict):
        return {name: _rounded(item) for name, item in part.items()}
    return part


# Parts that the figures share


def _data(rows: Rows) -> alt.Data:
    return alt.Data(values=rows)


def _slider(
    name: str, words: str, low: float, high: float, step: float,
    value: float,
) -> alt.Parameter:  # fmt: skip
    """Make a slider: a native input, so it works from the keyboard."""
    bind = alt.binding_range(min=low, max=high, step=step, name=words)
    return alt.param(name=name, value=value, bind=bind)


def _says(chart: alt.Chart, sentence: str) -> alt.Chart:
    """Describe the state in words: an expression, on one unseen point.

    The page prints these descriptions below the figure.
    """
    return (
        chart.mark_point(opacity=0)
        .transform_calculate(says=sentence)
        .encode(x=alt.value(0), y=alt.value(0), description="says:N")
        .properties(name="says")
    )


def _colour(
    field: str, colours: Mapping[str, str], **options: Any
) -> alt.Color:
    scale = alt.Scale(
        domain=list(colours), range=list(colours.values())
    )
    legend = alt.Legend(orient="top", title=None)
    return alt.Color(field, scale=scale, legend=legend, **options)


def _joined(*panels: Any, params: Sequence[Any]) -> alt.ConcatChart:
    """Put panels side by side under common sliders."""
    return (
        alt.concat(*panels, columns=2, align="none", spacing=24)
        .resolve_scale(color="independent")
        .resolve_legend(color="independent")
        .add_params(*params)
    )


# A temperature over soft targets (Hinton et al. 2015)

TEMPERATURES = [1 + step / 2 for step in range(39)]
"""From 1 to 20, as the slider has them."""


def logits() -> tuple[list[str], Tensor, Tensor]:
    """Choose three test images: names, teacher's, student's logits.

    They are the right answer of which the teacher is surest, the one
    of which it is least sure, and its surest wrong one.
    """
    test, train = digits().test, digits().train
    teacher = hinton2015.trained_teacher()
    generator = seeded(1)
    student = fit_classifier(
        mlp(64, 16, 10, generator=generator),
        train.images,
        train.labels,
        generator=generator,
        epochs=10,
    )
    with torch.no_grad():
        v, z = teacher(test.images), student(test.images)
    sure, answers = v.softmax(-1).max(-1)
    right = answers == test.labels
    unsure = int(torch.where(right, sure, 2.0).argmin())
    surest = int(torch.where(right, sure, -1.0).argmax())
    wrong = int(torch.where(right, -1.0, sure).argmax())
    names = [
        f"a {test.labels[surest]}, right and sure",
        f"a {test.labels[unsure]}, right but unsure",
        f"a {test.labels[wrong]}, taken for a {answers[wrong]}",
    ]
    chosen = [surest, unsure, wrong]
    return names, v[chosen], z[chosen]


def temperature() -> Interactive:
    """Soften a teacher's and a student's answer."""
    names, v, z = logits()
    shown: Rows = [
        {
            "image": name,
            "class": c,
            "teacher": v[i, c].item(),
            "student": z[i, c].item(),
        }
        for i, name in enumerate(names)
        for c in range(10)
    ]
    losses: Rows = [
        _at_temperature(name, v[i : i + 1], z[i : i + 1], t)
        for i, name in enumerate(names)
        for t in TEMPERATURES
    ]
    chosen = "datum.image === image"
    bars = (
        alt.Chart(_data(shown))
        .mark_bar()
        .transform_filter(chosen)
        .transform_fold(["teacher", "student"], as_=["who", "logit"])
        .transform_calculate(e="exp(datum.logit / T)")
        .transform_joinaggregate(sum="sum(e)", groupby=["who"])
        .transform_calculate(p="datum.e / datum.sum")
        .encode(
            x=alt.X("class:O", axis=alt.Axis(labelAngle=0)),
            xOffset=alt.XOffset("who:N", sort=["teacher", "student"]),
            y=alt.Y(
                "p:Q",
                title="probability",
                scale=alt.Scale(domain=[0, 1]),
            ),
            color=_colour(
                "who:N", {"teacher": BLUE, "student": VERMILLION}
            ),
        )
        .properties(width=WIDTH, height=200, name="bars")
    )
    base = alt.Chart(_data(losses)).transform_filter(chosen)
    folded = base.transform_fold(
        ["T² · KL", "KL"], as_=["loss", "value"]
    ).encode(
        x=alt.X(
            "T:Q", title="temperature T", axis=alt.Axis(tickCount=5)
        ),
        y=alt.Y(
            "value:Q",
            title="loss",
            scale=alt.Scale(type="log"),
            axis=alt.Axis(tickCount=4, format="~g"),
        ),
        color=_colour("loss:N", {"T² · KL": GREEN, "KL": PURPLE}),
    )
    here = "abs(datum.T - T) < 0.01"
    point = folded.mark_point(filled=True, size=90, opacity=1)
    curves = alt.layer(
        folded.mark_line(),
        point.transform_filter(here).properties(name="point"),
        _says(
            base.transform_filter(here),
            "'At T = ' + T + ' the teacher gives class ' + datum.first"
            " + ' a probability of ' + format(datum.top, '.3f')"
            " + ', and class ' + datum.second + ' ' +"
            " format(datum.next, '.3f') + '. The divergence is ' +"
            " format(datum.KL, '.3g') + '; times T², ' +"
            " format(datum['T² · KL'], '.3g') + '.'",
        ),
    ).properties(width=WIDTH, height=200)
    image = alt.param(
        name="image",
        value=names[0],
        bind=alt.binding_select(options=names, name="image "),
    )
    slider = _slider("T", "temperature T ", 1, 20, 0.5, 4)
    return Interactive(
        title="Soft targets",
        caption="Ten probabilities of a teacher and of a small student"
        " for one image of a digit, and the divergence between them.",
        chart=_joined(bars, curves, params=(image, slider)),
        still=_temperature_still(v[0], z[0]),
    )


def _at_temperature(
    image: str, v: Tensor, z: Tensor, t: float
) -> dict[str, Any]:
    loss = hinton2015.kd_loss(z, v, temperature=t).item()
    top = (v[0] / t).softmax(-1).topk(2)
    first, second = top.indices.tolist()
    return {
        "image": image,
        "T": t,
        "T² · KL": loss,
        "KL": loss / t**2,
        "first": first,
        "top": top.values[0].item(),
        "second": second,
        "next": top.values[1].item(),
    }


def _temperature_still(v: Tensor, z: Tensor) -> Figure:
    fig, axes = figure(
        "The higher the temperature, the more the wrong classes show",
        alt="Bars: the probabilities that a teacher and a student give"
        " to the ten digits for one image. At temperature 1 one bar is"
        " tall; at 4 the others have grown; at 20 the tall one hardly"
        " stands out.",
        columns=3,
        size=(7.6, 2.7),
    )
    for ax, t in zip(axes, (1, 4, 20), strict=True):
        for side, (who, x) in enumerate(
            (("teacher", v), ("student", z))
        ):
            p = (x / t).softmax(-1).tolist()
            places = [c + 0.4 * side - 0.2 for c in range(10)]
            ax.bar(places, p, 0.4, label=who,
                   color=(BLUE, VERMILLION)[side])  # fmt: skip
        ax.set(title=f"T = {t}", ylim=(0, 1), xlabel="class")
        ax.set_xticks(range(10))
    axes[0].set(ylabel="probability")
    axes[2].legend(frameon=False, labelcolor=GREY)
    return fig


# The student of n inputs (Phuong and Lampert 2019)

INPUTS = range(1, 13)
DOUBLINGS = range(14)
"""Steps of gradient descent, as powers of two."""


@functools.cache
def students() -> Rows:
    """Follow gradient descent from each number of inputs.

    Each row is a student: *along* the teacher, of length 1, *across*
    it, and its angle to it in degrees. The row without a step is the
    end, by `closed_form_student`.
    """
    rows: Rows = []
    for n in INPUTS:
        inputs, teacher = phuong2019.problem(n)
        labels = phuong2019.soft_labels(inputs, teacher)
        steps = 2 ** max(DOUBLINGS)
        path = phuong2019.descend(inputs, labels, steps=steps)
        end = phuong2019.closed_form_student(inputs, teacher)
        rows.append({"n": n, "k": None, **_place(end, teacher)})
        rows += [
            {"n": n, "k": k, **_place(path[2**k], teacher)}
            for k in DOUBLINGS
        ]
    return rows


def _place(student: Tensor, teacher: Tensor) -> dict[str, float]:
    along = student @ teacher
    angle = phuong2019.angle(student, teacher).rad2deg()
    across = (student - along * teacher).norm()
    return {
        "along": round(along.item(), 6),
        "across": round(across.item(), 6),
        "angle": round(angle.item(), 6),
    }


def projection() -> Interactive:
    """Add inputs, and follow a student to the projection."""
    rows = students()
    ends = [row for row in rows if row["k"] is None]
    walks = [row for row in rows if row["k"] is not None]
    walks += [
        {"n": n, "k": -1, "along": 0.0, "across": 0.0} for n in INPUTS
    ]
    arc: Rows = [
        {
            "along": (1 + math.cos(a)) / 2,
            "across": math.sin(a) / 2,
            "order": i,
        }
        for i, a in enumerate(torch.linspace(0, math.pi, 61).tolist())
    ]
    x = alt.X(
        "along:Q",
        title="along the teacher",
        scale=alt.Scale(domain=[0, 1.1]),
        axis=alt.Axis(tickCount=5),
    )
    y = alt.Y(
        "across:Q",
        title="across it",
        scale=alt.Scale(domain=[0, 0.7]),
        axis=alt.Axis(tickCount=4),
    )
    now = "datum.n === n && datum.k <= k"
    walk = alt.Chart(_data(walks)).transform_filter(now)
    last = alt.Chart(_data(walks)).transform_filter(
        "datum.n === n && datum.k === k"
    )
    end = alt.Chart(_data(ends)).transform_filter("datum.n === n")
    teacher = alt.Chart(_data([{"along": 1, "across": 0}]))
    plane = alt.layer(
        alt.Chart(_data(arc))
        .mark_line(color=GREY, strokeDash=[4, 4], strokeWidth=1)
        .encode(x=x, y=y, order="order:Q"),
        teacher.mark_point(
            color=BLUE, filled=True, size=90, opacity=1
        ).encode(x=x, y=y),
        teacher.mark_text(dy=-12).encode(
            x=x, y=y, text=alt.value("teacher")
        ),
        end.mark_point(color=GREEN, size=160, strokeWidth=2.5)
        .encode(x=x, y=y)
        .properties(name="goal"),
        walk.mark_line(
            color=VERMILLION, point=alt.OverlayMarkDef(size=14)
        ).encode(x=x, y=y, order="k:Q"),
        last.mark_point(
            color=VERMILLION, filled=True, size=70, opacity=1
        )
        .encode(x=x, y=y)
        .properties(name="student"),
        _says(
            last.transform_lookup(
                lookup="n",
                from_=alt.LookupData(
                    data=_data(ends), key="n", fields=["angle"]
                ),
                as_=["goal"],
            ),
            "'After ' + pow(2, k) + (k === 0 ? ' step' : ' steps') +"
            " ' from ' + n + (n === 1 ? ' input' : ' inputs') +"
            " ' the student is ' + format(datum.angle, '.2f') +"
            " '° from the teacher. It ends at ' +"
            " format(datum.goal, '.2f') + '°' + (n < 10 ? '.' : ': it"
            " becomes the teacher.')",
        ),
    ).properties(width=WIDTH, height=round(WIDTH * 0.7 / 1.1))
    angle = alt.Y(
        "angle:Q",
        title="angle to the teacher, degrees",
        scale=alt.Scale(domain=[0, 90]),
    )
    inputs = alt.X(
        "n:Q", title="inputs n", scale=alt.Scale(domain=[0, 12])
    )
    angles = alt.layer(
        alt.Chart(_data(ends))
        .mark_line(color=GREEN, point={"color": GREEN, "size": 30})
        .encode(x=inputs, y=angle),
        end.mark_point(color=GREEN, size=160, strokeWidth=2.5).encode(
            x=inputs, y=angle
        ),
        last.mark_point(
            color=VERMILLION, filled=True, size=70, opacity=1
        ).encode(x=inputs, y=angle),
    ).properties(width=WIDTH, height=round(WIDTH * 0.7 / 1.1))
    sliders = (
        _slider("n", "inputs n ", 1, 12, 1, 6),
        _slider("k", "steps of descent, 2 to the power ", 0, 13, 1, 3),
    )
    return Interactive(
        title="The projection",
        caption="A linear student in 10 dimensions, taught by gradient"
        " descent (orange) on the soft labels of n inputs. The green"
        " ring is the projection of the teacher on the span of the"
        " inputs.",
        chart=_joined(plane, angles, params=sliders),
        still=_projection_still(ends, walks),
    )


def _projection_still(ends: Rows, walks: Rows) -> Figure:
    fig, (left, right) = figure(
        "Each input brings the projection nearer to the teacher",
        alt="Left, students as points along and across the teacher's"
        " direction. From zero, gradient descent on 2, 6 and 9 inputs"
        " ends on a half circle from zero to the teacher, further along"
        " it the more inputs there are. Right, the angle to the teacher"
        " falls with each input and is zero from 10 inputs on.",
        columns=2,
        size=(7.6, 3.0),
    )
    turn = torch.linspace(0, math.pi, 61)
    left.plot(
        (1 + turn.cos()) / 2, turn.sin() / 2, "--", color=GREY, lw=1
    )
    for n in (2, 6, 9):
        path = sorted(
            (row for row in walks if row["n"] == n),
            key=lambda row: row["k"],
        )
        left.plot([row["along"] for row in path],
                  [row["across"] for row in path],
                  ".-", color=VERMILLION, ms=3, lw=1.2)  # fmt: skip
        end = ends[n - 1]
        left.plot(end["along"], end["across"], "o", mfc="none",
                  color=GREEN, ms=9)  # fmt: skip
        label(left, end["along"], end["across"], f"n = {n}", GREEN,
              offset=(0, 12), ha="center")  # fmt: skip
    left.plot(1, 0, "o", color=BLUE)
    label(left, 1, 0, "teacher", BLUE, offset=(4, 10), ha="center")
    left.set(xlim=(0, 1.15), ylim=(-0.03, 0.7), aspect="equal")
    left.set(xlabel="along the teacher", ylabel="across it")
    right.plot([row["n"] for row in ends],
               [row["angle"] for row in ends],
               "o-", color=GREEN, ms=4)  # fmt: skip
    right.set(xlabel="inputs n", ylabel="angle, degrees", ylim=(-3, 90))
    return fig


# Relations under a rotation, a scaling and a shear (Park et al. 2019)

LETTER = [(0, 0), (0, 1.5), (0, 3), (1, 3), (2, 3), (1, 1.5)]
STROKES = ([0, 1, 2, 3, 4], [1, 5])
"""The teacher's points form an F; a turned one is still an F."""


def letter() -> Tensor:
    """Give the teacher's six points around their mean, (6, 2)."""
    points = torch.tensor(LETTER, dtype=torch.float64)
    return points - points.mean(0)


def transformed(turn: float, scale: float, shear: float) -> Tensor:
    """Shear, then scale, then turn the teacher's points, (6, 2).

    Args:
        turn: In degrees.
        scale: A factor.
        shear: How far x moves for each unit of y.
    """
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    turned = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    sheared = torch.tensor([[1, shear], [0, 1]], dtype=torch.float64)
    return letter() @ (scale * turned @ sheared).mT


MATRIX = {
    "a": "scale * cos(turn * PI / 180)",
    "c": "scale * sin(turn * PI / 180)",
    "b": "a * shear - c",
    "d": "c * shear + a",
}
"""The same map in Vega: (x, y) becomes (ax + by, cx + dy)."""

HUBER = (
    "abs(datum.gap) <= 1 ? 0.5 * datum.gap * datum.gap"
    " : abs(datum.gap) - 0.5"
)


def relation_losses(
    turn: float, scale: float, shear: float
) -> dict[str, float]:
    """Measure the transformed points by three papers' losses."""
    s, t = transformed(turn, scale, shear), letter()
    return {
        "features": romero2015.hint_loss(s, t).item(),
        "distances": park2019.distance_loss(s, t).item(),
        "angles": park2019.angle_loss(s, t).item(),
    }


def relations() -> Interactive:
    """Turn, scale and shear points, and watch three losses."""
    points = letter()
    size = alt.Scale(domain=[-4.5, 4.5])
    strokes: Rows = [
        {
            "stroke": number,
            "order": order,
            "x": points[i, 0].item(),
            "y": points[i, 1].item(),
        }
        for number, stroke in enumerate(STROKES)
        for order, i in enumerate(stroke)
    ]

    def drawn(colour: str, x: str, y: str) -> alt.Chart:
        return (
            alt.Chart(_data(strokes))
            .transform_calculate(sx=x, sy=y)
            .mark_line(color=colour, clip=True, point={"color": colour})
            .encode(
                x=alt.X("sx:Q", title=None, scale=size),
                y=alt.Y("sy:Q", title=None, scale=size),
                detail="stroke:N",
                order="order:Q",
            )
        )

    plane = alt.layer(
        drawn(BLUE, "datum.x", "datum.y"),
        drawn(
            VERMILLION,
            "a * datum.x + b * datum.y",
            "c * datum.x + d * datum.y",
        ),
    ).properties(width=WIDTH - 20, height=WIDTH - 20)
    names = {
        "features": "features",
        "distances": "distances",
        "angles": "angles",
    }
    bars = alt.layer(
        *(
            layer
            for name, words in names.items()
            for layer in _loss_bar(name, words)
        )
    ).properties(width=WIDTH - 90, height=150)
    matrix = [
        alt.param(name=name, expr=value)
        for name, value in MATRIX.items()
    ]
    sliders = (
        _slider("turn", "rotation, degrees ", -180, 180, 5, 40),
        _slider("scale", "scaling ", 0.25, 1.5, 0.05, 1),
        _slider("shear", "shear ", -1, 1, 0.05, 0),
    )
    return Interactive(
        title="Relations",
        caption="Six points of a teacher (blue) and the same points"
        " moved by the sliders, as a student's (orange). The bars are"
        " losses: the hint's, which compares feature by feature, and"
        " the two of relations.",
        chart=_joined(plane, bars, params=(*sliders, *matrix)),
        still=_relations_still(),
    )


def _loss_bar(name: str, words: str) -> tuple[alt.Chart, ...]:
    """Compute one loss in Vega: a bar, its number, its words."""
    measured = (
        {
            "features": _feature_loss,
            "distances": _distance_loss,
            "angles": _angle_loss,
        }[name]()
        .transform_aggregate(loss="mean(cost)")
        .transform_calculate(name=f"'{words}'")
    )
    x = alt.X(
        "loss:Q",
        title="loss (square-root scale)",
        scale=alt.Scale(type="sqrt", domain=[0, 8], clamp=True),
        axis=alt.Axis(values=[0, 0.1, 0.5, 1, 2, 4, 8], format="~g"),
    )
    y = alt.Y("name:N", title=None, sort=None)
    colour = GREY if name == "features" else GREEN
    return (
        measured.mark_bar(color=colour)
        .encode(x=x, y=y)
        .properties(name=f"bar_{name}"),
        measured.mark_text(align="left", dx=5).encode(
            x=x, y=y, text=alt.Text("loss:Q", format=".3f")
        ),
        _says(
            measured,
            f"'Loss by {words}: ' + format(datum.loss, '.3f') + '.'",
        ).properties(name=f"says_{name}"),
    )


def _feature_loss() -> alt.Chart:
    rows = [{"x": x, "y": y} for x, y in letter().tolist()]
    return alt.Chart(_data(rows)).transform_calculate(
        cost="0.5 * (pow(a * datum.x + b * datum.y - datum.x, 2)"
        " + pow(c * datum.x + d * datum.y - datum.y, 2))"
    )


def _distance_loss() -> alt.Chart:
    points = letter()
    rows = [
        {"x": x, "y": y}
        for i in range(6)
        for x, y in (points[:i] - points[i]).tolist()
    ]
    return (
        alt.Chart(_data(rows))
        .transform_calculate(
            t="hypot(datum.x, datum.y)",
            s="hypot(a * datum.x + b * datum.y,"
            " c * datum.x + d * datum.y)",
        )
        .transform_joinaggregate(mt="mean(t)", ms="mean(s)")
        .transform_calculate(
            gap="datum.s / datum.ms - datum.t / datum.mt"
        )
        .transform_calculate(cost=HUBER)
    )


def _angle_loss() -> alt.Chart:
    apart = park2019.differences(letter()).tolist()  # [middle][other]
    rows = [
        {"ux": apart[j][i][0], "uy": apart[j][i][1],
         "vx": apart[j][k][0], "vy": apart[j][k][1]}
        for j in range(6)
        for i in range(6)
        for k in range(i)
        if j not in (i, k)
    ]  # fmt: skip
    return (
        alt.Chart(_data(rows))
        .transform_calculate(
            t="(datum.ux * datum.vx + datum.uy * datum.vy)"
            " / (hypot(datum.ux, datum.uy)"
            " * hypot(datum.vx, datum.vy))",
            px="a * datum.ux + b * datum.uy",
            py="c * datum.ux + d * datum.uy",
            qx="a * datum.vx + b * datum.vy",
            qy="c * datum.vx + d * datum.vy",
        )
        .transform_calculate(
            gap="(datum.px * datum.qx + datum.py * datum.qy)"
            " / (hypot(datum.px, datum.py)"
            " * hypot(datum.qx, datum.qy)) - datum.t"
        )
        .transform_calculate(cost=HUBER)
    )


def _relations_still() -> Figure:
    fig, axes = figure(
        "Relations see the shape only",
        alt="Four drawings of the letter F in six points, the teacher's"
        " in blue and a student's in orange. Turned by 40 degrees, or"
        " made smaller by half, the student costs nothing by distances"
        " and angles, and much feature by feature. Sheared, it costs by"
        " all three losses.",
        columns=4,
        size=(7.6, 3.1),
    )
    for ax, (name, moves) in zip(
        axes,
        {
            "turned": (40, 1, 0),
            "scaled": (0, 0.5, 0),
            "both": (40, 0.5, 0),
            "sheared": (0, 1, 0.7),
        }.items(),
        strict=True,
    ):
        for shape, colour in (
            (letter(), BLUE),
            (transformed(*moves), VERMILLION),
        ):
            for stroke in STROKES:
                x, y = shape[stroke].T
                ax.plot(x, y, "o-", color=colour, ms=4)
        costs = relation_losses(*moves)
        ax.set(title=name, xticks=[], yticks=[], aspect="equal")
        ax.set(xlim=(-2.3, 2.3), ylim=(-2.3, 2.3))
        ax.set_xlabel(
            "\n".join(
                f"{loss} {abs(cost):.3f}"
                for loss, cost in costs.items()
            )
        )
    return fig


# Divergences fit a teacher of two modes

GRID = torch.linspace(-12, 12, 481, dtype=torch.float64)
BETAS = [step / 20 for step in range(21)]
GAPS = [step / 2 for step in range(13)]
SHARE, SPREAD = 0.6, 0.7
"""The teacher's left mode holds more; both are equally wide."""


def two_modes(gap: float) -> Tensor:
    """Log-probabilities of the teacher on the grid."""
    modes = [
        math.log(share) + gaussian(centre, math.log(SPREAD))
        for share, centre in (
            (SHARE, -gap / 2),
            (1 - SHARE, gap / 2),
        )
    ]
    return torch.logaddexp(*modes)


def gaussian(mean: float | Tensor, log_width: float | Tensor) -> Tensor:
    """Log-probabilities of a normal distribution on the grid."""
    width = torch.as_tensor(log_width, dtype=GRID.dtype).exp()
    return (-(((GRID - mean) / width) ** 2) / 2).log_softmax(-1)


def divergence(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    r"""Generalised Jensen–Shannon divergence of two distributions.

    $$\beta\,\mathrm{KL}(p \,\|\, m) + (1-\beta)\,\mathrm{KL}(q \,\|\,
    m), \qquad m = \beta p + (1-\beta) q$$

    At β = 0 it is KL(p‖q), at β = 1 KL(q‖p). The formula itself tends
    to 0 there, but its minimum to theirs.
    """
    if beta == 0:
        return kl_divergence(log_p, log_q)
    if beta == 1:
        return kl_divergence(log_q, log_p)
    log_m = torch.logaddexp(
        math.log(beta) + log_p, math.log(1 - beta) + log_q
    )
    return beta * kl_divergence(log_p, log_m) + (
        1 - beta
    ) * kl_divergence(log_q, log_m)


@functools.cache
def fitted(gap: float, beta: float) -> tuple[float, float]:
    """Fit a normal student: its mean, and the log of its width.

    The divergence may have several minima. So three searches start at
    the two modes and between them, and the lowest end wins.
    """
    log_p = two_modes(gap)

    def cost(place: Any) -> tuple[float, Any]:
        x = torch.tensor(place, dtype=GRID.dtype, requires_grad=True)
        value = divergence(log_p, gaussian(x[0], x[1]), beta)
        # Near both ends the formula is small; its minimum is not.
        value = value / (beta * (1 - beta) or 1)
        (slope,) = torch.autograd.grad(value, x)
        return value.item(), slope.numpy()

    starts = (
        (-gap / 2, math.log(SPREAD)),
        (gap / 2, math.log(SPREAD)),
        (-0.1 * gap, math.log(SPREAD + gap / 2)),
    )
    ends = [
        minimize(cost, start, jac=True, method="BFGS",
                 options={"gtol": 1e-9})
        for start in starts
    ]  # fmt: skip
    best = min(ends, key=lambda end: end.fun)
    return float(best.x[0]), float(best.x[1])


@functools.cache
def fits() -> Rows:
    """Fit a student at each position of the two sliders."""
    rows: Rows = []
    for gap in GAPS:
        log_p = two_modes(gap)
        for beta in BETAS:
            mean, log_width = fitted(gap, beta)
            log_q = gaussian(mean, log_width)
            rows.append(
                {
                    "gap": gap,
                    "beta": beta,
                    "mean": mean,
                    "width": math.exp(log_width),
                    **{
                        name: divergence(log_p, log_q, b).item()
                        for name, b in KINDS.values()
                    },
                }
            )
    return rows


KINDS = {
    "forward": ("forward", 0.0),
    "reverse": ("reverse", 1.0),
    "Jensen–Shannon": ("middle", 0.5),
}
"""Name, field and β of each divergence."""


def divergences() -> Interactive:
    """Fit one mode to two, by divergences from forward to reverse."""
    rows = fits()
    grid: Rows = [{"x": x} for x in GRID[120:361:2].tolist()]

    def bell(centre: str, width: str) -> str:
        return (
            f"exp(-pow((datum.x - ({centre})) / {width}, 2) / 2)"
            f" / ({width} * sqrt(2 * PI))"
        )

    teacher = (
        f"{SHARE} * {bell('-gap / 2', str(SPREAD))}"
        f" + {1 - SHARE:.2g} * {bell('gap / 2', str(SPREAD))}"
    )
    curves = (
        alt.Chart(_data(grid))
        .transform_calculate(
            teacher=teacher, student=bell("fit.mean", "fit.width")
        )
        .transform_fold(["teacher", "student"], as_=["who", "density"])
        .mark_area(line=True, fillOpacity=0.15)
        .encode(
            x=alt.X("x:Q", title="x"),
            y=alt.Y(
                "density:Q",
                stack=None,
                scale=alt.Scale(domain=[0, 0.65], clamp=True),
            ),
            color=_colour(
                "who:N", {"teacher": BLUE, "student": VERMILLION}
            ),
        )
        .properties(width=WIDTH - 20, height=200, name="curves")
    )
    kinds: Rows = [
        {"kind": kind, "field": field}
        for kind, (field, _) in KINDS.items()
    ]
    measured = (
        alt.Chart(_data(kinds))
        .transform_calculate(value="fit[datum.field]")
        .encode(
            x=alt.X(
                "value:Q",
                title="divergence, nats (square-root scale)",
                scale=alt.Scale(type="sqrt", domain=[0, 5], clamp=True),
                axis=alt.Axis(
                    values=[0, 0.1, 0.5, 1, 2, 5], format="~g"
                ),
            ),
            y=alt.Y("kind:N", title=None, sort=list(KINDS)),
        )
    )
    bars = alt.layer(
        measured.mark_bar(color=GREEN).properties(name="kinds"),
        measured.mark_text(align="left", dx=5).encode(
            text=alt.Text("value:Q", format=".3f")
        ),
        _says(
            alt.Chart(_data([{}])),
            "'With β = ' + format(beta, '.2~f') +"
            " (beta === 0 ? ', the forward divergence,' :"
            " beta === 1 ? ', the reverse divergence,' :"
            " beta === 0.5 ? ', the Jensen–Shannon divergence,' : '')"
            " + ' the best student has its middle at ' +"
            " format(fit.mean, '.2f') + ' and a width of ' +"
            " format(fit.width, '.2f') + '.'",
        ),
    ).properties(width=WIDTH - 90, height=150)
    place = f"fits[round(gap * 2) * {len(BETAS)} + round(beta * 20)]"
    params = (
        _slider("beta", "β, from forward to reverse ", 0, 1, 0.05, 0),
        _slider("gap", "distance of the modes ", 0, 6, 0.5, 4),
        alt.param(name="fits", value=rows),
        alt.param(name="fit", expr=place),
    )
    return Interactive(
        title="Divergences",
        caption="A teacher of two modes, and the normal student that"
        " minimises the generalised Jensen–Shannon divergence of the"
        " weight β. The bars measure that student by three"
        " divergences.",
        chart=_joined(curves, bars, params=params),
        still=_divergences_still(),
    )


def _divergences_still() -> Figure:
    fig, axes = figure(
        "Forward covers both modes, reverse takes one",
        alt="Three drawings of a teacher's density with a tall mode on"
        " the left and a lower one on the right, and of the normal"
        " student that fits it best. By the forward divergence the"
        " student is wide and covers both modes. By the Jensen–Shannon"
        " divergence it is nearly as wide. By the reverse divergence it"
        " is narrow and sits on the left mode.",
        columns=3,
        size=(7.6, 2.7),
    )
    step = (GRID[1] - GRID[0]).item()
    order = ("forward", "Jensen–Shannon", "reverse")
    for ax, kind in zip(axes, order, strict=True):
        best = gaussian(*fitted(4, KINDS[kind][1]))
        ax.plot(GRID, two_modes(4).exp() / step, color=BLUE)
        ax.plot(GRID, best.exp() / step, color=VERMILLION)
        ax.set(title=f"{kind}, β = {KINDS[kind][1]:g}", xlabel="x")
        ax.set(ylim=(0, 0.65), xlim=(-6, 6))
    label(axes[0], -2.6, 0.38, "teacher", BLUE)
    label(axes[0], 0, 0.26, "student", VERMILLION, ha="center")
    axes[0].set(ylabel="density")
    return fig


FIGURES: dict[str, Callable[[], Interactive]] = {
    "temperature": temperature,
    "projection": projection,
    "relations": relations,
    "divergences": divergences,
}
