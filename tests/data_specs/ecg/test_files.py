"""Grouping, sniffing, zips, real files, and what no bytes whatever may do."""

from __future__ import annotations

import io
import random
import struct
import time
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_specs.ecg.files import RecordingFiles, group_recordings, read_recording
from data_specs.ecg.formats.table import NAMES
from data_specs.ecg.formats.wfdb import is_header
from data_specs.ecg.posted import MAX_ZIP_MEMBERS, PostedFile, open_zip
from data_specs.ecg.recording import LEADS, MIN_DURATION_S, Recording, conform
from data_specs.problems import Refused, _messages
from tests.data_specs.ecg_made import counts, csv, dicom, every_format, millivolts, on_disk, read, wfdb16


def posted(files: Mapping[str, bytes], index: int = 0) -> list[PostedFile]:
    return [PostedFile(index + k, name, content) for k, (name, content) in enumerate(files.items())]


def grouped(files: Mapping[str, bytes]) -> list[tuple[str, list[str]]]:
    return [(group.stem, [file.filename for file in group.files]) for group in group_recordings(posted(files))]


def zipped(files: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


@cache
def made_files() -> dict[str, dict[str, bytes]]:
    return every_format()


# ---------------------------------------------------------------- grouping


def test_one_stem_makes_one_recording() -> None:
    files = {"C:\\ecg\\rec.HEA": wfdb16(counts())["rec.hea"], "b.csv": b"x", "/tmp/rec.dat": b"12", "rec.atr": b"\0\1"}
    assert grouped(files) == [("rec", ["C:\\ecg\\rec.HEA", "/tmp/rec.dat", "rec.atr"]), ("b", ["b.csv"])]


def test_a_recording_in_another_format_under_the_same_stem_is_its_own() -> None:
    files = {"ecg.dcm": dicom(counts()), **{n.replace("rec", "ecg"): c for n, c in wfdb16(counts()).items()}}
    assert grouped(files) == [("ecg", ["ecg.dcm"]), ("ecg", ["ecg.hea", "ecg.dat"])]
    assert [read_recording(g, ecg_unit=None).format for g in group_recordings(posted(files))] == ["dicom", "wfdb"]


def test_two_files_of_one_name_are_two_recordings() -> None:
    same = [PostedFile(0, "ecg.csv", csv(counts())), PostedFile(1, "ecg.csv", csv(counts() // 2))]
    assert [group.files[0].index for group in group_recordings(same)] == [0, 1]


def test_signals_never_change_persons() -> None:
    twice = posted(wfdb16(counts())) + posted(wfdb16(counts() // 2), index=2)
    for group in group_recordings(twice):
        with pytest.raises(Refused) as refused:
            read_recording(group, ecg_unit=None)
        assert (refused.value.problem.code, refused.value.problem.found) == ("unreadable", "2 × .dat")


@pytest.mark.parametrize("kind", list(every_format()))
def test_content_decides_not_the_extension(kind: str) -> None:
    files = made_files()[kind]
    if kind != "wfdb":
        files = {"misnamed.jpg": next(iter(files.values()))}
    recording = read(files, ecg_unit="mV")
    assert recording.format == kind
    assert recording.samples.dtype == np.float32
    np.testing.assert_allclose(recording.samples, millivolts(counts()), atol=1e-4)


def test_every_format_that_is_named_to_users_has_a_made_file() -> None:
    assert len(NAMES.split(", ")) == len(every_format())


def test_a_header_that_is_no_header() -> None:
    assert read({"rec.hea": dicom(counts())}).format == "dicom"


@pytest.mark.parametrize(
    ("content", "name", "code", "found"),
    [
        (b"", "a.dat", "unreadable", "0 B"),
        (b"\x89HDF\r\n\x1a\n", "a.mat", "unsupported_format", "HDF5"),
        (b"%PDF-1.7", "a.xml", "unsupported_format", "PDF"),
        (b"\0\1\2\3" * 99, "a.dat", "unreadable", ".dat"),
        (b"\0\1\2\3" * 99, "a.bin", "unsupported_format", "?"),
    ],
)
def test_no_recording(content: bytes, name: str, code: str, found: str) -> None:
    with pytest.raises(Refused) as refused:
        read({name: content})
    assert (refused.value.problem.code, refused.value.problem.found) == (code, found)


# ---------------------------------------------------------------- zip


def test_a_zip_holds_recordings() -> None:
    one, two = wfdb16(counts()), wfdb16(counts() // 2)
    members = {f"p1/{n}": c for n, c in one.items()} | {f"p2\\{n}": c for n, c in two.items()}
    members |= {"../../x.csv": csv(counts()), "p1/README.txt": b"hello", "__MACOSX/p1/._rec.hea": b"\0", "p1/": b""}
    groups = group_recordings([PostedFile(0, "b.csv", b"x"), PostedFile(1, "all.zip", zipped(members))])
    assert [group.files[0].index for group in groups] == [0, 1, 1, 1]
    read_back = [read_recording(group, ecg_unit=None) for group in groups[1:]]
    peaks = sorted(round(float(recording.samples.max()), 2) for recording in read_back)
    assert peaks[0] * 2 == pytest.approx(peaks[1], abs=0.02)
    assert peaks[1] == peaks[2]


@pytest.mark.parametrize(
    "content",
    [
        zipped({f"{k}.csv": b"x" for k in range(MAX_ZIP_MEMBERS + 1)}),
        zipped({"a.csv": bytes(60 << 20)}),
        zipped({"README": b"nothing here"}),
        zipped({}),
        zipped({"a.csv": csv(counts())})[:-30],
        zipped({"a.csv": csv(counts())})[:3000],
        b"PK\x03\x04",
    ],
    ids=["members", "ratio", "no recording", "empty", "directory cut", "cut", "magic"],
)
def test_a_bad_zip_is_refused_without_its_neighbours(content: bytes) -> None:
    groups = group_recordings([PostedFile(0, "a.zip", content), PostedFile(1, "b.csv", csv(counts()))])
    assert [group.files[0].index for group in groups] == [0, 1]
    with pytest.raises(Refused):
        read_recording(groups[0], ecg_unit=None)
    assert read_recording(groups[1], ecg_unit=None).format == "csv"


def test_a_zip_in_a_zip_is_refused() -> None:
    inner = zipped({"a.csv": csv(counts())})
    groups = group_recordings(posted({"a.zip": zipped({"b.zip": inner, "c.csv": csv(counts())})}))
    codes = []
    for group in groups:
        try:
            codes.append(read_recording(group, ecg_unit=None).format)
        except Refused as refused:
            codes.append(refused.problem.code)
    assert sorted(codes) == ["csv", "unsupported_format"]


# ---------------------------------------------------------------- real files

FORMATS = {
    "aecg/Example_aECG.xml": ("aecg", 500, 5000),
    "aecg/edge_empty.xml": "lead_missing",
    "aecg/edge_minimum_aecg.xml": "lead_missing",
    "aecg/fda_subject1_0.xml": ("aecg", 500, 5000),
    "csv/contec_0000050.csv": "lead_missing",
    "dicom/waveform_ecg.dcm": ("dicom", 1000, 10000),
    "edf/contec_0000050.edf": ("edf", 800, 37855),
    "edf/wfdb_test_edfann.edf": "lead_missing",
    "hdf5_sph/SPH00001.h5": "unsupported_format",
    "mat_cpsc2018/A1980.mat": "unit_unknown",
    "mat_cpsc2018/A1983.mat": "unit_unknown",
    "muse_xml/braveheart_example1.xml": ("muse", 500, 5000),
    "muse_xml/braveheart_example2.xml": ("muse", 500, 5000),
    "muse_xml/heartwise_dummy_ecg.xml": ("cardiosoft", 500, 5000),
    "philips_xml/edge_invalid-doc-type.xml": "unsupported_format",
    "philips_xml/edge_invalid-doc-version.xml": "unsupported_format",
    "philips_xml/v1_04_3191723_orig.xml": ("philips", 500, 5300),
    "philips_xml/v1_04_ad4d3d80_converted.xml": ("aecg", 500, 5300),
    "philips_xml/v1_04_ad4d3d80_orig.xml": ("philips", 500, 5300),
    "scp/contec_0000050.scp": ("scp", 800, 32767),
    "scp/contec_demo.scp": ("scp", 1000, 10000),
    "scp/scptools_ANON000001.SCP": "lead_missing",  # V3R, V7 in place of V3, V5
    "scp/scptools_ANON000004.SCP": ("scp", 600, 6000),
    "wfdb_zoo/100.hea": "lead_missing",
    "wfdb_zoo/a103l.hea": "lead_missing",
    "wfdb_zoo/s0010_re.hea": ("wfdb", 1000, 38400),
}


def outcome(group: RecordingFiles, ecg_unit: str | None = None) -> object:
    try:
        recording = read_recording(group, ecg_unit=ecg_unit)
    except Refused as refused:
        return refused.problem.code
    return recording.format, recording.fs_hz, recording.samples.shape[1]


def real(shared_data: Path, name: str) -> dict[str, bytes]:
    path = shared_data / "ecg" / "formats" / name
    if not path.is_file():
        pytest.skip(f"{path} not found: this real file is not read")
    return on_disk([other for other in sorted(path.parent.iterdir()) if other.stem == path.stem])


@pytest.mark.parametrize("name", FORMATS)
def test_real_files_of_every_format(shared_data: Path, name: str) -> None:
    (group,) = group_recordings(posted(real(shared_data, name)))
    assert outcome(group) == FORMATS[name]


def test_every_raw_record_is_read(shared_data: Path) -> None:
    folder = shared_data / "ecg" / "raw"
    files = on_disk([path for path in sorted(folder.glob("*")) if path.suffix in {".hea", ".mat"}])
    if not files:
        pytest.skip(f"{folder} not found: raw records are not read")
    groups = group_recordings(posted(files))
    assert len(groups) == len(files) // 2
    for group in groups:
        assert outcome(group)[:2] == ("wfdb", 500), group.stem


def test_two_formats_of_one_recording_agree(shared_data: Path) -> None:
    edf = read(real(shared_data, "edf/contec_0000050.edf")).samples[:6, :32767]
    scp = read(real(shared_data, "scp/contec_0000050.scp")).samples[:6]
    for one, other in zip(edf, scp, strict=True):  # the exporter's EDF states 30.5 µV per count, its SCP 5 µV
        assert np.corrcoef(one, other)[0, 1] > 0.99999
    philips = read(real(shared_data, "philips_xml/v1_04_ad4d3d80_orig.xml")).samples
    converted = read(real(shared_data, "philips_xml/v1_04_ad4d3d80_converted.xml")).samples
    assert np.abs(philips - converted).max() < 0.021  # the converter differs by up to four counts of 5 µV


def test_einthoven_holds_in_real_twelve_lead_files(shared_data: Path) -> None:
    for name in ("dicom/waveform_ecg.dcm", "philips_xml/v1_04_3191723_orig.xml", "muse_xml/heartwise_dummy_ecg.xml"):
        one, two, three, avr, avl, avf = read(real(shared_data, name)).samples[:6]
        assert np.abs(two - one - three).max() < 0.05, name
        assert np.abs(avr + avl + avf).max() < 0.05, name


def test_conformed_raw_records_are_the_training_set(shared_data: Path) -> None:
    folder = shared_data / "ecg"
    if not (folder / "ptbxl" / "signals_100hz.npz").is_file():
        pytest.skip("PTB-XL signals not found: the training form is not compared")
    trained = np.load(folder / "ptbxl" / "signals_100hz.npz")["x"]
    lines = (folder / "ptbxl" / "labels.csv").read_text().splitlines()[1:]
    rows = {int(float(line.split(",")[0])): n for n, line in enumerate(lines)}
    compared = 0
    for header in sorted((folder / "raw").glob("HR*.hea")):
        if int(header.stem[2:]) in rows:
            recording = read(on_disk([header, header.with_suffix(".mat")]))
            got = conform(recording, fs_hz=100, n_samples=1000)[0]
            want = trained[rows[int(header.stem[2:])]] / 1000
            assert min(np.corrcoef(got[k], want[k])[0, 1] for k in range(12)) > 0.999
            np.testing.assert_allclose(got[:, 25:-25], want[:, 25:-25], atol=2e-3)
            compared += 1
    assert compared


# ---------------------------------------------------------------- any bytes whatever


def holds(files: list[PostedFile], ecg_unit: str | None) -> None:
    """A recording or a refusal with a known code, nothing else, in a second."""
    start = time.perf_counter()
    codes: list[str] = []
    for group in group_recordings(files):
        try:
            recording = read_recording(group, ecg_unit=ecg_unit)
        except Refused as refused:
            codes.append(refused.problem.code)
            continue
        assert isinstance(recording, Recording)
        assert recording.samples.shape[0] == len(LEADS)
        assert recording.samples.dtype == np.float32
        assert 100 <= recording.fs_hz <= 1000
        assert recording.duration_s >= MIN_DURATION_S
        assert not np.isinf(recording.samples).any()
    assert set(codes) <= set(_messages())
    assert time.perf_counter() - start < 1.0


def damaged(files: list[PostedFile], rng: random.Random) -> list[PostedFile]:
    k = rng.randrange(len(files))
    content = bytearray(files[k].content)
    if rng.random() < 0.3:
        content = content[: rng.randrange(len(content) + 1)]
    else:
        region = len(content) if rng.random() < 0.4 else min(len(content), 3000)
        for _ in range(rng.choice([1, 3, 30])):
            content[rng.randrange(region)] = rng.choice([rng.randrange(256), 0, 255, 57, 45])
    return [*files[:k], PostedFile(files[k].index, files[k].filename, bytes(content)), *files[k + 1 :]]


# pydicom warns of many a malformed element; here every warning would else be an error
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("kind", list(every_format()))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), unit=st.sampled_from([None, "uV", "mV"]))
def test_damaged_files(kind: str, seed: int, unit: str | None) -> None:
    holds(damaged(posted(made_files()[kind]), random.Random(seed)), unit)


MAGIC = [
    b"",
    b"PK\x03\x04",
    b"MATLAB 5.0 ",
    b"0       ",
    b"<",
    b"I,II\n",
    b"\0" * 128 + b"DICM",
    b"\0" * 16 + b"SCPECG",
]


@settings(max_examples=150, deadline=None)
@given(
    content=st.binary(max_size=400),
    magic=st.sampled_from(MAGIC),
    name=st.sampled_from(["a.hea", "a.dat", "a.mat", "a"]),
)
def test_arbitrary_bytes(content: bytes, magic: bytes, name: str) -> None:
    holds([PostedFile(0, name, magic + content), PostedFile(1, "a.dat", content)], None)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_real_files(shared_data: Path, name: str) -> None:
    rng = random.Random(name)
    files = posted(real(shared_data, name))
    for _ in range(8):
        holds(damaged(files, rng), rng.choice([None, "mV"]))


# ---------------------------------------------------------------- directories of zips


def directory_of(entries: int, n_bytes: int, *, zip64: bool = False) -> bytes:
    """A zip whose directory is not there, but stated."""
    record = b""
    if zip64:
        record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries, n_bytes, 4)
        record += struct.pack("<4sLQL", b"PK\x06\x07", 0, 4, 1)
        entries, n_bytes = 1, 46
    return b"PK\3\4" + record + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, entries, entries, n_bytes, 4, 0)


@pytest.mark.parametrize(
    "content",
    [
        directory_of(3000, 40_000),
        directory_of(1, 300_000),
        directory_of(5_000_000, 200, zip64=True),
        directory_of(1, 1 << 40, zip64=True),
        directory_of(3000, 40_000)[:-2] + b"\x05\0hello",
        zipped({f"{n}": b"" for n in range(3000)}),
    ],
    ids=["entries", "bytes", "zip64 entries", "zip64 bytes", "with a comment", "real"],
)
def test_a_large_directory_is_refused_before_it_is_parsed(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[object] = []
    monkeypatch.setattr(zipfile, "ZipFile", parsed.append)
    with pytest.raises(Refused) as refused:
        open_zip(io.BytesIO(content))
    assert refused.value.problem.found.startswith("ZIP")
    assert not parsed


def test_an_ordinary_zip_is_opened() -> None:
    content = zipped({f"folder/{n}.txt": b"1" for n in range(MAX_ZIP_MEMBERS)})
    assert len(open_zip(io.BytesIO(content)).namelist()) == MAX_ZIP_MEMBERS


@pytest.mark.parametrize("name", ["rec", "rec.txt", "rec.hea.txt", "rec_hea", "folder/rec", "other.head"])
def test_a_header_that_lost_its_ending_is_a_header(name: str) -> None:
    made = wfdb16(counts())
    for files in (
        {name: made["rec.hea"], "rec.dat": made["rec.dat"]},
        {"rec.dat": made["rec.dat"], name: made["rec.hea"]},
    ):
        np.testing.assert_allclose(read(files).samples, millivolts(counts()), atol=1e-6)
    zip_ = zipped(
        {name.replace("folder/", ""): made["rec.hea"], "rec.dat": made["rec.dat"], "README.txt": b"Read me 1 2"}
    )
    np.testing.assert_allclose(read(zip_).samples, millivolts(counts()), atol=1e-6)


@pytest.mark.parametrize(
    "content", [b"rec 12 500 5000\n", b"rec 12 500\nfile\n", b"a 1 2,3\n", b"# 1 2 3\n", b"I,II,III\n"]
)
def test_other_texts_are_no_headers(content: bytes) -> None:
    assert not is_header(content)
