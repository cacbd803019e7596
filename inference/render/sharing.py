"""What a reader process does with a file that is to leave without a name: its pixels or millivolts, nothing else."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from data_specs.cxr.burned_in import blacked_out, find_writing
from data_specs.cxr.files import read_image, sniff
from data_specs.dicom.header import quiet_pydicom
from data_specs.ecg.files import group_recordings, read_recording
from data_specs.ecg.posted import PostedFile
from data_specs.ecg.recording import VoltageUnit
from data_specs.person import BinarySex
from data_specs.problems import Refused
from inference.readers.job import Read, large_job

MOST_TAGS = 5000


@dataclass(frozen=True, slots=True)
class SharedFilm:
    """What is told of a film besides its pixels.

    Parameters
    ----------
    boxes
        First row and column, and those behind the last, of each part that was blacked out.
    tags
        The elements of the posted header, eight hexadecimal digits each, without their values.
    """

    view: Literal["PA", "AP"] | None
    pixel_mm: tuple[float, float] | None
    age_years: float | None
    sex: BinarySex | None
    recorded_on: date | None
    boxes: tuple[tuple[int, int, int, int], ...]
    tags: tuple[str, ...]


@large_job
def film_to_share(files: Sequence[bytes]) -> Read[SharedFilm]:
    """A film's pixels ``(rows, columns) uint8`` as they are displayed, text that was burned in blacked out.

    Raises
    ------
    Refused
        As :func:`data_specs.cxr.files.read_image`; ``burned_in_undecided``: it cannot be told whether text is in it, or
        its header says so and none is found.
    """
    (content,) = files
    film = read_image(content)
    written = find_writing(film.pixels)
    is_declared = any(problem.code == "burned_in_annotation" for problem in film.problems)
    if written.undecided or (is_declared and not written.boxes):
        raise Refused("burned_in_undecided", written.undecided or "BurnedInAnnotation")
    shared = SharedFilm(
        view=film.view,
        pixel_mm=film.pixel_mm,
        age_years=film.age_years,
        sex=film.sex,
        recorded_on=film.recorded_on,
        boxes=written.boxes,
        tags=_tags(content) if sniff(content) == "dicom" else (),
    )
    return Read(shared, (blacked_out(film.pixels, written.boxes),))


def _tags(content: bytes) -> tuple[str, ...]:
    from pydicom import dcmread  # noqa: PLC0415  a raster needs no pydicom

    with quiet_pydicom():
        header = dcmread(io.BytesIO(content), stop_before_pixels=True, force=True)
    return tuple(f"{int(tag):08x}" for tag in list(header.keys())[:MOST_TAGS])


@dataclass(frozen=True, slots=True)
class SharedRecording:
    """What is told of a recording besides its samples."""

    fs_hz: float
    age_years: float | None
    sex: BinarySex | None
    recorded_on: date | None


@dataclass(frozen=True, slots=True)
class SharedRecordings:
    """The recordings of a visit that can be read, and why others cannot, as codes."""

    recordings: tuple[SharedRecording, ...]
    refused: tuple[str, ...]


@large_job
def recordings_to_share(
    files: Sequence[bytes], names: Sequence[tuple[int, str]], ecg_unit: VoltageUnit | None
) -> Read[SharedRecordings]:
    """The recordings that files make, each ``(12, n_samples) float32``, mV."""
    posted = [PostedFile(i, name, content) for content, (i, name) in zip(files, names, strict=True)]
    told, refused, arrays = [], [], []
    for group in group_recordings(posted):
        try:
            read = read_recording(group, ecg_unit=ecg_unit)
        except Refused as refusal:
            refused.append(refusal.problem.code)
            continue
        told.append(SharedRecording(read.fs_hz, read.age_years, read.sex, read.recorded_on))
        arrays.append(read.samples)
    return Read(SharedRecordings(tuple(told), tuple(refused)), tuple(arrays))
