"""The choice of a session: agreement first; then what is expected to be cheapest, until it was measured."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from data_specs.bundle import Agreement, BundleManifest
from inference.bundles.loading import BundleError, load_bundle
from inference.runtime import choice, remembered
from inference.runtime.choice import agrees, cheapest, choose, decision_values, open_session, setups
from inference.runtime.onnxruntime_session import cuda_loads
from inference.runtime.openvino_session import is_installed, precisions
from inference.runtime.remembered import Measured, Remembered
from inference.runtime.session import REFERENCE, Array, DeviceError, Machine, Setup
from tests.conftest import ROOT

NEEDS_OPENVINO = pytest.mark.skipif(not is_installed(), reason="OpenVINO is not installed here")
BF16_HELD = Agreement(
    runtime="openvino", precision="bf16", auc_difference=0.0004, probability_difference=0.006, n=500, part="test"
)


def folder(name: str) -> Path:
    return ROOT / "models/bundles" / f"{name}-1.0.0"


def manifest(name: str, *agreement: Agreement) -> BundleManifest:
    read = BundleManifest.model_validate_json((folder(name) / "screening.json").read_bytes())
    return read.model_copy(update={"agreement": agreement})


def golden(name: str) -> dict[str, Array]:
    with np.load(folder(name) / "golden.npz") as arrays:
        return dict(arrays)


def model(name: str) -> Path:
    return folder(name) / "models/model.onnx"


def test_bundles_without_the_record_are_served_in_fp32_alone() -> None:
    assert manifest("lung").agreement == ()
    assert {each.precision for each in setups(manifest("lung"), "cpu", 2)} == {"fp32"}


def test_a_precision_that_moved_an_auc_is_no_candidate() -> None:
    moved = BF16_HELD.model_copy(update={"auc_difference": 0.0021})
    assert {each.precision for each in setups(manifest("lung", moved), "cpu", 2)} == {"fp32"}


@NEEDS_OPENVINO
def test_a_precision_that_held_is_expected_to_be_cheapest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.runtime.openvino_session.precisions", lambda: ("fp32", "bf16"))
    found = setups(manifest("lung", BF16_HELD), "cpu", 2)
    assert found[0] == cheapest(found, ()) == Setup("openvino", "bf16", 1, 2)


@NEEDS_OPENVINO
def test_of_two_precisions_that_held_the_finer_one_is_expected_and_wins_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.runtime.openvino_session.precisions", lambda: ("fp32", "fp16", "bf16"))
    fp16_held = BF16_HELD.model_copy(update={"precision": "fp16"})
    candidates = setups(manifest("lung", BF16_HELD, fp16_held), "cpu", 2)
    finer, coarser, *_ = candidates
    assert (finer.precision, coarser.precision) == ("fp16", "bf16")
    assert cheapest(candidates, (Measured(str(finer), 2.09), Measured(str(coarser), 2.0))) == finer
    assert cheapest(candidates, (Measured(str(finer), 2.2), Measured(str(coarser), 2.0))) == coarser


def test_labs_have_the_reference_alone() -> None:
    assert setups(manifest("kidney", BF16_HELD), "cpu", 2) == []
    found = choose(model("kidney"), manifest("kidney"), golden("kidney"), Machine("cpu", 2, "auto"))
    assert found.session.setup == REFERENCE


def test_no_fp16_where_tensorrt_cannot_be_loaded() -> None:
    held = BF16_HELD.model_copy(update={"runtime": "onnxruntime", "precision": "fp16"})
    if choice.resolve_device("auto") == "cpu":
        assert "fp16" not in {each.precision for each in setups(manifest("lung", held), "cuda", 2)}


def asked(cache: Path, threads: int = 2) -> choice.ChosenSession:
    machine = Machine("cpu", threads, "auto", cache)
    return choose(model("cxr_gate"), manifest("cxr_gate"), golden("cxr_gate"), machine)


def remembers(cache: Path, **core_ms: float) -> None:
    """Write that sessions of the gate cost this, by runtime."""
    measured = tuple(Measured(f"{runtime}:fp32:1x2", cost) for runtime, cost in core_ms.items())
    key = remembered.key_of(manifest("cxr_gate"), "cpu", 2)
    remembered.remember(cache, key, Remembered(measured=measured, measured_at=datetime.now(UTC)))


def test_the_first_start_opens_what_is_expected_and_measures_nothing(tmp_path: Path) -> None:
    found = asked(tmp_path)
    assert found.session.setup == setups(manifest("cxr_gate"), "cpu", 2)[0]
    assert (found.measured, found.describe()["remembered"], list(tmp_path.iterdir())) == ((), False, [])


@NEEDS_OPENVINO
def test_what_was_measured_decides_until_something_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remembers(tmp_path, openvino=3.0, onnxruntime=2.0)
    found = asked(tmp_path)
    assert found.session.setup.runtime == "onnxruntime"
    assert found.describe()["measured"][1] == {"setup": "onnxruntime:fp32:1x2", "core_ms": 2.0, "out": None}
    assert not asked(tmp_path, threads=1).measured
    monkeypatch.setattr(remembered, "_machine", lambda device: "another CPU")
    assert not asked(tmp_path).measured


@NEEDS_OPENVINO
def test_costs_that_are_nearly_the_same_change_nothing(tmp_path: Path) -> None:
    remembers(tmp_path, openvino=2.09, onnxruntime=2.0)
    assert asked(tmp_path).session.setup.runtime == "openvino"


@pytest.mark.parametrize("damage", [b"{", b'\xff{"a": {"setup": 3}}', b'{"a": {"setup": "x", "measured": []}}', None])
def test_a_damaged_memory_is_as_none(tmp_path: Path, damage: bytes | None) -> None:
    file = tmp_path / remembered.CACHE_FILE
    file.mkdir() if damage is None else file.write_bytes(damage)
    assert asked(tmp_path).measured == ()
    remembers(tmp_path, onnxruntime=2.0)
    assert bool(asked(tmp_path).measured) == (damage is not None)
    assert [each.name for each in tmp_path.iterdir()] == [remembered.CACHE_FILE]


def test_a_remembered_setup_that_is_not_allowed_is_not_used(tmp_path: Path) -> None:
    key = remembered.key_of(manifest("cxr_gate"), "cpu", 2)
    measured = (Measured("openvino:bf16:1x2", 0.1),)
    remembered.remember(tmp_path, key, Remembered(measured=measured, measured_at=datetime.now(UTC)))
    assert asked(tmp_path).session.setup.precision == "fp32"


@NEEDS_OPENVINO
def test_a_session_that_does_not_open_leaves_its_place_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr("inference.runtime.openvino_session.OpenvinoSession", broken)
    found = choose(model("lung"), manifest("lung"), golden("lung"), Machine("cpu", 2, "auto"))
    assert found.session.setup == Setup("onnxruntime", "fp32", 1, 2)


@NEEDS_OPENVINO
def test_a_setting_fixes_it_as_far_as_the_bundle_allows() -> None:
    def fixed(setting: str, *agreement: Agreement) -> Setup:
        found = choose(
            model("cxr_gate"),
            manifest("cxr_gate", *agreement),
            golden("cxr_gate"),
            Machine("cpu", 2, setting),
        )
        assert found.measured == ()
        return found.session.setup

    assert fixed("onnxruntime:fp32") == Setup("onnxruntime", "fp32", 1, 2)
    assert fixed("openvino:fp32") == Setup("openvino", "fp32", 1, 2)
    assert fixed("openvino:bf16") == Setup("openvino", "fp32", 1, 2)
    if "bf16" in precisions():
        assert fixed("openvino:bf16", BF16_HELD) == Setup("openvino", "bf16", 1, 2)


@pytest.mark.skipif(cuda_loads(), reason="this machine has a GPU")
@pytest.mark.parametrize("setting", ["auto", "onnxruntime:fp32", "openvino:bf16"])
def test_a_device_that_is_not_there_stops_the_start(setting: str) -> None:
    with pytest.raises(DeviceError):
        choose(model("cxr_gate"), manifest("cxr_gate"), golden("cxr_gate"), Machine("cuda", 1, setting))


def test_a_runtime_that_is_not_there_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.runtime.openvino_session.is_installed", lambda: False)
    with pytest.raises(DeviceError, match="openvino"):
        load_bundle(folder("cxr_gate"), Machine("cpu", 1, "openvino:fp32"))
    assert {each.runtime for each in setups(manifest("lung"), "cpu", 2)} == {"onnxruntime"}


@NEEDS_OPENVINO
@pytest.mark.parametrize("name", ["lung", "cardiac", "cxr_gate"])
def test_bf16_of_the_shipped_bundles_is_within_a_hundredth_and_not_fp32(name: str) -> None:
    if "bf16" not in precisions():
        pytest.skip("these cores do not compute in bf16")
    read, cases = manifest(name), golden(name)
    session = open_session(model(name), read.outputs, Setup("openvino", "bf16", 8), device="cpu", threads=1)
    assert agrees(session, read, cases) is None
    probabilities = decision_values(read, tuple(cases[output] for output in read.outputs))
    assert probabilities.shape[0] == len(cases["input"])
    assert np.abs(decision_values(read, session.run(cases["input"])) - probabilities).max() > 1e-6
    shifted = {**cases, "logits": cases["logits"] + 0.2}
    assert "golden cases differ" in str(agrees(session, read, shifted))


@pytest.mark.parametrize("column", ["distance", "lungs"])
def test_a_gate_has_to_agree_in_everything_that_it_decides_on(column: str) -> None:
    read, cases = manifest("cxr_gate"), golden("cxr_gate")
    here = [cases[name] for name in read.outputs]
    there = [cases[name] + (20.0 if name == column else 0.0) for name in read.outputs]
    assert choice.largest_difference(decision_values(read, there), decision_values(read, here)) > 0.01


def test_the_reference_itself_has_to_meet_the_golden_cases(tmp_path: Path) -> None:
    cases = golden("cxr_gate")
    cases["logits"] = cases["logits"] + 0.01
    with pytest.raises(choice.Disagrees, match="golden cases differ"):
        choose(model("cxr_gate"), manifest("cxr_gate"), cases, Machine("cpu", 1, "auto", tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_no_runtime_reads_is_refused() -> None:
    with pytest.raises(BundleError):
        load_bundle(ROOT / "models/bundles/none-1.0.0", Machine("cpu", 1, "auto"))
