"""The built site: whole, linked, and clear about what is wrong with its sources."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from html import escape
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup, Tag
from mkdocs.config import load_config
from mkdocs.structure.files import get_files

from papers.catalog import ROOT, by_arxiv, load
from papers.ledger import harvest

SOURCES = ("docs", "papers", "snippets")
PAPERS = load()
VERDICTS = harvest(PAPERS)
KEY = next(iter(PAPERS))
"""The paper that the tests of bad input break."""


def build(site: Path, root: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """Build the site of the tree `root` into `site`, strictly."""
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=root,
        env={**clean, "NO_MKDOCS_2_WARNING": "1", **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The site and what the build said."""
    site = tmp_path_factory.mktemp("build") / "site"
    result = build(site)
    assert result.returncode == 0, result.stderr
    return site, result.stdout + result.stderr


@pytest.fixture(scope="module")
def pages(built: tuple[Path, str]) -> dict[str, BeautifulSoup]:
    """Every page by its address on the site."""
    site, _ = built
    return {
        path.relative_to(site).as_posix().removesuffix("index.html"): BeautifulSoup(
            path.read_text(encoding="utf-8"), "html.parser"
        )
        for path in sorted(site.rglob("*.html"))
    }


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the sources, to be broken."""
    root = tmp_path / "copy"
    for name in SOURCES:
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ROOT / "mkdocs.yml", root)
    (root / "node_modules").symlink_to(ROOT / "node_modules")
    return root


def test_strict_build_has_no_warning(built: tuple[Path, str]) -> None:
    assert not re.findall(r"(?i)^.*(?:warning|error).*$", built[1], flags=re.MULTILINE)


def test_no_two_files_share_an_address() -> None:
    config = load_config(str(ROOT / "mkdocs.yml"))
    config = config.plugins.on_config(config)
    files = config.plugins.on_files(get_files(config), config=config)
    shared = [url for url, n in Counter(file.dest_uri for file in files).items() if n > 1]
    assert not shared
    assert f"papers/{KEY}/index.html" in {file.dest_uri for file in files}


def test_every_paper_has_its_pages_and_downloads(built: tuple[Path, str]) -> None:
    for key in PAPERS:
        assert (built[0] / "papers" / key / "index.html").exists()
        assert (built[0] / "notebooks" / key / "index.html").exists()
        for source in (ROOT / "docs/notebooks" / f"{key}.ipynb", ROOT / "snippets" / f"{key}.py"):
            assert (built[0] / "downloads" / source.name).read_bytes() == source.read_bytes()


def test_json_agrees_with_catalog_and_ledger(
    built: tuple[Path, str], pages: dict[str, BeautifulSoup]
) -> None:
    site, _ = built
    claims = json.loads((site / "claims.json").read_text(encoding="utf-8"))
    assert claims == [
        {**verdict.model_dump(), "url": verdict.page}
        for verdicts in VERDICTS.values()
        for verdict in verdicts
    ]
    for claim in claims:
        page, anchor = claim["url"].split("#")
        assert pages[page].find(id=anchor), claim["url"]
    assert json.loads((site / "papers.json").read_text(encoding="utf-8")) == {
        arxiv: f"papers/{key}/" for arxiv, key in by_arxiv(PAPERS).items()
    }


def test_tables_list_everything(pages: dict[str, BeautifulSoup]) -> None:
    assert len(pages["papers/"].select("tbody tr")) == len(PAPERS)
    assert len(pages["claims/"].select("tbody tr")) == sum(map(len, VERDICTS.values()))
    for key, verdicts in VERDICTS.items():
        shown = [mark.get_text() for mark in pages[f"papers/{key}/"].select("td .verdict")]
        marks = {"holds": "✓", "fails": "✗", "untested": "–"}
        assert [mark[0] for mark in shown] == [marks[verdict.verdict] for verdict in verdicts]


def test_every_remark_has_its_answer(pages: dict[str, BeautifulSoup]) -> None:
    remarks = yaml.safe_load((ROOT / "docs/meetings/remarks.yml").read_text(encoding="utf-8"))
    for remark in remarks:
        page, anchor = remark["answer"].split("#")
        assert page in pages, remark["answer"]
        assert pages[page].find(id=anchor), remark["answer"]
    sections = [
        (part.select_one("th"), part.select("td a")) for part in pages["meetings/"].select("tbody")
    ]
    assert all(name and name.get_text(strip=True) for name, _ in sections)
    assert all(link.get_text(strip=True) for _, links in sections for link in links)
    assert Counter({name.get_text(): len(links) for name, links in sections if name}) == Counter(
        remark["section"] for remark in remarks
    )


def test_figures_of_the_meetings_are_those_of_claims(pages: dict[str, BeautifulSoup]) -> None:
    measured = {
        verdict.page: verdict.measured for verdicts in VERDICTS.values() for verdict in verdicts
    }
    quoted = 0
    for address, page in pages.items():
        if not address.startswith("meetings/") or page.article is None:
            continue
        links = [
            urljoin(f"/{address}", str(link["href"])).lstrip("/")
            for link in page.article.select("a[href]")
        ]
        known = " ".join(measured.get(link, "") for link in links)
        figures = set(re.findall(r"\b0\.\d{3}\b", page.article.get_text()))
        assert figures <= set(re.findall(r"\b0\.\d{3}\b", known)), address
        quoted += len(figures)
    assert quoted


def test_map_and_words_tell_every_relation(pages: dict[str, BeautifulSoup]) -> None:
    for address, root in (("", ""), ("lineage/", "../")):
        page = pages[address]
        linked = {str(link["href"]) for link in page.select(".lineage svg a[href]")}
        assert linked == {f"{root}papers/{key}/" for key in PAPERS}
        told = {str(row.a["href"]): row for row in page.select(".lineage details li") if row.a}
        for key, paper in PAPERS.items():
            named = [*paper.builds_on, *paper.corrects, *paper.contradicts]
            links = told[f"{root}papers/{key}/"].select("a")
            assert [str(link["href"]) for link in links[1:]] == [
                f"{root}papers/{other}/" for other in named
            ]
            words = re.findall("builds on|corrects|contradicts", told[str(links[0]["href"])].text)
            assert words == [
                word
                for word, others in (
                    ("builds on", paper.builds_on),
                    ("corrects", paper.corrects),
                    ("contradicts", paper.contradicts),
                )
                if others
            ]


def test_claims_belong_to_the_questions_of_their_paper(pages: dict[str, BeautifulSoup]) -> None:
    for row in pages["claims/"].select("tbody tr"):
        questions = PAPERS[str(row["data-paper"])].questions
        assert str(row["data-question"]).split() == list(questions)


def test_every_note_is_on_a_reading_path(pages: dict[str, BeautifulSoup]) -> None:
    article = pages["paths/"].article
    assert article
    steps = article.select("ol > li")
    assert all(len(step.get_text().split(": ", 1)[1].split()) > 5 for step in steps)
    linked = [str(link["href"]) for step in steps if (link := step.a)]
    whole = {key for key, paper in PAPERS.items() if paper.status == "complete"}
    assert whole <= {link.split("/")[2] for link in linked} <= set(PAPERS)
    for path in article.select("ol"):
        addresses = [str(link["href"]) for link in path.select("li > a:first-child")]
        assert len(set(addresses)) == len(addresses) > 1
        before = path.find_previous_sibling("p")
        assert before
        assert before.get_text().startswith("Before you start:")


def test_notes_are_named_on_the_paths_as_on_the_map(pages: dict[str, BeautifulSoup]) -> None:
    labels = {
        str(link["href"]): link.get_text(strip=True)
        for link in pages["lineage/"].select(".lineage details li > a")
    }
    for link in pages["paths/"].select("article ol > li > a:first-child"):
        assert link.get_text() == labels[str(link["href"])]


@pytest.mark.parametrize("folder", ["papers", "notebooks"])
def test_notes_and_notebooks_follow_each_other_by_year(
    pages: dict[str, BeautifulSoup], folder: str
) -> None:
    """The navigation lists none of them, since every page holds it."""
    keys = list(PAPERS)
    for before, key, after in zip([None, *keys], keys, [*keys[1:], None], strict=False):
        page = pages[f"{folder}/{key}/"]
        for name, other in (("prev", before), ("next", after)):
            link = page.select_one(f".md-footer__link--{name}")
            assert (link and link["href"]) == (other and f"../{other}/")
        listed = {
            urljoin(f"/{folder}/{key}/", str(link["href"]))
            for link in page.select(".md-nav--primary a[href]")
        }
        assert {"/papers/", "/paths/"} <= listed
        assert not [address for address in listed if re.search(r"\d{4}", address)]
        active = page.select_one(".md-tabs__item--active")
        assert active
        assert active.get_text(strip=True) == "Papers"


def test_abbreviations_are_explained_outside_formulas(
    pages: dict[str, BeautifulSoup],
) -> None:
    terms = load_config(str(ROOT / "mkdocs.yml")).mdx_configs["abbr"]["glossary"]
    assert len(terms) > 10
    shown = [mark for page in pages.values() for mark in page.select("abbr")]
    assert len(shown) > 50
    for mark in shown:
        assert mark["title"] == terms[mark.get_text()]
        assert not mark.find_parent(["code", "pre"])
        assert not mark.find_parent(class_="arithmatex")


def test_search_index_holds_each_thing_once(built: tuple[Path, str]) -> None:
    text = (built[0] / "search" / "search_index.json").read_text(encoding="utf-8")
    entries = json.loads(text)["docs"]
    assert not [e["location"] for e in entries if e["location"].startswith("notebooks/")]
    code = Counter(
        block for entry in entries for block in re.findall(r"<pre>.*?</pre>", entry["text"], re.S)
    )
    assert len(code) > len(PAPERS)
    assert {block: n for block, n in code.items() if n > 1} == {}
    for key, paper in PAPERS.items():
        (head,) = (entry for entry in entries if entry["location"] == f"papers/{key}/")
        assert head["tags"] == paper.authors
        assert (paper.arxiv or paper.venue) in head["text"]
        assert "Notebook" not in head["text"]
        if paper.summary_zh:  # a draft may have none
            assert head["text"].replace("\u200b", "").count(paper.summary_zh) == 1
    for verdict in (verdict for verdicts in VERDICTS.values() for verdict in verdicts):
        text = escape(verdict.text, quote=False)
        found = {entry["location"].split("#")[0] for entry in entries if text in entry["text"]}
        assert f"papers/{verdict.paper}/" in found
        assert "claims/" not in found


def test_links_and_anchors_lead_somewhere(
    built: tuple[Path, str], pages: dict[str, BeautifulSoup]
) -> None:
    site, _ = built
    dead = []
    for address, page in pages.items():
        if address == "404.html":  # its links are absolute, it is served anywhere
            continue
        for link in page.select("a[href]"):
            target = urlsplit(urljoin(f"http://site/{address}", str(link["href"])))
            if target.netloc != "site":
                continue
            path, anchor = target.path.strip().lstrip("/"), unquote(target.fragment)
            if path in pages:
                if anchor and anchor != "__skip" and not pages[path].find(id=anchor):
                    dead.append(f"{address}: {link['href']}")
            elif not (site / path).is_file():
                dead.append(f"{address}: {link['href']}")
    assert not dead


def test_nothing_comes_from_another_host(
    built: tuple[Path, str], pages: dict[str, BeautifulSoup]
) -> None:
    for address, page in pages.items():
        for element in _loaded(page):
            source = str(element.get("src") or element.get("href") or "")
            assert not re.match(r"(https?:)?//", source), f"{address}: {source}"
    for sheet in built[0].rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", sheet.read_text()), sheet


def _loaded(page: BeautifulSoup) -> Iterator[Tag]:
    yield from page.select("[src]")
    for link in page.select("link[href]"):
        if not {"canonical", "prev", "next"} & set(link.get_attribute_list("rel")):
            yield link


def test_pictures_are_described(pages: dict[str, BeautifulSoup]) -> None:
    for address, page in pages.items():
        for picture in page.select("article img"):
            alt = str(picture.get("alt", ""))
            assert len(alt) > 20, f"{address}: {alt!r}"
            assert "No description" not in alt, address


def test_no_page_shows_a_failure(pages: dict[str, BeautifulSoup]) -> None:
    for address, page in pages.items():
        assert "Traceback (most recent call last)" not in page.get_text(), address
        assert not page.select(".ansi-red-fg"), address


def test_notebook_pages_share_their_styles(pages: dict[str, BeautifulSoup]) -> None:
    for key in PAPERS:
        article = pages[f"notebooks/{key}/"].article
        assert article is not None
        assert not article.select("style, script")


def test_note_shows_its_code_without_the_docstring(pages: dict[str, BeautifulSoup]) -> None:
    for key in PAPERS:
        # What a form to run calls keeps its docstrings: nothing else says them.
        blocks = pages[f"papers/{key}/"].select(".doc-contents pre")
        code = [block.get_text() for block in blocks if not block.find_parent("details")]
        assert code, key
        start = r"^(def|class) |\Afrom snippets.lab.fast.\w+ import \w+\s*\Z"
        assert all(re.search(start, block, re.MULTILINE) for block in code)
        assert not any(re.search(r'\n    r?"""', block) for block in code), key


def test_without_a_repository_nothing_offers_to_edit(pages: dict[str, BeautifulSoup]) -> None:
    assert not [address for address, page in pages.items() if page.select("[rel=edit]")]


def test_addresses_come_from_the_environment(tmp_path: Path) -> None:
    repo, site = "https://github.com/group/fork", "https://group.example/fork/"
    result = build(tmp_path / "site", REPO_URL=repo, SITE_URL=site)
    assert result.returncode == 0, result.stderr
    for page, source in {
        f"papers/{KEY}": f"papers/{KEY}.md",
        f"notebooks/{KEY}": f"snippets/{KEY}.py",
        "guide": "docs/guide.md",
    }.items():
        text = (tmp_path / "site" / page / "index.html").read_text(encoding="utf-8")
        html = BeautifulSoup(text, "html.parser")
        edit = html.select_one("article [rel=edit]")
        assert edit, page
        assert edit["href"] == f"{repo}/edit/main/{source}"
        canonical = html.select_one("link[rel=canonical]")
        assert canonical, page
        assert canonical["href"] == f"{site}{page}/"
        # The theme's own link asks GitHub for stars when a page opens.
        assert not html.select("[data-md-component=source]")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (f"papers/{KEY}.md", "\nyear:", "\nyear: soon #", f"papers/{KEY}.md: year:"),
        (f"papers/{KEY}.md", "\nsummary:", "\nsumary:", f"papers/{KEY}.md: sumary: unknown field"),
        (f"papers/{KEY}.md", "<!-- cite -->", "<!-- sight -->", "no marker '<!-- sight -->'"),
        (f"docs/notebooks/{KEY}.ipynb", "{", "", f"python -m snippets run {KEY}"),
    ],
)
def test_bad_source_is_named(copy: Path, file: str, old: str, new: str, message: str) -> None:
    text = (copy / file).read_text(encoding="utf-8")
    (copy / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    _assert_refused(copy, message)


def test_unknown_claim_names_page_and_claim(copy: Path) -> None:
    with (copy / "docs" / "meetings" / "ideas.md").open("a", encoding="utf-8") as page:
        page.write(f"\n[Said to hold](claim:{KEY}.never_claimed).\n")
    _assert_refused(copy, f"meetings/ideas.md: no claim {KEY}.never_claimed")


def test_missing_notebook_says_how_to_write_it(copy: Path) -> None:
    (copy / "docs" / "notebooks" / f"{KEY}.ipynb").unlink()
    _assert_refused(copy, f"python -m snippets run {KEY}")


def test_missing_katex_says_how_to_get_it(copy: Path) -> None:
    (copy / "node_modules").unlink()
    _assert_refused(copy, "make assets")


def test_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = subprocess.run(
            [sys.executable, "-m", "mkdocs", "serve", "--dev-addr", address],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert result.returncode == 1
    assert f"cannot serve on {address}" in result.stderr
    assert "Traceback" not in result.stderr


def _assert_refused(root: Path, message: str) -> None:
    result = build(root / "site", root)
    said = result.stdout + result.stderr
    assert result.returncode == 1, said
    assert message in said
    assert "Traceback" not in said
