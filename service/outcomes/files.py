"""A case without whose it is: its files written anew, its row, and a name that nobody can be found by."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_specs.dicom.reference import DicomReference
from data_specs.ecg.recording import LEADS, Recording
from data_specs.person import age_at_examination, dicom_day
from data_specs.problems import Refused
from service.errors import StoredFileDamaged, StoredFileMissing
from service.outcomes.cases import Case, Wanted
from service.storage.store import Store

if TYPE_CHECKING:
    from data_specs.cxr.image import ChestImage

OLDEST_TOLD = 90
"""Ages are told in whole years, all from 90 on as 90 (45 CFR 164.514(b)(2)(i)(C), the safe harbour of HIPAA)."""
COUNTS_PER_MV = 1_000_000
"""A count of an exported recording is a nanovolt: no coarser than single precision is at 8 mV."""
LARGEST_COUNT = 2**31 - 1
GAP = -(2**31)
"""WFDB format 32's value for 'none' (WFDB Applications Guide, signal(5))."""


@dataclass(frozen=True, slots=True)
class Written:
    """The rows of one case, their persons still open, and all that the case is known as."""

    rows: list[dict[str, str]]
    known_as: frozenset[tuple[str, ...]]


def pseudonyms(cases: Iterable[Written], key: bytes) -> list[str]:
    """One name for all cases that anything links: a person in two parts would be tested on what was learnt of them."""
    cases = list(cases)
    parent: dict[tuple[str, ...], tuple[str, ...]] = {}

    def root(of: tuple[str, ...]) -> tuple[str, ...]:
        while parent.setdefault(of, of) != of:
            parent[of] = of = parent[parent[of]]
        return of

    for case in cases:
        first, *others = case.known_as
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low  # 'person' before 'visit': with a kept key the name stays when more visits come
    return [_hidden(key, *root(min(case.known_as))) for case in cases]


def _hidden(key: bytes, *what: str) -> str:
    """Twenty hexadecimal digits that say nothing without the key (HMAC-SHA256, RFC 2104)."""
    return hmac.digest(key, json.dumps(what).encode(), "sha256").hex()[:20]


def read_film(content: bytes) -> ChestImage:
    """A film as training and serving read it.

    Raises
    ------
    Refused
        As :func:`data_specs.cxr.files.read_image`; ``burned_in_annotation`` where the header says that the picture
        itself tells whose it is.
    """
    from data_specs.cxr.files import read_image  # noqa: PLC0415  films alone need the codecs

    film = read_image(content)
    if any(problem.code == "burned_in_annotation" for problem in film.problems):
        raise Refused("burned_in_annotation", "YES", "NO")
    return film


def film_files(film: ChestImage, name: str) -> dict[str, bytes]:
    """A PNG (8-bit grey, no chunk but the pixels') that reads back to the same pixels.

    The 16 bits of the stored values would not: how they are to be shown is said by the header that stays behind.
    """
    import imagecodecs  # noqa: PLC0415

    return {f"{name}.png": bytes(imagecodecs.png_encode(film.pixels))}


def recording_files(recording: Recording, name: str) -> dict[str, bytes]:
    """A recording as WFDB format 32, twelve leads in nanovolts (larger counts where they would not fit), gaps kept.

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


def write_case(case: Case, *, store: Store, folder: Path, wanted: Wanted) -> Written | str:
    """Write the files of a case; its rows, or why it is left out."""
    try:
        contents = [_content(store, each.sha256) for each in case.files]
        found = [read_film(contents[0])] if wanted.modality == "cxr" else _recordings(case, contents)
    except Refused as refusal:
        return refusal.problem.code
    except StoredFileMissing:
        return "not in the store"
    except StoredFileDamaged:
        return "damaged in the store"
    rows, numbers = [], set()
    for n, read in enumerate(found):
        name = _hidden(wanted.key, "file", *case.content, str(n))
        files = recording_files(read, name) if isinstance(read, Recording) else film_files(read, name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        rows.append(_row(case, next(iter(files)), read, wanted))
        if read.person_id:
            numbers.add(("person", case.site, read.person_id))
    return Written(rows, case.known_as if case.stated else case.known_as | numbers)


def _recordings(case: Case, contents: Sequence[bytes]) -> Sequence[ChestImage | Recording]:
    from data_specs.ecg.files import PostedFile, group_recordings, read_recording  # noqa: PLC0415  with all its readers

    posted = [
        PostedFile(each.index, each.filename, content) for each, content in zip(case.files, contents, strict=True)
    ]
    return [read_recording(group, ecg_unit=case.context.ecg_unit) for group in group_recordings(posted)]


def _content(store: Store, sha256: str) -> bytes:
    try:
        return store.read(sha256)
    except (StoredFileMissing, StoredFileDamaged):
        raise
    except Exception as error:  # the client of an object store raises whatever it likes, and may quote an address
        raise OSError(f"the store cannot be read ({type(error).__name__})") from error


def _row(case: Case, file: str, read: ChestImage | Recording, wanted: Wanted) -> dict[str, str]:
    """What goes into the table; age and sex as the visit says them, else as the file does."""
    said = case.context.person
    age = age_at_examination(said.age_years, said.birth_date, case.context.visited_on)
    if age is None:
        age = read.age_years
    sex = said.sex if said.sex not in (None, "unknown") else read.sex
    header = case.files[0].dicom
    made_on = dicom_day(DicomReference.model_validate_json(header).StudyDate) if header and wanted.dates else None
    return {
        "file": file,
        "age_years": "" if age is None else str(min(int(age), OLDEST_TOLD)),
        "sex": sex or "",
        "site": case.site,
        "view": "" if isinstance(read, Recording) else read.view or "",
        "made_on": made_on.isoformat() if made_on else "",
        **case.labels(wanted.findings),
    }
