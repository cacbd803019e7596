"""Damage repeats by its seed, and is done where a format has its numbers."""

from __future__ import annotations

import io
import random
import struct
import zlib

import pytest
from PIL import Image

from benchmarks.chaos.mutations import MAX_BYTES, Material, mutated
from benchmarks.chaos.places import Place, numbers_of, places_of
from benchmarks.chaos.readers import Inputs
from benchmarks.chaos.seeds import SYNTAXES, Seed, made_seeds, zipped
from benchmarks.files import EXPLICIT, dicom, png


@pytest.fixture(scope="module")
def seeds() -> dict[str, Seed]:
    return {seed.name: seed for seed in made_seeds()}


def value_at(content: bytes, place: Place) -> int:
    return int.from_bytes(content[place.at : place.at + place.size], "little" if place.order == "<" else "big")


def test_lengths_of_a_dicom_file_are_found() -> None:
    content = dicom(EXPLICIT, 232)
    places = places_of(content)
    values = {(place.size, value_at(content, place)) for place in places}
    assert (2, 0x7FE0) in values  # the group of PixelData
    assert (4, 2 * 232 * 232) in values  # its length
    assert (2, 232) in values  # Rows
    assert all(132 <= place.at < len(content) for place in places)


def test_chunks_of_a_png_are_found() -> None:
    content = png(232)
    values = {value_at(content, place) for place in places_of(content) if place.size == 4}
    assert {13, 232, int.from_bytes(b"IHDR"), int.from_bytes(b"IEND")} <= values


def test_directories_of_tiff_and_zip_are_found(seeds: dict[str, Seed]) -> None:
    for name in ("film TIFF lzw", "film TIFF 16 tiled"):
        (material,) = seeds[name].materials
        assert {232, 256, 257} <= {value_at(material.content, place) for place in material.places}
    content = zipped({"a.csv": b"x" * 777})
    assert [value_at(content, place) for place in places_of(content)].count(777) == 2  # local and central header


def test_numbers_of_texts_are_found() -> None:
    assert [b"a 12,3.5\nb"[a:b] for a, b in numbers_of(b"a 12,3.5\nb")] == [b"12", b"3.5"]
    assert numbers_of(b"a\x0012") == ()
    assert places_of(b"a text") == ()


@pytest.mark.parametrize("cut", [0, 3, 130, 140, 200])
def test_a_file_that_is_cut_off_has_places_within(cut: int) -> None:
    for content in (dicom(EXPLICIT, 232), png(232), zipped({"a": b"b" * 99})):
        short = content[:cut]
        assert all(place.at + place.size <= cut for place in places_of(short))


def test_the_same_number_gives_the_same_input_and_another_number_another() -> None:
    one, other = Inputs(7), Inputs(7)
    numbers = range(200, 260)
    assert [one[n].contents for n in numbers] == [other[n].contents for n in numbers]
    assert len({one[n].contents for n in numbers}) > 55
    assert one[200].contents != Inputs(8)[200].contents


def test_damage_changes_most_files_and_is_bounded(seeds: dict[str, Seed]) -> None:
    changed = total = 0
    for seed in seeds.values():
        for material in seed.materials:
            for n in range(5):
                made = mutated(material, random.Random(n), [b"another file"])
                assert len(made) <= MAX_BYTES
                changed, total = changed + (made != material.content), total + 1
    assert changed > 0.9 * total


def test_a_damaged_png_has_right_checksums() -> None:
    material = Material.of(png(232))
    right = 0
    for n in range(100):
        made = mutated(material, random.Random(n), [])
        (length,) = struct.unpack_from(">L", made.ljust(12, b"\0"), 8)
        if length == 13 and len(made) > 33:
            right += zlib.crc32(made[12:29]) == int.from_bytes(made[29:33])
    assert right > 60


def test_every_format_has_a_seed(seeds: dict[str, Seed]) -> None:
    assert {f"film {name}" for name in SYNTAXES} <= seeds.keys()
    assert {
        f"recording {name}" for name in ("wfdb", "csv", "scp huffman", "philips", "zip wfdb stored")
    } <= seeds.keys()
    with Image.open(io.BytesIO(seeds["film PNG I;16"].files[0][1])) as image:
        assert image.mode.startswith("I;16")
