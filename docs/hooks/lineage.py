"""The map of which paper builds on, corrects or contradicts which, from the notes' front matter.

Time runs from left to right. Papers of a year share a column, or several where one of them names
another. A line that must pass a column gets a place in it, as a paper does, so no line runs behind
a paper; all lines of one kind to one paper share that place. The columns are put in order by
barycentres, so that few lines cross; then each paper moves towards those it is joined to.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from mkdocs.config.defaults import MkDocsConfig

from papers.catalog import RELATIONS, Catalog

TEXT, LINE, PAD = 12, 16, 5
"""Size of the text, height of its lines, and the room around it, in pixels."""

GAP, SPACE, PASS = 26, 12, 6
"""Pixels between columns, between papers, and taken by a passing line."""

SIDE, TOP = 2, 34
"""Pixels beside the map, and above the papers, where the years stand."""

PORTS = {"builds_on": 0, "corrects": -9, "contradicts": 9}
"""How far below a paper's middle the lines of each kind end."""

FEW = 60
"""How many papers the map on the home page shows at most."""

SWEEPS = 24
"""How often the columns are put in order, and moved; the best order is kept."""

WIDTHS = {0.33: " .,'ijlI", 0.43: "frt-()", 0.98: "mwMW&"}
SMALL, CAPITAL = 0.62, 0.74
"""Widths of letters in a wide font, in units of the text's size: in others the labels fit, too."""

WRAP = 82
"""Pixels; two authors' names take two lines if they are wider."""

Place = str | tuple[str, str, int]
"""A paper's key; or where lines pass: the paper they lead to, their kind, and the column."""

Link = tuple[Place, Place]
"""Two places in neighbouring columns, the left one first."""


@dataclass(frozen=True)
class Node:
    """A paper's box: a link."""

    key: str
    lines: Sequence[str]
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Edge:
    """A piece of line from `start` to `end`, which may be a paper; and the papers it joins."""

    relation: str
    start: tuple[float, float]
    bend: float
    end: tuple[float, float]
    arrow: bool
    joins: Sequence[str]

    @property
    def path(self) -> str:
        """A level piece across a column that is passed, then a curve across the gap."""
        (x, y), (to_x, to_y) = self.start, self.end
        middle = (self.bend + to_x) / 2
        return (
            f"M{x:.1f} {y:.1f}H{self.bend:.1f}"
            f"C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
        )


@dataclass(frozen=True)
class Lineage:
    """What the template draws; `years` are the left and right end of each year.

    `first` is the paper to begin with, `builders` how many build on it, `keys` all by year.
    """

    nodes: Sequence[Node]
    edges: Sequence[Edge]
    years: Mapping[int, tuple[float, float]]
    width: float
    height: float
    first: str
    builders: int
    keys: Sequence[str]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give the templates the map, and one for home; docs/hooks/pages.py has read the papers."""
    papers, labels = config.extra["papers"], config.extra["labels"]
    config.extra["lineage"] = draw(papers, labels)
    few = most_built_on(papers, FEW)
    config.extra["lineage_home"] = (
        config.extra["lineage"] if len(few) == len(papers) else draw(few, labels)
    )
    return config


def most_built_on(papers: Catalog, count: int) -> Catalog:
    """Choose the papers that most others build on, and what these say of each other."""
    built_on = Counter(key for paper in papers.values() for key in paper.builds_on)
    chosen = set(sorted(papers, key=lambda key: -built_on[key])[:count])
    return {
        key: paper.model_copy(
            update={
                relation: [other for other in getattr(paper, relation) if other in chosen]
                for relation in RELATIONS
            }
        )
        for key, paper in papers.items()
        if key in chosen
    }


def draw(papers: Catalog, labels: Mapping[str, str]) -> Lineage:
    """Place the papers, and the lines between them."""
    columns = _columns(papers)
    at: dict[Place, int] = {key: x for x, column in enumerate(columns) for key in column}
    routes = list(_routes(papers, at))
    places = dict.fromkeys(place for _, route in routes for place in route)
    at |= {place: place[2] for place in places if not isinstance(place, str)}
    links = list(
        dict.fromkeys(
            (p, q) if at[p] < at[q] else (q, p) for _, route in routes for p, q in pairwise(route)
        )
    )
    layers: list[list[Place]] = [[] for _ in columns]
    for place, x in at.items():
        layers[x].append(place)

    texts = _texts(papers, labels)
    heights: dict[Place, float] = defaultdict(
        lambda: PASS, {key: len(texts[key]) * LINE + 2 * PAD for key in papers}
    )
    middles = _middles(_ordered(layers, links), links, heights)
    widths = [max(_width(line) for key in c for line in texts[key]) + 2 * PAD for c in columns]
    lefts = list(accumulate(widths, lambda left, width: left + width + GAP, initial=float(SIDE)))
    sides = [(left, left + width) for left, width in zip(lefts, widths, strict=False)]
    built_on = Counter(key for paper in papers.values() for key in paper.builds_on)
    first = max(papers, key=lambda key: built_on[key])
    return Lineage(
        nodes=[
            Node(
                key, texts[key], lefts[x], middles[key] - heights[key] / 2, widths[x], heights[key]
            )
            for x, column in enumerate(columns)
            for key in sorted(column, key=lambda key: middles[key])
        ],
        edges=list(_edges(routes, at, middles, sides)),
        years={
            year: (min(ends)[0], max(ends)[1])
            for year in dict.fromkeys(paper.year for paper in papers.values())
            if (ends := [sides[at[key]] for key, paper in papers.items() if paper.year == year])
        },
        width=lefts[-1] - GAP + SIDE,
        height=max(middles[key] + heights[key] / 2 for key in papers) + SPACE,
        first=first,
        builders=built_on[first],
        keys=list(papers),
    )


def _columns(papers: Catalog) -> list[list[str]]:
    """Group the papers by year, and within it by how many steps one is from another."""
    depths: dict[str, int] = {}

    def depth(key: str, above: frozenset[str] = frozenset()) -> int:
        if key not in depths:
            year, above = papers[key].year, above | {key}
            # Two papers of one year may name each other: `above` ends the round.
            named = {other for _, other in _named(papers, key)} - above
            depths[key] = max(
                (depth(other, above) + 1 for other in named if papers[other].year == year),
                default=0,
            )
        return depths[key]

    columns: dict[tuple[int, int], list[str]] = defaultdict(list)
    for key, paper in papers.items():
        columns[paper.year, depth(key)].append(key)
    return [columns[place] for place in sorted(columns)]


def _named(papers: Catalog, key: str) -> Iterator[tuple[str, str]]:
    """Yield each relation that a paper states, and to which paper."""
    for relation in RELATIONS:
        for other in dict.fromkeys(getattr(papers[key], relation)):
            yield relation, other


def _routes(papers: Catalog, at: Mapping[Place, int]) -> Iterator[tuple[str, list[Place]]]:
    """Yield each relation with its places, from the paper that is named to the one that names."""
    for key in papers:
        for relation, other in _named(papers, key):
            step = 1 if at[other] < at[key] else -1
            passed = range(at[other] + step, at[key], step)
            yield relation, [other, *((other, relation, x) for x in passed), key]


def _ordered(layers: list[list[Place]], links: list[Link]) -> list[list[Place]]:
    """Order each column by the mean position of its neighbours on one side, then the other."""
    beside: dict[bool, dict[Place, list[Place]]] = {
        True: defaultdict(list),
        False: defaultdict(list),
    }
    for left, right in links:
        beside[True][right].append(left)
        beside[False][left].append(right)
    best, fewest = layers, _crossings(layers, links)
    for sweep in range(SWEEPS):
        rightwards = sweep % 2 == 0
        layers = [list(layer) for layer in layers]
        position = _positions(layers)
        for layer in layers if rightwards else reversed(layers):
            layer.sort(key=lambda place: _mean(position, beside[rightwards][place], place))
            position |= _positions([layer])
        crossings = _crossings(layers, links)
        if crossings < fewest:
            best, fewest = layers, crossings
    return best


def _positions(layers: list[list[Place]]) -> dict[Place, float]:
    """Say where each place is in its column, from 0 to 1."""
    return {place: (i + 0.5) / len(layer) for layer in layers for i, place in enumerate(layer)}


def _mean(values: Mapping[Place, float], neighbours: list[Place], place: Place) -> float:
    """Return the mean value of the neighbours, or without any the place's own."""
    return sum(values[n] for n in neighbours) / len(neighbours) if neighbours else values[place]


def _crossings(layers: list[list[Place]], links: list[Link]) -> int:
    position = _positions(layers)
    column = {place: x for x, layer in enumerate(layers) for place in layer}
    gaps = defaultdict(list)
    for left, right in links:
        gaps[column[left]].append((position[left], position[right]))
    return sum(map(_inversions, gaps.values()))


def _inversions(gap: list[tuple[float, float]]) -> int:
    """Count the pairs of lines in a gap whose ends lie in another order on its two sides."""
    count = 0
    above: list[float] = []
    for _, right in sorted(gap):
        place = bisect_right(above, right)
        count += len(above) - place
        above.insert(place, right)
    return count


def _middles(
    layers: list[list[Place]], links: list[Link], heights: Mapping[Place, float]
) -> dict[Place, float]:
    """Move each place towards its neighbours, as far as order and distances allow."""
    beside: dict[Place, list[Place]] = defaultdict(list)
    for left, right in links:
        beside[left].append(right)
        beside[right].append(left)
    middles: dict[Place, float] = {}
    offsets: dict[Place, float] = {}
    for layer in layers:
        steps = ((heights[a] + heights[b]) / 2 + SPACE for a, b in pairwise(layer))
        offsets |= dict(zip(layer, accumulate(steps, initial=0.0), strict=True))
        middles |= {place: offsets[place] - offsets[layer[-1]] / 2 for place in layer}
    for sweep in range(SWEEPS):
        for layer in layers if sweep % 2 else reversed(layers):
            wanted = [_mean(middles, beside[place], place) - offsets[place] for place in layer]
            # A line that passes should run straight.
            weights = [1 if isinstance(place, str) else 3 for place in layer]
            fitted = _increasing(wanted, weights)
            middles |= {p: y + offsets[p] for p, y in zip(layer, fitted, strict=True)}
    top = min(middle - heights[place] / 2 for place, middle in middles.items())
    return {place: middle - top + TOP for place, middle in middles.items()}


def _increasing(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the never-decreasing sequence next to `values` in weighted least squares.

    Neighbours in the wrong order are pooled until none is left.
    """
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        mean, mass, count = value, weight, 1
        while blocks and blocks[-1][0] >= mean:
            other, more, others = blocks.pop()
            mean = (mean * mass + other * more) / (mass + more)
            mass, count = mass + more, count + others
        blocks.append((mean, mass, count))
    return [mean for mean, _, count in blocks for _ in range(count)]


def _edges(
    routes: list[tuple[str, list[Place]]],
    at: Mapping[Place, int],
    middles: Mapping[Place, float],
    sides: Sequence[tuple[float, float]],
) -> Iterator[Edge]:
    """Yield each piece of line once, however many papers it joins."""
    joins: dict[tuple[str, Place, Place], list[str]] = defaultdict(list)
    for relation, route in routes:
        for end, start in pairwise(route):
            joins[relation, end, start] += [str(route[0]), str(route[-1])]
    for (relation, end, start), keys in joins.items():
        leftwards = at[end] < at[start]
        near, far = sides[at[start]] if leftwards else sides[at[start]][::-1]

        def height(place: Place, relation: str = relation) -> float:
            return middles[place] + (PORTS[relation] if isinstance(place, str) else 0)

        yield Edge(
            relation=relation,
            start=(near if isinstance(start, str) else far, height(start)),
            bend=near,
            end=(sides[at[end]][1 if leftwards else 0], height(end)),
            arrow=isinstance(end, str),
            joins=list(dict.fromkeys(keys)),
        )


def _texts(papers: Catalog, labels: Mapping[str, str]) -> dict[str, list[str]]:
    """Write the authors of each paper in lines."""
    texts = {}
    for key, paper in papers.items():
        text = labels[key].removesuffix(f" {paper.year}")
        if _width(text) > WRAP:
            text = text.replace(" & ", " &\n")
        texts[key] = text.split("\n")
    return texts


def _width(text: str) -> float:
    """Estimate the width of a line in pixels, rather too large."""
    known = {letter: width for width, letters in WIDTHS.items() for letter in letters}
    return TEXT * sum(known.get(c, CAPITAL if c.isupper() else SMALL) for c in text)
