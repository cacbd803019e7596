"""What a reader process does where somebody wants to see a file: the film, its heatmap, the trace.

Each picture is an array ``(n,) uint8``: the bytes of its file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data_specs.cxr.files import read_image
from data_specs.cxr.image import Window
from data_specs.ecg.files import group_recordings, read_recording
from data_specs.ecg.posted import PostedFile
from data_specs.ecg.recording import Recording, VoltageUnit
from data_specs.problems import Refused
from data_specs.reading import only_to_look
from data_specs.visit.assessment import EvidenceMap
from inference.readers.job import Read, job, large_job
from inference.render.paper import USUAL, Form
from inference.render.pictures import evidence_png, film_jpeg, film_png, outlined, trace_png, trace_print, trace_svg


@dataclass(frozen=True, slots=True)
class FilmSize:
    """Size of a film in pixels, and height and width of a pixel in mm where the file states them."""

    rows: int
    columns: int
    pixel_mm: tuple[float, float] | None


@job
def film_size(files: Sequence[bytes]) -> Read[FilmSize]:
    """What lengths on a film are measured with."""
    (content,) = files
    with only_to_look():
        image = read_image(content, least_px=1)
    return Read(FilmSize(*image.recorded_px, image.pixel_mm))


@large_job
def draw_film(
    files: Sequence[bytes], max_px: int | None, window: Window = "as_sent", kind: Literal["png", "jpeg"] = "png"
) -> Read[None]:
    """PNG or JPEG of a film, also of one that is refused: :func:`inference.render.pictures.film_png`."""
    (content,) = files
    with only_to_look():
        if kind == "jpeg":
            return picture(film_jpeg(content, max_px, window))
        return picture(film_png(content, max_px, window))


@large_job
def draw_evidence(files: Sequence[bytes], evidence: EvidenceMap, max_px: int | None) -> Read[None]:
    """PNG of a film with a heatmap over it: :func:`inference.render.pictures.evidence_png`."""
    (content,) = files
    return picture(evidence_png(content, evidence, max_px))


@large_job
def draw_outlined(
    files: Sequence[bytes], evidence: Sequence[EvidenceMap], max_px: int | None, kind: Literal["png", "jpeg"]
) -> Read[None]:
    """A film with outlines on it: :func:`inference.render.pictures.outlined`."""
    (content,) = files
    return picture(outlined(content, evidence, max_px, kind))


@large_job
def draw_trace(
    files: Sequence[bytes],
    names: Sequence[tuple[int, str]],
    index: int,
    ecg_unit: VoltageUnit | None,
    evidence: EvidenceMap | None,
    kind: Literal["png", "print", "svg"],
    voltage: bool = True,
    form: Form = USUAL,
) -> Read[None]:
    """The recording to which file ``index`` belongs, on millimetre paper; ``voltage``: its leads have one gain.

    Raises
    ------
    Refused
        It cannot be decoded, or the file belongs to no recording.
    """
    recording = recording_of(files, names, index, ecg_unit)
    if kind == "print":
        return picture(trace_print(recording, voltage=voltage))
    if kind == "png":
        return picture(trace_png(recording, evidence, voltage=voltage))
    return picture(trace_svg(recording, evidence, voltage=voltage, form=form).encode())


def recording_of(
    files: Sequence[bytes], names: Sequence[tuple[int, str]], index: int, ecg_unit: VoltageUnit | None
) -> Recording:
    """The recording to which file ``index`` belongs, also one that is refused.

    Raises
    ------
    Refused
        It cannot be decoded, or the file belongs to no recording.
    """
    posted = [PostedFile(i, name, content) for content, (i, name) in zip(files, names, strict=True)]
    for group in group_recordings(posted):
        if any(file.index == index for file in group.files):
            with only_to_look():
                return read_recording(group, ecg_unit=ecg_unit)
    raise Refused("unreadable", "—", "1")


def picture(content: bytes) -> Read[None]:
    return Read(None, (np.frombuffer(content, np.uint8),))
