"""The benchmark: it sees what is slow, what is large and what differs, and tells what is absent."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from papers.catalog import ROOT
from snippets.study import bench
from snippets.study.bench_cases import PEERS, PLAIN, RUN, Case, Form, cases

QUICK = cases(quick=True)


def forms(**milliseconds: float) -> dict[str, dict[str, Any]]:
    return {
        name.replace("_", " "): {
            "milliseconds": [ms, ms, ms],
            "megabytes": ms,
            "agrees": "yes",
        }
        for name, ms in milliseconds.items()
    }


@pytest.mark.parametrize("case", QUICK, ids=lambda case: f"{case.paper}-{case.name}")
def test_our_forms_agree_and_a_peer_is_compared_or_absent(case: Case):
    shown, losses = bench.checked(case)
    assert list(shown) == list(case.forms)
    assert shown[RUN]["agrees"] == "yes"
    for name in shown.keys() & PEERS.keys():
        assert ("absent" in shown[name]) == (name not in losses)


def test_a_wrong_loss_is_told_from_a_right_one():
    case = QUICK[0]
    loss = case.forms[PLAIN].load()

    def broken() -> None:
        raise ImportError("no name 'x' in 'y' (/home/me/y.py)\nmore")

    shown, losses = bench.checked(
        replace(
            case,
            forms={
                PLAIN: case.forms[PLAIN],
                "scaled": Form(lambda: lambda s, t: loss(s, t) / 16, scale=16),
                "shifted": Form(lambda: lambda s, t: loss(s, t) + 1),
                "swapped": Form(lambda: lambda s, t: loss(t.requires_grad_(), s) + 0 * s.sum()),
                "broken": Form(broken),
            },
        )
    )
    agrees = {name: form.get("agrees") for name, form in shown.items()}
    assert agrees == {
        PLAIN: "yes",
        "scaled": "yes",
        "shifted": "gradient",
        "swapped": "no",
        "broken": None,
    }
    assert shown["broken"]["absent"] == "ImportError: no name 'x' in 'y'"
    assert "broken" not in losses


def test_our_own_failure_is_no_absence():
    def broken() -> None:
        raise ImportError

    case = QUICK[0]
    with pytest.raises(ImportError):
        bench.checked(replace(case, forms={**case.forms, RUN: Form(broken)}))


def test_time_tells_slow_from_fast_and_rounds_are_kept():
    order = []

    def call(name: str, seconds: float) -> None:
        order.append(name)
        time.sleep(seconds)

    times = bench.interleaved(
        {"slow": lambda: call("slow", 0.03), "fast": lambda: call("fast", 0.006)},
        rounds=(3, 4),
        seconds=0,
    )
    assert {len(rounds) for rounds in times.values()} == {3}
    assert bench.spread(times["slow"])[0] > 2 * bench.spread(times["fast"])[0]
    each = [tuple(order[at : at + 2]) for at in range(4, len(order), 2)]
    assert {frozenset(names) for names in each} == {frozenset(times)}
    assert len(set(each)) == 2, "one is always the first"


def test_memory_sees_what_a_call_makes(monkeypatch: pytest.MonkeyPatch):
    # Here, without a process of its own: 64 MB in the loss, 8 MB of gradient.
    size = 2 * 2**20

    def large(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (s.repeat(8) * 2).sum() if len(s) > 10 else s.sum()

    def case(*, quick: bool = False) -> list[Case]:
        inputs = lambda: [torch.zeros(2 if quick else size) for _ in range(2)]  # noqa: E731
        return [replace(QUICK[0], inputs=inputs, forms={"large": Form(lambda: large)})]

    monkeypatch.setattr(bench, "cases", case)
    grown = bench._grown(0, "large", False) / bench.MEGABYTE
    assert 100 < grown < 250


def test_a_process_of_its_own_measures_memory():
    assert 0 <= bench.extra_memory(0, PLAIN, quick=True) < 50 * bench.MEGABYTE


def test_the_rival_is_the_best_that_computes_the_same():
    case = QUICK[0]
    measured = forms(plain=9, to_run=1, torchdistill=4, TRL=2)
    measured["TRL"]["agrees"] = "no"
    found = bench.judged(case, measured)
    assert found["rivals"]["time"] == "torchdistill"
    assert found["ratios"]["time"] == 0.25
    assert found["met"] == {"time": True}
    measured["torchdistill"]["milliseconds"] = [1.5]
    assert bench.judged(case, measured)["met"] == {"time": False}
    naive = bench.judged(QUICK[-1], forms(plain=4, to_run=2))
    assert naive["rivals"] == {"time": PLAIN, "memory": PLAIN}
    assert naive["met"] == {"time": False, "memory": False}
    assert bench.judged(case, forms(plain=9, to_run=1))["ratios"] == {}


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return json.loads((ROOT / "docs/data/bench.json").read_text(encoding="utf-8"))


def test_the_record_is_of_the_full_sizes_and_all_packages(recorded: dict[str, Any]):
    expected = [(case.paper, case.name, list(case.shape), list(case.forms)) for case in cases()]
    assert [
        (c["paper"], c["name"], c["shape"], list(c["forms"])) for c in recorded["cases"]
    ] == expected
    assert not recorded["quick"]
    assert all(recorded["peers"].values())
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"([\w-]+)==([\w.]+)", makefile))
    assert {PEERS[n]: v for n, v in recorded["peers"].items()}.items() <= pinned.items()


def test_the_record_judges_as_its_numbers_do(recorded: dict[str, Any]):
    for case, entry in zip(cases(), recorded["cases"], strict=True):
        for name, value in bench.judged(case, entry["forms"]).items():
            assert entry[name] == value, case.name


def test_files_are_written(tmp_path: Path, recorded: dict[str, Any]):
    paths = bench.write(recorded, tmp_path)
    assert [path.name for path in paths] == ["bench.json", "bench.png"]
    assert json.loads(paths[0].read_text(encoding="utf-8"))["cases"] == recorded["cases"]
