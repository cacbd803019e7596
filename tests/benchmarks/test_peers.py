"""What the comparison rests on: bodies each framework can read, answers that are read right, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.files import ROOT, numbered, png
from benchmarks.peers import alternation, servers
from benchmarks.peers.alternation import BARE, Plan, Row, bare_probabilities, chosen, extra_row, report_network
from benchmarks.peers.servers import (
    APPS,
    PEERS,
    PYTHON,
    PeerFailed,
    Setting,
    difference_from_bare,
    processes_marked,
    running,
)
from benchmarks.peers.weights import BareSession, bundles_with, model_of
from benchmarks.serving import BUNDLES


def test_every_peer_has_its_script_and_its_pin() -> None:
    lock = (ROOT / "requirements" / "peers.lock").read_text()
    for peer in PEERS:
        assert (APPS / peer.script).is_file()
        assert re.search(rf"^{re.escape(peer.distribution)}==", lock, re.MULTILINE)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_body_carries_the_film_unchanged(peer: servers.Peer) -> None:
    content = png()
    body = peer.body(content)
    assert body.content.count(content) == 1
    assert len(numbered(body.content, 7)) == len(body.content)
    assert numbered(content, 7) in numbered(body.content, 7)


def test_a_tensor_request_says_where_its_json_ends() -> None:
    triton = next(peer for peer in PEERS if "Triton" in peer.name)
    content = png()
    end = int(triton.headers(content)["Inference-Header-Content-Length"])
    body = triton.body(content).content
    head = json.loads(body[:end])
    assert head["inputs"][0]["parameters"]["binary_data_size"] == len(body) - end
    assert int.from_bytes(body[end : end + 4], "little") == len(content)


def test_answers_are_read() -> None:
    read = {peer.name: peer.read for peer in PEERS}
    assert read["LitServe"](b'{"probabilities": [0.25, 0.5]}') == [0.25, 0.5]
    assert read["BentoML"](b'[{"probabilities": [0.25, 0.5]}]') == [0.25, 0.5]
    tensor = b'{"outputs":[{"name":"probabilities"}]}' + np.array([0.25, 0.5], "<f4").tobytes()
    assert read["Triton, Python back end"](tensor) == [0.25, 0.5]


def test_settings_use_the_cores_and_no_more() -> None:
    for peer in PEERS:
        for setting in peer.settings(2):
            assert setting.workers * setting.threads <= 2
        assert peer.settings(1) == [Setting(1, 1, 16 if peer.batches else 1)]


def test_a_peer_that_cannot_start_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = replace(PEERS[0], script="absent.py")
    monkeypatch.setattr(servers, "PYTHON", Path(sys.executable))
    with pytest.raises(PeerFailed, match=r"absent\.py"), running(broken, tmp_path / "none.onnx", Setting(1, 1, 1)):
        pytest.fail("it did start")
    monkeypatch.setattr(servers, "PYTHON", tmp_path / "python")
    with pytest.raises(PeerFailed, match="make bench-peers"), running(PEERS[0], tmp_path, Setting(1, 1, 1)):
        pytest.fail("it did start")


def test_stopping_ends_workers_that_moved_to_another_session() -> None:
    mark = f"PEER_RUN={os.getpid()}test"
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    code = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True).wait()"
    environment = {**os.environ, "PEER_RUN": mark.partition("=")[2]}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, start_new_session=True)
    end = time.monotonic() + 20
    while len(processes_marked(mark)) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    assert len(processes_marked(mark)) == 2
    servers.stop(process, mark)
    assert processes_marked(mark) == []


def test_an_answer_that_is_not_the_networks_is_not_believed() -> None:
    expected = bare_probabilities(BareSession(model_of(bundles_with("lung", BUNDLES, Path())), 1))
    assert difference_from_bare(expected, expected) is None
    assert difference_from_bare([p + 0.01 for p in expected], expected)
    assert difference_from_bare(expected[:-1], expected)


def test_the_table_has_shares_of_the_same_round(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plan = Plan(2, 32, 1, 1, 1, BUNDLES, ("lung",), PEERS, {"Sàng Lọc": {}}, tmp_path)
    rows = {
        BARE: Row(rates=[10.0, 40.0]),
        "Sàng Lọc": Row(rates=[20.0, 80.0], seconds=[0.1, 0.2], core_ms=[1.0, 1.0], memory_mb=[1.0, 1.0]),
        "LitServe": Row(rates=[5.0, 20.0], seconds=[0.1, 0.2], core_ms=[1.0, 1.0], memory_mb=[1.0, 1.0]),
    }
    rows["LitServe"].failed["500"] = 3
    figures = report_network("lung", rows, {"BentoML": "it ended with 1"}, plan)
    assert figures["best_peer"] == "LitServe"
    assert figures["rows"]["Sàng Lọc"]["share_of_bare"] == 2.0
    assert figures["rows"]["Sàng Lọc"]["times_best_peer"] == 4.0
    assert figures["rows"]["LitServe"]["failed"] == {"500": 3}
    said = capsys.readouterr().out
    assert "BentoML: not measured: it ended with 1" in said
    assert json.dumps(figures)


def test_the_options_that_name_things() -> None:
    assert extra_row("fp32:SANGLOC_A=1,SANGLOC_B=x") == ("fp32", {"SANGLOC_A": "1", "SANGLOC_B": "x"})
    assert [peer.name for peer in chosen(["ray", "bento"])] == ["BentoML", "Ray Serve"]
    with pytest.raises(SystemExit, match="tf-serving"):
        chosen(["tf-serving"])
    with pytest.raises(SystemExit, match="LABEL"):
        extra_row("SANGLOC_A=1")


@pytest.mark.skipif(not PYTHON.exists(), reason="no peer is started: .venv-peers is missing (make bench-peers)")
def test_a_real_peer_answers_as_the_bare_session_does() -> None:
    model = model_of(BUNDLES)
    expected = bare_probabilities(BareSession(model, 1))
    with running(PEERS[0], model, Setting(1, 1, 1)) as server:
        alternation.check_answers(server, expected)
        outcome = alternation.load(server, 2, 0.5)
        assert outcome.done > 0
        assert outcome.failed == 0
        mark = server.mark
    assert processes_marked(mark) == []
