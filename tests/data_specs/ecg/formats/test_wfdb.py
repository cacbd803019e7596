"""WFDB records, held to the wfdb library where it can read or write them."""

from __future__ import annotations

import io
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from data_specs.ecg.recording import LEADS
from data_specs.problems import Refused
from tests.data_specs.ecg_made import FS, counts, millivolts, on_disk, read, wfdb16

wfdb = pytest.importorskip("wfdb", reason="the wfdb library is not installed: formats are not compared with it")


def refusal(files: dict[str, bytes], **kw: str) -> str:
    with pytest.raises(Refused) as refused:
        read(files, **kw)
    return refused.value.problem.code


@pytest.mark.parametrize("fmt", ["80", "212", "16", "24", "32", "508", "516", "524"])
def test_written_by_the_wfdb_library(tmp_path: Path, fmt: str) -> None:
    digital = (counts().T // (32 if fmt in {"80", "508"} else 1)).astype(np.int64)
    if fmt in {"508", "516", "524"}:
        pytest.importorskip("soundfile", reason="FLAC-compressed records need it")
    wfdb.wrsamp(
        "rec", fs=FS, units=["mV"] * 12, sig_name=list(LEADS), d_signal=digital, fmt=[fmt] * 12,
        adc_gain=[200.0] * 12, baseline=[10] * 12, write_dir=str(tmp_path),
    )  # fmt: skip
    recording = read(on_disk(sorted(tmp_path.iterdir())))
    assert recording.format == "wfdb"
    assert recording.fs_hz == FS
    np.testing.assert_allclose(recording.samples, (digital.T - 10) / 200, atol=1e-6)


@pytest.mark.parametrize(("fmt", "n_bytes"), [(8, 60000), (61, 120000), (160, 120000), (310, 80000), (311, 80000)])
def test_formats_that_the_wfdb_library_only_reads(tmp_path: Path, fmt: int, n_bytes: int) -> None:
    raw = np.random.default_rng(fmt).integers(0, 256, n_bytes, np.uint8)
    if fmt == 311:
        raw[3::4] &= 0x3F  # the two highest bits of each word are unused, and 0
    lines = [f"rec 12 {FS} 5000", *(f"rec.dat {fmt} 1000(3)/mV 0 0 {k} 0 0 {name}" for k, name in enumerate(LEADS))]
    (tmp_path / "rec.hea").write_text("\n".join(lines) + "\n")
    (tmp_path / "rec.dat").write_bytes(raw.tobytes())
    want = wfdb.rdrecord(str(tmp_path / "rec")).p_signal.T
    got = read(on_disk(sorted(tmp_path.iterdir()))).samples
    gaps = np.isnan(want) | np.isnan(got)
    assert gaps.mean() < 0.01
    np.testing.assert_allclose(got[~gaps], want[~gaps], atol=1e-3 if fmt == 8 else 1e-5)


def test_invalid_samples_are_gaps() -> None:
    made = counts()
    made[:, 100:110] = -32768
    recording = read(wfdb16(made))
    assert np.isnan(recording.samples[:, 100:110]).all()
    assert not np.isnan(recording.samples[:, 110:]).any()


@pytest.mark.parametrize(
    "first_line",
    [
        "rec 12 500 5000 12-May-2020 12:33:59",
        "rec 12 500 5000 12:33:59 12/05/2020",
        "# a comment first\nrec 12 500/250(0) 5000 12:33:59.5 12/05/2020",
        "\ufeffrec 12 500.0 5000",
        "rec 12 500",
    ],
)
def test_headers_as_they_are_written(first_line: str) -> None:
    files = wfdb16(counts())
    files["rec.hea"] = files["rec.hea"].replace(b"rec 12 500 5000", first_line.encode())
    recording = read(files)
    assert (recording.fs_hz, recording.age_years, recording.sex) == (500, 54, "female")
    assert recording.recorded_on in {date(2020, 5, 12), None}
    np.testing.assert_allclose(recording.samples, millivolts(counts()), atol=1e-6)


@pytest.mark.parametrize(
    ("gain", "ecg_unit", "scale"),
    [
        ("200/mV", None, 0.005),
        ("200/mv", "uV", 0.005),
        ("0.2/uV", None, 0.005),
        ("200000/V", None, 0.005),
        ("200", None, 0.005),
        ("2e2(0)", None, 0.005),
        ("0", "uV", 0.001),
        ("0", "mV", 1.0),
        ("200/NU", "mV", 0.005),
    ],
)
def test_units(gain: str, ecg_unit: str | None, scale: float) -> None:
    recording = read(wfdb16(counts(), gain=gain), ecg_unit=ecg_unit)
    np.testing.assert_allclose(recording.samples, counts() * scale, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gain", ["0", "200/NU", "200/mmHg"])
def test_unit_unknown(gain: str) -> None:
    assert refusal(wfdb16(counts(), gain=gain)) == "unit_unknown"


def test_no_gain_at_all_is_uncalibrated() -> None:
    files = wfdb16(counts(), gain="")
    lines = ["rec 12 500 5000", *(f"rec.dat 16  {name}".replace("16  ", "16 ") for name in LEADS)]
    files["rec.hea"] = "\n".join(lines).encode()
    assert refusal(files) in {"unreadable", "lead_missing"}  # labels are the ninth field: without gain there are none


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "http://example.org/rec.dat", "C:\\rec.dat", "file:///etc/passwd"]
)
def test_named_files_never_leave_the_posted_ones(name: str) -> None:
    files = wfdb16(counts(), file=name)
    del files["rec.dat"]
    assert refusal(files) == "unreadable"


def test_a_renamed_pair_is_found_by_its_stem() -> None:
    files = wfdb16(counts())
    assert read({"ecg.HEA": files["rec.hea"], "ecg.DAT": files["rec.dat"]}).format == "wfdb"


def test_signal_files_of_other_stems_and_frank_leads() -> None:
    made = counts()
    head = wfdb16(made)["rec.hea"].decode().replace("rec 12", "rec 15").replace("rec.dat", "limb.dat", 6)
    lines = head.splitlines()
    lines[13:13] = [f"rec.xyz 16 2000 16 0 0 0 0 {name}" for name in ("vx", "vy", "vz")]
    files = {
        "rec.hea": "\n".join(lines).encode(),
        "limb.dat": made[:6].T.tobytes(),
        "rec.dat": made[6:].T.tobytes(),
        "rec.xyz": made[:3].T.tobytes(),
        "rec.atr": b"\0\1\2\3",
    }
    np.testing.assert_allclose(read(files).samples, millivolts(made), atol=1e-6)
    del files["rec.xyz"]  # holds no lead of the twelve, so nothing is missed
    np.testing.assert_allclose(read(files).samples, millivolts(made), atol=1e-6)


def test_byte_offset_skew_and_samples_per_frame() -> None:
    made = counts()
    files = wfdb16(made)
    files["rec.hea"] = files["rec.hea"].replace(b"rec.dat 16 ", b"rec.dat 16x2:4+24 ").replace(b"500 5000", b"250 2500")
    frames = made.reshape(12, 2500, 2).transpose(1, 0, 2)
    files["rec.dat"] = b"\xff" * 24 + frames.tobytes()
    recording = read(files)
    assert recording.fs_hz == 500
    np.testing.assert_allclose(recording.samples[:, :-4], millivolts(made)[:, 4:], atol=1e-6)
    assert np.isnan(recording.samples[:, -4:]).all()


def test_multi_segment_with_a_gap() -> None:
    made = counts()
    one, two = wfdb16(made[:, :2000], record="rec_1"), wfdb16(made[:, 2000:], record="rec_2")
    master = b"rec/3 12 500 5500\nrec_1 2000\n~ 500\nrec_2 3000\n"
    recording = read({"rec.hea": master, **one, **two})
    np.testing.assert_allclose(recording.samples[:, :2000], millivolts(made)[:, :2000], atol=1e-6)
    assert np.isnan(recording.samples[:, 2000:2500]).all()
    np.testing.assert_allclose(recording.samples[:, 2500:], millivolts(made)[:, 2000:], atol=1e-6)


def test_mat_level5_behind_a_header(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    made = counts()
    scipy_io.savemat(tmp_path / "rec.mat", {"val": made})
    files = wfdb16(made, file="rec.mat")
    files = {
        "rec.hea": files["rec.hea"].replace(b" 16 ", b" 16+24 ", 1),
        "rec.mat": (tmp_path / "rec.mat").read_bytes(),
    }
    np.testing.assert_allclose(read(files).samples, millivolts(made), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda f: {"rec.hea": f["rec.hea"]}, "unreadable"),
        (lambda f: {"rec.dat": f["rec.dat"]}, "unreadable"),
        (lambda f: f | {"rec.dat": f["rec.dat"][:-2]}, "truncated"),
        (lambda f: f | {"rec.dat": b""}, "truncated"),
        (lambda f: f | {"rec.hea": f["rec.hea"].split(b"\n", 5)[0]}, "truncated"),
        (lambda f: f | {"rec.hea": b""}, "unreadable"),
        (lambda f: f | {"rec.hea": f["rec.hea"].replace(b"rec 12 500", b"rec 12 99")}, "sampling_rate"),
        (lambda f: f | {"rec.hea": f["rec.hea"].replace(b"rec 12 500", b"rec 12 1001")}, "too_short"),
        (lambda f: f | {"rec.hea": f["rec.hea"].replace(b"500 5000", b"500 2499")}, "too_short"),
        (lambda f: f | {"rec.hea": f["rec.hea"].replace(b"500 5000", b"500 99999999")}, "too_long"),
        (lambda f: f | {"rec.hea": f["rec.hea"].replace(b" V3", b" V7")}, "lead_missing"),
        (lambda f: f | {"rec.hea": f["rec.hea"].replace(b"dat 16 ", b"dat 99 ")}, "unsupported_format"),
        (lambda f: f | {"rec.hea": f["rec.hea"].replace(b"rec 12", b"rec " + b"9" * 5000)}, "unreadable"),
        (lambda f: f | {"rec.hea": f["rec.hea"].replace(b"rec 12 500", b"rec \xc2\xb2 500")}, "unreadable"),
    ],
)
def test_refused(change, code: str) -> None:
    assert refusal(change(wfdb16(counts()))) == code


def test_a_header_beside_the_signals_of_another_record_is_refused(tmp_path: Path) -> None:
    for name, made in (("a", counts()), ("b", counts()[:, ::-1] + 3)):
        wfdb.wrsamp(
            name, fs=FS, units=["mV"] * 12, sig_name=list(LEADS), d_signal=made.T.astype(np.int64), fmt=["16"] * 12,
            adc_gain=[200.0] * 12, baseline=[10] * 12, write_dir=str(tmp_path),
        )  # fmt: skip
    files = on_disk([tmp_path / "a.hea", tmp_path / "a.dat"])
    assert read(files).format == "wfdb"
    swapped = {"a.hea": files["a.hea"], "a.dat": (tmp_path / "b.dat").read_bytes()}
    assert refusal(swapped) == "checksum_mismatch"


def test_a_checksum_that_is_not_stated_is_not_asked_for() -> None:
    files = wfdb16(counts())
    assert read(files).format == "wfdb"


def test_only_flac_reaches_the_library_that_knows_many_formats() -> None:
    soundfile = pytest.importorskip("soundfile")
    out = io.BytesIO()
    soundfile.write(out, np.zeros((5000, 12), np.int16), 500, format="WAV")
    header = "rec 12 500 5000\n" + "".join(f"rec.dat 516 1000 16 0 0 0 0 {lead}\n" for lead in LEADS)
    with pytest.raises(Refused) as refused:
        read({"rec.hea": header.encode(), "rec.dat": out.getvalue()})
    assert (refused.value.problem.code, refused.value.problem.expected) == ("unreadable", "FLAC")


def test_a_segment_of_another_length_than_its_header_states_is_refused() -> None:
    signals = "".join(f"s.dat 16 1000 16 0 0 0 0 {lead}\n" for lead in LEADS)
    files = {"m.hea": b"m/2 12 500 10000\ns 5000\ns 5000\n", "s.dat": bytes(24 * 6000)}
    assert read({**files, "s.hea": f"s 12 500 5000\n{signals}".encode()}).samples.shape == (12, 10_000)
    with pytest.raises(Refused):
        read({**files, "s.hea": f"s 12 500 6000\n{signals}".encode()})


def test_a_decimal_comma_in_the_header_is_a_decimal_point() -> None:
    recording = read(wfdb16(counts(), gain="200,0(0)/mV", fs="500,0/25,0(0)"))
    assert recording.fs_hz == 500
    np.testing.assert_allclose(recording.samples, millivolts(counts()), atol=1e-6)


@pytest.mark.parametrize("fs", ["x", "5OO", "500,0,0", "1,000.5", "-"])
def test_a_frequency_that_cannot_be_read_is_not_the_default(fs: str) -> None:
    assert refusal(wfdb16(counts(), fs=fs)) == "unreadable"


def test_a_zero_that_cannot_be_read_is_not_zero() -> None:
    files = wfdb16(counts(), gain="200/mV")
    files["rec.hea"] = files["rec.hea"].replace(b" 16 0 ", b" 16 O ", 1)
    assert refusal(files) == "unreadable"


def test_folders_before_names_are_not_used() -> None:
    files = wfdb16(counts(), file="folder/sub/rec.dat")
    files["rec.hea"] = files["rec.hea"].replace(b"rec 12", b"folder/sub/rec 12", 1)
    np.testing.assert_allclose(read(files).samples, millivolts(counts()), atol=1e-6)
