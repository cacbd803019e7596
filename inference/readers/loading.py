"""Loads what readers need before they are forked: a reader cannot open a file by its name, and so cannot import."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from contextlib import suppress

JOBS = (
    *("inference.cxr.reading", "inference.ecg.reading", "inference.ecg.picture", "inference.render.reading"),
    *("inference.readers.header", "inference.render.sharing"),
)
"""Where the jobs are. They stand in rooms above this one, so they are named and not imported."""
PACKAGES = ("data_specs.dicom", "data_specs.cxr", "data_specs.ecg")
"""All their modules are loaded, those too that are imported only where they are used."""
LIBRARIES = (
    *("inference.ecg.delineate", "inference.ecg.gate", "inference.ecg.measure"),
    *("pydicom", "pydicom.filereader", "tifffile", "soundfile", "scipy.signal", "scipy.ndimage", "PIL.ImageDraw"),
    *("PIL.PngImagePlugin", "PIL.JpegImagePlugin", "PIL.TiffImagePlugin", "PIL.ImageFont"),
    *("zipfile", "bz2", "lzma", "zlib", "stringprep", "unicodedata", "xml.etree.ElementTree", "defusedxml.ElementTree"),
)
CODECS = (
    *("png", "jpeg8", "jpegls", "jpeg2k", "dicomrle", "lzw", "deflate", "zlib", "packbits", "packints", "delta"),
    *("bitorder", "jpeg", "none", "byteshuffle"),
)
"""Decoders of imagecodecs, each of which is loaded at its first use."""


def load(jobs: Iterable[str]) -> None:
    """Import the libraries, and the modules of the jobs."""
    for name in (*LIBRARIES, *_modules(PACKAGES), *jobs):
        importlib.import_module(name)
    import imagecodecs  # noqa: PLC0415  the service imports this module for its names only
    import PIL.Image  # noqa: PLC0415
    import PIL.ImageFont  # noqa: PLC0415

    for codec in CODECS:
        getattr(imagecodecs, f"{codec}_decode")
    PIL.Image.preinit()
    PIL.ImageFont.load_default(10)
    for name in _modules(("encodings",)):  # any of them may be named by an XML or DICOM file
        with suppress(ImportError):  # those of Windows
            importlib.import_module(name)


def _modules(packages: Iterable[str]) -> list[str]:
    """The modules of packages, and of the packages in them."""
    return [
        found.name
        for package in packages
        for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
    ]
