"""Reads a chest film of any accepted format. The bytes decide which format it is, not the name of the file."""

from __future__ import annotations

from dataclasses import replace

from data_specs.cxr.image import SHOWN_PERCENTILES, ChestImage, Window
from data_specs.dicom.reference import is_dicom, starts_with_element
from data_specs.problems import Refused
from data_specs.reading import refusals_only

ACCEPTED_FORMATS = "DICOM, PNG, JPEG, TIFF"

SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
)
"""First bytes of the raster formats: PNG (W3C, section 5.2), JPEG (ITU-T T.81, Annex B: SOI and the next marker),
TIFF 6.0 (section 2) and BigTIFF (version 43)."""

REFUSED_SIGNATURES = (
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"RIFF", "RIFF"),
    (b"\x1f\x8b", "GZIP"),
    (b"<", "XML"),
    (b"{", "JSON"),
)
"""First bytes of other common formats, so that the refusal can name them."""


DICOM_ROOT = b"1.2.840.10008."
"""Root of the UIDs that DICOM registers (PS3.5 section 9). Near the start of a file without the DICOM prefix, it shows
a DICOM file that lost its beginning."""


def sniff(content: bytes) -> str | None:
    """``dicom``, ``png``, ``jpeg`` or ``tiff`` from the first bytes; ``None`` for anything else.

    A DICOM file has ``DICM`` at byte 128 (PS3.10 section 7.1). A file without it counts as DICOM where it begins with
    an element of group 0002 or 0008, or holds a DICOM UID near its start, so that the refusal can say what is wrong.
    """
    if is_dicom(content):
        return "dicom"
    for signature, name in SIGNATURES:
        if content.startswith(signature):
            return name
    if any(content.startswith(signature) for signature, _ in REFUSED_SIGNATURES):
        return None
    return "dicom" if starts_with_element(content) or DICOM_ROOT in content[:1024] else None


def read_image(content: bytes, window: Window = "as_sent", *, least_px: int | None = None) -> ChestImage:
    """Read one chest film.

    Parameters
    ----------
    content
        The whole file.
    window
        ``as_sent``, which is what is assessed; others are for people who look at it.
    least_px
        Where a format can be decoded at a lower resolution, the shorter side need be no longer than this; ``None``: in
        full.

    Returns
    -------
    The film as it is to be looked at, with what the file states about it

    Raises
    ------
    Refused
        ``unsupported_format`` for anything that is not DICOM, PNG, JPEG or TIFF; otherwise as
        :func:`data_specs.cxr.dicom.read_dicom` and :func:`data_specs.cxr.raster.read_raster` say. No bytes make this
        function raise another exception.
    """
    name = sniff(content)
    if name is None:
        known = next((other for signature, other in REFUSED_SIGNATURES if content.startswith(signature)), "")
        raise Refused("unsupported_format", known or f"{len(content)} B", ACCEPTED_FORMATS)
    with refusals_only(name.upper(), ACCEPTED_FORMATS):
        if name == "dicom":
            from data_specs.cxr.dicom import read_dicom  # noqa: PLC0415 (pydicom is not needed for a raster)

            return read_dicom(content, SHOWN_PERCENTILES.get(window), least_px)
        from data_specs.cxr.grey import spread  # noqa: PLC0415
        from data_specs.cxr.raster import read_raster  # noqa: PLC0415

        image = read_raster(content, name)
        return image if window == "as_sent" else replace(image, pixels=spread(image.pixels, SHOWN_PERCENTILES[window]))
