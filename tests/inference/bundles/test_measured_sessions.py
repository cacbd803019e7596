"""A running engine has its sessions measured beside the service, and serves in a cheaper one without losing a visit."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from data_specs.visit.context import Context
from inference.bundles import measuring
from inference.bundles.loading import Bundle, load_version
from inference.bundles.measuring import CHECK_S, FAR_ABOVE, MIN_ROWS, Measuring
from inference.engine import Engine
from inference.runtime.batcher import BatcherCounts
from inference.runtime.openvino_session import is_installed
from inference.runtime.remembered import MAX_AGE, Measured, Remembered, key_of, recall, remember
from inference.runtime.session import Machine
from tests.conftest import ROOT
from tests.inference.conftest import SAMPLES, posted, until
from tests.readers import shared_readers

NEEDS_OPENVINO = pytest.mark.skipif(not is_installed(), reason="OpenVINO is not installed here")
BUNDLES = ROOT / "models/bundles"
CONTEXT = Context.model_validate_json((SAMPLES / "context.json").read_bytes())


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """In the place of a measurement, a process that prints the one entry of this list."""
    output = [b"[]"]

    def command(*args: Any) -> list[str]:
        return [sys.executable, "-c", f"import sys; sys.stdout.buffer.write({output[0]!r})"]

    monkeypatch.setattr(measuring, "command_for", command)
    return output


def costs(**core_ms: float) -> bytes:
    found = (Measured(f"{runtime}:fp32:1x2", cost) for runtime, cost in core_ms.items())
    return measuring._MEASURED.dump_json(tuple(found))


@NEEDS_OPENVINO
async def test_a_cheaper_session_takes_over_and_every_visit_is_answered(
    tmp_path: Path, printed: list[bytes], abnormal_film: bytes
) -> None:
    printed[:] = [costs(openvino=3.0, onnxruntime=2.0)]
    film = posted(("image", "film.jpg", abnormal_film))
    machine = Machine("cpu", 2, "auto", tmp_path)
    engine = Engine(BUNDLES, machine, readers=shared_readers(), poll_s=0.05)
    try:
        first = {name: batcher for name, batcher in engine.batchers.items()}
        answers = []
        while any(engine.bundles[name].session.setup.runtime == "openvino" for name in engine.bundles):
            answers.append(await engine.assess(film, CONTEXT))
        answers.append(await engine.assess(film, CONTEXT))
        told = {tuple(round(f.probability or 0, 2) for f in each.organs["lung"].findings) for each in answers}
        assert len(told) == 1
        assert engine.batchers["lung"] is not first["lung"]
        assert engine.batchers["kidney"] is first["kidney"], "it has no candidates"
        await until(lambda: not any(thread.is_alive() for thread in first["lung"]._threads), 120)
        assert all(model["session"]["remembered"] for model in engine.models() if model["name"] != "kidney")
    finally:
        engine.close()
    again = load_version(BUNDLES, "lung", engine.bundles["lung"].manifest.version, machine)
    assert again.session.setup.runtime == "onnxruntime"


@NEEDS_OPENVINO
async def test_what_is_confirmed_keeps_its_batcher(tmp_path: Path, printed: list[bytes]) -> None:
    printed[:] = [costs(openvino=2.0, onnxruntime=3.0)]
    engine = Engine(BUNDLES, Machine("cpu", 2, "auto", tmp_path), readers=shared_readers(), poll_s=0.05)
    try:
        first = dict(engine.batchers)
        judged = ("cxr_gate", "lung", "cardiac")
        await until(lambda: all(engine.bundles[name].chosen.measured for name in judged), 120)
        assert engine.batchers == first
        await asyncio.sleep(0.3)
        assert all(thread.is_alive() for batcher in first.values() for thread in batcher._threads)
    finally:
        engine.close()


@pytest.mark.alone
async def test_a_real_measurement_ends_beside_the_service(tmp_path: Path) -> None:
    engine = Engine(BUNDLES, Machine("cpu", 2, "auto", tmp_path), readers=shared_readers(), poll_s=0.2)
    try:
        await until(lambda: all(engine.bundles[n].chosen.measured for n in ("cxr_gate", "lung", "cardiac")), 240)
        for name in ("cxr_gate", "lung", "cardiac"):
            assert any(each.core_ms for each in engine.bundles[name].chosen.measured)
    finally:
        engine.close()


@pytest.fixture
def bundle() -> Bundle:
    return load_version(BUNDLES, "cxr_gate", "1.1.0")


def known(cache: Path, bundle: Bundle, at: datetime) -> None:
    measured = (Measured("onnxruntime:fp32:1x1", 2.0),)
    remember(cache, key_of(bundle.manifest, "cpu", 1), Remembered(measured=measured, measured_at=at))


@pytest.mark.parametrize(
    ("age", "wanted"), [(timedelta(0), False), (MAX_AGE - timedelta(hours=1), False), (MAX_AGE, True), (-MAX_AGE, True)]
)
def test_a_record_is_measured_again_when_it_is_old(
    tmp_path: Path, bundle: Bundle, age: timedelta, wanted: bool
) -> None:
    known(tmp_path, bundle, datetime.now(UTC) - age)
    assert Measuring(Machine("cpu", 1, "auto", tmp_path)).wants(bundle, BatcherCounts()) == wanted


def test_nothing_is_measured_where_it_decides_nothing(tmp_path: Path, bundle: Bundle) -> None:
    kidney = load_version(BUNDLES, "kidney", "1.1.0")
    assert Measuring(Machine("cpu", 1, "auto", tmp_path)).wants(bundle, BatcherCounts())
    assert not Measuring(Machine("cpu", 1, "auto", tmp_path)).wants(kidney, BatcherCounts())
    assert not Measuring(Machine("cpu", 1, "onnxruntime:fp32", tmp_path)).wants(bundle, BatcherCounts())
    assert not Measuring(Machine("cpu", 1, "auto", None)).wants(bundle, BatcherCounts())


@pytest.mark.parametrize(
    ("rows", "ms_per_row", "wanted"),
    [(MIN_ROWS, 2.1 * FAR_ABOVE, True), (MIN_ROWS, 1.9 * FAR_ABOVE, False), (MIN_ROWS - 1, 2.1 * FAR_ABOVE, False)],
)
def test_rows_that_take_far_longer_than_remembered_are_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, ms_per_row: float, wanted: bool
) -> None:
    machine = Machine("cpu", 1, "auto", tmp_path)
    known(tmp_path, load_version(BUNDLES, "cxr_gate", "1.1.0"), datetime.now(UTC))
    bundle = load_version(BUNDLES, "cxr_gate", "1.1.0", machine)
    now = 100.0
    monkeypatch.setattr(measuring, "monotonic", lambda: now)
    asking = Measuring(machine)
    assert not asking.wants(bundle, BatcherCounts())
    busy = BatcherCounts(rows=rows, run_seconds=rows * ms_per_row / 1000)
    assert not asking.wants(bundle, busy), "not before the next check"
    now += CHECK_S
    assert asking.wants(bundle, busy) == wanted
    now += CHECK_S
    assert not asking.wants(bundle, busy), "nothing ran since"


def test_a_measurement_that_fails_is_not_kept_and_not_repeated_at_once(
    tmp_path: Path, printed: list[bytes], bundle: Bundle
) -> None:
    printed[:] = [b""]
    asking = Measuring(Machine("cpu", 1, "auto", tmp_path))
    assert asking.wants(bundle, BatcherCounts())
    asking.start(bundle)
    while asking.is_busy:
        assert asking.finished() is None
    assert recall(tmp_path) == {}
    assert not asking.wants(bundle, BatcherCounts())
