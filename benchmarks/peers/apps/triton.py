"""Triton with its Python back end, through nvidia-pytriton: dynamic batcher, decode in the worker, binary tensors over
HTTP (the Open Inference Protocol, one BYTES element that holds the PNG)."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from film import BATCH, PORT, WINDOW_S, WORKERS, FilmNet
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def worker() -> Any:
    net = FilmNet()

    @batch
    def predict(image: Any) -> dict[str, Any]:
        rows = net.probabilities([net.read(content) for content in image[:, 0]])
        return {"probabilities": np.asarray(rows, np.float32)}

    return predict


if __name__ == "__main__":
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=PORT,
        grpc_address="127.0.0.1",
        grpc_port=int(os.environ["PEER_PORT_2"]),
        allow_metrics=False,
        log_verbose=0,
    )
    with Triton(config=config, workspace=os.environ["PEER_FOLDER"] + "/workspace") as server:
        server.bind(
            model_name="film",
            infer_func=[worker() for _ in range(WORKERS)],
            inputs=[Tensor(name="image", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="probabilities", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(
                max_batch_size=BATCH,
                batcher=DynamicBatcher(max_queue_delay_microseconds=int(WINDOW_S * 1e6)),
            ),
            strict=True,
        )
        server.serve()
