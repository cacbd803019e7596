"""From posted files to recordings: which files belong together, which reader reads them.

What a file is, is read from its content, never from its extension; the extension only tells a WFDB header, which has
no magic number, from other text.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from data_specs.dicom.reference import is_dicom
from data_specs.ecg.formats import csv as ecg_csv
from data_specs.ecg.formats import dicom as ecg_dicom
from data_specs.ecg.formats import edf as ecg_edf
from data_specs.ecg.formats import mat as ecg_mat
from data_specs.ecg.formats import scp as ecg_scp
from data_specs.ecg.formats import wfdb as ecg_wfdb
from data_specs.ecg.formats import xml as ecg_markup
from data_specs.ecg.formats import xml_roots as ecg_xml
from data_specs.ecg.recording import Recording, VoltageUnit
from data_specs.problems import Refused

FORMATS = "WFDB, DICOM, SCP-ECG, HL7 aECG, GE MUSE XML, GE CardioSoft XML, Philips XML, EDF, MAT, CSV"

MAX_ZIP_MEMBERS = 512
MAX_ZIP_BYTES, MAX_ZIPS_BYTES = 128 << 20, 256 << 20
"""Of one archive, and of all archives of a visit together."""
MAX_ZIP_RATIO = 200
"""Inflated to packed size of a whole archive; ECGs pack to a half or a third, a flat trace to a hundredth."""

_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_OTHER_MAGIC = {
    b"\x89HDF": "HDF5",
    b"%PDF": "PDF",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"ISHNE1.0": "ISHNE",
    b"MFR ": "MFER",
    b"\x1f\x8b": "GZIP",
    b"7z\xbc\xaf": "7Z",
    b"Rar!": "RAR",
    b"fLaC": "FLAC",
}


@dataclass(frozen=True, slots=True)
class PostedFile:
    """One file of a visit. ``index`` is its place among the visit's inputs; a zip's members carry the zip's."""

    index: int
    filename: str
    content: bytes


@dataclass(frozen=True, slots=True)
class RecordingFiles:
    """The files of one recording; the first one's index stands for it."""

    stem: str
    files: tuple[PostedFile, ...]


# ---------------------------------------------------------------- grouping


def group_recordings(files: Sequence[PostedFile]) -> list[RecordingFiles]:
    """Put together the files that make one recording.

    A WFDB header takes the files of its stem, and those that it names. Every other file that a reader can read alone
    is a recording of its own, also where it shares a stem; annotation files ride along with a header. A zip is
    opened; one that breaks the bounds becomes a recording that :func:`read_recording` refuses.

    Returns
    -------
    In the order of the posted files. Every posted file is in one group at least; never raises.
    """
    groups: list[RecordingFiles] = []
    loose: list[PostedFile] = []
    budget = MAX_ZIPS_BYTES
    for file in files:
        if not file.content.startswith(_ZIP_MAGIC):
            loose.append(file)
            continue
        try:
            members = _unzip(file, min(budget, MAX_ZIP_BYTES))
        except Refused:
            members = []
        budget -= sum(len(member.content) for member in members)
        inside = _grouped(members, whole_path=True)
        groups += inside or [RecordingFiles(_stem(file.filename), (file,))]
    groups += _grouped(loose, whole_path=False)
    return sorted(groups, key=lambda group: group.files[0].index)


def _grouped(files: Sequence[PostedFile], *, whole_path: bool) -> list[RecordingFiles]:
    """Groups of one zip's members, told apart by folder too, or of the loose files."""

    def folder(file: PostedFile) -> str:
        return file.filename.replace("\\", "/").lower().rpartition("/")[0] if whole_path else ""

    headers = [file for file in files if _is_header(file)]
    needs = {id(header): ecg_wfdb.named_files(header.content) for header in headers}
    segments = {
        id(part)
        for header in headers
        for part in headers
        if part is not header and folder(part) == folder(header) and _base(part.filename) in needs[id(header)]
    }
    groups: list[RecordingFiles] = []
    taken: set[int] = set()
    for header in headers:
        if id(header) in segments:
            continue
        names = {_base(header.filename)} | needs[id(header)]
        for part in headers:
            if id(part) in segments and folder(part) == folder(header) and _base(part.filename) in names:
                names |= needs[id(part)]
        stem = _stem(header.filename)
        members = [
            file
            for file in files
            if folder(file) == folder(header)
            and (file is header or _base(file.filename) in names or _rides_along(file, stem))
            and (file is header or not (_is_header(file) and id(file) not in segments))
        ]
        taken |= {id(member) for member in members}
        groups.append(RecordingFiles(stem, tuple(sorted(members, key=lambda file: file.index))))
    by_stem: dict[tuple[str, str], list[PostedFile]] = {}
    for file in files:
        if id(file) in taken or (whole_path and is_leaflet(file)):
            continue
        if _reads_alone(file.content):
            groups.append(RecordingFiles(_stem(file.filename), (file,)))
        else:
            by_stem.setdefault((folder(file), _stem(file.filename)), []).append(file)
    groups += [RecordingFiles(stem, tuple(members)) for (_, stem), members in by_stem.items()]
    return sorted(groups, key=lambda group: group.files[0].index)


def _base(filename: str) -> str:
    return filename.replace("\\", "/").rsplit("/", 1)[-1].lower()


def _stem(filename: str) -> str:
    return _base(filename).rpartition(".")[0] or _base(filename)


def _extension(filename: str) -> str:
    return _base(filename).rpartition(".")[2] if "." in filename else ""


def _is_header(file: PostedFile) -> bool:
    return _extension(file.filename) == "hea" and not _has_magic(file.content)


def _rides_along(file: PostedFile, stem: str) -> bool:
    """Whether a file of a header's stem is its signal or annotation file, and no recording in another format."""
    if _stem(file.filename) != stem or _is_header(file):
        return False
    return _extension(file.filename) == "mat" or not _reads_alone(file.content)


def is_leaflet(file: PostedFile) -> bool:
    """Whether a zip's member is no recording but what lies beside them: a README, a list, a picture."""
    picture = file.content.startswith((b"%PDF", b"\x89PNG", b"\xff\xd8\xff"))
    return picture or not (_has_magic(file.content) or _extension(file.filename) in {"csv", "tsv", "dat", "xyz", "hea"})


def _reads_alone(content: bytes) -> bool:
    return _has_magic(content) or _is_text(content)


def _has_magic(content: bytes) -> bool:
    return (
        is_dicom(content)
        or ecg_markup.is_xml(content)
        or ecg_edf.is_edf(content)
        or ecg_scp.is_scp(content)
        or content.startswith(b"MATLAB")
        or ecg_mat.is_level4(content)
        or content.startswith(tuple(_OTHER_MAGIC))
        or content.startswith(_ZIP_MAGIC)
    )


def _is_text(content: bytes) -> bool:
    """Whether a file begins like a text: no control characters but blanks, or a UTF-16 byte order mark."""
    start = content[:2048]
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    return bool(start) and not any(byte < 9 or 13 < byte < 32 for byte in start)


# ---------------------------------------------------------------- zip


def _unzip(file: PostedFile, budget: int = MAX_ZIP_BYTES) -> list[PostedFile]:
    """Members in bounds, folders and macOS resource forks left out.

    Raises
    ------
    Refused
        ``unreadable``
    """
    try:
        with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
            members = [info for info in archive.infolist() if is_zip_member(info.filename)]
            check_zip_bounds(members, len(file.content))
            posted = []
            for info in members:
                with archive.open(info) as opened:
                    content = opened.read(budget + 1)
                budget -= len(content)
                if budget < 0:
                    raise Refused("unreadable", found=f"ZIP > {MAX_ZIP_BYTES >> 20} MB", expected="ZIP")
                posted.append(PostedFile(file.index, info.filename, content))
            return posted
    except Refused:
        raise
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, ValueError, EOFError, OSError) as error:
        raise Refused("unreadable", found="ZIP", expected="ZIP") from error


def is_zip_member(name: str) -> bool:
    """Whether a zip's entry is a file that somebody put there: no folder, no hidden file, no fork of macOS."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    return bool(base) and not base.startswith((".", "DICOMDIR")) and not name.startswith("__MACOSX/")


def check_zip_bounds(members: list[zipfile.ZipInfo], packed: int) -> None:
    """Refuse an archive of too many files, or too large ones, on its own word; ``packed``: its size in bytes.

    Raises
    ------
    Refused
        ``unreadable``
    """
    size = sum(info.file_size for info in members)
    if len(members) > MAX_ZIP_MEMBERS:
        raise Refused("unreadable", found=f"ZIP {len(members)}", expected=f"ZIP ≤ {MAX_ZIP_MEMBERS}")
    if size > MAX_ZIP_BYTES or size > max(packed, 1 << 16) * MAX_ZIP_RATIO:
        expected = f"ZIP ≤ {MAX_ZIP_BYTES >> 20} MB, ≤ {MAX_ZIP_RATIO}:1"
        raise Refused("unreadable", found=f"ZIP {size >> 20} MB", expected=expected)


# ---------------------------------------------------------------- reading


def read_recording(files: RecordingFiles, *, ecg_unit: VoltageUnit | None) -> Recording:
    """Twelve leads in millivolts from the files of one recording.

    Parameters
    ----------
    files
        As :func:`group_recordings` gives them.
    ecg_unit
        Unit of the samples for files that do not state it (``context.ecg_unit``); a stated unit goes before it.

    Returns
    -------
    ``samples`` ``(12, n_samples) float32, mV``, 100 to 1000 Hz, 8 s to 1 h.

    Raises
    ------
    Refused
        ``unreadable``, ``truncated``, ``unsupported_format``, ``lead_missing``, ``sampling_rate``, ``too_short``,
        ``too_long``, ``unit_unknown``, ``amplitude_implausible``. Nothing else, whatever the bytes.
    """
    headers = [file for file in files.files if _is_header(file)]
    try:
        with np.errstate(all="ignore"):  # what leaves the range of floats is judged at the end, by its amplitude
            if headers:
                own = next((file for file in headers if _stem(file.filename) == files.stem), headers[0])
                return ecg_wfdb.read(own.content, _finder(files.files, own), ecg_unit=ecg_unit)
            return _read_one(files.files, ecg_unit)
    except (MemoryError, RecursionError) as error:
        raise Refused("unreadable", found=f"{sum(len(f.content) for f in files.files)} B", expected=FORMATS) from error


def _finder(files: Iterable[PostedFile], header: PostedFile) -> ecg_wfdb.Find:
    """Look-up of a named file by its base name; renamed pairs are found by stem and extension.

    Two different files of one name are refused when one of them is asked for: signals must not change persons.
    """
    posted: dict[str, list[bytes]] = {}
    for file in files:
        contents = posted.setdefault(_base(file.filename), [])
        if file.content not in contents:  # compared, which is rare; a set would hash every file
            contents.append(file.content)
    stem = _stem(header.filename)

    def find(name: str) -> bytes | None:
        found = posted.get(_base(name)) or posted.get(f"{stem}.{_extension(name)}") or []
        if len(found) > 1:
            raise Refused(
                "unreadable", found=f"{len(found)} × .{_extension(name)}", expected=f"1 × .{_extension(name)}"
            )
        return next(iter(found), None)

    return find


def _read_one(files: Sequence[PostedFile], ecg_unit: VoltageUnit | None) -> Recording:
    """The one file of a group that a reader knows, the others are annotations."""
    file = next((file for file in files if _reads_alone(file.content)), files[0])
    content = file.content
    if not content:
        raise Refused("unreadable", found="0 B", expected=FORMATS)
    if content.startswith(_ZIP_MAGIC):
        _unzip(file)
        raise Refused("unsupported_format", found="ZIP", expected=FORMATS)
    if is_dicom(content):
        return ecg_dicom.read(content, ecg_unit=ecg_unit)
    if content.startswith(b"MATLAB") or ecg_mat.is_level4(content):
        return ecg_mat.read(content, ecg_unit=ecg_unit)
    for magic, name in _OTHER_MAGIC.items():
        if content.startswith(magic):
            raise Refused("unsupported_format", found=name, expected=FORMATS)
    if ecg_edf.is_edf(content):
        return ecg_edf.read(content, ecg_unit=ecg_unit)
    if ecg_scp.is_scp(content):
        return ecg_scp.read(content)
    if ecg_markup.is_xml(content):
        return ecg_xml.read(content, ecg_unit=ecg_unit)
    if _is_text(content):
        return ecg_csv.read(content, ecg_unit=ecg_unit)
    if _extension(file.filename) in {"dat", "xyz", "d16"}:
        raise Refused("unreadable", found=".dat", expected=".hea + .dat")
    raise Refused("unsupported_format", found="?", expected=FORMATS)
