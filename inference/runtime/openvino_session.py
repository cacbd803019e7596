"""OpenVINO on the CPU, in fp32, or in fp16 or bf16 where the CPU computes in it. Imported only where it is used."""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from inference.runtime.session import Array, DeviceError, RowShape, Setup, fill, in_runs

_PRECISIONS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


class OpenvinoSession:
    """A graph compiled for one batch size, so that a row's result never depends on the other rows, to the bit.

    Parameters
    ----------
    threads
        For all streams together.

    Raises
    ------
    DeviceError
        OpenVINO is not installed, or this CPU does not compute in the precision.
    ValueError
        The setup names no batch, or the graph has no fixed shape.
    """

    device = "cpu"

    def __init__(self, model: Path, outputs: tuple[str, ...], setup: Setup, *, threads: int) -> None:
        if setup.batch is None:
            raise ValueError("an OpenVINO session has a fixed batch")
        if not is_installed():
            raise DeviceError("OpenVINO was asked for, but it is not installed")
        if setup.precision not in precisions():
            raise DeviceError(f"OpenVINO does not compute in {setup.precision} on these cores")
        self.outputs, self.setup, self.provider = outputs, setup, "OpenVINO CPU"
        core = _core()
        network = core.read_model(model)
        (first,) = network.inputs
        sizes = tuple(None if size.is_dynamic else size.get_length() for size in first.partial_shape)[1:]
        self._row = RowShape(np.dtype(first.element_type.to_dtype()), sizes)
        network.reshape([setup.batch, *self._row.fixed()])
        compiled = core.compile_model(
            network,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _PRECISIONS[setup.precision],
                "NUM_STREAMS": setup.streams,
                "INFERENCE_NUM_THREADS": max(threads, setup.streams),
                # With pinning, several sessions and the decoders would wait for the same core.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._slots: SimpleQueue[_Slot] = SimpleQueue()
        for _ in range(setup.streams):
            self._slots.put(_Slot(compiled, outputs, np.zeros((setup.batch, *self._row.fixed()), self._row.dtype)))

    def accepts(self, rows: Array) -> bool:
        """Whether ``rows`` has the graph's dtype and, behind the batch dimension, its shape."""
        return self._row.fits(rows)

    def run(self, batch: Array) -> tuple[Array, ...]:
        """Outputs of any number of rows, in the manifest's order; releases the GIL while it computes."""
        slot = self._slots.get()
        try:
            return in_runs(batch, len(slot.rows), slot.run)
        finally:
            self._slots.put(slot)


class _Slot:
    """One request of the runtime, which reads its rows from a fixed buffer; results are copied once."""

    def __init__(self, compiled: Any, outputs: tuple[str, ...], rows: Array) -> None:
        import openvino  # type: ignore[import-untyped]  # noqa: PLC0415

        self.rows = rows
        self._request = compiled.create_infer_request()
        self._request.set_input_tensor(openvino.Tensor(rows, shared_memory=True))
        self._outputs = [compiled.output(name) for name in outputs]

    def run(self, rows: Array) -> list[Array]:
        fill(self.rows, rows)
        self._request.infer(share_outputs=True)
        return [np.array(self._request.get_tensor(port).data[: len(rows)]) for port in self._outputs]


def is_installed() -> bool:
    return find_spec("openvino") is not None


def precisions() -> tuple[str, ...]:
    """The precisions in which this CPU computes, as the runtime says."""
    capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(name for name in _PRECISIONS if name.upper() in capabilities)


@cache
def _core() -> Any:
    # The converter is not needed here, and importing it sends usage data to its vendor.
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
    import openvino  # noqa: PLC0415

    return openvino.Core()
