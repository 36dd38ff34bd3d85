"""Many papers: the made pairs are like real ones, and what a served site keeps is never stale."""

import re
import shutil
import time
from pathlib import Path

import pytest
import yaml

from docs.hooks.lineage import FEW, most_built_on
from docs.hooks.search import lighter
from papers.catalog import RELATIONS, load
from papers.ledger import harvest
from tests.scale import (
    BUILD_BYTES,
    CELLS,
    EDIT_SECONDS,
    FIGURES,
    LINES,
    SERVED,
    build,
    edit,
    make,
    served,
    wait_for,
)
from tests.test_lineage import many

THEME = "docs/overrides/material"

COUNT = 100
"""So many that another process renders the notebooks."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A copy of the project with made pairs."""
    root = tmp_path_factory.mktemp("scale") / "copy"
    make(root, COUNT)
    return root


def test_made_pairs_are_as_large_as_they_should_be(root):
    papers, verdicts = load(root), harvest(load(root), root)
    keys = [key for key in papers if key.startswith("maker")]
    assert len(keys) == COUNT
    for key in keys:
        assert len((root / f"papers/{key}.md").read_text().splitlines()) == LINES
        notebook = (root / f"docs/notebooks/{key}.ipynb").read_text()
        assert notebook.count('"cell_type"') == CELLS
        assert notebook.count('"image/png": "') == FIGURES
        names = [verdict.name for verdict in verdicts[key]]
        assert len(set(names)) == len(names) > 3


def test_a_site_of_many_builds_strictly_in_little_memory(root):
    built = build(root)
    assert built.memory < BUILD_BYTES
    pages = list((root / "site").glob("notebooks/*/index.html"))
    assert len(pages) == len(load(root))
    for page in pages:
        assert page.read_text().count('class="output"') >= FIGURES


def test_no_page_but_those_for_all_grows_with_the_papers(root, tmp_path):
    few = tmp_path / "few"
    make(few, 2)
    build(few)
    for path in ("papers/hinton2015", "notebooks/hinton2015", "guide", "meetings"):
        sizes = [len((top / "site" / path / "index.html").read_text()) for top in (few, root)]
        assert abs(sizes[1] - sizes[0]) < 1000, path


@pytest.fixture(scope="module")
def served_copy(tmp_path_factory):
    """A copy that is served: its root, the made keys, its address, and how long it took."""
    root = tmp_path_factory.mktemp("served") / "copy"
    keys = make(root, SERVED, decks=True)
    start = time.perf_counter()
    with served(root) as address:
        yield root, keys, address, time.perf_counter() - start
    shutil.rmtree(root)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_an_edited_note_is_shown_soon_and_others_stay(served_copy):
    root, keys, address, started = served_copy
    taken = []
    for number in range(3):
        edit(root / f"papers/{keys[1]}.md", f"Written{number}")
        taken.append(wait_for(f"{address}papers/{keys[1]}/", f"Written{number}", 30))
        time.sleep(1)
    # Where other tests run beside this one, all takes longer.
    assert min(taken) < max(EDIT_SECONDS, started / 6)
    wait_for(f"{address}papers/{keys[2]}/", "</html>", 0.5)


@pytest.mark.parametrize(
    ("file", "old", "new", "page"),
    [
        ("docs/notebooks/KEY.ipynb", 'class=\\"claim__verdict\\">', "~SHOWN ", "notebooks/KEY/"),
        ("docs/notebooks/KEY.ipynb", '"measured": "', "~SHOWN ", "papers/KEY/"),
        ("docs/notebooks/KEY.ipynb", '"measured": "', "~SHOWN ", "claims/"),
        ("papers/KEY.md", "title: ", "~SHOWN ", "papers/KEY/"),
        ("papers/KEY.md", "title: ", "~SHOWN ", "notebooks/KEY/"),
        ("papers/KEY.md", "\n- Bob", " SHOWN~", "papers/NEXT/"),  # a link in the footer
        ("snippets/KEY.py", '"""', "~SHOWN ", "downloads/KEY.py"),
        (
            "docs/overrides/material/notebook.html",
            "{{ page.content }}",
            "SHOWN ~",
            "notebooks/KEY/",
        ),
        ("docs/overrides/material/note.html", "{{ page.content }}", "SHOWN ~", "papers/KEY/"),
        ("docs/overrides/material/fill/cite.html", "<pre>", "~SHOWN ", "papers/KEY/"),
        ("mkdocs.yml", 'KL: "', "~SHOWN ", "papers/hinton2015/"),
        ("docs/guide.md", "# ", "~SHOWN ", "guide/"),
        ("mkdocs.yml", "site_name: ", "~SHOWN ", "papers/KEY/"),
    ],
)
def test_what_a_page_is_made_of_makes_it_anew(served_copy, request, file, old, new, page):
    """`new` holds ~ for what was there."""
    root, keys, address, _ = served_copy
    mark = "Mark" + re.sub(r"\W", "", request.node.name)[-12:]
    names = {"KEY": keys[3], "NEXT": keys[4]}

    def named(text: str) -> str:
        return re.sub("KEY|NEXT", lambda found: names[found[0]], text)

    wait_for(f"{address}{named(page)}", "", 30)
    replace(root / named(file), old, new.replace("~", old).replace("SHOWN", mark))
    wait_for(f"{address}{named(page)}", mark, 60)


def test_a_changed_script_is_shown_in_its_note(served_copy):
    root, keys, address, _ = served_copy
    note = (root / f"papers/{keys[0]}.md").read_text()
    name = re.findall(r"^::: snippets\.\w+\.(\w+)$", note, re.MULTILINE)[0]
    script = root / f"snippets/{keys[0]}.py"
    found = re.search(rf"^(def|class) {name}\b.*?\"\"\"", script.read_text(), re.M | re.S)
    assert found
    replace(script, found[0], f"{found[0]}Reworded. ")
    wait_for(f"{address}papers/{keys[0]}/", "Reworded.", 60)


def test_the_map_at_home_has_those_most_built_on():
    papers = many(1)
    few = most_built_on(papers, FEW)
    assert len(few) == FEW < len(papers)
    built_on = {key: sum(key in p.builds_on for p in papers.values()) for key in papers}
    assert min(built_on[key] for key in few) >= max(built_on[key] for key in papers.keys() - few)
    for paper in few.values():
        assert {key for relation in RELATIONS for key in getattr(paper, relation)} <= set(few)


def entries(text):
    return [
        {"location": "a/", "title": "A", "text": "<p>short</p>", "tags": ["Ann"]},
        {"location": "a/#b", "title": "<code>b</code>", "text": f"<p>{text}</p>"},
    ]


def test_a_small_index_stays_as_it_is():
    assert lighter(entries("long"), 1000) == entries("long")


def test_a_large_index_has_an_entry_for_a_page_and_its_longest_sections_are_cut():
    (entry,) = lighter(entries("x" * 2000), 1000)
    assert entry["location"] == "a/"
    assert entry["tags"] == ["Ann"]
    assert re.fullmatch("short b: x{995}", entry["text"])


def test_the_made_settings_leave_out_decks_alone(root):
    settings = [
        (path / "mkdocs.yml").read_text().splitlines() for path in (root, Path(__file__).parents[1])
    ]
    assert [line for line in settings[1] if line not in settings[0]] == ["  - docs/hooks/slides.py"]
    assert yaml.compose("\n".join(settings[0]))
