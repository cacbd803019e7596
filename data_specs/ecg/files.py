"""From posted files to recordings: which files belong together, which reader reads them.

What a file is, is read from its content. The extension only tells a WFDB header that cannot be read, and so has to be
refused as such, from other text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from data_specs.ecg.formats import wfdb
from data_specs.ecg.formats.csv import is_text
from data_specs.ecg.formats.table import NAMES, format_of, has_signature
from data_specs.ecg.posted import MAX_ZIP_BYTES, MAX_ZIPS_BYTES, PostedFile, base, extension, is_zip, unzip
from data_specs.ecg.recording import Recording, VoltageUnit
from data_specs.problems import Refused
from data_specs.reading import refusals_only


@dataclass(frozen=True, slots=True)
class RecordingFiles:
    """The files of one recording; the first one's index stands for it."""

    stem: str
    files: tuple[PostedFile, ...]


# ---------------------------------------------------------------- grouping


def group_recordings(files: Sequence[PostedFile]) -> list[RecordingFiles]:
    """Put together the files that make one recording.

    A WFDB header takes the files that it names, and the signal and annotation files of its stem. Every other file that
    a reader can read alone is a recording of its own, also where it shares a stem. A zip is opened; one that breaks the
    bounds becomes a recording that :func:`read_recording` refuses.

    Returns
    -------
    In the order of the posted files. Every posted file is in one group at least; never raises.
    """
    groups: list[RecordingFiles] = []
    loose: list[PostedFile] = []
    budget = MAX_ZIPS_BYTES
    for file in files:
        if not is_zip(file.content):
            loose.append(file)
            continue
        try:
            members = unzip(file, min(budget, MAX_ZIP_BYTES))
        except Refused:
            members = []
        budget -= sum(len(member.content) for member in members)
        inside = _grouped(members, in_zip=True)
        groups += inside or [RecordingFiles(file.stem, (file,))]
    groups += _grouped(loose, in_zip=False)
    return sorted(groups, key=lambda group: group.files[0].index)


def _grouped(files: Sequence[PostedFile], *, in_zip: bool) -> list[RecordingFiles]:
    """Groups of one zip's members, whose folders count, or of the loose files, whose folders do not."""

    def folder(file: PostedFile) -> str:
        return file.folder if in_zip else ""

    headers = [file for file in files if _is_header(file)]
    needs = {id(header): wfdb.named_files(header.content) for header in headers}
    segments = {
        id(part)
        for header in headers
        for part in headers
        if part is not header and folder(part) == folder(header) and part.base in needs[id(header)]
    }
    groups: list[RecordingFiles] = []
    taken: set[int] = set()
    for header in headers:
        if id(header) in segments:
            continue
        names = {header.base} | needs[id(header)]
        for part in headers:
            if id(part) in segments and folder(part) == folder(header) and part.base in names:
                names |= needs[id(part)]
        members = [
            file
            for file in files
            if folder(file) == folder(header)
            and (file is header or file.base in names or belongs_to_header(file, header))
            and (file is header or not (_is_header(file) and id(file) not in segments))
        ]
        taken |= {id(member) for member in members}
        groups.append(RecordingFiles(header.stem, tuple(sorted(members, key=lambda file: file.index))))
    by_stem: dict[tuple[str, str], list[PostedFile]] = {}
    for file in files:
        if id(file) in taken or (in_zip and is_not_a_recording(file)):
            continue
        if is_complete_recording(file.content):
            groups.append(RecordingFiles(file.stem, (file,)))
        else:
            by_stem.setdefault((folder(file), file.stem), []).append(file)
    groups += [RecordingFiles(stem, tuple(members)) for (_, stem), members in by_stem.items()]
    return sorted(groups, key=lambda group: group.files[0].index)


def _is_header(file: PostedFile) -> bool:
    if _has_signature(file.content):
        return False
    return file.extension == "hea" or wfdb.is_header(file.content)


def belongs_to_header(file: PostedFile, header: PostedFile) -> bool:
    """Whether a file is the signal or annotation file of a header of its stem, not a recording in another format."""
    if file.stem != header.stem or _is_header(file):
        return False
    return file.extension == "mat" or not is_complete_recording(file.content)


def is_not_a_recording(file: PostedFile) -> bool:
    """Whether a zip's member is not part of a recording: a read-me, a list of files, a picture."""
    if file.content.startswith((b"%PDF", b"\x89PNG", b"\xff\xd8\xff")):
        return True
    if _has_signature(file.content) or wfdb.is_header(file.content):
        return False
    return file.extension not in {"csv", "tsv", "dat", "xyz", "hea"}


def is_complete_recording(content: bytes) -> bool:
    """Whether a file is a recording without any other file, in a format that is read or in one that is refused."""
    return _has_signature(content) or is_text(content)


def _has_signature(content: bytes) -> bool:
    return has_signature(content) or is_zip(content)


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
    ``samples`` ``(12, n_samples) float32, mV``, 100 to 1000 Hz, 5 s to 1 h.

    Raises
    ------
    Refused
        ``unreadable``, ``truncated``, ``unsupported_format``, ``lead_missing``, ``sampling_rate``, ``too_short``,
        ``too_long``, ``unit_unknown``, ``amplitude_implausible``. Nothing else, whatever the bytes.
    """
    headers = [file for file in files.files if _is_header(file)]
    with refusals_only("ECG", NAMES), np.errstate(all="ignore"):  # a value too large for a float is refused at the end
        if headers:
            own = next((file for file in headers if file.stem == files.stem), headers[0])
            return wfdb.read(own.content, _finder(files.files, own), ecg_unit=ecg_unit)
        return _read_one(files.files, ecg_unit)


def _finder(files: Iterable[PostedFile], header: PostedFile) -> wfdb.Find:
    """Look-up of a named file by its base name; renamed pairs are found by stem and extension.

    Two different files of one name are refused when one of them is asked for: one may be the signal of another person.
    """
    posted: dict[str, list[bytes]] = {}
    for file in files:
        contents = posted.setdefault(file.base, [])
        if file.content not in contents:  # compared, which is rare; a set would hash every file
            contents.append(file.content)

    def find(name: str) -> bytes | None:
        ending = f".{extension(name)}"
        found = posted.get(base(name)) or posted.get(header.stem + ending) or []
        if len(found) > 1:
            raise Refused("unreadable", found=f"{len(found)} × {ending}", expected=f"1 × {ending}")
        return next(iter(found), None)

    return find


def _read_one(files: Sequence[PostedFile], ecg_unit: VoltageUnit | None) -> Recording:
    """Read the first file of a group that is a recording; the others are annotations."""
    file = next((file for file in files if is_complete_recording(file.content)), files[0])
    if not file.content:
        raise Refused("unreadable", found="0 B", expected=NAMES)
    if is_zip(file.content):
        unzip(file)  # says what is wrong with it; where nothing is, it holds no recording
        raise Refused("unsupported_format", found="ZIP", expected=NAMES)
    found = format_of(file.content)
    if found is None and file.extension in {"dat", "xyz", "d16"}:
        raise Refused("unreadable", found=".dat", expected=".hea + .dat")
    if found is None or found.read is None:
        raise Refused("unsupported_format", found=found.name if found else "?", expected=NAMES)
    return found.read(file.content, ecg_unit=ecg_unit)
