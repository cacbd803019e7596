"""What the clients post is read by the service's own readers, and no two visits carry the same bytes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from benchmarks import files
from data_specs.cxr.files import read_image
from data_specs.ecg.files import group_recordings, read_recording
from data_specs.ecg.posted import PostedFile


@pytest.mark.parametrize("syntax", files.SYNTAXES.values())
def test_dicom_films_hold_the_film(syntax):
    content = files.dicom(syntax, size_px=256)
    assert content.count(files.MARK) == 4  # the study, the series, and the object in the file meta and in the data set
    image = read_image(files.numbered(content, 3))
    assert (image.format, image.pixels.shape, image.problems) == ("dicom", (256, 256), ())
    assert np.corrcoef(image.pixels.ravel(), files.film(256).ravel())[0, 1] > 0.99


def test_a_numbered_png_keeps_its_checksums_and_pixels(tmp_path):
    content = files.numbered(files.png(256), 12)
    path = tmp_path / "film.png"
    path.write_bytes(content)
    with Image.open(path) as image:
        image.verify()  # every chunk's CRC
    with Image.open(path) as image:
        image.load()
        assert image.text["Comment"].endswith("12")
    assert np.array_equal(read_image(content).pixels, files.film(256))


def test_the_recording_is_read():
    header, signal = files.recording()
    posted = [PostedFile(0, "E07517.hea", files.numbered(header, 5)), PostedFile(1, "E07517.mat", signal)]
    (group,) = group_recordings(posted)
    assert read_recording(group, ecg_unit=None).samples.shape == (12, 5000)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("kind", ["png", "wfdb"])
def test_bodies_differ_by_number_and_not_in_length(kind, raw):
    body = files.KINDS[kind](raw)
    made = [files.numbered(body.content, number) for number in (0, 1, 10**12)]
    assert len({hashlib.sha256(one).digest() for one in made}) == 3
    assert len({len(one) for one in made}) == 1
    assert files.MARK not in made[0]
