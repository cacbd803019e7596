"""A file with far too many of something is read or refused in bounded time, whatever its format."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from data_specs.cxr.files import read_image
from data_specs.ecg.files import group_recordings, read_recording
from data_specs.ecg.posted import PostedFile
from data_specs.problems import Refused
from tests.data_specs.hostile_made import films, recordings

FILMS, RECORDINGS = films(), recordings()
MAX_CPU_S = 0.5


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """The decoders are loaded before anything is timed."""
    for content in (b"II*\0" + bytes(300), bytes(128) + b"DICM" + bytes(300)):
        with suppress(Refused):
            read_image(content)


@pytest.mark.parametrize("name", FILMS)
def test_a_hostile_film_takes_bounded_time(name: str) -> None:
    content = FILMS[name]()
    start = time.process_time()
    with suppress(Refused):
        read_image(content)
    assert time.process_time() - start < MAX_CPU_S


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_hostile_recording_takes_bounded_time(name: str) -> None:
    file = PostedFile(0, name, RECORDINGS[name]())
    start = time.process_time()
    for group in group_recordings([file]):
        with suppress(Refused):
            read_recording(group, ecg_unit="mV")
    assert time.process_time() - start < MAX_CPU_S
