"""What sessions cost: the same beside other work as on a quiet machine, and nothing for what cannot be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from inference.bundles.loading import BundleFiles, read_bundle
from inference.runtime import costs
from inference.runtime.choice import cheapest, setups
from inference.runtime.costs import measure
from inference.runtime.openvino_session import is_installed
from inference.runtime.session import Setup
from tests.conftest import ROOT

NEEDS_OPENVINO = pytest.mark.skipif(not is_installed(), reason="OpenVINO is not installed here")
LUNG = ROOT / "models/bundles/lung-1.3.1"
STARTS = 15


@contextmanager
def busy(loops: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def lung() -> BundleFiles:
    return read_bundle(LUNG)


@NEEDS_OPENVINO
@pytest.mark.alone
@pytest.mark.parametrize("loops", [0, 4])
def test_every_start_comes_to_the_same_session_quiet_or_busy(
    lung: BundleFiles, loops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "TURN_S", 0.1)
    monkeypatch.setattr(costs, "MAX_WARM_UP_S", 1.0)
    candidates = setups(lung.manifest, "cpu", 2)
    chosen, shares = [], []
    with busy(loops):
        for _ in range(STARTS):
            found = measure(lung.model, lung.manifest, lung.golden, candidates, "cpu")
            setup = cheapest(candidates, found)
            of = {each.setup: each.core_ms for each in found if each.core_ms is not None}
            chosen.append(setup)
            shares.append(of[str(setup)] / min(of.values()))
    assert set(chosen) == {candidates[0]}, chosen
    assert max(shares) <= 1.05


def test_what_misses_the_golden_cases_or_does_not_open_has_no_cost(lung: BundleFiles) -> None:
    wrong = {**lung.golden, "logits": lung.golden["logits"] + 1}
    there, not_there = Setup("onnxruntime", "fp32", 1, 2), Setup("onnxruntime", "bf16", 1, 2)
    first, second = measure(lung.model, lung.manifest, wrong, [there, not_there], "cpu")
    assert (first.core_ms, second.core_ms) == (None, None)
    assert "golden cases differ" in str(first.out)
    assert "bf16" in str(second.out)


def test_processor_time_is_counted_and_not_time_that_passes(lung: BundleFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "TURN_S", 0.05)
    monkeypatch.setattr(costs, "TURNS", 3)
    (quiet,) = measure(lung.model, lung.manifest, lung.golden, [Setup("onnxruntime", "fp32", 1, 2)], "cpu")
    with busy(3 * (os.cpu_count() or 1)):
        (beside,) = measure(lung.model, lung.manifest, lung.golden, [Setup("onnxruntime", "fp32", 1, 2)], "cpu")
    assert quiet.core_ms is not None
    assert beside.core_ms is not None
    assert beside.core_ms < 2.5 * quiet.core_ms


def test_the_process_that_measures_prints_what_it_found(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "inference.bundles.measuring", str(LUNG), "cpu", "2"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300, check=True).stdout
    found = {each["setup"]: each for each in json.loads(printed)}
    assert all(np.isfinite(each["core_ms"]) for each in found.values())
    assert "onnxruntime:fp32:1x2" in found
