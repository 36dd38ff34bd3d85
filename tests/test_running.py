"""From a page to a running notebook, and from a paper to a new pair."""

import difflib
import importlib.util
import json
import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import jupytext
import nbformat
import pytest
from bs4 import BeautifulSoup
from IPython.core.interactiveshell import InteractiveShell
from playwright.sync_api import expect

from docs.hooks import static
from papers.catalog import ROOT, load
from snippets.lab import scaffold
from tests.server import serve
from tests.test_browser import browser, cut_off  # noqa: F401
from tests.test_site import build
from tests.workshop import empty_workshop

PAPERS = load()
KEY = next(iter(PAPERS))
REPOSITORY = "https://github.com/group/fork"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site of a project that has a repository."""
    folder = tmp_path_factory.mktemp("running") / "site"
    result = build(folder, REPO_URL=REPOSITORY)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A project without papers."""
    return empty_workshop(tmp_path_factory.mktemp("asks"))


@pytest.fixture(scope="module")
def bars(site):
    """The bar of every note and every notebook, by address."""
    found = {}
    for folder in ("papers", "notebooks"):
        for key in PAPERS:
            page = (site / folder / key / "index.html").read_text(encoding="utf-8")
            bar = BeautifulSoup(page, "html.parser").select(".bar")
            assert len(bar) == 1
            found[folder, key] = bar[0]
    return found


@pytest.fixture
def page(site, browser):  # noqa: F811
    """A phone's page of the site, without a mouse."""
    with serve(site) as address:
        context = browser.new_context(
            base_url=address,
            viewport={"width": 360, "height": 800},
            permissions=["clipboard-read", "clipboard-write"],
        )
        cut_off(context, address)
        yield context.new_page()
        context.close()


class TestBar:
    def test_it_leads_everywhere(self, bars):
        for (folder, key), bar in bars.items():
            parts = [
                part.get_text(strip=True) for part in bar.find_all(["a", "button"], recursive=False)
            ]
            assert parts == [
                "Note",
                "Notebook",
                "Slides",
                "Download .ipynb",
                ".py",
                "Open in Colab",
                "Cite",
                "Edit",
            ], (folder, key)
            addresses = [link["href"] for link in bar.select("a[href]")]
            assert f"../../slides/{key}/" in addresses
            assert f"../../downloads/{key}.ipynb" in addresses
            assert f"../../downloads/{key}.py" in addresses
            assert (
                f"https://colab.research.google.com/github/group/fork/blob/notebooks/{key}.ipynb"
            ) in addresses
            assert not bar.select("img")

    def test_it_cites_the_paper(self, bars):
        for (_, key), bar in bars.items():
            assert bar.select_one("#bibtex code").get_text() == PAPERS[key].bibtex

    @pytest.mark.parametrize(
        ("repository", "address"),
        [
            ("", None),
            ("https://gitlab.example/group/fork", None),
            ("https://github.com/group/fork.git", "group/fork/blob"),
            ("https://github.com/group/fork/", "group/fork/blob"),
        ],
    )
    def test_only_github_has_a_way_to_colab(self, repository, address):
        meta = {"paper": PAPERS[KEY]}
        static.on_page_markdown(
            "", types.SimpleNamespace(meta=meta), types.SimpleNamespace(repo_url=repository), None
        )
        if address is None:
            assert "colab" not in meta
        else:
            assert meta["colab"].endswith(f"/github/{address}/notebooks/{KEY}.ipynb")

    @pytest.mark.parametrize("folder", ["papers", "notebooks"])
    def test_each_part_is_large_enough_for_a_finger(self, page, folder):
        page.goto(f"{folder}/{KEY}/")
        parts = page.locator(".bar > :is(a, button)")
        assert parts.count() == 8
        boxes = [part.bounding_box() for part in parts.all()]
        for box in boxes:
            assert box["width"] >= 24
            assert box["height"] >= 24
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 360
        for i, one in enumerate(boxes):
            for other in boxes[i + 1 :]:
                apart = (
                    one["x"] + one["width"] <= other["x"]
                    or other["x"] + other["width"] <= one["x"]
                    or one["y"] + one["height"] <= other["y"] + 1
                    or other["y"] + other["height"] <= one["y"] + 1
                )
                assert apart, (one, other)

    def test_the_keyboard_opens_copies_and_closes(self, page):
        page.goto(f"papers/{KEY}/")
        button = page.locator(".bar").get_by_role("button", name="Cite", exact=True)
        more = page.locator(f"#{button.get_attribute('popovertarget')}")
        expect(more).to_be_hidden()
        button.focus()
        page.keyboard.press("Enter")
        expect(more).to_be_visible()
        box = more.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        copy = more.get_by_role("button")
        expect(copy).to_be_visible()
        for _ in range(5):
            page.keyboard.press("Tab")
            if copy.evaluate("button => button === document.activeElement"):
                break
        page.keyboard.press("Enter")
        expect(page.locator("[data-md-component=dialog]")).to_have_class(re.compile("active"))
        assert page.evaluate("navigator.clipboard.readText()").strip() == PAPERS[KEY].bibtex
        page.keyboard.press("Escape")
        expect(more).to_be_hidden()


class TestDownload:
    """The downloaded notebook gets its code on Colab, and says so where it cannot."""

    @pytest.fixture
    def shell(self, monkeypatch):
        """A kernel without a network, which notes what it would install."""
        shell = InteractiveShell()
        shell.installed = []
        shell.register_magic_function(shell.installed.append, magic_name="pip")
        monkeypatch.delitem(sys.modules, "google.colab", raising=False)
        yield shell
        shell.history_manager.end_session()

    @pytest.fixture
    def cell(self, site):
        """The cell that the download has and the record has not."""
        download = nbformat.read(site / "downloads" / f"{KEY}.ipynb", as_version=4)
        nbformat.validate(download)
        record = nbformat.read(ROOT / "docs" / "notebooks" / f"{KEY}.ipynb", as_version=4)
        code = [cell for cell in download.cells if cell.cell_type == "code"]
        download.cells.remove(code[0])
        assert download.cells == record.cells
        return code[0].source

    @pytest.fixture
    def no_code(self, monkeypatch):
        """Nobody has installed the scripts."""
        find = importlib.util.find_spec
        monkeypatch.setattr(
            "importlib.util.find_spec",
            lambda name, *rest: None if name == "snippets" else find(name, *rest),
        )

    def test_on_colab_it_installs_the_repository(self, shell, cell, no_code, monkeypatch):
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
        shell.run_cell(cell).raise_error()
        assert shell.installed == [f"install --quiet git+{REPOSITORY} beartype jaxtyping"]

    def test_elsewhere_it_says_what_to_do(self, shell, cell, no_code):
        with pytest.raises(ModuleNotFoundError, match=f"clone {REPOSITORY}, then: make lab"):
            shell.run_cell(cell).raise_error()
        assert shell.installed == []

    def test_where_the_code_is_it_does_nothing(self, shell, cell, monkeypatch):
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
        shell.run_cell(cell).raise_error()
        assert shell.installed == []


class TestLab:
    """JupyterLab reads and writes scripts through this manager of jupytext's."""

    @pytest.fixture
    def manager(self, tmp_path):
        (tmp_path / "snippets").mkdir()
        for key in PAPERS:
            shutil.copy(ROOT / "snippets" / f"{key}.py", tmp_path / "snippets")
        shutil.copy(ROOT / "pyproject.toml", tmp_path)
        return jupytext.TextFileContentsManager(root_dir=str(tmp_path))

    def opened(self, manager, key):
        """The notebook, with what JupyterLab adds when its kernel starts."""
        model = manager.get(f"snippets/{key}.py", type="notebook", content=True)
        metadata = model["content"]["metadata"]
        metadata["kernelspec"] = {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        }
        metadata["language_info"] = {"name": "python", "version": "3.12.1"}
        for cell in model["content"]["cells"]:
            cell["metadata"].update(trusted=True, execution={"iopub.execute_input": "now"})
        return model

    def saved(self, manager, key, model):
        """The script's bytes after saving."""
        manager.save({**model, "format": "json"}, f"snippets/{key}.py")
        return Path(manager.root_dir, "snippets", f"{key}.py").read_bytes()

    @pytest.mark.parametrize("key", PAPERS)
    def test_saving_changes_what_was_edited_and_nothing_else(self, manager, key):
        model = self.opened(manager, key)
        before = (ROOT / "snippets" / f"{key}.py").read_bytes()
        assert self.saved(manager, key, model) == before
        cells = [cell for cell in model["content"]["cells"] if cell["cell_type"] == "code"]
        first, _, rest = cells[1]["source"].partition("\n")
        cells[1]["source"] = f"{first}  # edited\n{rest}"
        after = self.saved(manager, key, model)
        changes = [
            line
            for line in difflib.ndiff(before.decode().splitlines(), after.decode().splitlines())
            if line[0] in "+-"
        ]
        assert changes == [f"- {first}", f"+ {first}  # edited"]

    def test_the_kernel_is_named_as_the_scripts_name_it(self):
        """JupyterLab writes the name of its kernel into the header."""
        made = subprocess.run(["make", "-n", "lab"], cwd=ROOT, capture_output=True, text=True)
        assert "ipykernel install --sys-prefix --display-name 'Python 3'" in made.stdout
        assert "--ip 127.0.0.1" in made.stdout
        script = (ROOT / "snippets" / f"{KEY}.py").read_text()
        assert "display_name: Python 3\n" in script


class TestNewAsks:
    """`new` on a terminal."""

    def talk(self, workshop, arguments, answers):
        """Run `new` on a terminal, and answer each question as it comes."""
        main, terminal = pty.openpty()
        command = subprocess.Popen(
            [sys.executable, "-m", "snippets", "new", *arguments],
            cwd=workshop.root,
            env={**os.environ, "PYTHONPATH": str(workshop.root), "COLUMNS": "200", "TERM": "dumb"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        said, answers = "", list(answers)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if select.select([main], [], [], 0.2)[0]:
                try:
                    said += os.read(main, 4096).decode()
                except OSError:  # the other end is closed
                    break
            elif answers and said.endswith(": "):
                os.write(main, answers.pop(0).encode() + b"\n")
                said += "\n"
            elif command.poll() is not None:
                break
        command.wait(timeout=10)
        os.close(main)
        assert not answers, said
        return command.returncode, said.replace("\r\n", "\n")

    def test_bad_answers_are_asked_again_with_the_reason(self, workshop):
        code, said = self.talk(
            workshop,
            [],
            ["", "On a New Way", "24.1", "2401.00002", "", "Åsa Öst, Bo Li", "Öst2024", ""],
        )
        assert code == 0, said
        reasons = [
            "must be one line of text",
            "'24.1' is no arXiv id, as in 1503.02531",
            "must be at least one name",
            "'Öst2024' is no key: first author and year, as in hinton2015",
        ]
        places = [said.index(reason) for reason in reasons]
        assert places == sorted(places)
        assert "Key (ost2024): " in said
        assert ".venv/bin/python -m snippets run ost2024" in said
        note = workshop.path("papers/ost2024.md").read_text()
        assert 'authors: ["Åsa Öst", "Bo Li"]' in note
        for field in ("corrects: []", "contradicts: []", "summary_zh: "):
            assert field in note
        checked = workshop.snippets("check")
        assert checked.returncode == 0, checked.stderr

    def test_only_what_is_missing_is_asked(self, workshop):
        code, said = self.talk(
            workshop, ["li2023", "--title", "Known"], ["2401.00002", "2301.00002"]
        )
        assert code == 0, said
        assert "2401.00002 is already the id of papers/ost2024.md" in said
        assert not re.search(r"^(Title|Authors|Key)", said, re.MULTILINE)

    def test_what_is_wrong_is_said_before_anything_is_asked(self, workshop):
        code, said = self.talk(workshop, ["Li2023"], [])
        assert code == 1
        assert said.startswith("error: KEY: 'Li2023' is no key")

    def test_no_answer_writes_nothing(self, workshop):
        before = sorted(workshop.path("papers").iterdir())
        code, said = self.talk(workshop, [], ["\x04"])
        assert code == 1
        assert said.splitlines()[-1] == "error: no answer; nothing was written"
        assert sorted(workshop.path("papers").iterdir()) == before

    def test_without_a_terminal_it_names_what_is_missing(self, workshop):
        made = subprocess.run(
            [sys.executable, "-m", "snippets", "new", "li2022", "--title", "x"],
            cwd=workshop.root,
            env={**os.environ, "PYTHONPATH": str(workshop.root)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert made.returncode == 2
        assert "usage: python -m snippets new" in made.stderr
        assert "the following arguments are required: --arxiv" in made.stderr


class TestProposedKey:
    @pytest.mark.parametrize(
        ("title", "authors", "key"),
        [
            ("Anything", "Geoffrey Hinton, Oriol Vinyals", "hinton1999"),
            ("Anything", "  Jörg Müller-Lüdenscheidt ,", "mullerludenscheidt1999"),
            ("Anything", "Bo Taken", "taken1999anything"),
            ("On the Data-Free Way", "Bo Taken", "taken1999data"),
            ("Anything", "王五", None),
        ],
    )
    def test_surname_year_and_a_word_if_it_is_taken(self, monkeypatch, title, authors, key):
        free = scaffold.key_problem
        monkeypatch.setattr(
            scaffold, "key_problem", lambda key: "taken" if key == "taken2099" else free(key)
        )
        proposed = scaffold.propose_key(title, "9901.00001", authors)
        assert proposed == (key and key.replace("1999", "2099"))

    def test_many_authors_do_not_make_a_line_scroll(self, monkeypatch, tmp_path):
        for folder in ("papers", "snippets"):
            (tmp_path / folder).mkdir()
        monkeypatch.setattr(scaffold, "ROOT", tmp_path)
        authors = ", ".join(["Anna Longname-Example"] * 9)
        scaffold.make_pair(scaffold.Facts("new2099", "Short", "9901.00001", authors))
        script = (tmp_path / "snippets" / "new2099.py").read_text()
        assert max(map(len, script.splitlines())) <= 72
        assert script.count("Anna") == 9


class TestGuide:
    """The guide's steps, followed."""

    @staticmethod
    def section(name):
        guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
        return re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", guide, re.DOTALL | re.MULTILINE)[1]

    def commands(self, name):
        blocks = re.findall(r"^ *```sh\n(.*?)^ *```", self.section(name), re.DOTALL | re.MULTILINE)
        return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]

    def test_each_target_of_make_is_there(self):
        makefile = (ROOT / "Makefile").read_text()
        named = re.findall(r"make (\w+)", self.section("Run a note") + self.section("Add a paper"))
        assert {"lab", "serve", "test"} <= set(named)
        for target in named:
            assert re.search(f"^{target}:", makefile, re.MULTILINE), target

    def test_adding_a_paper_works_as_told(self, tmp_path):
        workshop = empty_workshop(tmp_path)
        ran = []
        for command in self.commands("Add a paper"):
            program, *arguments = shlex.split(command)
            if program == "make":  # it installs, and needs the whole project
                continue
            assert [program, *arguments[:2]] == [".venv/bin/python", "-m", "snippets"]
            done = workshop.snippets(*arguments[2:])
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            ran.append(arguments[2])
        assert ran == ["new", "run", "check"]
        papers = json.loads(
            subprocess.run(
                [
                    sys.executable,
                    "-c",
                    "import json; from papers import catalog, ledger; papers = catalog.load();"
                    " print(json.dumps({key: len(ledger.harvest(papers)[key]) for key in papers}))",
                ],
                cwd=workshop.root,
                env={**os.environ, "PYTHONPATH": str(workshop.root)},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        assert list(papers.values()) == [1]
