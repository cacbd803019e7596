"""Files that ended, stopped or swelled the service: each is refused alone, and whoever comes meanwhile is served.

The server runs with the bundles that ship, in a process of its own. The files are made here; they are of the kinds that
did harm before files were read in processes of their own.
"""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import threading
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from benchmarks.figures import children_of
from tests.conftest import ROOT
from tests.data_specs import cxr_made
from tests.service.serving import real_server, until

MAX_MEMORY_MB = 900
MAX_HEALTH_S = 0.1
SAMPLE = (ROOT / "samples/film-normal.jpg").read_bytes()


def tiny_lzw_tiff():
    """An LZW strip of four bytes: the decoder read beyond its end, and the process ended by SIGSEGV."""
    strip = b"\x80\x00\x0f\xff"
    entries = (
        *((256, 4, 300), (257, 4, 300), (258, 3, 8), (259, 3, 5), (262, 3, 1)),
        *((273, 4, 8), (277, 3, 1), (278, 4, 300), (279, 4, len(strip))),
    )
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHLL", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<L", 12) + strip + directory + bytes(4)


def flat_film(side=9900):
    """A film of one grey: a kilobyte that becomes a hundred megapixels."""
    values = np.zeros((side, side), np.uint16)
    return cxr_made.dicom(values, cxr_made.J2K, bits=16)


def png_of(mode, side, dtype, channels):
    stream = io.BytesIO(imagecodecs.png_encode(np.zeros((side, side, channels), dtype), level=9))
    return stream.getvalue()


def commas():
    return ("I,II,V1,V2,V3,V4,V5,V6\n" + "\n".join("," * 3900 for _ in range(60))).encode()


def zip_of(content, n):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(n):
            archive.writestr(f"{k}.csv", content)
    return stream.getvalue()


def long_gain():
    return b"r 12 500 5000\n" + b"".join(b"r.dat 16 " + b"1" * 12_000 + b"!\n" for _ in range(12))


def many_segments():
    return b"r/4096 12 500 2048000\n" + b"".join(b"r1 500\n" for _ in range(4096))


def cut_deflate():
    """A deflated data set that is damaged in its header."""
    whole = bytearray(cxr_made.dicom(cxr_made.phantom(), cxr_made.DEFLATED))
    whole[420:440] = bytes(20)
    return bytes(whole)


HOSTILE = {
    "tiff lzw": ("image", "a.tif", tiny_lzw_tiff),
    "jpeg 2000": ("image", "a.dcm", flat_film),
    "png": ("image", "a.png", lambda: png_of("RGBA", 9000, np.uint16, 4)),
    "deflate": ("image", "a.dcm", cut_deflate),
    "cut header": ("image", "a.dcm", lambda: cxr_made.dicom(cxr_made.phantom())[:400]),
    "gain": ("ecg", "r.hea", long_gain),
    "segments": ("ecg", "r.hea", many_segments),
    "commas": ("ecg", "a.csv", commas),
    "zip of commas": ("ecg", "a.zip", lambda: zip_of(commas(), 8)),
    "blank rows": ("ecg", "a.csv", lambda: b"I,II,V1,V2,V3,V4,V5,V6\n" + b"\n" * 1_900_000),
}
"""Kind to field, name and content."""
REFUSED_AS = {
    "no_pixel_data",
    "sampling_rate",
    "unreadable",
    "truncated",
    "too_costly",
    "unsupported_format",
    "lead_missing",
    "too_short",
    "too_large",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    process = real_server(tmp_path_factory.mktemp("hostile")).start(seconds=120)
    yield process
    assert process.stop() == 0


class Watch:
    """Asks for the health of the service, and adds up the memory of its processes, until the end of the block."""

    def __init__(self, process):
        self.process, self.ended = process, threading.Event()
        self.health_s, self.memory_mb = [], []
        self.threads = [threading.Thread(target=each) for each in (self.ask, self.weigh)]

    def ask(self):
        with self.process.served.client() as client:
            while True:  # once at least, however soon the block ends
                began = time.monotonic()
                assert client.get("/healthz").status_code == 200
                self.health_s.append(time.monotonic() - began)
                if self.ended.wait(0.02):
                    return

    def weigh(self):
        while True:
            self.memory_mb.append(sum(pss_mb(pid) for pid in tree(self.process.process.pid)))
            if self.ended.wait(0.05):
                return

    def __enter__(self):
        for each in self.threads:
            each.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for each in self.threads:
            each.join()


def tree(pid):
    found = [pid]
    for each in found:
        found += children_of(each)
    return found


def pss_mb(pid):
    """The proportional share of memory: pages that several processes have are counted once."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("Pss:")), 0)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_and_its_neighbour_is_assessed(server, kind):
    field, name, content = HOSTILE[kind]
    files = [(field, (name, content())), ("image", ("b.jpg", SAMPLE))]
    pid = server.process.pid
    with server.served.client() as client, Watch(server) as watch:
        visit = client.post("/v1/visits?wait=60", files=files).json()
    assert visit["status"] == "complete"
    assert [each["accepted"] for each in visit["inputs"]] == [False, True]
    assert {each["code"] for each in visit["inputs"][0]["problems"]} <= REFUSED_AS
    assert server.process.pid == pid
    assert server.process.poll() is None
    assert sorted(watch.health_s)[len(watch.health_s) // 2] < MAX_HEALTH_S
    assert max(watch.memory_mb) < MAX_MEMORY_MB


def test_many_hostile_films_at_once_stay_within_the_memory(server):
    films = [("image", (f"{k}.dcm", flat_film(4000 + 500 * k))) for k in range(8)]
    with server.served.client() as client, Watch(server) as watch:
        visits = [client.post("/v1/visits", files=films, headers={"Prefer": "respond-async"}).json() for _ in range(3)]
        until(lambda: all(client.get(f"/v1/visits/{v['id']}").json()["status"] == "complete" for v in visits), 120)
    assert max(watch.memory_mb) < MAX_MEMORY_MB


def test_readers_that_are_killed_from_outside_cost_no_file(server):
    files = [("image", ("b.jpg", SAMPLE)), ("context", (None, json.dumps({"person": {"age_years": 50}})))]
    with server.served.client(Prefer="respond-async") as client:
        ids = []
        for _ in range(20):
            ids.append(client.post("/v1/visits", files=files).json()["id"])
            for pid in tree(server.process.pid)[2:]:
                with suppress(ProcessLookupError):  # it has ended since it was listed
                    os.kill(pid, signal.SIGKILL)
        until(lambda: all(client.get(f"/v1/visits/{each}").json()["status"] == "complete" for each in ids), 60)
        for each in ids:
            assert client.get(f"/v1/visits/{each}").json()["inputs"][0]["accepted"]
