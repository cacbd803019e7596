"""House rules that no tool holds: names, imports, a sentence for every code, nothing about registries in the tree."""

from __future__ import annotations

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

PACKAGES = ("data_specs", "models", "training", "inference", "service", "benchmarks", "samples")


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
