"""The runner and the command line, on small scripts in a copy."""

import json
import shutil
import signal
import time

import pytest

from snippets.lab import notebooks
from tests.workshop import add_pair, empty_workshop

A, B = "aaa2001", "bbbb2002"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two pairs that depend on different helpers, both recorded."""
    workshop = empty_workshop(tmp_path_factory.mktemp("recorded"))
    add_pair(workshop, A, "first")
    add_pair(workshop, B, "second")
    ran = workshop.snippets("run")
    assert ran.returncode == 0, ran.stderr
    return workshop


@pytest.fixture
def workshop(recorded, tmp_path):
    """A copy of its own for each test."""
    root = tmp_path / "copy"
    shutil.copytree(recorded.root, root)
    return type(recorded)(root)


def problems(workshop):
    checked = workshop.snippets("check")
    assert "Traceback" not in checked.stderr
    assert checked.returncode == (1 if checked.stderr else 0)
    return checked.stderr


class TestRecords:
    def test_running_again_changes_no_byte(self, workshop):
        before = {key: workshop.notebook(key).read_bytes() for key in (A, B)}
        assert workshop.snippets("run", "--force", "-j", "1").returncode == 0
        assert before == {key: workshop.notebook(key).read_bytes() for key in (A, B)}

    def test_cells_and_links(self, workshop):
        notebook = json.loads(workshop.notebook(A).read_text())
        assert [cell["id"] for cell in notebook["cells"]] == [f"{A}-0{i}" for i in range(3)]
        assert f"](../../papers/{A}.md)" in "".join(notebook["cells"][0]["source"])
        assert notebook["cells"][2]["outputs"][0]["text"] == "1\n"

    def test_nothing_to_run_is_said_quickly(self, workshop):
        start = time.perf_counter()
        ran = workshop.snippets("run")
        assert time.perf_counter() - start < 2
        assert "2 notebook(s) are fresh" in ran.stdout

    def test_a_change_of_a_helper_makes_exactly_its_dependants_stale(self, workshop):
        workshop.path("snippets/lab/first.py").write_text("constant = 2\n")
        found = problems(workshop)
        assert f"docs/notebooks/{A}.ipynb: stale" in found
        assert B not in found
        ran = workshop.snippets("run")
        assert ran.stdout.split() == [f"{A}:", "done"]
        assert '"2\\n"' in workshop.notebook(A).read_text()
        assert problems(workshop) == ""

    def test_a_change_in_text_makes_stale(self, workshop):
        workshop.edit(f"snippets/{B}.py", "# A paper", "# The paper")
        assert f"docs/notebooks/{B}.ipynb: stale" in problems(workshop)

    def test_an_edit_by_hand_is_noticed(self, workshop):
        workshop.edit(f"docs/notebooks/{A}.ipynb", '"1\\n"', '"2\\n"')
        assert f"docs/notebooks/{A}.ipynb: edited" in problems(workshop)
        assert workshop.snippets("run").returncode == 0
        assert problems(workshop) == ""

    def test_what_is_missing_orphaned_or_no_notebook_is_named(self, workshop):
        workshop.notebook(A).unlink()
        workshop.notebook(B).write_text("{")
        workshop.notebook("cccc2003").write_text("{}")
        found = problems(workshop)
        assert f"docs/notebooks/{A}.ipynb: missing" in found
        assert f"docs/notebooks/{B}.ipynb: unreadable" in found
        assert "docs/notebooks/cccc2003.ipynb: orphaned" in found


class TestFailures:
    def test_a_failing_cell_keeps_the_record_and_is_shown(self, workshop):
        before = workshop.notebook(A).read_bytes()
        workshop.edit(f"snippets/{A}.py", "print(constant)", "print(constant / 0)")
        ran = workshop.snippets("run")
        assert ran.returncode == 1
        assert f"snippets/{A}.py: cell 3 failed: ZeroDivisionError" in ran.stderr
        assert "print(constant / 0)" in ran.stderr
        assert "concurrent/futures" not in ran.stderr
        assert workshop.notebook(A).read_bytes() == before

    def test_a_dead_kernel_is_an_error(self, workshop):
        workshop.edit(f"snippets/{A}.py", "print(constant)", "import os; os._exit(1)")
        ran = workshop.snippets("run")
        assert ran.returncode == 1
        assert f"snippets/{A}.py: cell 3 failed: DeadKernelError" in ran.stderr
        assert "concurrent/futures" not in ran.stderr

    def test_a_claim_that_returns_something_else(self, workshop):
        claim = (
            "from snippets.lab.claims import claim\n\n\n"
            '@claim("Two is two", source="§1")\ndef two():\n    return 2\n'
        )
        workshop.edit(f"snippets/{A}.py", "print(constant)\n", claim)
        ran = workshop.snippets("run", A)
        assert ran.returncode == 1
        assert f"snippets/{A}.py: cell 3 failed: TypeError: claim two returned int" in ran.stderr

    def test_a_script_that_is_no_python(self, workshop):
        workshop.edit(f"snippets/{A}.py", "print(constant)", "print(constant")
        ran = workshop.snippets("run")
        assert ran.returncode == 1
        assert f"snippets/{A}.py: line 19: not valid Python" in ran.stderr
        assert "Traceback" not in ran.stderr

    def test_an_unknown_key(self, workshop):
        ran = workshop.snippets("run", "nobody1999")
        assert ran.returncode == 1
        assert ran.stderr == f"error: no script for nobody1999; there are: {A}, {B}\n"

    @pytest.mark.parametrize("arguments", [[], ["walk"], ["run", "-j", "0"], ["new"]])
    def test_wrong_usage(self, workshop, arguments):
        ran = workshop.snippets(*arguments)
        assert ran.returncode == 2
        assert "usage: python -m snippets" in ran.stderr

    @pytest.mark.parametrize("command", ["run", "check", "list", "new"])
    def test_help(self, workshop, command):
        ran = workshop.snippets(command, "--help")
        assert ran.returncode == 0
        assert f"usage: python -m snippets {command}" in ran.stdout

    def test_kill_in_the_middle_leaves_every_notebook_whole(self, workshop):
        before = {key: workshop.notebook(key).read_bytes() for key in (A, B)}
        flag = workshop.path("running")
        workshop.edit(
            f"snippets/{A}.py",
            "print(constant)",
            f"import time; open({str(flag)!r}, 'w').close(); time.sleep(3)",
        )
        command = workshop.start("run")
        try:
            deadline = time.monotonic() + 60
            while not flag.exists():
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            command.send_signal(signal.SIGKILL)
            command.wait()
        assert before == {key: workshop.notebook(key).read_bytes() for key in (A, B)}
        assert f"docs/notebooks/{A}.ipynb: stale" in problems(workshop)
        assert workshop.snippets("run").returncode == 0
        assert problems(workshop) == ""


class TestList:
    def test_one_line_a_paper(self, workshop):
        listed = workshop.snippets("list")
        assert listed.returncode == 0
        header, *rows = listed.stdout.splitlines()
        assert header.split() == ["key", "title", "claims", "verdicts", "age"]
        assert [row.split()[0] for row in rows] == [A, B]


class TestNew:
    ARGUMENTS = ("--title", "A 'new': \"paper\"", "--arxiv", "2401.00001")

    def test_a_new_pair_passes_at_once(self, workshop):
        made = workshop.snippets("new", "some2024", *self.ARGUMENTS)
        assert made.returncode == 0, made.stderr
        assert problems(workshop) == ""
        listed = workshop.snippets("list").stdout
        assert "A 'new': \"paper\"" in listed
        assert "✓ 1" in listed

    @pytest.mark.parametrize(
        ("key", "arguments", "message"),
        [
            (A, ARGUMENTS, f"KEY: papers/{A}.md exists already"),
            ("Some2024", ARGUMENTS, "KEY: 'Some2024' is no key"),
            ("../some2024", ARGUMENTS, "is no key"),
            ("some2024", ("--title", " ", "--arxiv", "2401.00001"), "--title: must be"),
            ("some2024", ("--title", "x", "--arxiv", "24.1"), "--arxiv: '24.1' is no arXiv id"),
            ("some2024", ("--title", "x", "--arxiv", "0000.00007"), "already the id of"),
        ],
    )
    def test_what_it_refuses(self, workshop, key, arguments, message):
        before = sorted(workshop.root.rglob("*.md")) + sorted(workshop.root.rglob("*.py"))
        made = workshop.snippets("new", key, *arguments)
        assert made.returncode == 1
        assert message in made.stderr
        assert "Traceback" not in made.stderr
        assert before == sorted(workshop.root.rglob("*.md")) + sorted(workshop.root.rglob("*.py"))


def test_the_projects_notebooks_are_fresh():
    states = {key: notebooks.state(key) for key in notebooks.script_keys()}
    assert set(states.values()) == {"fresh"}, states
    assert notebooks.orphans() == []
