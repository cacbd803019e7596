"""Sessions: what they take, that padding and neighbours never show, and that no device is replaced in silence."""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from inference.runtime.choice import open_session
from inference.runtime.onnxruntime_session import OnnxRuntimeSession, cuda_loads
from inference.runtime.openvino_session import is_installed, precisions
from inference.runtime.session import REFERENCE, Array, DeviceError, RowShape, Session, Setup, fill, in_runs
from tests.conftest import ROOT

OUTPUTS = {
    "lung-1.0.0": ("logits", "evidence"),
    "cardiac-1.0.0": ("logits", "evidence"),
    "cxr_gate-1.0.0": ("logits", "distance", "lungs"),
}
NEEDS_OPENVINO = pytest.mark.skipif(not is_installed(), reason="OpenVINO is not installed here")
FP32 = [
    REFERENCE,
    Setup("onnxruntime", "fp32", 4, 2),
    pytest.param(Setup("openvino", "fp32", 4, 2), marks=NEEDS_OPENVINO),
]
BF16 = Setup("openvino", "bf16", 4, 2)


def model(bundle: str) -> Path:
    return ROOT / "models/bundles" / bundle / "models/model.onnx"


@cache
def golden(bundle: str) -> dict[str, Array]:
    with np.load(ROOT / "models/bundles" / bundle / "golden.npz") as arrays:
        return dict(arrays)


@cache
def opened(bundle: str, setup: Setup) -> Session:
    return open_session(model(bundle), OUTPUTS[bundle], setup, device="cpu", threads=2)


def needs_bf16() -> None:
    if not is_installed() or "bf16" not in precisions():
        pytest.skip("these cores, or this installation, do not compute in bf16")


@pytest.mark.parametrize("setup", FP32, ids=str)
@pytest.mark.parametrize("bundle", OUTPUTS)
def test_fp32_says_what_the_bundle_promises_and_ignores_neighbours(bundle: str, setup: Setup) -> None:
    session, cases = opened(bundle, setup), golden(bundle)
    x = cases["input"]
    together = session.run(np.concatenate([x, x[::-1]]))
    assert np.abs(together[0][: len(x)] - cases["logits"]).max() <= 1e-4
    for row in (0, 3):
        alone = session.run(x[row : row + 1])
        for one, many in zip(alone, together, strict=True):
            assert one.shape == (1, *many.shape[1:])
            np.testing.assert_allclose(one[0], many[row], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bundle", OUTPUTS)
def test_bf16_of_a_row_is_the_same_to_the_bit_whatever_stands_beside_it(bundle: str) -> None:
    needs_bf16()
    session, x = opened(bundle, BF16), golden(bundle)["input"]
    together = session.run(x)
    orders = (x[::-1], np.concatenate([x[2:], x[:2], x[:3]]))
    places = (lambda row: len(x) - 1 - row, lambda row: (row - 2) % len(x))
    for order, place in zip(orders, places, strict=True):
        found = session.run(order)
        for many, again in zip(together, found, strict=True):
            assert all(np.array_equal(many[row], again[place(row)]) for row in range(len(x)))
    for row in range(len(x)):
        assert all(
            np.array_equal(one[0], many[row]) for one, many in zip(session.run(x[row : row + 1]), together, strict=True)
        )
    assert not np.array_equal(together[0], golden(bundle)["logits"]), "this was not computed in bf16"


@pytest.mark.parametrize(
    "setup", [Setup("onnxruntime", "fp32", 4, 2), pytest.param(BF16, marks=NEEDS_OPENVINO)], ids=str
)
def test_streams_do_not_touch_each_others_rows(setup: Setup) -> None:
    if setup.precision == "bf16":
        needs_bf16()
    session, x = opened("cxr_gate-1.0.0", setup), golden("cxr_gate-1.0.0")["input"]
    alone = [session.run(x[row : row + 1])[0] for row in range(len(x))]
    wrong: list[int] = []

    def many(row: int) -> None:
        for _ in range(10):
            if not np.array_equal(session.run(x[row : row + 1])[0], alone[row]):
                wrong.append(row)

    threads = [threading.Thread(target=many, args=(row,)) for row in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("setup", FP32, ids=str)
def test_results_belong_to_the_caller(setup: Setup) -> None:
    session, x = opened("cxr_gate-1.0.0", setup), golden("cxr_gate-1.0.0")["input"]
    first = session.run(x[:1])[0]
    kept = first.copy()
    for row in range(1, 4):
        session.run(x[row : row + 1])
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("setup", FP32, ids=str)
def test_only_rows_of_its_shape_and_dtype_are_accepted(setup: Setup) -> None:
    session, x = opened("lung-1.0.0", setup), golden("lung-1.0.0")["input"]
    assert session.accepts(x)
    assert not session.accepts(x.astype(np.float32))
    assert not session.accepts(x[..., :-1])
    assert not session.accepts(x[0])


@pytest.mark.skipif(cuda_loads(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_an_error() -> None:
    for setup in (REFERENCE, Setup("onnxruntime", "fp32", 16), Setup("onnxruntime", "fp16", 16)):
        with pytest.raises(DeviceError):
            OnnxRuntimeSession(model("cxr_gate-1.0.0"), OUTPUTS["cxr_gate-1.0.0"], setup, device="cuda", threads=1)


def test_precisions_that_no_runtime_has_here_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError):
        opened("cxr_gate-1.0.0", Setup("onnxruntime", "fp16"))
    monkeypatch.setattr("inference.runtime.openvino_session.precisions", lambda: ("fp32",))
    with pytest.raises(DeviceError):
        opened("cxr_gate-1.0.0", Setup("openvino", "fp16", 8))
    with pytest.raises(ValueError, match="fixed batch"):
        opened("cxr_gate-1.0.0", Setup("openvino", "fp32"))


def test_padding_is_zero_and_long_requests_take_several_runs() -> None:
    buffer = np.full((4, 2), 9)
    fill(buffer, np.ones((1, 2), dtype=int))
    assert buffer.tolist() == [[1, 1], [0, 0], [0, 0], [0, 0]]
    sizes: list[int] = []

    def run(rows: Array) -> list[Array]:
        sizes.append(len(rows))
        return [rows * 2, rows[:, :1]]

    double, first = in_runs(np.arange(10).reshape(5, 2), 2, run)
    assert sizes == [2, 2, 1]
    assert double.tolist() == (np.arange(10).reshape(5, 2) * 2).tolist()
    assert first.ravel().tolist() == [0, 2, 4, 6, 8]
    with pytest.raises(ValueError, match="fixed shape"):
        RowShape(np.dtype("uint8"), (1, None)).fixed()


@pytest.mark.parametrize("text", ["openvino:bf16:8x2", "onnxruntime:fp32:*x1", "onnxruntime:fp16:256x1"])
def test_a_setup_is_read_as_it_is_written(text: str) -> None:
    assert str(Setup.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "openvino", "torch:fp32:8x1", "openvino:bf16:0x1", "openvino:bf16:8x2\n", "openvino:bf16:-1x1"]
)
def test_no_setup_is_guessed(text: str) -> None:
    with pytest.raises(ValueError, match="not a session's setup"):
        Setup.parse(text)


@NEEDS_OPENVINO
def test_openvino_is_loaded_only_where_it_is_asked_for_and_reports_to_nobody() -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from inference.runtime.choice import open_session\n"
        "from inference.runtime.session import REFERENCE, Setup\n"
        "def loaded(*names): return [n for n in names if sys.modules.get(n) is not None]\n"
        f"model, outputs = Path({str(model('cxr_gate-1.0.0'))!r}), {OUTPUTS['cxr_gate-1.0.0']!r}\n"
        "open_session(model, outputs, REFERENCE, device='cpu', threads=1)\n"
        "assert not loaded('openvino', 'torch'), 'imported unasked'\n"
        "open_session(model, outputs, Setup('openvino', 'fp32', 2), device='cpu', threads=1)\n"
        "assert loaded('openvino')\n"
        "assert not loaded('openvino_telemetry', 'openvino.tools.ovc', 'torch')\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=120)


@pytest.mark.parametrize(
    ("imported", "left"), [("inference.runtime.onnxruntime_session", False), ("onnxruntime", True)]
)
def test_onnxruntime_reports_to_nobody(tmp_path: Path, imported: str, left: bool) -> None:
    """Its queue of reports is a file in the home folder: it is there when ONNX Runtime is imported by itself."""
    script = f"import {imported}, onnxruntime; onnxruntime.InferenceSession({str(model('kidney-1.1.0'))!r})"
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, check=True, timeout=120)
    assert (list(tmp_path.rglob("*")) != []) is left
