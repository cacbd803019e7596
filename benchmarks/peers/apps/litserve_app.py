"""LitServe: its batching, decode in the inference worker, films as multipart (it takes no raw bodies)."""

from typing import Any

import litserve
from fastapi import Request
from film import BATCH, PORT, WINDOW_S, WORKERS, FilmNet


class FilmAPI(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.net = FilmNet()

    def decode_request(self, request: Request) -> Any:
        return self.net.read(request["image"].file.read())

    def batch(self, inputs: list[Any]) -> list[Any]:
        return list(inputs)

    def predict(self, films: list[Any]) -> list[list[float]]:
        return self.net.probabilities(films)

    def unbatch(self, output: list[list[float]]) -> list[list[float]]:
        return output

    def encode_response(self, output: list[float]) -> dict[str, list[float]]:
        return {"probabilities": output}


if __name__ == "__main__":
    api = FilmAPI(max_batch_size=BATCH, batch_timeout=WINDOW_S)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=WORKERS, timeout=120)
    server.run(host="127.0.0.1", port=PORT, log_level="warning", access_log=False, generate_client_file=False)
