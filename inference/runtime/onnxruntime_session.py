"""ONNX Runtime: the reference on the CPU, and every session on an NVIDIA GPU."""

from __future__ import annotations

import os
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

# Since 1.29 it reports its use to its maker, and keeps an identifier of the machine, where this is not set before.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort  # type: ignore[import-untyped]

from inference.runtime.session import Array, DeviceError, RowShape, Setup, fill, in_runs

_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
BATCH_DIMENSION = "batch"
"""The name that every exported graph gives to its first dimension."""


class OnnxRuntimeSession:
    """A graph in ONNX Runtime.

    With a fixed batch, input and outputs are allocated once for each stream, on the device, and bound; on a GPU the
    run is captured as a CUDA graph, which needs those fixed addresses. fp16 is TensorRT's: it derives it from the fp32
    file and keeps layers whose sums would overflow in fp32.

    Parameters
    ----------
    device
        ``cpu`` or ``cuda``.
    threads
        On the CPU, for all streams together.

    Raises
    ------
    DeviceError
        The provider that the setup needs is not there, or not the active one.
    ValueError
        The graph has no fixed shape, where the setup asks for one.
    """

    def __init__(self, model: Path, outputs: tuple[str, ...], setup: Setup, *, device: str, threads: int) -> None:
        self.outputs, self.setup, self.device = outputs, setup, device
        wanted, providers = _providers(setup, device)
        if wanted not in ort.get_available_providers():
            raise DeviceError(f"device {device}: this ONNX Runtime has no {wanted}")
        options = ort.SessionOptions()
        options.intra_op_num_threads = max(1, threads // setup.streams)
        options.inter_op_num_threads = 1
        # Idle threads must not use a core: decoders need it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        if setup.batch is not None:
            options.add_free_dimension_override_by_name(BATCH_DIMENSION, setup.batch)
        self._session = ort.InferenceSession(model, options, providers=providers)
        self.provider: str = self._session.get_providers()[0]
        if self.provider != wanted:
            raise DeviceError(f"device {device}: {wanted} was asked for, but the active provider is {self.provider}")
        first = self._session.get_inputs()[0]
        self._input: str = first.name
        self._row = _row_shape(first)
        self._slots: SimpleQueue[_Slot] = SimpleQueue()
        if setup.batch is not None:
            shapes = {node.name: _row_shape(node) for node in self._session.get_outputs()}
            for _ in range(setup.streams):
                self._slots.put(
                    _Slot(
                        self._session, (self._input, self._row), [(n, shapes[n]) for n in outputs], setup.batch, device
                    )
                )

    def accepts(self, rows: Array) -> bool:
        """Whether ``rows`` has the graph's dtype and, behind the batch dimension, its shape."""
        return self._row.fits(rows)

    def run(self, batch: Array) -> tuple[Array, ...]:
        """Outputs of any number of rows, in the manifest's order; releases the GIL while it computes."""
        if self.setup.batch is None:
            return tuple(self._session.run(list(self.outputs), {self._input: batch}))
        slot = self._slots.get()
        try:
            return in_runs(batch, self.setup.batch, slot.run)
        finally:
            self._slots.put(slot)


class _Slot:
    """Input and outputs of one run at fixed addresses on the device."""

    def __init__(
        self,
        session: Any,
        input_: tuple[str, RowShape],
        outputs: list[tuple[str, RowShape]],
        batch: int,
        device: str,
    ) -> None:
        self._session = session
        self._binding = session.io_binding()
        name, row = input_
        self._staged = np.zeros((batch, *row.fixed()), row.dtype)
        self._input = ort.OrtValue.ortvalue_from_shape_and_type(self._staged.shape, row.dtype.type, device, 0)
        self._input.update_inplace(self._staged)
        self._binding.bind_ortvalue_input(name, self._input)
        self._outputs = []
        for name, row in outputs:
            value = ort.OrtValue.ortvalue_from_shape_and_type((batch, *row.fixed()), row.dtype.type, device, 0)
            self._binding.bind_ortvalue_output(name, value)
            self._outputs.append(value)

    def run(self, rows: Array) -> list[Array]:
        fill(self._staged, rows)
        self._input.update_inplace(self._staged)
        self._session.run_with_iobinding(self._binding)
        return [np.array(value.numpy()[: len(rows)]) for value in self._outputs]


def _providers(setup: Setup, device: str) -> tuple[str, list[Any]]:
    """The provider that has to be active, and the list that is given to ONNX Runtime."""
    if device == "cpu" and setup.precision == "fp32":
        return "CPUExecutionProvider", ["CPUExecutionProvider"]
    # TF32 would keep only ten bits of the mantissa, which is not fp32.
    cuda = {"use_tf32": "0", "enable_cuda_graph": "0" if setup.batch is None else "1"}
    if device == "cuda" and setup.precision == "fp32":
        return "CUDAExecutionProvider", [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]
    if device == "cuda" and setup.precision == "fp16":
        tensorrt = {"trt_fp16_enable": "1", "trt_cuda_graph_enable": "0" if setup.batch is None else "1"}
        return "TensorrtExecutionProvider", [("TensorrtExecutionProvider", tensorrt), ("CUDAExecutionProvider", cuda)]
    raise DeviceError(f"ONNX Runtime has no {setup.precision} on {device} here")


def _row_shape(node: Any) -> RowShape:
    sizes = tuple(size if isinstance(size, int) else None for size in node.shape[1:])
    return RowShape(np.dtype(_DTYPES[node.type]), sizes)


def cuda_loads() -> bool:
    """Whether there is a GPU; the GPU build of ONNX Runtime runs without one too."""
    marks = ("/proc/driver/nvidia/version", "/dev/nvidia0", "/dev/dxg")
    return "CUDAExecutionProvider" in ort.get_available_providers() and any(Path(mark).exists() for mark in marks)


def has_tensorrt() -> bool:
    """Whether TensorRT's library can be loaded; ONNX Runtime lists the provider even where it cannot."""
    from ctypes import CDLL  # noqa: PLC0415

    if "TensorrtExecutionProvider" not in ort.get_available_providers():
        return False
    for name in ("libnvinfer.so.10", "libnvinfer.so"):
        try:
            CDLL(name)
        except OSError:
            continue
        return True
    return False
