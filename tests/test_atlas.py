"""The atlas: every mark is found again by calling the losses."""

import importlib
import inspect
import json
import re

import pytest
import torch

from papers import catalog
from snippets.lab.plots import alternative_text
from snippets.study import atlas, atlas_pictures, cases, growth

DATA = catalog.ROOT / "docs" / "data"
RECORD = json.loads((DATA / "atlas.json").read_text(encoding="utf-8"))
ROWS = {f"{row['paper']}.{row['name']}": row for row in RECORD["methods"]}
METHODS = {method.key: method for method in cases.methods()}
PAPERS = {key: p for key, p in catalog.load().items() if p.status == "complete"}
REMEDY = "write the atlas again: python -m snippets atlas"


class TestRecord:
    def test_no_loss_is_missing_or_left_over(self):
        assert list(ROWS) == list(METHODS), REMEDY

    @pytest.mark.parametrize("key", METHODS)
    def test_every_cell_is_what_the_loss_does(self, key):
        recorded = {name: x for name, x in ROWS[key].items() if name != "growth"}
        assert recorded == atlas.row(METHODS[key]), REMEDY

    def test_every_checked_scalar_of_two_sides_is_a_method(self):
        """Another way to list them: by what the sources write."""
        written = set()
        for key in PAPERS:
            source = (catalog.ROOT / "snippets" / f"{key}.py").read_text()
            for name in re.findall(r"^@typed\ndef ([a-z]\w+)", source, re.MULTILINE):
                function = getattr(importlib.import_module(f"snippets.{key}"), name)
                signature = inspect.signature(function)
                sides = re.search("student|teacher|logits|weights|shared", str(signature))
                if getattr(signature.return_annotation, "dim_str", None) == "" and sides:
                    written.add(f"{key}.{name}")
        assert written == set(METHODS)

    def test_growth_is_recorded_where_there_is_an_axis(self):
        for key, row in ROWS.items():
            kinds = {kind for a in METHODS[key].arguments for kind in a.kinds}
            for exponents in row["growth"].values():
                found = {axis for axis, k in exponents.items() if k is not None}
                assert found == {axis for axis, g in growth.AXES.items() if kinds & set(g)}, key

    def test_pictures_are_there_and_described(self):
        for picture in RECORD["pictures"].values():
            assert (DATA / picture["file"]).read_bytes().startswith(b"\x89PNG")
            assert len(picture["alt"]) > 30
            assert picture["width"] > 500

    def test_machine_and_date_of_the_times(self):
        assert set(RECORD["machine"]) == {"date", "processor", "python", "torch"}


class TestRequirements:
    @pytest.mark.parametrize("key", dict.fromkeys(m.paper for m in METHODS.values()))
    def test_notes_and_record_agree_with_the_cells(self, key):
        derived = atlas.requirements(key)
        assert sorted(PAPERS[key].requires) == derived, f"papers/{key}.md: requires"
        assert RECORD["requires"][key] == derived, REMEDY

    def test_a_recipe_holds_a_loss_of_its_own_paper_and_what_it_builds_on(self):
        for paper, steps in cases.RECIPES.items():
            owners = {step.split(".")[0] for step in steps}
            assert paper in owners
            assert owners - {paper} <= set(PAPERS[paper].builds_on), paper


class TestModules:
    def test_every_network_of_a_script_is_a_bridge_or_named(self):
        counted = {name for row in ROWS.values() for name in row["parameters"]}
        for full in cases.modules():
            assert full in cases.NETWORKS or full.split(".")[1] in counted, full

    def test_parameters_are_those_of_the_formula(self):
        narrow, wide = atlas.BRIDGED
        found = {key: row["parameters"] for key, row in ROWS.items() if row["parameters"]}
        assert found["romero2015.hint_loss"] == {"Regressor": narrow * wide + wide}
        assert found["jiao2020.hidden_loss"] == {"Linear": narrow * wide}


def loss(student, teacher):
    return (student - teacher.detach()).square().mean()


class TestProbes:
    """Each probe tells what can do a thing from what cannot."""

    def method(self, function, like="park2019.distance_loss"):
        model = METHODS[like]
        return cases.Method(model.paper, "made", function, model.arguments)

    def test_works_needs_a_finite_value_and_a_slope(self):
        arguments = cases.arguments_of(METHODS["park2019.distance_loss"])
        assert atlas.works(self.method(loss), arguments)
        for bad in (
            lambda student, teacher: (student * 0).sum(),
            lambda student, teacher: student.sum() / 0,
            lambda student, teacher: (student - student).abs().sqrt().sum(),
        ):
            assert not atlas.works(self.method(bad), arguments)

    def test_a_crash_of_another_kind_is_not_a_refusal(self):
        def crash(student, teacher):
            raise RuntimeError

        with pytest.raises(RuntimeError):
            atlas.works(self.method(crash), cases.arguments_of(self.method(crash)))

    @pytest.mark.parametrize(
        ("keep", "expected"),
        [
            (lambda s, t: True, "works"),
            (lambda s, t: s == t, "refused"),
            (lambda s, t: s >= t, "larger"),
            (lambda s, t: s <= t, "smaller"),
        ],
    )
    def test_differences(self, keep, expected):
        def picky(student, teacher):
            if not keep(student.shape[1], teacher.shape[1]):
                raise ValueError
            return student.square().sum()

        assert atlas.difference(self.method(picky), "width") == expected
        assert atlas.difference(self.method(picky), "depth") == "unseen"

    def test_data_are_needed_unless_the_gradient_comes_back(self):
        free = self.method(lambda student, teacher: (student * teacher).sum())
        assert atlas.no_data(free) == "works"
        assert atlas.no_data(self.method(loss)) == "refused"

    @pytest.mark.parametrize(
        ("function", "invariant"),
        [
            (lambda student, teacher: student.std(0).square().sum(), {"shift", "rotation"}),
            (lambda student, teacher: (student / student.norm()).amax(), {"scale"}),
            (lambda student, teacher: student[0].norm(), {"rotation"}),
            (lambda student, teacher: (student - student.mean(1, True)).sin().sum(), {"constant"}),
        ],
    )
    def test_transformations(self, function, invariant):
        tested = ("scale", "shift", "constant", "rotation")
        found = {n for n in tested if atlas.unchanged(self.method(function), n) == "alone"}
        assert found == invariant

    def test_together_is_less_than_alone(self):
        how = {name: atlas.unchanged(self.method(loss), name) for name in atlas.TRANSFORMATIONS}
        assert how == {
            "scale": "changed",
            "shift": "together",
            "constant": "together",
            "rotation": "together",
            "permutation": "together",
            "samples": "together",
            "temperature": "unseen",
        }

    def test_a_black_box_gives_no_features(self):
        assert atlas.black_box(self.method(loss)) == "refused"
        logits = METHODS["hinton2015.kd_loss"]
        assert atlas.black_box(logits) == "works"

    def test_weights_that_answer_alike_are_others(self):
        linear = METHODS["phuong2019.distillation_loss"]
        shown, hidden = (cases.arguments_of(linear, black_box=box) for box in (False, True))
        first, second = (x["inputs"] @ x["teacher_weights"] for x in (shown, hidden))
        torch.testing.assert_close(first, second)
        assert (shown["teacher_weights"] - hidden["teacher_weights"]).abs().max() > 0.1


class TestGrowth:
    def test_memory_of_a_table_of_pairs_is_square(self):
        def peak(n):
            x = torch.randn(n, 4, requires_grad=True)
            return growth.peak_of(lambda: torch.autograd.grad((x @ x.T).square().sum(), x))

        assert peak(512) / peak(256) == pytest.approx(4, rel=0.1)

    def test_inputs_grow_along_one_axis(self):
        method = METHODS["zagoruyko2017.attention_transfer_loss"]
        sizes = growth.sizes_of(("spatial",), 64)
        shapes = {cases.shape_of(a, sizes) for a in method.arguments}
        assert shapes == {(growth.START, growth.START, 64, 64)}


def test_an_axis_without_a_meaning_is_named(monkeypatch):
    monkeypatch.delitem(cases.KINDS, "classes")
    with pytest.raises(cases.AtlasError, match=r"hinton2015.kd_loss: .* axes classes; add"):
        cases.describe("hinton2015", "kd_loss")


def test_every_outcome_has_a_mark_of_its_own():
    template = catalog.ROOT / "docs/overrides/material/partials/atlas.html"
    shown = dict(re.findall(r'^  "(\w+)": \("(.)"', template.read_text(), re.MULTILINE))
    assert shown == {name: mark for name, (mark, _) in atlas_pictures.MARKS.items()}


def test_pictures_show_every_cell():
    fig = atlas_pictures._unchanged(RECORD)
    texts = [text.get_text() for text in fig.axes[0].texts]
    assert texts == [
        atlas_pictures.MARKS[cell][0] for row in ROWS.values() for cell in row["unchanged"].values()
    ]
    assert "table" in alternative_text(fig)
