"""The work of every peer on a film: decode, resize, session, sigmoid.

The scripts in this folder run in the peers' environment. They are configured by ``PEER_MODEL`` (ONNX file),
``PEER_PORT``, ``PEER_WORKERS`` (processes), ``PEER_THREADS`` (threads of ONNX Runtime in each) and ``PEER_BATCH``
(largest batch, if the framework forms batches).
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

MODEL = os.environ["PEER_MODEL"]
PORT = int(os.environ["PEER_PORT"])
WORKERS = int(os.environ["PEER_WORKERS"])
THREADS = int(os.environ["PEER_THREADS"])
BATCH = int(os.environ["PEER_BATCH"])
WINDOW_S = 0.005
"""Longest time that a framework waits to fill a batch; 32 clients fill it sooner."""


class FilmNet:
    """The ONNX file in ONNX Runtime fp32 on the CPU."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Spinning threads would take the cores from decoders and other workers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
        self.side_px = int(self._session.get_inputs()[0].shape[2])

    def read(self, content: bytes) -> Any:
        """PNG -> ``(1, side, side) uint8``."""
        film = Image.open(io.BytesIO(content)).convert("L")
        return np.asarray(film.resize((self.side_px, self.side_px), Image.Resampling.BILINEAR))[None]

    def probabilities(self, films: list[Any]) -> list[list[float]]:
        """Sigmoid of the logits of a batch."""
        (logits,) = self._session.run(["logits"], {"input": np.stack(films)})
        return (1 / (1 + np.exp(-logits.astype(np.float64)))).tolist()
