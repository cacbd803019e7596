"""What a reader process does with a film: bytes -> pixels -> what the gate and the network take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_specs.bundle import CxrInput
from data_specs.cxr.files import read_image
from data_specs.cxr.image import Outline, averaged, conform
from inference.cxr.gate import saturated_share
from inference.cxr.traits import of_pixels
from inference.person import Stated
from inference.readers.job import Read, job


@dataclass(frozen=True, slots=True)
class FilmRead:
    """A film without its pixels; ``saturated`` is the share of them that are pure black or white, ``traits`` those of
    :func:`inference.cxr.traits.of_pixels`."""

    stated: Stated
    view: Literal["PA", "AP"] | None
    saturated: float
    traits: dict[str, float] = field(default_factory=dict)


@job
def read_film(files: Sequence[bytes], sizes_px: tuple[int, ...], least_px: int | None = None) -> Read[FilmRead]:
    """One film, and for each of ``sizes_px`` an array ``(1, 1, size, size) uint8``.

    Parameters
    ----------
    least_px
        As :func:`for_networks` takes it.

    Raises
    ------
    Refused
        As :func:`data_specs.cxr.files.read_image`.
    """
    (content,) = files
    image = read_image(content, least_px=least_px)
    arrays = for_networks(image.pixels, image.outline, sizes_px, least_px)
    saturated = float(saturated_share(image.pixels))
    return Read(FilmRead(Stated.of(image), image.view, saturated, of_pixels(image.pixels, image.recorded_px)), arrays)


def for_networks(
    pixels: NDArray[np.uint8], outline: Outline, sizes_px: tuple[int, ...], least_px: int | None
) -> tuple[NDArray[np.uint8], ...]:
    """For each of ``sizes_px`` an array ``(1, 1, size, size)`` of a film.

    Parameters
    ----------
    outline
        Where the film lies in ``pixels``.
    least_px
        A larger film is first made smaller, at once for all, with its shorter side at least so long; ``None``: it is
        not.
    """
    if least_px is not None:
        pixels, outline = averaged(pixels, outline, least_px)
    return tuple(conform(pixels, size, outline)[None] for size in sizes_px)


def least_px_of(*takes: CxrInput) -> int | None:
    """The shorter side that a film has to be read with for all of these networks; ``None``: in full."""
    sides = [each.least_px for each in takes]
    return None if None in sides else max(side for side in sides if side is not None)
