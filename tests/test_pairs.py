"""Rules that every pair of note and script keeps, and every import."""

import ast
import importlib
import inspect
import re

import grimp
import jupytext
import pytest

from papers import catalog, ledger
from snippets.lab.claims import claims_of

ROOT = catalog.ROOT
PAPERS = catalog.load()
KEYS = list(PAPERS)
READERS = {"papers", "papers.catalog", "papers.cells", "papers.ledger"}
"""What a hook may import of ours."""

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def script(key):
    return (ROOT / "snippets" / f"{key}.py").read_text()


@pytest.mark.parametrize("key", KEYS)
class TestScripts:
    def test_the_header_holds_a_kernel_and_nothing_else(self, key):
        header = script(key).split("# ---\n")[1]
        assert "formats" not in header
        assert "jupytext_version" not in header
        notebook = jupytext.reads(script(key), fmt="py:percent")
        assert notebook.metadata["kernelspec"] == KERNEL

    def test_it_starts_with_the_link_to_its_note_and_the_title(self, key):
        first = jupytext.reads(script(key), fmt="py:percent").cells[0].source
        assert f"[papers/{key}.md](../papers/{key}.md)" in first.splitlines()[0]
        assert f"\n# {PAPERS[key].title}\n" in first

    def test_no_line_scrolls(self, key):
        lines = script(key).splitlines()
        wide = [line for line in lines if len(line) > 72 and not re.match("# # |.*http", line)]
        assert wide == []

    def test_importing_it_prints_nothing_and_draws_no_seed(self, key):
        tree = ast.parse(script(key))
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert called.isdisjoint({"torch.manual_seed", "torch.set_default_dtype", "plt.figure"})
        assert len(re.findall("^@claim\\(", script(key), re.MULTILINE)) == len(
            claims_of(importlib.import_module(f"snippets.{key}"))
        )

    def test_every_declared_claim_has_its_verdict(self, key):
        declared = claims_of(importlib.import_module(f"snippets.{key}"))
        verdicts = ledger.harvest([key])[key]
        assert [claim.name for claim in declared] == [verdict.name for verdict in verdicts]
        assert [claim.text for claim in declared] == [verdict.text for verdict in verdicts]
        for claim, verdict in zip(declared, verdicts, strict=True):
            assert verdict.verdict in ("untested", "holds" if claim.expect else "fails")

    def test_enough_claims_and_pictures(self, key):
        if PAPERS[key].status == "complete":
            assert len(ledger.harvest([key])[key]) >= 4
            notebook = (ROOT / "docs" / "notebooks" / f"{key}.ipynb").read_text()
            assert notebook.count('"image/png": "') >= 2

    def test_public_functions_are_documented(self, key):
        module = importlib.import_module(f"snippets.{key}")
        for name in re.findall(rf"^::: snippets\.{key}\.(\w+)$", PAPERS[key].body, re.MULTILINE):
            text = inspect.getdoc(getattr(module, name))
            for part in ("$", "Args:", "Source:"):
                assert part in text, f"{name}: the docstring has no {part}"


@pytest.mark.parametrize("key", KEYS)
class TestNotes:
    def test_the_code_on_the_page_comes_from_the_script(self, key):
        body = PAPERS[key].body
        assert f"\n::: snippets.{key}." in body
        assert "```python" not in body

    def test_the_markers_are_there_once(self, key):
        for marker in ("<!-- claims -->", "<!-- cite -->"):
            assert PAPERS[key].body.count(f"\n{marker}\n") == 1


class TestArrows:
    GRAPH = grimp.build_graph("papers", "snippets", cache_dir=None)

    def imports(self, module):
        return self.GRAPH.find_modules_directly_imported_by(module)

    def test_the_bench_imports_no_paper(self):
        scripts = {f"snippets.{key}" for key in KEYS}
        lab = {"snippets.lab", *self.GRAPH.find_descendants("snippets.lab")}
        assert len(lab) > 5
        for module in lab:
            assert self.GRAPH.find_upstream_modules(module).isdisjoint(scripts), module

    def test_the_catalog_imports_nothing_of_ours(self):
        assert self.imports("papers.catalog") == set()
        assert self.imports("papers.ledger") == {"papers.catalog"}

    def test_nothing_imports_the_command_line(self):
        assert self.GRAPH.find_downstream_modules("snippets.__main__") == set()

    @pytest.mark.parametrize("key", KEYS)
    def test_a_script_imports_the_bench_and_what_it_builds_on(self, key):
        allowed = {f"snippets.{other}" for other in PAPERS[key].builds_on}
        for module in self.imports(f"snippets.{key}"):
            assert module.startswith("snippets.lab.") or module in allowed, module

    def test_hooks_import_only_what_reads_the_papers(self):
        hooks = sorted((ROOT / "docs" / "hooks").glob("*.py"))
        assert hooks
        for path in hooks:
            for node in ast.walk(ast.parse(path.read_text())):
                name = getattr(node, "module", "") or ""
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                ours = [n for n in (name, *names) if n.split(".")[0] in ("papers", "snippets")]
                assert {*ours} <= READERS, path
