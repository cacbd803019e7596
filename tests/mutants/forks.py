"""Runs tests on changed modules: one process loads what does not depend on the module, and forks for each change.

Nothing on disk is changed: the forked process imports the changed source in place of the file.
"""

from __future__ import annotations

import ast
import gc
import importlib
import importlib.abc
import importlib.util
import os
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType

import hypothesis
import pytest

PACKAGES = ("data_specs", "models", "training", "inference", "service", "benchmarks")
ARGUMENTS = ("-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:schemathesis", "-p", "no:xdist")

hypothesis.settings.register_profile("mutants", derandomize=True, database=None)
hypothesis.settings.load_profile("mutants")


class Changed(importlib.abc.MetaPathFinder):
    """Imports one module from a text in place of its file."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=_TextLoader(self))


class _TextLoader(SourceFileLoader):
    def __init__(self, changed: Changed) -> None:
        super().__init__(changed.name, str(changed.path))
        self.changed = changed

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.changed.source, self.path, "exec", dont_inherit=True)


class Order:
    """Plugin of pytest: the tests that noticed most changes so far come first; the one that notices is written down."""

    def __init__(self, noticed: Counter[str], written: int) -> None:
        self.noticed, self.written = noticed, written

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: -self.noticed[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            os.write(self.written, report.nodeid.encode())


class Runner:
    """Tests of one module.

    Parameters
    ----------
    module
        File of the module, relative to ``root``.
    tests
        Files or folders of tests that hold it.
    """

    def __init__(self, module: str, tests: Sequence[str], root: Path) -> None:
        self.name = module.removesuffix(".py").replace("/", ".")
        self.path, self.tests, self.root = root / module, list(tests), root
        self.noticed: Counter[str] = Counter()

    def prepare(self) -> float:
        """Run the tests on the unchanged module, load what they loaded; the seconds that they take when it is loaded.

        Raises
        ------
        SystemExit
            The tests do not pass on the unchanged module.
        """
        source = self.path.read_text("utf-8")
        with tempfile.NamedTemporaryFile() as names:
            self._passes(source, Path(names.name))
            loaded = Path(names.name).read_text().splitlines()
        apart = dependants(self.name, self.root)
        _import(name for name in loaded if name not in apart)
        assert self.name not in sys.modules
        gc.collect()
        gc.freeze()
        started = time.monotonic()
        self._passes(source)
        return time.monotonic() - started

    def _passes(self, source: str, list_loaded: Path | None = None) -> None:
        process, noticed = self._start(source, list_loaded)
        code = _code(os.waitpid(process, 0)[1])
        if code != pytest.ExitCode.OK:
            raise SystemExit(f"{' '.join(self.tests)} on the unchanged module: {code}, {_read(noticed)}")
        os.close(noticed)

    def survives(self, sources: Sequence[str], jobs: int, limit_s: float) -> Iterator[tuple[int, bool]]:
        """Index of each source, and whether every test passed on it; in the order in which they are done."""
        waiting, running = list(enumerate(sources))[::-1], dict[int, tuple[int, int, float]]()
        while waiting or running:
            while waiting and len(running) < jobs:
                index, source = waiting.pop()
                process, noticed = self._start(source)
                running[process] = index, noticed, time.monotonic() + limit_s
            for process, (index, noticed, deadline) in list(running.items()):
                done, status = os.waitpid(process, os.WNOHANG)
                if done:
                    del running[process]
                    self.noticed.update(filter(None, [_read(noticed)]))
                    yield index, _code(status) == pytest.ExitCode.OK
                elif time.monotonic() > deadline:
                    os.killpg(process, signal.SIGKILL)
            time.sleep(0.005)

    def _start(self, source: str, list_loaded: Path | None = None) -> tuple[int, int]:
        """Fork: the process, and where it writes the test that notices."""
        read, write = os.pipe()
        process = os.fork()
        if process:
            os.close(write)
            return process, read
        code = 99
        try:
            os.setsid()
            os.chdir(self.root)
            _silence()
            sys.meta_path.insert(0, Changed(self.name, self.path, source))
            code = int(pytest.main([*ARGUMENTS, *self.tests], plugins=[Order(self.noticed, write)]))
            if list_loaded is not None:
                list_loaded.write_text("\n".join(sys.modules))
        finally:
            os._exit(code)


def dependants(name: str, root: Path) -> set[str]:
    """The project's modules that import ``name``, themselves or through others, and itself."""
    imports: dict[str, set[str]] = {}
    for file in (file for package in PACKAGES for file in (root / package).rglob("*.py")):
        module = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        imports[module] = {
            imported
            for node in ast.walk(ast.parse(file.read_text("utf-8")))
            if isinstance(node, ast.ImportFrom)
            for imported in (str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names))
        }
    found, before = {name}, set[str]()
    while found != before:
        before = set(found)
        found |= {module for module, imported in imports.items() if imported & found}
    return found


def _import(names: Iterable[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            first = name.split(".")[0]
            if first in ("tests", "conftest", "__main__", "__mp_main__") or first.startswith("test_"):
                continue
            try:
                importlib.import_module(name)
            except Exception:
                # What only its own package can import is loaded again with it.
                continue


def _silence() -> None:
    if os.environ.get("MUTANTS_VERBOSE"):
        return
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)


def _read(pipe: int) -> str:
    with open(pipe, "rb") as stream:
        return stream.read().decode(errors="replace")


def _code(status: int) -> int:
    return os.waitstatus_to_exitcode(status)
