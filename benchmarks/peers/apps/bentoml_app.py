"""BentoML: adaptive batching; the batched method takes the posted files and decodes them in the worker."""

from __future__ import annotations

from pathlib import Path

import bentoml
from film import BATCH, WORKERS, FilmNet


@bentoml.service(workers=WORKERS, traffic={"timeout": 120}, logging={"access": {"enabled": False}})
class Films:
    def __init__(self) -> None:
        self.net = FilmNet()

    @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=60_000)
    def predict(self, images: list[Path]) -> list[dict[str, list[float]]]:
        films = [self.net.read(image.read_bytes()) for image in images]
        return [{"probabilities": row} for row in self.net.probabilities(films)]
