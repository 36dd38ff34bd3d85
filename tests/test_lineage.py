"""The map of the papers: drawn for few and for many, with nothing over anything else."""

import random
from itertools import combinations, pairwise

import pytest

from docs.hooks import lineage as lineage_hook
from docs.hooks.lineage import GAP, RELATIONS, draw
from docs.hooks.pages import _labels
from papers.catalog import load

PAPERS = load()


def drawn(papers):
    return draw(papers, _labels(papers))


def many(seed, n=100):
    """A catalog of `n` made papers: twelve years, and relations in any direction of time."""
    rng = random.Random(seed)
    keys = [f"paper{2000 + i * 12 // n}x{i}" for i in range(n)]
    papers = {}
    for i, key in enumerate(keys):
        # Mostly older papers, the first ones above all; now and then any other.
        older = [keys[int(i * rng.random() ** 2)] for _ in range(rng.randrange(4)) if i]
        other = [k for k in rng.sample(keys, rng.random() < 0.1) if k != key]
        older = [k for k in older if k != key]
        papers[key] = PAPERS["hinton2015"].model_copy(
            update={
                "key": key,
                "year": int(key[5:9]),
                "authors": [f"Ann Author{i}", f"Bob Of{i % 7}", "Cy Third"][: rng.randint(1, 3)],
                "builds_on": older,
                "corrects": [k for k in older if rng.random() < 0.2],
                "contradicts": other,
            }
        )
    return papers


CATALOGS = {"ours": PAPERS, "100, one": many(1), "100, two": many(2)}


@pytest.fixture(params=CATALOGS.values(), ids=CATALOGS)
def catalog(request):
    return request.param


def inside(node, x, y, slack=0.5):
    return (
        node.x + slack < x < node.x + node.width - slack
        and node.y + slack < y < node.y + node.height - slack
    )


def points(edge, steps=20):
    """Points on a line: those of its level piece, then those of its curve."""
    (x, y), (to_x, to_y) = edge.start, edge.end
    for i in range(steps + 1):
        t = i / steps
        yield x + (edge.bend - x) * t, y
        # Both handles are at the middle of the gap, at the heights of the ends.
        a, b = (1 - t) ** 3, 3 * (1 - t) ** 2 * t
        c, d = 3 * (1 - t) * t**2, t**3
        yield (
            a * edge.bend + (b + c) * (edge.bend + to_x) / 2 + d * to_x,
            (a + b) * y + (c + d) * to_y,
        )


def test_every_paper_is_there_once(catalog):
    assert sorted(node.key for node in drawn(catalog).nodes) == sorted(catalog)


def test_no_two_papers_overlap_and_all_are_on_the_map(catalog):
    lineage = drawn(catalog)
    for a, b in combinations(lineage.nodes, 2):
        apart = (
            a.x + a.width + GAP <= b.x + 1e-9
            or b.x + b.width + GAP <= a.x + 1e-9
            or a.y + a.height < b.y
            or b.y + b.height < a.y
        )
        assert apart, (a, b)
    for node in lineage.nodes:
        assert node.x > 0
        assert node.x + node.width < lineage.width
        assert node.y > 23  # below the years
        assert node.y + node.height < lineage.height


def test_no_line_runs_behind_a_paper(catalog):
    lineage = drawn(catalog)
    for edge in lineage.edges:
        behind = [n.key for n in lineage.nodes for x, y in points(edge) if inside(n, x, y)]
        assert not behind, edge


def test_every_relation_is_a_line_from_paper_to_paper(catalog):
    """The pieces that join two papers make one way from the first to an arrow at the other."""
    lineage = drawn(catalog)
    box = {node.key: node for node in lineage.nodes}
    for key, paper in catalog.items():
        for relation in RELATIONS:
            for other in getattr(paper, relation):
                pieces = {
                    edge.start: edge
                    for edge in lineage.edges
                    if edge.relation == relation and edge.joins[0] == other and key in edge.joins
                }
                at = next(start for start in pieces if touches(box[key], start))
                while at in pieces:
                    edge = pieces.pop(at)
                    at = edge.end
                assert edge.arrow
                assert touches(box[other], at), (key, relation, other)
                assert not pieces


def touches(node, point):
    x, y = point
    return (x in (node.x, node.x + node.width)) and node.y < y < node.y + node.height


def test_time_runs_from_left_to_right(catalog):
    lineage = drawn(catalog)
    for node in lineage.nodes:
        left, right = lineage.years[catalog[node.key].year]
        assert left <= node.x < node.x + node.width <= right
    ends = [lineage.years[year] for year in sorted(lineage.years)]
    assert all(a[1] < b[0] for a, b in pairwise(ends))


def test_arrows_lead_back_within_a_year():
    at = {node.key: node.x for node in drawn(PAPERS).nodes}
    assert at["hinton2015"] < at["romero2015"]
    assert at["jiao2020"] < at["wang2020"]


def test_two_papers_of_a_year_may_name_each_other():
    pair = {key: PAPERS[key] for key in ("hinton2015", "chan2015")}
    pair["hinton2015"] = pair["hinton2015"].model_copy(update={"contradicts": ["chan2015"]})
    lineage = drawn(pair)
    assert len({node.x for node in lineage.nodes}) == 2
    assert [edge.relation for edge in lineage.edges if edge.arrow] == ["contradicts", "builds_on"]


def test_the_paper_to_begin_with():
    lineage = drawn(PAPERS)
    assert lineage.first == "hinton2015"
    assert lineage.builders == sum("hinton2015" in p.builds_on for p in PAPERS.values())


def test_equal_names_get_an_initial():
    texts = {node.key: " ".join(node.lines) for node in drawn(PAPERS).nodes}
    assert texts["chen2019"] == "X. Chen et al."
    assert texts["chen2019dafl"] == "H. Chen et al."
    assert texts["park2019"] == "Park et al."


def test_of_all_orders_tried_the_one_with_fewest_crossings_is_drawn(monkeypatch):
    crossings, middles = lineage_hook._crossings, lineage_hook._middles
    counted, kept = [], []

    def count(*args):
        counted.append(crossings(*args))
        return counted[-1]

    def keep(layers, links, heights):
        kept.append(crossings(layers, links))
        return middles(layers, links, heights)

    monkeypatch.setattr(lineage_hook, "_crossings", count)
    monkeypatch.setattr(lineage_hook, "_middles", keep)
    drawn(CATALOGS["100, one"])
    assert kept == [min(counted)]
    assert kept[0] < counted[0] / 2  # the first order is that of the catalog
