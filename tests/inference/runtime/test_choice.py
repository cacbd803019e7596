"""The choice of a session: agreement first, speed second, measured once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_specs.bundle import Agreement, BundleManifest
from inference.bundles.loading import BundleError, load_bundle
from inference.runtime import choice, remembered
from inference.runtime.choice import _best, agrees, choose, decision_values, open_session, setups
from inference.runtime.onnxruntime_session import cuda_loads
from inference.runtime.openvino_session import is_installed, precisions
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


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "BUDGET_S", 0.05)


def test_bundles_without_the_record_are_served_in_fp32_alone() -> None:
    assert manifest("lung").agreement == ()
    assert {each.precision for each in setups(manifest("lung"), "cpu", 2)} == {"fp32"}


def test_a_precision_that_moved_an_auc_is_no_candidate() -> None:
    moved = BF16_HELD.model_copy(update={"auc_difference": 0.0021})
    assert {each.precision for each in setups(manifest("lung", moved), "cpu", 2)} == {"fp32"}


@NEEDS_OPENVINO
def test_a_precision_that_held_is_tried_right_after_the_reference() -> None:
    if "bf16" not in precisions():
        pytest.skip("these cores do not compute in bf16")
    found = setups(manifest("lung", BF16_HELD), "cpu", 2)
    assert found[:2] == [REFERENCE, Setup("openvino", "bf16", 1, 2)]


@NEEDS_OPENVINO
def test_of_two_precisions_that_held_the_finer_one_is_tried_first_and_wins_a_draw() -> None:
    if not {"fp16", "bf16"} <= set(precisions()):
        pytest.skip("these cores do not compute in both fp16 and bf16")
    fp16_held = BF16_HELD.model_copy(update={"precision": "fp16"})
    finer, coarser = setups(manifest("lung", BF16_HELD, fp16_held), "cpu", 2)[1:3]
    assert (finer.precision, coarser.precision) == ("fp16", "bf16")
    assert _best({REFERENCE: 40, finer: 200, coarser: 205}) == finer
    assert _best({REFERENCE: 40, finer: 200, coarser: 230}) == coarser


def test_labs_have_the_reference_alone() -> None:
    assert setups(manifest("kidney", BF16_HELD), "cpu", 2) == [REFERENCE]


def test_no_fp16_where_tensorrt_cannot_be_loaded() -> None:
    held = BF16_HELD.model_copy(update={"runtime": "onnxruntime", "precision": "fp16"})
    if choice.resolve_device("auto") == "cpu":
        assert "fp16" not in {each.precision for each in setups(manifest("lung", held), "cuda", 2)}


def test_the_smaller_batch_of_equals_and_the_reference_unless_another_is_worth_it() -> None:
    eight, four = Setup("openvino", "bf16", 8, 2), Setup("openvino", "bf16", 4, 2)
    assert _best({REFERENCE: 40, eight: 200, four: 195}) == four
    assert _best({REFERENCE: 40, eight: 200, four: 150}) == eight
    assert _best({REFERENCE: 40, eight: 43}) == REFERENCE


@pytest.mark.usefixtures("short")
def test_what_was_measured_is_remembered_until_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(threads: int = 2) -> choice.ChosenSession:
        return choose(
            model("cxr_gate"),
            manifest("cxr_gate"),
            golden("cxr_gate"),
            Machine("cpu", threads, "auto", tmp_path),
        )

    first = asked()
    assert not first.remembered
    assert first.measured[0].setup == str(REFERENCE)
    assert all((each.rows_per_s is None) != (each.out is None) for each in first.measured)
    again = asked()
    assert again.remembered
    assert (again.session.setup, again.measured) == (first.session.setup, first.measured)
    assert not asked(threads=1).remembered
    monkeypatch.setattr(remembered, "_machine", lambda device: "another CPU")
    assert not asked().remembered


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("damage", [b"{", b'\xff{"a": {"setup": 3}}', None])
def test_a_damaged_memory_is_measured_again(tmp_path: Path, damage: bytes | None) -> None:
    file = tmp_path / remembered.CACHE_FILE
    file.mkdir() if damage is None else file.write_bytes(damage)
    machine = Machine("cpu", 1, "auto", tmp_path)
    assert not choose(model("cxr_gate"), manifest("cxr_gate"), golden("cxr_gate"), machine).remembered
    if damage is not None:
        assert choose(model("cxr_gate"), manifest("cxr_gate"), golden("cxr_gate"), machine).remembered
    assert [each.name for each in tmp_path.iterdir()] == [remembered.CACHE_FILE]


@pytest.mark.usefixtures("short")
def test_a_remembered_setup_that_is_not_allowed_is_not_used(tmp_path: Path) -> None:
    machine = Machine("cpu", 1, "auto", tmp_path)
    choose(model("cxr_gate"), manifest("cxr_gate"), golden("cxr_gate"), machine)
    file = tmp_path / remembered.CACHE_FILE
    content = remembered._CACHE.validate_json(file.read_bytes())
    for each in content.values():
        each.setup = "openvino:bf16:1x1"
    file.write_bytes(remembered._CACHE.dump_json(content))
    chosen = choose(model("cxr_gate"), manifest("cxr_gate"), golden("cxr_gate"), machine)
    assert not chosen.remembered
    assert chosen.session.setup.precision == "fp32"


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


def test_a_run_that_fails_is_not_a_fast_one() -> None:
    session = open_session(model("cxr_gate"), ("logits",), REFERENCE, device="cpu", threads=1)
    with pytest.raises(Exception, match=r"(?i)invalid|unexpected|got"):
        choice.rate(session, np.zeros((2, 1, 5, 5), dtype=np.float64))
