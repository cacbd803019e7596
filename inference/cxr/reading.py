"""What a reader process does with a film: bytes -> pixels -> what the gate and the network take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from data_specs.cxr.files import read_image
from data_specs.cxr.image import conform
from inference.cxr.gate import saturated_share
from inference.person import Stated
from inference.readers.job import Read, job


@dataclass(frozen=True, slots=True)
class FilmRead:
    """A film without its pixels; ``saturated`` is the share of them that are pure black or white."""

    stated: Stated
    view: Literal["PA", "AP"] | None
    saturated: float


@job
def read_film(files: Sequence[bytes], sizes_px: tuple[int, ...]) -> Read[FilmRead]:
    """One film, and for each of ``sizes_px`` an array ``(1, 1, size, size) uint8``.

    Raises
    ------
    Refused
        As :func:`data_specs.cxr.files.read_image`.
    """
    (content,) = files
    image = read_image(content)
    arrays = tuple(conform(image.pixels, size)[None] for size in sizes_px)
    return Read(FilmRead(Stated.of(image), image.view, float(saturated_share(image.pixels))), arrays)
