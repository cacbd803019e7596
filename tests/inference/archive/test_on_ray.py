"""The same rows by Ray Data, with two actors on this machine."""

from __future__ import annotations

import signal
import time

import pytest

from tests.inference.archive.made import failed, folder_of_films, key_file, rows, run, started
from tests.inference.archive.test_run import cases, same

pytest.importorskip("ray", reason="ray[data] is not installed (the extra 'archive'): nothing is scored by Ray here")

FILMS = 12


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = folder_of_films(tmp_path_factory.mktemp("films"), FILMS)
    (folder / "cut.dcm").write_bytes(b"\0" * 128 + b"DICM")
    return folder


@pytest.fixture(scope="module")
def expected(films, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    run(films, "--out", folder / "out", "--key", key_file(folder))
    return folder / "out"


def test_actors_give_the_rows_of_one_process(films, expected, tmp_path):
    arguments = (films, "--out", tmp_path / "out", "--key", key_file(tmp_path), "--ray", "--workers", "2")
    run(*arguments)
    same(rows(tmp_path / "out"), rows(expected))
    assert failed(tmp_path / "out") == failed(expected)
    assert "0 scored" in run(*arguments)


def test_killed_and_run_again_without_ray_it_has_the_same_rows(films, expected, tmp_path):
    arguments = (films, "--out", tmp_path / "out", "--key", key_file(tmp_path))
    process = started(*arguments, "--ray", "--workers", "2", "--every", "0.1")
    end = time.monotonic() + 120
    while process.poll() is None and cases(tmp_path / "out") == 0 and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    run(*arguments)
    same(rows(tmp_path / "out"), rows(expected))
