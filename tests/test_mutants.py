"""Mutants are made of every loss, what becomes of them is told rightly, and all is explained."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from snippets.hinton2015 import kd_loss
from snippets.lab.fast import rows
from tests import mutants
from tests.public import LOSSES
from tests.reach import function_of, reached

MODULE = '''
"""Made up."""
from snippets.lab.checks import typed

@typed
def clamp(value: float, least: float = 0.0) -> float:
    """Not below."""
    while value < least:
        value = value + 1
    if value == 1e9:
        raise ValueError("large")
    return value
'''

TEST = """
import snippets.made

def test_clamp():
    assert snippets.made.clamp(-2.0) == 0
"""

PROGRAM = """
import sys
from types import SimpleNamespace
import snippets
snippets.__path__.append(sys.argv[1])
from tests import mutants
mutants.GRACE = 1
run = mutants.Run(["made.clamp"], say=lambda line: None)
mutants.tests_run(run, [sys.argv[1]])
for mutant, outcome in zip(run.mutants["made.clamp"], run.outcomes["made.clamp"], strict=True):
    print(f"{mutant.was} → {mutant.now}: {outcome}")
"""


def test_what_becomes_of_mutants(tmp_path):
    """A decorated function, in a process of its own: it forks, and runs pytest."""
    (tmp_path / "made.py").write_text(MODULE)
    (tmp_path / "test_made.py").write_text(TEST)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "while value < least: → while value <= least:: killed",
        "value = value + 1 → value = None: killed",
        "value = value + 1 → value = value - 1: timed_out",
        "value = value + 1 → value = value + 2: survived",
        "if value == 1e9: → if value != 1e9:: killed",
        "if value == 1e9: → if value == 1000000001.0:: survived",
    ], done.stderr


def test_no_annotation_default_docstring_or_error_is_mutated():
    source = mutants.source_of(function_of("hinton2015.kd_loss"))
    assert "temperature: float = 4.0" in source
    found = list(mutants.mutants_of(function_of("hinton2015.kd_loss")))
    assert len(found) > 10
    assert not [m for m in found if "temperature: float" in m.was or '"' in m.was]


def test_code_is_swapped_within_what_a_function_has_made():
    """The plain forms in `rows` are made as it is imported."""
    maker = function_of("lab.fast.rows._of_logits")
    before = maker.__code__
    lines = (
        "def _of_logits(divergence):",
        " def plain(v, z):",
        "  return divergence and 1",
        " return plain",
    )
    code = mutants.compiled("\n".join(lines), maker)
    with mutants.swapped(maker, code, mutants.made_by(maker)):
        assert rows.REVERSE.plain(None, None) == 1
    assert maker.__code__ is before
    assert rows.REVERSE.plain(*torch.zeros(2, 1, 3)) == 0


@pytest.mark.parametrize("method", LOSSES, ids=lambda m: m.key)
def test_every_loss_reaches_its_own_code(method):
    assert method.key in reached(method.function)
    assert next(mutants.mutants_of(function_of(method.key)))


def test_what_a_loss_reaches():
    assert reached(kd_loss) >= {"lab.divergence.logit_divergence", "lab.divergence.excess"}
    fused = reached(next(m.function for m in LOSSES if m.paper == "lab.fast.hinton2015"))
    assert fused >= {
        "lab.fast.rows.Divergence.__call__",
        "lab.fast.gradients._WithGradient.backward",
    }


def test_reasons_are_of_mutants_that_there_are():
    for name, given in mutants.reasons().items():
        known = {(m.was, m.now) for m in mutants.mutants_of(function_of(name))}
        for one in given:
            assert set(one) == {"was", "now", "why"}
            assert (one["was"], one["now"]) in known, f"{name}: {one['was']}"


@pytest.fixture(scope="module")
def committed():
    if not mutants.RECORD.exists():
        pytest.skip("no record yet")
    return json.loads(mutants.RECORD.read_text("utf-8"))


def test_the_record_has_every_loss(committed):
    counts = {(m.paper, m.name): committed["losses"][m.paper][m.name] for m in LOSSES}
    assert sum(map(len, committed["losses"].values())) == len(counts)
    assert min(map(mutants.share, counts.values())) >= mutants.LEAST


def test_every_survivor_has_its_reason(committed):
    assert all(one["reason"] for one in committed["survivors"])
    assert not mutants.report(committed)


def test_outcomes_of_some_losses_take_the_place_of_old_ones():
    def survivor(function, line):
        return {"function": function, "was": line, "now": "", "reason": ""}

    old = {"losses": {"a": {"l": 1, "k": 2}, "c": {"l": 3}}, "survivors": [survivor("a.l", "old")]}
    old["survivors"].append(survivor("c.l", "kept"))
    new = {"losses": {"a": {"l": 9}, "b": {"l": 4}}, "survivors": [survivor("b.l", "new")]}
    run = SimpleNamespace(names=["a.l", "b.l"])
    assert mutants.merged(old, new, run) == {
        "losses": {"a": {"k": 2, "l": 9}, "b": {"l": 4}, "c": {"l": 3}},
        "survivors": [survivor("b.l", "new"), survivor("c.l", "kept")],
    }


def test_too_few_killed_none_at_all_or_no_reason_fails(capsys):
    def verdict(killed, survived, timed_out=0, reason="equivalent"):
        counts = dict(zip(mutants.OUTCOMES, (killed, survived, timed_out), strict=True))
        lived = {"function": "f", "was": "a", "now": "b", "reason": reason}
        return mutants.report({"losses": {"p": {"l": counts}}, "survivors": [lived] * survived})

    assert [verdict(9, 1), verdict(8, 2), verdict(0, 0), verdict(9, 0, 1)] == [0, 1, 1, 0]
    assert verdict(8, 0, 2) == verdict(9, 1, reason="") == 1
    assert "NO REASON" in capsys.readouterr().out
