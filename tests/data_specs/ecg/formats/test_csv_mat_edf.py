"""CSV, EDF and MATLAB files."""

from __future__ import annotations

import io
import struct
import zlib
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from data_specs.ecg.formats import mat as ecg_mat
from data_specs.ecg.recording import LEADS
from data_specs.problems import Refused
from tests.data_specs.ecg_made import FS, counts, cpsc2018, csv, edf, millivolts, read


def refused(content: bytes, **kw: str):
    with pytest.raises(Refused) as caught:
        read(content, **kw)
    return caught.value.problem


# ---------------------------------------------------------------- CSV


@pytest.mark.parametrize(
    "content",
    [
        csv(counts()),
        csv(counts(), delimiter=";"),
        csv(counts(), delimiter="\t", unit=" [mV]"),
        csv(counts(), unit="_mV", time="time_ms").replace(b"time_ms", b"time_s"),
        csv(counts(), time="t (ms)"),
        csv(counts(), time="", head="# fs=500\n# age: 54\n"),
        csv(counts(), time="", unit="", head="# fs: 500 Hz, unit: mV\n"),
        csv(counts(), time="", unit="", head="Sampling rate;500 Hz\nUnit;mV\nName;-\n", delimiter=";"),
        csv(counts(), time="", head="# fs=500\n").decode().encode("utf-16"),
        b"\xef\xbb\xbf" + csv(counts()).replace(b"\n", b"\r\n"),
        csv(counts()).replace(b"aVR (mV)", b'"aVR (mV)"').replace(b"I (mV),II", b"D1 (mV),II", 1),
    ],
    ids=[
        "comma",
        "semicolon",
        "tab",
        "underscore",
        "ms",
        "comment",
        "unit-comment",
        "rows",
        "utf16",
        "bom-crlf",
        "quoted",
    ],
)
def test_csv(content: bytes) -> None:
    recording = read(content)
    assert (recording.format, recording.fs_hz) == ("csv", 500)
    np.testing.assert_allclose(recording.samples, millivolts(counts()), atol=1e-6)


def test_csv_units() -> None:
    silent = csv(counts(), unit="")
    assert refused(silent).code == "unit_unknown"
    np.testing.assert_allclose(read(silent, ecg_unit="uV").samples, millivolts(counts()) / 1000, atol=1e-6)
    np.testing.assert_allclose(read(csv(counts(), unit=" (µV)")).samples, millivolts(counts()) / 1000, atol=1e-6)
    head, body = silent.split(b"\n", 1)
    row = b",".join([b"s", *[b"mV"] * 12])
    np.testing.assert_allclose(read(head + b"\n" + row + b"\n" + body).samples, millivolts(counts()), atol=1e-6)


def test_csv_eight_leads_and_gaps() -> None:
    made = counts()
    eight = [0, 1, *range(6, 12)]
    rows = ["I (mV),II (mV),V1 (mV),V2 (mV),V3 (mV),V4 (mV),V5 (mV),V6 (mV)"]
    rows += [
        ",".join("" if n == 7 and k == 1 else f"{v:.4f}" for k, v in enumerate(row))
        for n, row in enumerate(millivolts(made)[eight].T)
    ]
    recording = read(("# fs=500\n" + "\n".join(rows)).encode())
    assert np.isnan(recording.samples[1, 7])
    np.testing.assert_allclose(recording.samples[:, 8:], millivolts(made)[:, 8:], atol=1e-6)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (csv(counts()).split(b"\n", 1)[1], "lead_missing"),
        (csv(counts(), time=""), "sampling_rate"),
        (csv(counts(), time="time"), "sampling_rate"),
        (csv(counts(), head="# fs=250\n"), "sampling_rate"),
        (csv(counts()).replace(b"\n2,", b"\n7,"), "sampling_rate"),
        (csv(counts()[:, :2499]), "too_short"),
        (csv(counts())[:-40], "truncated"),
        (csv(counts()).replace(b"0.5,", b"x,"), "unreadable"),
        (csv(counts()).replace(b"V6 (mV)", b"V9 (mV)"), "lead_missing"),
        (csv(counts()).replace(b"\n1,", b"\n1,1e39,", 1).replace(b"x", b""), "amplitude_implausible"),
        (b"I (mV),II (mV)\n", "lead_missing"),
        (b"a" * 3_000_000, "lead_missing"),
        ((b"I" + b" " * 3900 + b"mV,") * 500, "lead_missing"),
        (b"\n" * 2_000_001, "unreadable"),
    ],
)
def test_csv_refused(content: bytes, code: str) -> None:
    assert refused(content).code == code


# ---------------------------------------------------------------- EDF


@pytest.mark.parametrize(
    "form", [{}, {"record_s": 2}, {"kind": "EDF+D"}, {"labels": [f"ECG {name}" for name in LEADS]}]
)
def test_edf(form: dict) -> None:
    recording = read(edf(counts(), **form))
    assert (recording.format, recording.fs_hz, recording.sex, recording.age_years) == ("edf", 500, "female", 50.83)
    assert (recording.person_id, recording.recorded_on) == ("MCH-0234567", date(2002, 3, 2))
    np.testing.assert_allclose(recording.samples, millivolts(counts()), atol=1e-4)


def test_edf_agrees_with_edfio(tmp_path: Path) -> None:
    edfio = pytest.importorskip("edfio", reason="edfio is not installed: EDF is not compared with it")
    signals = [
        edfio.EdfSignal(row, FS, label=f"EKG {name}", physical_dimension="mV", physical_range=(-6, 6))
        for name, row in zip(LEADS, millivolts(counts()), strict=True)
    ]
    edfio.Edf(signals).write(tmp_path / "a.edf")
    recording = read((tmp_path / "a.edf").read_bytes())
    np.testing.assert_allclose(recording.samples, millivolts(counts()), atol=2e-4)


def test_bdf_has_24_bits() -> None:
    plain = edf(counts(), kind="24BIT")
    start = 256 * 14
    body = np.frombuffer(plain[start:], "<i2").astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    head = b"\xffBIOSEMI" + plain[8:start]
    np.testing.assert_allclose(read(head + body).samples, millivolts(counts()), atol=1e-4)


def test_edf_with_a_gap_between_records() -> None:
    gap = edf(counts(), kind="EDF+D").replace(b"+9\x14\x14", b"+19\x14")
    assert refused(gap).code == "unsupported_format"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (edf(counts(), dimension=""), "unit_unknown"),
        (edf(counts(), labels=LEADS[:11]), "lead_missing"),
        (edf(counts())[:-2], "truncated"),
        (edf(counts())[:300], "truncated"),
        (edf(counts())[:100], "truncated"),
        (edf(counts()[:, :2499]), "too_short"),
        (edf(counts()).replace(b"-163840 ", b"a163840 "), "unreadable"),
        (edf(counts())[:252] + b"9999" + edf(counts())[256:], "unreadable"),
        (edf(counts())[:244] + b"0       " + edf(counts())[252:], "sampling_rate"),
        (edf(counts())[:244] + b"100     " + edf(counts())[252:], "sampling_rate"),
        (edf(counts()).replace(b"-163840 ", b"-1e300  ").replace(b"163835  ", b"1e300   "), "amplitude_implausible"),
    ],
)
def test_edf_refused(content: bytes, code: str) -> None:
    assert refused(content).code == code


# ---------------------------------------------------------------- MATLAB


def test_cpsc2018_struct_needs_the_unit_said() -> None:
    assert refused(cpsc2018(counts())).code == "unit_unknown"
    recording = read(cpsc2018(counts()), ecg_unit="mV")
    assert (recording.format, recording.fs_hz, recording.age_years, recording.sex) == ("mat", 500, 54, "female")
    np.testing.assert_allclose(recording.samples, millivolts(counts()), atol=1e-6)


@pytest.mark.parametrize("level", ["4", "5"])
def test_a_bare_matrix_states_no_rate(level: str) -> None:
    from scipy.io import savemat

    file = io.BytesIO()
    savemat(file, {"val": counts()}, format=level)
    assert refused(file.getvalue(), ecg_unit="uV").code == "sampling_rate"
    np.testing.assert_array_equal(ecg_mat.matrix(file.getvalue(), "val"), counts())


def test_variables_agree_with_scipy() -> None:
    from scipy.io import loadmat, savemat

    for compressed in (True, False):
        file = io.BytesIO()
        savemat(
            file,
            {"a": np.arange(7.0), "b": "text", "c": {"d": np.eye(3, dtype=np.float32)}, "e": np.array([[1]])},
            do_compression=compressed,
        )
        mine, theirs = ecg_mat.variables(file.getvalue()), loadmat(io.BytesIO(file.getvalue()))
        np.testing.assert_array_equal(mine["a"], theirs["a"])
        assert mine["b"] == theirs["b"][0]
        np.testing.assert_array_equal(mine["c"]["d"], theirs["c"]["d"][0, 0])
        np.testing.assert_array_equal(mine["e"], theirs["e"])


def test_mat_bombs_and_lies() -> None:
    bomb = zlib.compress(bytes(65 << 20), 6)
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    assert refused(head + struct.pack("<II", 15, len(bomb)) + bomb).code == "unreadable"
    flags = struct.pack("<IIII", 6, 8, 6, 0) + struct.pack("<IIii", 5, 8, 1 << 30, 1 << 30)
    lie = flags + struct.pack("<II", 1, 3) + b"val\0\0\0\0\0" + struct.pack("<II", 9, 8) + bytes(8)
    assert refused(head + struct.pack("<II", 14, len(lie)) + lie).code == "unreadable"
    assert refused(b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n").code == "unsupported_format"
