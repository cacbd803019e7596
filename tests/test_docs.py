"""The documents: every link leads somewhere, every page can be found, every setting stands in its table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.settings import PREFIX, Settings
from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def links(page: Path) -> list[str]:
    """Where the links of a page lead, those to other sites left out."""
    return [to for to in LINK.findall(CODE.sub("", page.read_text("utf-8"))) if "://" not in to]


def anchors(page: Path) -> set[str]:
    """Names of a page's headings as links write them."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_can_be_found_from_the_first() -> None:
    found, waiting = set(), [DOCS / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in found or page.suffix != ".md":
            continue
        found.add(page)
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links(page) if link[0] != "#"]
    assert sorted(set(DOCS.rglob("*.md")) - found) == []


def test_every_setting_stands_in_the_table_and_no_other() -> None:
    rows = re.findall(
        rf"^\| `({PREFIX}[A-Z0-9_]+)` \|", (DOCS / "reference/settings.md").read_text("utf-8"), re.MULTILINE
    )
    assert sorted(rows) == sorted(PREFIX + name.upper() for name in Settings.model_fields)


def test_no_page_names_a_setting_that_there_is_not() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {
        f"{PREFIX}TEST_DATA",
        f"{PREFIX}TEST_SHOTS",
        f"{PREFIX}KEY",
    }
    for page in PAGES:
        if page.name != "LOG.md":
            named = set(re.findall(rf"{PREFIX}[A-Z0-9]+(?:_[A-Z0-9]+)*", page.read_text("utf-8")))
            assert named <= known, page


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 200


IN_A_BUNDLE = {"models/model.onnx"}
MADE_BY_A_RUN = {
    *("benchmarks/out/", "benchmarks/out/http.json", "benchmarks/out/capacity.png"),
    *("benchmarks/out/chaos.json", "benchmarks/out/chaos/", "benchmarks/out/chaos/NAME.json"),
}
WRITTEN_BY_A_PROGRAMME = {"models/bundles/lung.pccp.toml"}
"""Files that a reader makes from one that is there."""


def test_files_that_the_pages_name_exist() -> None:
    kept = (
        "samples",
        "docs",
        "service",
        "models",
        "inference",
        "training",
        "data_specs",
        "tests",
        "benchmarks",
        "client",
    )
    pattern = re.compile(rf"`((?:{'|'.join(kept)})/[\w./*-]+)`")
    pages = [page for page in PAGES if page.name != "LOG.md"]
    named = {(page.name, path) for page in pages for path in pattern.findall(page.read_text("utf-8"))}
    missing = [(page, path) for page, path in named if not list(ROOT.glob(path.rstrip("/")))]
    elsewhere = IN_A_BUNDLE | MADE_BY_A_RUN | WRITTEN_BY_A_PROGRAMME
    assert [(page, path) for page, path in missing if path not in elsewhere] == []
