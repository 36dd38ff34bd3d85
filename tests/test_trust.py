"""The committed record says what the tests prove, and a failure takes its proof away."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import trust
from tests.public import PLAIN


@pytest.fixture(scope="module")
def committed():
    return Path("docs/data/trust.json").read_text("utf-8")


def test_it_is_what_the_tests_prove(committed, tmp_path):
    """They are collected, not run: the rest of `make test` runs them."""
    file = tmp_path / "trust.json"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "proves"]
    command += ["-p", "no:cacheprovider", "--trust", str(file), *trust.files()]
    subprocess.run(command, check=True, capture_output=True)
    assert file.read_text("utf-8") == committed, "run: make trust"


def test_every_loss_is_proved_in_each_way(committed):
    record = json.loads(committed)
    for method in PLAIN:
        columns = record[method.paper][method.name]
        assert tuple(columns) == trust.COLUMNS
        for column in ("against", "inputs", "gradients"):
            assert columns[column], f"{method.key}: nothing under {column}"


def report(outcome, *found):
    return SimpleNamespace(
        when="call",
        passed=outcome == "passed",
        failed=outcome == "failed",
        user_properties=[("other", 1), (trust.PROVES, found)],
    )


def test_one_failure_outweighs_a_pass_and_a_skip_proves_nothing(tmp_path):
    file = tmp_path / "trust.json"
    settings = {"--trust": file, "--collect-only": False}
    record = trust.Record(SimpleNamespace(getoption=settings.get))
    kept, lost, skipped = (["a2000", "a_loss", "inputs", phrase] for phrase in ("π", "b", "c"))
    for outcome, found in (
        ("failed", [lost]),
        ("passed", [lost, kept]),
        ("passed", [kept]),
        ("skipped", [skipped]),
    ):
        record.pytest_runtest_logreport(report(outcome, *found))
    record.pytest_sessionfinish()
    empty = {column: [] for column in trust.COLUMNS}
    assert json.loads(file.read_text("utf-8")) == {"a2000": {"a_loss": empty | {"inputs": ["π"]}}}


def test_a_process_that_works_for_another_writes_nothing():
    worker = SimpleNamespace(workerinput={}, getoption=lambda name: "file")
    assert trust.Record(worker).file is None


class TestWhichLoss:
    def item(self, *arguments, cls=None, module="tests.test_hinton2015", **params):
        mark = pytest.mark.proves(*arguments).mark
        found = {"callspec": SimpleNamespace(params=params)} if params else {}
        return SimpleNamespace(
            nodeid="a test",
            cls=cls,
            module=SimpleNamespace(__name__=module),
            iter_markers=lambda name: [mark],
            **found,
        )

    def test_the_one_named_in_the_mark(self):
        from snippets.hinton2015 import kd_loss

        (proof,) = trust.proofs(self.item("inputs", "π", kd_loss, method=PLAIN[0]))
        assert proof == ("hinton2015", "kd_loss", "inputs", "π")

    def test_a_parameter(self):
        (proof,) = trust.proofs(self.item("inputs", "π", method=PLAIN[0], dtype=int))
        assert proof == (PLAIN[0].paper, PLAIN[0].name, "inputs", "π")

    def test_the_only_one_of_the_script(self):
        (proof,) = trust.proofs(self.item("inputs", "π", module="tests.test_gu2024"))
        assert proof[:2] == ("gu2024", "reverse_kl_loss")

    def test_none_is_an_error(self):
        with pytest.raises(AssertionError, match="name the losses"):
            list(trust.proofs(self.item("inputs", "π")))

    def test_a_phrase_of_the_class(self):
        phrase = lambda c: "π" if c.symmetric else None  # noqa: E731
        module = "tests.test_gu2024"
        for symmetric in (True, False):
            cls = SimpleNamespace(symmetric=symmetric)
            found = list(trust.proofs(self.item("inputs", phrase, cls=cls, module=module)))
            assert len(found) == symmetric

    def test_an_unknown_column(self):
        with pytest.raises(AssertionError, match="'speed' is none of"):
            list(trust.proofs(self.item("speed", "π")))
