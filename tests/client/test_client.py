"""The command against a server: posted once, gone on with after a break, with exit codes."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from PIL import Image

from client import __main__ as command
from client.cases import read_cases
from client.connection import Connection
from client.posting import Notes, notes_beside, post_all
from tests.conftest import ROOT
from tests.service.serving import ADMIN, Process, until


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    process = Process(tmp_path_factory.mktemp("site"))  # so that it prints nothing among what the client prints
    try:
        yield process.start().served
    finally:
        process.stop()


@pytest.fixture
def key(site, tmp_path, monkeypatch):
    monkeypatch.setenv("SANGLOC_KEY", made := site.key("site", f"clinic-{tmp_path.name}"))
    return made


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "visits"
    for number in range(5):
        (made / f"visit-{number}").mkdir(parents=True)
        film = io.BytesIO()
        Image.new("L", (256, 256), 40 + number).save(film, "PNG")
        (made / f"visit-{number}" / "film.png").write_bytes(film.getvalue())
        (made / f"visit-{number}" / "context.json").write_text(f'{{"person": {{"id": "P-{number}"}}}}')
    return made


def run(site, *arguments):
    return command.main(["--server", site.address, "--patience", "20", *map(str, arguments)])


def listed(site, key):
    with site.client(key) as client:
        return client.get("/v1/visits").json()["items"]


def test_a_folder_is_posted_once(site, key, folder, capsys, tmp_path):
    out = tmp_path / "found.csv"
    assert run(site, "post", folder, "--out", out) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["visit", "id", "status", "priority", "lung", "cardiac", "kidney", "remarks"]
    assert [line.split()[0] for line in shown[1:]] == [f"visit-{number}" for number in range(5)]
    assert all(line.split()[2:5] == ["complete", "urgent", "high"] for line in shown[1:])
    rows = list(csv.DictReader(out.read_text("utf-8").splitlines()))
    assert [row["lung.pneumonia"] for row in rows] == ["0.8"] * 5
    before = {each["id"] for each in listed(site, key)}
    assert {each["id"] for each in rows} == before
    assert run(site, "post", folder) == 0
    (notes,) = folder.parent.glob("*.jsonl")
    notes.unlink()  # without its notes, the service knows the visits by their keys
    assert run(site, "post", folder) == 0
    assert {each["id"] for each in listed(site, key)} == before


def test_post_without_waiting_then_wait(site, key, folder, capsys):
    assert run(site, "wait", folder) == 2
    assert run(site, "post", "--no-wait", folder) == 0
    assert run(site, "wait", folder) == 0
    assert capsys.readouterr().out.count("complete") >= 5


def test_a_table_with_a_row_that_is_refused(site, key, folder, capsys):
    table = folder / "visits.csv"
    table.write_text("id,sex,files\nP-1,female,visit-1/film.png\nP-2,F,visit-2/film.png\n")
    assert run(site, "--language", "fr", "post", table) == 1
    shown = capsys.readouterr().out
    assert "La valeur 'F' n'est pas acceptée" in shown
    assert len(listed(site, key)) == 1


def test_list_show_and_report(site, key, folder, capsys, tmp_path):
    assert run(site, "post", folder) == 0
    capsys.readouterr()
    assert run(site, "list", "--person", "P-3") == 0
    (_, line) = capsys.readouterr().out.splitlines()
    name, visit_id, *_ = line.split()
    assert name == "P-3"
    assert run(site, "list", "--most", "2") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert run(site, "show", visit_id) == 0
    assert "LUNG: assessed, high" in capsys.readouterr().out
    for kind, start in (("pdf", b"%PDF"), ("html", b"<!doctype html>")):
        assert run(site, "report", visit_id, "--format", kind, "--to", tmp_path / "reports") == 0
        assert (tmp_path / "reports" / f"{visit_id}.{kind}").read_bytes()[:15].lower().startswith(start.lower())
    assert run(site, "show", "no-such-visit") == 1
    assert run(site, "list", "--priority", "high") == 1
    assert "'high'" in capsys.readouterr().err


def test_wrong_keys_and_addresses(site, folder, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("SANGLOC_KEY", raising=False)
    assert run(site, "list") == 2
    (tmp_path / "key").write_text("not-a-key\n")
    assert run(site, "--key-file", tmp_path / "key", "post", folder) == 3
    (tmp_path / "key").write_text(ADMIN)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        given = ["--server", address, "--patience", "1", "--key-file", str(tmp_path / "key")]
        assert command.main([*given, "post", str(folder)]) == 4
    assert "no connection" in capsys.readouterr().err


def test_ctrl_c_keeps_what_was_posted(site, key, folder, monkeypatch):
    connection = Connection(site.address, key)
    notes = Notes(notes_beside([folder]), connection.address)
    going = post_all(connection, read_cases([folder]), notes, at_once=1, wait_for_them=True)
    next(going)
    going.close()
    connection.close()
    posted = len(listed(site, key))
    assert 1 <= posted < 5
    assert len(Notes(notes_beside([folder]), site.address).ids) == posted
    assert run(site, "post", folder) == 0
    assert len(listed(site, key)) == 5


class ThinLink:
    """Passes bytes to a server, and breaks each of the first connections after so many bytes to it."""

    def __init__(self, port, breaks, after_bytes):
        self.port, self.breaks, self.after_bytes = port, breaks, after_bytes
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.breaks -= 1
            left = self.after_bytes if self.breaks >= 0 else None
            server = socket.create_connection(("127.0.0.1", self.port))
            threading.Thread(target=self._pass, args=(client, server, left), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, None), daemon=True).start()

    @staticmethod
    def _pass(source, target, left):
        try:
            while data := source.recv(65536):
                target.sendall(data)
                if left is not None and (left := left - len(data)) < 0:
                    break
        except OSError:
            pass
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self):
        self.listener.close()


@pytest.mark.parametrize("n_bytes", [100_000, 2_400_000])
def test_a_link_that_breaks(site, key, tmp_path, n_bytes, capsys):
    film = tmp_path / "film.png"
    film.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(n_bytes))
    link = ThinLink(site.port, breaks=3, after_bytes=min(n_bytes // 2, 700_000))
    try:
        assert command.main(["--server", link.address, "--patience", "30", "post", str(film)]) == 0
    finally:
        link.close()
    assert link.breaks < 0
    (visit,) = listed(site, key)
    with site.client(key) as client:
        assert client.get(f"/v1/visits/{visit['id']}/inputs/0").content == film.read_bytes()


def test_ctrl_c_ends_the_command_and_the_next_run_goes_on(tmp_path, folder):
    process = Process(tmp_path / "slow", seconds=4.0)
    process.folder.mkdir()
    site = process.start().served
    try:
        words = [sys.executable, "-m", "client", "--server", site.address, "post", "--at-once", "1", str(folder)]
        environment = {**os.environ, "SANGLOC_KEY": ADMIN}
        # a shell's background job ignores SIGINT, and so would all that it starts
        with subprocess.Popen(
            ["env", "--default-signal=INT", *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as going:
            until(lambda: notes_beside([folder]).exists(), 20)
            going.send_signal(signal.SIGINT)
            _, said = going.communicate(timeout=20)
        assert going.returncode == 130
        assert b"stopped" in said
        assert b"Traceback" not in said
        posted = len(listed(site, ADMIN))
        assert 1 <= posted < 5
        words[words.index("--at-once") + 1] = "5"
        again = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        assert again.stdout.count("complete") == 5
        assert len(listed(site, ADMIN)) == 5
    finally:
        process.stop()
