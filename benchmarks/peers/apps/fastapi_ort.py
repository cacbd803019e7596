"""FastAPI and ONNX Runtime, one run per request: decode and run in Starlette's thread pool (``def``, not ``async``)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
import uvicorn
from fastapi import Body, FastAPI
from film import PORT, WORKERS, FilmNet

net = FilmNet()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    # Starlette would let 40 runs compete for the cores.
    anyio.to_thread.current_default_thread_limiter().total_tokens = max(1, 2 * (os.cpu_count() or 1) // WORKERS)
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/ready")
def ready() -> dict[str, bool]:
    return {"ready": True}


@app.post("/predict")
def predict(content: bytes = Body(media_type="image/png")) -> dict[str, list[float]]:
    return {"probabilities": net.probabilities([net.read(content)])[0]}


if __name__ == "__main__":
    uvicorn.run("fastapi_ort:app", host="127.0.0.1", port=PORT, workers=WORKERS, log_level="warning", access_log=False)
