"""The networks of the comparison: the shipped lung bundle, and DenseNet-121 with random weights instead."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.densenet import densenet_bundles
from inference.bundles.registry import read_registry

NETWORKS = ("lung", "densenet121")


def bundles_with(network: str, shipped: Path, made: Path) -> Path:
    """A folder of bundles whose ``lung`` is ``network``; DenseNet-121 is exported once and stored under ``made``.

    Raises
    ------
    ImportError
        DenseNet-121 has not been exported, and torch is not installed.
    """
    if network == "lung":
        return shipped
    target = made / "densenet-bundles"
    if not target.exists():
        made.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made) as part:
            densenet_bundles(shipped, Path(part)).rename(target)
    return target


def model_of(bundles: Path) -> Path:
    """The ONNX file that is in service as ``lung``."""
    return bundles / f"lung-{read_registry(bundles).in_service('lung')}" / "models" / "model.onnx"


class BareSession:
    """ONNX Runtime alone, in fp32 on all cores; the baseline of the shares."""

    def __init__(self, model: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Between its measurements the other servers need the cores.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.side_px = int(self._session.get_inputs()[0].shape[2])

    def logits(self, films: NDArray[np.uint8]) -> NDArray[np.float32]:
        """``(n, columns) float32`` of ``(n, 1, side, side) uint8``."""
        return np.asarray(self._session.run(["logits"], {"input": films})[0], np.float32)
