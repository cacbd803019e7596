"""``profile``: the functions that the server spends its time in at full load, sampled by py-spy."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import files
from benchmarks.over_http import AT_ONCE, bundles_of, warm_up
from benchmarks.report import Report, table
from benchmarks.serving import Server, serving

TOP = 25


def run(
    report: Report, *, network: str = "lung", kind: str = "png", seconds: float = 15.0, native: bool = False
) -> dict[str, Any]:
    """Sample the server under load twice, for the table and for the flame graph.

    Parameters
    ----------
    native
        Also sample frames of native code (slower).
    """
    spy = _spy()
    report.out.mkdir(parents=True, exist_ok=True)
    stacks, flames = report.out / "profile.txt", report.out / "profile.svg"
    with bundles_of(network) as bundles, serving(bundles) as server:
        warm_up(server, kind)
        for path, form in ((stacks, "raw"), (flames, "flamegraph")):
            _sampled(spy, server, kind, seconds, path, form, native=native)
    lines = stacks.read_text().splitlines()
    own, whole = self_samples(lines), sum(int(line.rpartition(" ")[2]) for line in lines)
    if not whole:
        raise SystemExit("profile: py-spy has no samples")
    rows = [[name, 100 * n / whole] for name, n in own.most_common(TOP)]
    table(f"{network}, {kind}, {AT_ONCE} clients: samples by function, itself", ("", "%"), rows)
    print(f"flame graph: {flames}")
    figures = {"network": network, "kind": kind, "samples": whole, "self_percent": {str(n): p for n, p in rows}}
    report.end(figures)
    return figures


def self_samples(lines: Iterable[str]) -> Counter[str]:
    """Samples of each innermost frame, from py-spy's folded stacks (``outer;inner count``), line numbers left out."""
    own: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        leaf = stack.rpartition(";")[2]
        own[leaf.rpartition(":")[0] + ")" if ":" in leaf and leaf.endswith(")") else leaf] += int(count)
    return own


def _spy() -> str:
    local = Path(sys.executable).with_name("py-spy")
    found = str(local) if local.exists() else shutil.which("py-spy")
    if found is None:
        raise SystemExit("profile: py-spy is not installed (the extra 'test')")
    return found


def _sampled(spy: str, server: Server, kind: str, seconds: float, path: Path, form: str, *, native: bool) -> None:
    body = files.KINDS[kind](False)
    load = threading.Thread(target=lambda: server.post(body, clients=AT_ONCE, seconds=seconds + 2))
    load.start()
    command = [spy, "record", "--pid", str(server.pid), "--duration", str(max(1, round(seconds))), "--format", form]
    command += ["--output", str(path), "--threads", *(["--native"] if native else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    load.join()
    if done.returncode:
        raise SystemExit(f"profile: py-spy cannot sample the server: {done.stderr.strip()[-300:]}")
