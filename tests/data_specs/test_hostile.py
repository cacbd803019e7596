"""A file with far too many of something is read or refused in bounded time, whatever its format."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from data_specs.cxr.files import read_image
from data_specs.ecg.files import group_recordings, read_recording
from data_specs.ecg.posted import PostedFile
from data_specs.problems import Refused
from tests.data_specs.hostile_made import films, recordings
from tests.slowness import slowness

FILMS, RECORDINGS = films(), recordings()
MAX_CPU_S = 0.5


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """The decoders are loaded before anything is timed."""
    for content in (b"II*\0" + bytes(300), bytes(128) + b"DICM" + bytes(300)):
        with suppress(Refused):
            read_image(content)


def read_film(name: str, content: bytes) -> None:
    del name
    with suppress(Refused):
        read_image(content)


def read_ecg(name: str, content: bytes) -> None:
    for group in group_recordings([PostedFile(0, name, content)]):
        with suppress(Refused):
            read_recording(group, ecg_unit="mV")


def cpu_s(read: Callable[[str, bytes], None], name: str, content: bytes) -> float:
    start = time.process_time()
    read(name, content)
    return time.process_time() - start


@pytest.mark.parametrize("name", [*FILMS, *RECORDINGS])
def test_a_hostile_file_takes_bounded_time(name: str) -> None:
    read, made = (read_film, FILMS[name]) if name in FILMS else (read_ecg, RECORDINGS[name])
    content = made()
    spent = cpu_s(read, name, content)
    if spent >= MAX_CPU_S:  # five times more: on a busy machine the same work takes longer
        assert min(cpu_s(read, name, content) / slowness() for _ in range(5)) < MAX_CPU_S
