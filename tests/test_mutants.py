"""What `make mutants` changes, and that it tells what no test notices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.mutants.__main__ import equivalents, table
from tests.mutants.changes import mutants


def changed(source: str, folder: Path) -> dict[str, set[str]]:
    """Line to what is tried in its place."""
    (folder / "module.py").write_text(f"{source}\n")
    found: dict[str, set[str]] = {}
    for mutant in mutants("module.py", folder):
        compile(mutant.source, "module.py", "exec")
        found.setdefault(mutant.was, set()).add(mutant.becomes)
    return found


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("LIMIT = 6", {"LIMIT = 5", "LIMIT = 7"}),
        ("LIMIT = 0x0E", {"LIMIT = 13", "LIMIT = 15"}),
        ("LIMIT = 6.0", {"LIMIT = 5.0", "LIMIT = 7.0", "LIMIT = 6.3"}),
        ("a = b >= c", {"a = b > c", "a = b < c"}),
        ("a = b not in c", {"a = b in c"}),
        ("a = b in c", {"a = b not in c"}),
        ("a = max(b, c)", {"a = min(b, c)"}),
        ("a = [b for b in c if b]", {"a = [b for b in c if not (b)]"}),
        ("a = {'low': b}", {"a = {'xxlow': b}"}),
        ('a = {"G3b": "high"}', {'a = {"xxG3b": "high"}', 'a = {"G3b": "xxhigh"}', 'a = {"G3b": "intermediate"}'}),
        ("a[b] = c", {"pass"}),
        ("a += b", {"pass"}),
        ("a: int | None = b", set()),
        ("def f(*, a: int | None) -> int | None: ...", set()),
        ("from a import (b)", set()),
        ("@a(b=True)\ndef f(): ...", set()),
        ('"""Of 12 and more."""', set()),
    ],
)
def test_a_line_is_changed(line: str, becomes: set[str], tmp_path: Path) -> None:
    assert {" ".join(one.split()) for ones in changed(line, tmp_path).values() for one in ones} == becomes


def test_the_tables_name_what_is_there() -> None:
    for module, tests in table().items():
        assert (ROOT / module).is_file(), module
        assert [path for path in tests if not (ROOT / path).exists()] == []
    for entry in equivalents():
        assert entry.module in table()
        assert len(entry.reason) > 10


def test_what_no_test_notices_is_told(tmp_path: Path) -> None:
    (tmp_path / "limits.py").write_text("HIGH = 6.0\n\n\ndef high(value):\n    return value >= HIGH\n")
    (tmp_path / "test_limits.py").write_text(
        "from limits import high\n\n\ndef test_high():\n    assert high(6.1)\n    assert not high(5.0)\n"
    )
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.mutants.__main__ import Equivalent, outcome\n"
        "listed = [Equivalent('limits.py', 'HIGH = 6.0', ['HIGH = 5.0', 'HIGH = 6.5'], 'for this test')]\n"
        "root = Path(sys.argv[1]); sys.path.insert(0, str(root))\n"
        "found = outcome('limits.py', ['test_limits.py'], listed, root, 2)\n"
        "print([m.becomes for m in found.survivors], [m.becomes for m in found.noticed], found.stale, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    survivors, noticed, stale = done.stdout.splitlines()
    assert survivors == "['return value > HIGH']"
    assert noticed == "['HIGH = 5.0', 'HIGH = 6.3', 'HIGH = 7.0', 'return value < HIGH']"
    assert stale == "['HIGH = 6.0 -> HIGH = 6.5: no such change', 'HIGH = 6.0 -> HIGH = 5.0: a test notices it']"
