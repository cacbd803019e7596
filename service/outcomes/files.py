"""Write a case without personal data: new files, a row of the table, and a pseudonym of the person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_specs.dicom.reference import DicomReference
from data_specs.ecg.recording import LEADS, Recording
from data_specs.person import OLDEST_TOLD_YEARS, age_at_examination, dicom_day, pseudonym
from data_specs.problems import Refused
from service.errors import StoredFileDamaged, StoredFileMissing
from service.outcomes.cases import Case, ExportRequest
from service.storage.store import Store

if TYPE_CHECKING:
    from data_specs.cxr.image import ChestImage

COUNTS_PER_MV = 1_000_000
"""One count of an exported recording is a nanovolt, which is as fine as single precision at 8 mV."""
LARGEST_COUNT = 2**31 - 1
GAP = -(2**31)
"""The missing value of WFDB format 32 (WFDB Applications Guide, signal(5))."""


@dataclass(frozen=True, slots=True)
class WrittenCase:
    """The rows of one case, still without the person, and the identities of the case."""

    rows: list[dict[str, str]]
    identities: frozenset[tuple[str, ...]]


def pseudonyms(cases: Iterable[WrittenCase], key: bytes) -> list[str]:
    """The pseudonym of each case's person. Cases that are linked by shared identities get the same one.

    A person with two pseudonyms could be in the training part and in the test part of the split.
    """
    cases = list(cases)
    parent: dict[tuple[str, ...], tuple[str, ...]] = {}

    def root(identity: tuple[str, ...]) -> tuple[str, ...]:
        while parent.setdefault(identity, identity) != identity:
            parent[identity] = identity = parent[parent[identity]]
        return identity

    for case in cases:
        first, *others = case.identities
        for other in others:
            low, high = sorted((root(first), root(other)))
            # 'person' sorts before 'visit', so a kept key gives the same pseudonym when visits are added.
            parent[high] = low
    return [pseudonym(key, *root(min(case.identities))) for case in cases]


def read_film(content: bytes) -> ChestImage:
    """Read a film as training and serving do.

    Raises
    ------
    Refused
        As :func:`data_specs.cxr.files.read_image`; ``burned_in_annotation`` if the header says that the picture itself
        shows personal data.
    """
    from data_specs.cxr.files import read_image  # noqa: PLC0415  only films need the codecs

    film = read_image(content)
    if any(problem.code == "burned_in_annotation" for problem in film.problems):
        raise Refused("burned_in_annotation", "YES", "NO")
    return film


def film_files(film: ChestImage, name: str) -> dict[str, bytes]:
    """An 8-bit grey PNG without metadata, which reads back to the same pixels.

    The 16-bit stored values would not, because the header that says how to display them is not exported.
    """
    import imagecodecs  # noqa: PLC0415

    return {f"{name}.png": bytes(imagecodecs.png_encode(film.pixels))}


def recording_files(recording: Recording, name: str) -> dict[str, bytes]:
    """A recording as WFDB format 32: twelve leads in nanovolts, or coarser if the values would not fit, with its gaps.

    References
    ----------
    WFDB Applications Guide, header(5) and signal(5).
    """
    millivolts = recording.samples.astype(np.float64)
    gaps = np.isnan(millivolts)
    largest = float(np.fmax.reduce(np.abs(millivolts), axis=None, initial=0.0))
    gain = COUNTS_PER_MV if largest * COUNTS_PER_MV < LARGEST_COUNT else max(1, int(LARGEST_COUNT / largest))
    counts = np.where(gaps, GAP, np.rint(np.where(gaps, 0.0, millivolts) * gain)).astype("<i4")
    lines = [f"{name} {len(LEADS)} {recording.fs_hz!r} {counts.shape[1]}"]
    for lead, signal in zip(LEADS, counts, strict=True):
        checksum = (int(signal.sum(dtype=np.int64)) + 2**15) % 2**16 - 2**15
        lines.append(f"{name}.dat 32 {gain}(0)/mV 32 0 {signal[0]} {checksum} 0 {lead}")
    return {f"{name}.hea": ("\n".join(lines) + "\n").encode(), f"{name}.dat": counts.T.tobytes()}


def write_case(case: Case, *, store: Store, folder: Path, request: ExportRequest) -> WrittenCase | str:
    """Write the files of a case. Returns its rows, or the reason why it is left out."""
    try:
        contents = [store.read(file.sha256) for file in case.files]
        readings = [read_film(contents[0])] if request.modality == "cxr" else _recordings(case, contents)
    except Refused as refusal:
        return refusal.problem.code
    except StoredFileMissing:
        return "not in the store"
    except StoredFileDamaged:
        return "damaged in the store"
    rows, numbers = [], set()
    for n, read in enumerate(readings):
        name = pseudonym(request.key, "file", *case.content, str(n))
        files = recording_files(read, name) if isinstance(read, Recording) else film_files(read, name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        rows.append(_row(case, next(iter(files)), read, request))
        if read.person_id:
            numbers.add(("person", case.site, read.person_id))
    return WrittenCase(rows, case.identities if case.person_stated else case.identities | numbers)


def _recordings(case: Case, contents: Sequence[bytes]) -> Sequence[ChestImage | Recording]:
    from data_specs.ecg.files import group_recordings, read_recording  # noqa: PLC0415  loads all ECG readers
    from data_specs.ecg.posted import PostedFile  # noqa: PLC0415

    posted = [
        PostedFile(file.index, file.filename, content) for file, content in zip(case.files, contents, strict=True)
    ]
    return [read_recording(group, ecg_unit=case.context.ecg_unit) for group in group_recordings(posted)]


def _row(case: Case, file: str, read: ChestImage | Recording, request: ExportRequest) -> dict[str, str]:
    """A row of the table. Age and sex are those of the visit, or of the file if the visit does not state them."""
    person = case.context.person
    age = age_at_examination(person.age_years, person.birth_date, case.context.visited_on)
    if age is None:
        age = read.age_years
    sex = person.sex if person.sex not in (None, "unknown") else read.sex
    header = case.files[0].dicom
    made_on = dicom_day(DicomReference.model_validate_json(header).StudyDate) if header and request.dates else None
    return {
        "file": file,
        "age_years": "" if age is None else str(min(int(age), OLDEST_TOLD_YEARS)),
        "sex": sex or "",
        "site": case.site,
        "view": "" if isinstance(read, Recording) else read.view or "",
        "made_on": made_on.isoformat() if made_on else "",
        **case.labels(request.findings),
    }
