"""The real engine on the shipped bundles, once per run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from inference.engine import Engine, PostedInput
from inference.runtime.session import Machine
from tests.conftest import ROOT
from tests.readers import shared_readers

SAMPLES = ROOT / "samples"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    engine = Engine(ROOT / "models" / "bundles", Machine("cpu"), readers=shared_readers())
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def normal_film() -> bytes:
    return (SAMPLES / "film-normal.jpg").read_bytes()


@pytest.fixture(scope="session")
def abnormal_film() -> bytes:
    return (SAMPLES / "film-abnormal.jpg").read_bytes()


@pytest.fixture(scope="session")
def recording() -> list[tuple[str, bytes]]:
    return [(name, (SAMPLES / name).read_bytes()) for name in ("E07517.hea", "E07517.mat")]


def posted(*files: tuple[str, str, bytes]) -> list[PostedInput]:
    """``(field, filename, content)`` as the service hands them over."""
    return [PostedInput(i, field, name, content) for i, (field, name, content) in enumerate(files)]  # type: ignore[arg-type]


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for what another thread or process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)
