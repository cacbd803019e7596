"""Each command once, as short as it can be: the last line of stdout is JSON, and its figures are of this run."""

from __future__ import annotations

import json
import math

import pytest

from benchmarks import engine, files, formats, profiling, serving, table
from benchmarks.__main__ import main
from benchmarks.report import Report


def figures_of(capsys, tmp_path, *arguments):
    main([*arguments, "--out", str(tmp_path)])
    last = capsys.readouterr().out.strip().splitlines()[-1]
    figures = json.loads(last)
    assert figures["benchmark"] == arguments[0]
    assert figures["cpu"]
    assert figures["versions"]["numpy"]
    assert json.loads((tmp_path / f"{arguments[0]}.json").read_text()) == figures
    return figures


def test_decode(capsys, tmp_path):
    found = figures_of(capsys, tmp_path, "decode", "--seconds", "0.01")["files"]
    assert len(found) == 9
    assert all(each["ms_one_thread"] > 0 for each in found.values())
    assert found["DICOM 2048² explicit"]["bytes"] > 2 * 2048**2
    assert (tmp_path / "decode.png").stat().st_size > 1000


def test_formats(capsys, tmp_path):
    found = figures_of(capsys, tmp_path, "formats", "--seconds", "0.01", "--rounds", "1")["core_ms"]
    assert set(found) == {f"{name}, {how}" for name in files.SYNTAXES for how in formats.READ}
    assert all(value >= 0 for each in found.values() for value in each.values())
    assert found["j2k, as served"]["decode"] < found["j2k, in full"]["decode"] / 2
    assert (tmp_path / "formats.png").stat().st_size > 1000


def test_raw_measures_the_session_in_service_and_says_what_is_missing(capsys, tmp_path):
    found = figures_of(capsys, tmp_path, "raw", "--names", "cxr_gate", "--batches", "1", "2", "--seconds", "0.01")
    runtimes = {each["runtime"] for each in found["sessions"]}
    assert any(name.startswith("in service") for name in runtimes)
    assert "ORT CPU" in runtimes
    assert {each["batch"] for each in found["sessions"]} == {1, 2}
    assert any(reason.startswith("CUDA graph") or reason.startswith("torch") for reason in found["not_measured"])


def test_archive(capsys, tmp_path):
    pytest.importorskip("pyarrow")
    arguments = ("archive", "--films", "24", "--kinds", "png", "--seconds", "0.1")
    found = figures_of(capsys, tmp_path, *arguments)
    assert found["bare"]["gate and lung"]["core_ms"] == pytest.approx(
        found["bare"]["cxr_gate"]["core_ms"] + found["bare"]["lung"]["core_ms"]
    )
    assert set(found["archive"]) == {"png, one process"}
    assert all(each["per_s"] > 0 and each["core_ms"] > 0 for each in found["archive"].values())


def test_train(capsys, tmp_path):
    pytest.importorskip("torch")
    arguments = ("train", "--steps", "1", "--threads", "1", "--precisions", "fp32")
    found = figures_of(capsys, tmp_path, *arguments)["cases_per_s"]
    assert all(found[name]["fp32"]["1"] > 0 for name in ("lung", "cardiac"))


def test_engine_answers_alike_in_accuracy_and_performance(capsys, tmp_path, monkeypatch):
    pytest.importorskip("mlperf_loadgen")
    monkeypatch.setattr(engine, "N_FILMS", 4)
    monkeypatch.setattr(engine.Library.made.__func__, "__defaults__", (4,))
    found = figures_of(capsys, tmp_path, "engine", "--duration-s", "0.2", "--rounds", "1")
    assert found["accuracy"]["films"] == 4
    assert found["accuracy"]["compared"] > 0
    assert found["accuracy"]["largest_difference"] <= 5e-3
    assert found["faults"] == 0
    assert set(found["scenarios"]) == {"SingleStream", "Offline", "Server"}
    assert found["offline_per_s"] > 0


@pytest.fixture
def unmeasured(monkeypatch):
    """A server measures its sessions while it has nothing else to do: on a busy machine that does not end soon."""
    monkeypatch.setattr(serving.Server, "wait_until_measured", lambda self: None)


def test_http_and_stages_over_a_real_server(capsys, tmp_path, unmeasured):
    found = figures_of(
        capsys, tmp_path, "http", "--clients", "2", "--shares", "0.5", "--kinds", "wfdb", "--seconds", "0.3"
    )
    assert found["closed"]["2"]["statuses"].keys() == {"201"}
    assert found["files"]["wfdb"]["statuses"].keys() == {"201"}
    assert found["closed"]["2"]["core_ms_per_visit"] > 0
    assert found["peak_memory_mb"] > 50
    assert found["trivial_route"]["rate_per_s"] > found["best_per_s"]


def test_stages_add_up(capsys, tmp_path, unmeasured):
    found = figures_of(capsys, tmp_path, "stages", "--seconds", "0.02", "--rounds", "1")
    parts = [ms for name, ms in found["core_ms"].items() if name != "evidence render"]
    assert sum(parts) == pytest.approx(found["sum_core_ms"])
    assert found["ratio"] == pytest.approx(found["service_core_ms"] / found["sum_core_ms"])


def test_folded_stacks_are_counted_by_their_innermost_frame():
    lines = ["main (a.py:1);work (b.py:10) 3", "main (a.py:1);work (b.py:12) 2", "main (a.py:2) 1", "native_thing 4"]
    assert profiling.self_samples(lines) == {"work (b.py)": 5, "main (a.py)": 1, "native_thing": 4}


def test_loadgen_summaries_are_read():
    text = (
        "================\nMLPerf Results Summary\n====\nSUT name : PySUT\nScenario : Offline\n"
        "Samples per second: 5.27157\nResult is : VALID\n  Min duration satisfied : Yes\n"
        "50.00 percentile latency (ns)   : 2172926647\n=====\nTest Parameters Used\nsamples_per_query : 11\n"
    )
    verdict = engine.read_summary(text)
    assert verdict.valid
    assert verdict.number("Samples per second") == 5.27157
    assert verdict.number("50.00 percentile latency (ns)") == 2172926647
    assert math.isnan(verdict.number("samples_per_query"))


def test_a_line_says_reached_missed_or_not_measured():
    assert table.Line("a", 1.2, at_least=1.15).reached is True
    assert table.Line("a", 1.1, at_least=1.15).reached is False
    assert table.Line("a", 1.2, at_most=1.1).cells()[2:4] == ["≤ 1.1", "MISSED"]
    assert table.Line("a", None, at_most=1.1).cells()[3] == "not measured"


def test_the_peers_row_comes_from_their_last_run(tmp_path):
    assert [line.value for line in table._peers("lung", tmp_path)] == [None, None]
    rows = {table.SERVICE: {"times_best_peer": 4.5}, table.SERVICE_FP32: {"times_best_peer": 1.0}}
    report = {"date": "2026-11-22", "rounds": 5, "networks": {"lung": {"best_peer": "x", "rows": rows}}}
    (tmp_path / "peers.json").write_text(json.dumps(report))
    assert [line.reached for line in table._peers("lung", tmp_path)] == [True, False]


def test_without_matplotlib_the_report_says_so(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    Report("x", tmp_path).plot(lambda axes: None, title="")
    assert "matplotlib is not installed" in capsys.readouterr().out
