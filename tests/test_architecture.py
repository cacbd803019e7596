"""The import graph, built from the sources, has no circle; every folder of tests stands for a folder of the tree."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests.conftest import ROOT

PACKAGES = ("data_specs", "models", "training", "inference", "service", "benchmarks", "client")


def modules(root: Path) -> dict[str, Path]:
    """Module name to file, for every package of the project."""
    files = [file for package in PACKAGES for file in (root / package).rglob("*.py")]
    return {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports(files: dict[str, Path]) -> dict[str, set[str]]:
    """Module to the project's modules that it imports, anywhere in the file, those for types alone included."""
    graph: dict[str, set[str]] = {}
    for name, file in files.items():
        named: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}: a relative import is not counted here"
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    named.add(whole if whole in files else str(node.module))
            elif isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
        graph[name] = (named & files.keys()) - {name}
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the first one again at the end; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def test_no_module_imports_itself_through_others() -> None:
    graph = imports(modules(ROOT))
    assert len(graph) > 200
    assert sum(map(len, graph.values())) > 1000
    assert circle(graph) == []


def test_a_circle_is_found() -> None:
    assert sorted(set(circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}))) == ["b", "d"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_tests_stand_where_the_code_stands() -> None:
    folders = [file.parent for file in (ROOT / "tests").rglob("test_*.py")]
    mirrored = {folder.relative_to(ROOT / "tests") for folder in folders if folder != ROOT / "tests"}
    inside = {folder for folder in mirrored if folder.parts[0] in PACKAGES}
    assert len(inside) > 20
    assert mirrored - inside == {Path("contract"), Path("e2e"), Path("deploy")}
    assert [str(folder) for folder in sorted(inside) if not (ROOT / folder).is_dir()] == []
