"""A reader cannot import: whatever any format needs is loaded before readers are forked."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import ROOT
from tests.data_specs import cxr_made
from tests.data_specs.ecg.test_files import made_files

TIFF = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")


def films() -> list[bytes]:
    """A film in every transfer syntax and raster format that can be written here."""
    syntaxes = [value for name, value in vars(cxr_made).items() if name.isupper() and "1.2.840.10008.1.2" in str(value)]
    made = []
    for bits, kind in ((8, np.uint8), (12, np.uint16)):
        for syntax in syntaxes:
            try:
                made.append(cxr_made.dicom(cxr_made.phantom(bits, 240, 232).astype(kind), syntax, bits=bits))
            except (KeyError, ValueError, TypeError, RuntimeError):  # no encoder for this depth
                continue
    grey = Image.fromarray(cxr_made.phantom(8, 240, 232).astype(np.uint8))
    for mode in ("L", "RGB", "P", "CMYK"):
        for options in ({"format": "PNG"}, {"format": "JPEG"}, *({"format": "TIFF", "compression": c} for c in TIFF)):
            stream = io.BytesIO()
            try:
                grey.convert(mode).save(stream, **options)
            except (OSError, RuntimeError):  # no such kind of this format
                continue
            made.append(stream.getvalue())
    return made


def test_nothing_is_imported_while_files_of_all_formats_are_read(tmp_path: Path) -> None:
    made = films()
    assert len(made) > 40
    (tmp_path / "files").write_bytes(pickle.dumps((made, [dict(files) for files in made_files().values()])))
    command = [sys.executable, "-m", "tests.inference.readers.late_imports", str(tmp_path / "files")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []
