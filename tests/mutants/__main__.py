"""Changes modules and runs the tests that hold them: ``python -m tests.mutants [MODULE …]``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.changes import Mutant, mutants
from tests.mutants.forks import Runner

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
TO_REACH = 0.95
"""Share of the changes that are not equivalent that the tests have to notice."""


@dataclass(frozen=True, slots=True)
class Equivalent:
    """Changes of one line that no test can notice, and why."""

    module: str
    was: str
    becomes: list[str]
    reason: str
    within: str | None = None

    def is_of(self, mutant: Mutant) -> bool:
        same = (self.module, self.was) == (mutant.module, mutant.was) and mutant.becomes in self.becomes
        return same and self.within in (None, mutant.within)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was noticed of one module's changes, in seconds that it took."""

    noticed: list[Mutant]
    survivors: list[Mutant]
    equivalent: list[Mutant]
    stale: list[str]
    seconds: float

    @property
    def share(self) -> float:
        return len(self.noticed) / max(len(self.noticed) + len(self.survivors), 1)


def table() -> dict[str, list[str]]:
    """Module to the tests that hold it."""
    return tomllib.loads((HERE / "modules.toml").read_text("utf-8"))


def equivalents() -> list[Equivalent]:
    entries = tomllib.loads((HERE / "equivalent.toml").read_text("utf-8")).get("equivalent", [])
    return [Equivalent(**entry) for entry in entries]


def outcome(module: str, tests: Sequence[str], listed: Sequence[Equivalent], root: Path, jobs: int) -> Outcome:
    """Try every change of one module."""
    started = time.monotonic()
    runner = Runner(module, tests, root)
    limit_s = 10 + 5 * runner.prepare()
    tried = mutants(module, root)
    survived = dict(runner.survives([mutant.source for mutant in tried], jobs, limit_s))
    lives = [mutant for index, mutant in enumerate(tried) if survived[index]]
    noticed = [mutant for index, mutant in enumerate(tried) if not survived[index]]
    listed = [entry for entry in listed if entry.module == module]
    tried_of = {(mutant.was, mutant.becomes) for mutant in tried}
    stale = [
        f"{entry.was} -> {becomes}: no such change"
        for entry in listed
        for becomes in entry.becomes
        if (entry.was, becomes) not in tried_of
    ]
    stale += [f"{m.was} -> {m.becomes}: a test notices it" for m in noticed if any(entry.is_of(m) for entry in listed)]
    equivalent = [mutant for mutant in lives if any(entry.is_of(mutant) for entry in listed)]
    survivors = [mutant for mutant in lives if mutant not in equivalent]
    return Outcome(noticed, survivors, equivalent, stale, time.monotonic() - started)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="file of a module; without one, all of the table")
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args(arguments)
    modules = table()
    unknown = [module for module in chosen.modules if module not in modules]
    if unknown:
        parser.error(f"{', '.join(unknown)}: not in tests/mutants/modules.toml, which has {', '.join(modules)}")
    if len(chosen.modules) != 1:
        # Each in a process of its own: a module that is loaded once is not loaded again with its change.
        alone = [sys.executable, "-m", "tests.mutants", "--jobs", str(chosen.jobs)]
        runs = [subprocess.run([*alone, module], cwd=ROOT, check=False) for module in chosen.modules or modules]
        return max(run.returncode for run in runs)
    (module,) = chosen.modules
    found = outcome(module, modules[module], equivalents(), ROOT, chosen.jobs)
    for mutant in found.survivors:
        print(f"{mutant.module}:{mutant.line} {mutant.within}\n    - {mutant.was}\n    + {mutant.becomes}")
    for entry in found.stale:
        print(f"tests/mutants/equivalent.toml: {module}: {entry}")
    tried = len(found.noticed) + len(found.survivors)
    print(
        f"{module}: {found.share:.1%} noticed ({len(found.noticed)} of {tried}; {len(found.equivalent)} equivalent; "
        f"{found.seconds:.0f} s)"
    )
    return int(found.share < TO_REACH or bool(found.stale))


if __name__ == "__main__":
    sys.exit(main())
