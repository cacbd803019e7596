"""The kit measures any server on this machine that takes a film in a request."""

from __future__ import annotations

import io
import json
import os
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from benchmarks import kit
from benchmarks.drawn import chest
from data_specs.cxr.files import read_image
from training.cohorts.gates import film_gate
from training.organs import lung


class Decodes(BaseHTTPRequestHandler):
    """Another one's server: it decodes the film of a request and says its size."""

    protocol_version = "HTTP/1.1"
    films: list[bytes] = []  # noqa: RUF012
    asked: list[tuple[str, str]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Type"].startswith("multipart/"):
            assert b'name="scan"; filename="film.png"' in body
            assert b'name="context"' not in body
            body = body[body.index(b"\x89PNG") :]
        self.films.append(body)
        self.asked.append((self.path, self.headers.get("X-Key", "")))
        size = Image.open(io.BytesIO(body)).size
        answer = json.dumps({"size": size}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """No line for each request."""


@pytest.fixture
def served():
    Decodes.films.clear()
    Decodes.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Decodes) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/predict?top=1"
        server.shutdown()


def figures_of(capsys, *arguments: str) -> dict:
    kit.main([*arguments, "--kinds", "png", "--clients", "2", "--seconds", "0.3", "--rounds", "2"])
    return json.loads(capsys.readouterr().out.splitlines()[-1])["kinds"]["png"]


@pytest.mark.parametrize("field", [(), ("--field", "scan")])
def test_a_server_of_another_is_measured(served, capsys, tmp_path, field):
    options = ("--url", served, "--pid", str(os.getpid()), "--header", "X-Key: k:1", "--expect", "512")
    found = figures_of(capsys, *options, *field, "--out", str(tmp_path))
    assert found["failed"] == 0
    assert found["rate_per_s"] > 0
    assert found["core_ms"] > 0.1
    assert found["memory_mb"] > 50
    assert found["service_core_ms"] is None
    assert len(found["turns"]) == 2
    assert set(Decodes.asked) == {("/predict?top=1", "k:1")}
    assert len(set(Decodes.films)) == len(Decodes.films) > 4, "no two requests have the same bytes"


def test_without_its_process_core_time_is_not_known(served, capsys, tmp_path):
    found = figures_of(capsys, "--url", served, "--out", str(tmp_path))
    assert found["rate_per_s"] > 0
    assert found["core_ms"] is found["memory_mb"] is None


def test_an_answer_without_the_expected_text_ends_it(served, tmp_path):
    with pytest.raises(SystemExit, match="png: the server does not answer as expected"):
        kit.main(["--url", served, "--expect", "pneumonia", "--kinds", "png", "--out", str(tmp_path)])


@pytest.mark.parametrize(
    "options",
    [
        ["--url", "http://example.org:80/predict"],
        ["--url", "http://127.0.0.1/predict"],
        ["--url", "http://127.0.0.1:1/predict", "--header", "no colon"],
        ["--url", "http://127.0.0.1:1/predict", "--pid", "999999999"],
        [],
    ],
)
def test_what_cannot_be_measured_is_said(options, capsys):
    with pytest.raises(SystemExit) as ended:
        kit.main(options)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_the_files_are_written_and_can_be_read(tmp_path, capsys):
    kit.main(["--write", str(tmp_path), "--kinds", "png", "htj2k", "wfdb"])
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert read_image((tmp_path / "png.png").read_bytes()).pixels.shape == (512, 512)
    assert read_image((tmp_path / "htj2k.dcm").read_bytes()).format == "dicom"
    assert zipfile.ZipFile(tmp_path / "wfdb.zip").testzip() is None


@pytest.mark.parametrize("side", [256, 512, 2048])
def test_the_gate_takes_the_drawing_for_a_frontal_film(side, monkeypatch):
    monkeypatch.delenv("SANGLOC_BUNDLES", raising=False)
    film = io.BytesIO()
    Image.fromarray(chest(side).astype(np.uint8)).save(film, "PNG")
    served = film_gate().film(film.getvalue(), lung.INPUT)
    assert served.x is not None
    assert not served.problems
