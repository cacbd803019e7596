"""Ray Serve: ``@serve.batch`` on a replica per worker, decode in the replica, raw bodies."""

from __future__ import annotations

import os
import signal
import threading

import ray
from film import BATCH, PORT, WINDOW_S, WORKERS, FilmNet
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=WORKERS, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0})
class Films:
    def __init__(self) -> None:
        self.net = FilmNet()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=WINDOW_S)
    async def together(self, contents: list[bytes]) -> list[dict[str, list[float]]]:
        films = [self.net.read(content) for content in contents]
        return [{"probabilities": row} for row in self.net.probabilities(films)]

    async def __call__(self, request: Request) -> dict[str, list[float]]:
        return await self.together(await request.body())


if __name__ == "__main__":
    ray.init(
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200_000_000,
        _temp_dir=os.environ["PEER_FOLDER"],
        _node_ip_address="127.0.0.1",
    )
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Films.bind(), route_prefix="/")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()
    serve.shutdown()
    ray.shutdown()
