"""Damaged files of every kind give a film or a refusal, in bounded time, and nothing else."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
from PIL import Image

from data_specs.cxr.files import read_image
from data_specs.cxr.image import ChestImage
from data_specs.problems import Refused
from tests.data_specs.cxr.test_raster import saved, tiff
from tests.data_specs.cxr_made import (
    BIG,
    DEFLATED,
    EXPLICIT,
    HTJ2K,
    IMPLICIT,
    J2K,
    JPEG,
    JPEG_12,
    JPEG_LOSSLESS,
    JPEG_LS,
    RLE,
    dicom,
    phantom,
)

EIGHT = phantom(8).astype(np.uint8)
FILES = {
    **{syntax: dicom(phantom(), syntax) for syntax in (EXPLICIT, IMPLICIT, BIG, DEFLATED, RLE, JPEG_12, JPEG_LOSSLESS)},
    **{syntax: dicom(phantom(), syntax) for syntax in (JPEG_LS, J2K, HTJ2K)},
    JPEG: dicom(EIGHT, JPEG, bits=8),
    "png": saved(Image.fromarray(EIGHT), "PNG"),
    "png 16": saved(Image.fromarray(phantom()), "PNG"),
    "jpeg": saved(Image.fromarray(EIGHT), "JPEG"),
    "tiff": tiff(EIGHT, compression="lzw"),
    "tiff jpeg": tiff(EIGHT, compression="jpeg"),
}
SECONDS_EACH = 3.0


def damaged(content: bytes, chance: random.Random) -> bytes:
    bytes_ = bytearray(content)
    kind = chance.random()
    if kind < 0.3:
        return content[: chance.randrange(len(content))]
    if kind < 0.8:
        for _ in range(chance.choice((1, 2, 5, 20))):
            # headers are where a flip does most
            at = chance.randrange(min(len(bytes_), 1500) if chance.random() < 0.7 else len(bytes_))
            bytes_[at] = chance.choice((0, 255, chance.randrange(256), bytes_[at] ^ (1 << chance.randrange(8))))
    else:
        at = chance.randrange(len(bytes_))
        del bytes_[at : at + chance.randrange(1, 200)]
    return bytes(bytes_)


@pytest.mark.parametrize("name", sorted(FILES))
def test_damage_gives_a_film_or_a_refusal(name: str) -> None:
    chance = random.Random(name)
    for _ in range(60):
        start = time.perf_counter()
        try:
            film = read_image(damaged(FILES[name], chance))
        except Refused as refused:
            assert refused.problem.found.isprintable()  # noqa: PT017
        else:
            assert isinstance(film, ChestImage)
            assert film.pixels.dtype == np.uint8
            assert min(film.pixels.shape) >= 224
        assert time.perf_counter() - start < SECONDS_EACH


@pytest.mark.parametrize("size", [0, 1, 7, 131, 132, 133, 1000])
def test_noise_of_any_length(size: int) -> None:
    chance = random.Random(size)
    for head in (
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"II*\x00",
        b"MM\x00+",
        bytes(128) + b"DICM",
        b"\x02\x00\x10\x00",
    ):
        with pytest.raises(Refused):
            read_image(head + chance.randbytes(size))
