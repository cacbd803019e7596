"""Mosec: its batching, in a server of Rust; decode in the worker that computes, raw bodies."""

from __future__ import annotations

import json
import os
from typing import Any

from film import BATCH, PORT, WINDOW_S, WORKERS, FilmNet
from mosec import Server, Worker


class Films(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.net = FilmNet()

    def deserialize(self, data: bytes) -> Any:
        return self.net.read(data)

    def forward(self, data: list[Any]) -> list[list[float]]:
        return self.net.probabilities(data)

    def serialize(self, data: list[float]) -> bytes:
        return json.dumps({"probabilities": data}).encode()


if __name__ == "__main__":
    os.environ |= {"MOSEC_ADDRESS": "127.0.0.1", "MOSEC_PORT": str(PORT), "MOSEC_TIMEOUT": "120000"}
    server = Server()
    server.append_worker(Films, num=WORKERS, max_batch_size=BATCH, max_wait_time=round(1000 * WINDOW_S), timeout=120)
    server.run()
