"""One function from the bytes of a chest film to a checked array: what the bytes are decides, not the file's name."""

from __future__ import annotations

from data_specs.cxr.image import ChestImage
from data_specs.dicom.reference import is_dicom, starts_with_element
from data_specs.problems import Refused

ACCEPTED = "DICOM, PNG, JPEG, TIFF"

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

OTHERS = (
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
"""What else is commonly sent: only so that the refusal can name it."""


DICOM_ROOT = b"1.2.840.10008."
"""Root of the UIDs that DICOM registers (PS3.5 section 9): near the start of bytes that are no more than text or
elements, what is left of a DICOM file whose beginning was lost."""


def sniff(content: bytes) -> str | None:
    """``dicom``, ``png``, ``jpeg`` or ``tiff`` from the first bytes; ``None`` for anything else.

    A DICOM file has ``DICM`` at byte 128 (PS3.10 section 7.1). One without that preamble is recognised by its first
    element, of group 0002 or 0008 in little endian, or 0008 in big endian, or by a DICOM UID: enough to say why it
    cannot be read.
    """
    if is_dicom(content):
        return "dicom"
    for signature, name in SIGNATURES:
        if content.startswith(signature):
            return name
    if any(content.startswith(signature) for signature, _ in OTHERS):
        return None
    return "dicom" if starts_with_element(content) or DICOM_ROOT in content[:1024] else None


def read_image(content: bytes) -> ChestImage:
    """Read one chest film.

    Parameters
    ----------
    content
        The whole file.

    Returns
    -------
    The film as it is to be looked at, with what the file says of it

    Raises
    ------
    Refused
        ``unsupported_format`` for anything that is not DICOM, PNG, JPEG or TIFF; otherwise as
        :func:`data_specs.cxr.dicom.read_dicom` and :func:`data_specs.cxr.raster.read_raster` say. No other exception
        leaves this function, whatever the bytes.
    """
    name = sniff(content)
    if name is None:
        known = next((other for signature, other in OTHERS if content.startswith(signature)), "")
        raise Refused("unsupported_format", known or f"{len(content)} B", ACCEPTED)
    try:
        if name == "dicom":
            from data_specs.cxr.dicom import read_dicom  # noqa: PLC0415 (pydicom is not needed for a raster)

            return read_dicom(content)
        from data_specs.cxr.raster import read_raster  # noqa: PLC0415

        return read_raster(content, name)
    except Refused:
        raise
    except Exception as error:
        # Parsers and native decoders raise anything on damaged bytes. What they say may quote the file, so only the
        # kind of error is told; the cause stays chained for whoever debugs.
        raise Refused("unreadable", f"{name.upper()}: {type(error).__name__}", ACCEPTED) from error
