"""House rules that no tool holds: names, imports, a sentence for every code, nothing about registries in the tree."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from data_specs.problems import message
from data_specs.vocabulary import LANGUAGES
from tests.conftest import ROOT

PACKAGES = ("data_specs", "models", "training", "inference", "service", "benchmarks", "client", "samples")


@pytest.mark.parametrize("name", [*PACKAGES[:-1], "server"])
def test_no_installed_distribution_shadows_a_folder(name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(ROOT)
    assert name not in packages_distributions()


def test_serving_imports_neither_torch_nor_its_friends() -> None:
    code = (
        "import sys, server, service.app, inference.engine, inference.render.pictures\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'monai', 'torchvision', 'models', 'training',"
        " 'pandas', 'sklearn', 'matplotlib', 'wfdb'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def codes_in_source() -> set[str]:
    """First arguments of ``Refused(…)`` and ``Problem(…)`` in the serving path."""
    pattern = re.compile(r"\b(?:Refused|Problem)\(\s*(?:code=)?\"([a-z_]+)\"")
    sources = [p for folder in ("data_specs", "inference", "service") for p in (ROOT / folder).rglob("*.py")]
    return {code for path in sources for code in pattern.findall(path.read_text())}


def test_every_code_has_its_sentence_in_every_language() -> None:
    codes = codes_in_source()
    assert len(codes) > 40
    for code in codes:
        for language in LANGUAGES:
            assert message(code, language, found="1", expected="2")


def test_locks_pin_with_hashes_and_name_no_index() -> None:
    for path in (ROOT / "requirements").glob("*.lock"):
        text = path.read_text()
        assert "://" not in text
        assert "--index" not in text
        requirements = [part for part in re.split(r"\n(?=\S)", text) if part.strip() and not part.startswith("#")]
        assert requirements
        assert all("==" in part and "--hash=sha256:" in part for part in requirements)


def test_the_readme_names_commands_that_exist() -> None:
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", readme, re.MULTILINE))
    assert {"demo", "test", "serve", "check", "bench"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


READS_OTHER_DAYS = {
    *("service/api/dicomweb/matching.py", "service/api/dicomweb/query.py", "service/outcomes/__main__.py"),
    *("service/pages/audit.py", "service/pages/drift.py"),
}
"""Modules that read the days of a query, a form or a command: never a birth date."""
COUNTS_OTHER_YEARS = {"service/drift/compare.py"}
"""Modules that count the hours in which a service runs: never an age."""


def arithmetic_of_ages(source: str) -> list[str]:
    """What of a module's source only ``data_specs/person.py`` may do, with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        what = None
        if isinstance(node, ast.Constant) and node.value in (365.25, 365.24, 365.2425, 8766):
            what = f"days or hours of a year ({node.value})"
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.FloorDiv | ast.Mod):
            what = "division by 365" if isinstance(node.right, ast.Constant) and node.right.value == 365 else None
        elif isinstance(node, ast.Name) and node.id == "DAYS_PER_YEAR":
            what = "days of a year (DAYS_PER_YEAR)"
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("date.fromisoformat", "datetime.strptime"):
            what = f"a day read ({ast.unparse(node)})"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("date", "datetime.date") and node.args:
            what = None if all(isinstance(each, ast.Constant) for each in node.args) else "a day read (date)"
        if what:
            found.append(f"{node.lineno}: {what}")
    return found


def test_ages_and_birth_dates_are_computed_and_read_in_one_module() -> None:
    folders = (ROOT / folder for folder in ("data_specs", "inference", "service", "training", "models"))
    found = {}
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        faults = arithmetic_of_ages(path.read_text())
        if name in READS_OTHER_DAYS:
            faults = [fault for fault in faults if "a day read" not in fault]
        if name in COUNTS_OTHER_YEARS:
            faults = [fault for fault in faults if "of a year" not in fault]
        if faults:
            found[name] = faults
    assert list(found) == ["data_specs/person.py"], found


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("age = (taken - born).days / 365.25", 1),
        ("age = days // 365", 1),
        ("DAYS_PER_YEAR = 360", 1),
        ("born = date(int(year), int(month), int(day))", 1),
        ("born = datetime.strptime(text, '%Y%m%d').date()", 1),
        ("born = date.fromisoformat(text)", 1),
        ("PERIODS_DAYS = (30, 365)", 0),
        ("max_age = 365 * 86_400", 0),
        ("FIRST = date(2026, 1, 1)", 0),
        ("at = datetime.fromisoformat(received_at)", 0),
    ],
)
def test_the_rule_about_ages_finds_what_it_means(source: str, faults: int) -> None:
    assert len(arithmetic_of_ages(source)) == faults
