"""The files to post: a drawn film as PNG and in the DICOM transfer syntaxes of hospitals, and the sample recording.

Each body has a place for a number, so that no two visits have the same bytes. Otherwise a store would not write a known
file again, and a service might answer from a cache.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.drawn import chest

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "samples"
DRAWN = "drawn"
"""The film that :func:`benchmarks.drawn.chest` draws: of no person."""
MARK = b"@NUMBER-OF-VISIT"
"""Place of a visit's number, 16 digits."""
PNG_TEXT = b"tEXtComment\x00"
PNG_MARK = PNG_TEXT + MARK + b"CRC!"
BOUNDARY = "----benchmark-boundary"
CONTEXT = {"person": {"age_years": 42, "sex": "female"}}
DICOM_PX = 2048
EXPLICIT, RLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"
JPEG_LOSSLESS, JPEG_LS = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80"
J2K, HTJ2K = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201"
SYNTAXES = {
    "explicit": EXPLICIT,
    "rle": RLE,
    "jpeg-lossless": JPEG_LOSSLESS,
    "jpeg-ls": JPEG_LS,
    "j2k": J2K,
    "htj2k": HTJ2K,
}
"""Transfer syntaxes (PS3.6, table A-1) in which a film loses nothing, by a short name."""
LABS = [{"name": "creatinine", "value": 84, "unit": "umol/L"}, {"name": "urine_acr", "value": 2, "unit": "mg/mmol"}]


@dataclass(frozen=True)
class Body:
    """The body of one request.

    Parameters
    ----------
    content
        Body with at least one :data:`MARK`.
    organ
        Organ that has to be assessed in the answer.
    n_bytes
        Size of the files in it.
    visits
        How many visits it holds; more than one are posted to another address.
    """

    content: bytes
    content_type: str
    organ: str
    n_bytes: int
    visits: int = 1

    @property
    def path(self) -> str:
        """Where it is posted."""
        return "/v1/visits" if self.visits == 1 else "/v1/visits/bulk"


def film(size_px: int = 512, which: str = DRAWN) -> NDArray[np.uint8]:
    """The drawn film or one of the samples, ``(size_px, size_px) uint8``."""
    if which == DRAWN:
        return chest(size_px).astype(np.uint8)
    image = Image.open(SAMPLES / f"{which}.jpg").convert("L")
    return np.asarray(image.resize((size_px, size_px), Image.Resampling.BICUBIC))


def png(size_px: int = 512, which: str = DRAWN) -> bytes:
    """A film as PNG, with the mark in a text chunk before its end."""
    stream = io.BytesIO()
    Image.fromarray(film(size_px, which)).save(stream, "PNG")
    content = stream.getvalue()
    end = content.rindex(b"IEND") - 4
    n_data = len(PNG_TEXT) - 4 + len(MARK)
    return content[:end] + n_data.to_bytes(4, "big") + PNG_MARK + content[end:]


def digits(number: int) -> bytes:
    """A visit's number in 16 digits; the first is not zero, because a component of a UID must not start with zero."""
    return str(10**15 + number).encode()


def pieces_of(content: bytes) -> Callable[[int], list[bytes]]:
    """A function from a request's number to its body, in pieces; the checksum of a PNG's text chunk is computed.

    Each PNG of a body has a number of its own, so that no two are the same file.
    """
    if PNG_MARK in content:
        before, *after = content.split(PNG_MARK)

        def png_pieces(number: int) -> list[bytes]:
            pieces = [before]
            for i, rest in enumerate(after):
                chunk = PNG_TEXT + digits(number if len(after) == 1 else 1000 * number + i)
                pieces += [chunk + zlib.crc32(chunk).to_bytes(4, "big"), rest]
            return pieces

        return png_pieces
    parts = content.split(MARK)
    return lambda number: [piece for part in parts for piece in (digits(number), part)][1:]


def numbered(content: bytes, number: int) -> bytes:
    """The body of the visit with this number."""
    return b"".join(pieces_of(content)(number))


def twelve_bit_film(size_px: int = DICOM_PX) -> NDArray[np.uint16]:
    """The drawn film as from a detector: 12 bit, ``size_px`` square, with noise of 8 of 4096 grey levels."""
    return chest(size_px, levels=4096, noise=8)


def codestream(values: NDArray[np.uint16], syntax: str) -> bytes:
    """A film of 12 bits as one frame of a compressed ``syntax``."""
    import imagecodecs  # noqa: PLC0415

    encoders: dict[str, Callable[[], bytes]] = {
        JPEG_LOSSLESS: lambda: imagecodecs.jpeg8_encode(values, lossless=True, predictor=1, bitspersample=12),
        JPEG_LS: lambda: imagecodecs.jpegls_encode(values),
        J2K: lambda: imagecodecs.jpeg2k_encode(values, codecformat="j2k", reversible=True, bitspersample=12),
        HTJ2K: lambda: imagecodecs.htj2k_encode(values, reversible=True),
    }
    return encoders[syntax]()


def dicom(syntax: str, size_px: int = DICOM_PX) -> bytes:
    """The film as DICOM DX, of 12 bits in 16, in one of :data:`SYNTAXES`."""
    from pydicom.dataset import Dataset, FileMetaDataset  # noqa: PLC0415
    from pydicom.encaps import encapsulate  # noqa: PLC0415
    from pydicom.uid import RLELossless  # noqa: PLC0415

    values = twelve_bit_film(size_px)
    ds = Dataset()
    ds.SOPClassUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.1.1", "DX"
    root = "1.2.826.0.1." + len(MARK) * "1"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = f"{root}.1", f"{root}.2", f"{root}.3"
    ds.BodyPartExamined, ds.ViewPosition, ds.PhotometricInterpretation = "CHEST", "PA", "MONOCHROME2"
    ds.Rows, ds.Columns = values.shape
    ds.SamplesPerPixel, ds.PixelRepresentation = 1, 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.WindowCenter, ds.WindowWidth = 2048, 4096
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = EXPLICIT if syntax == RLE else syntax
    if syntax in (EXPLICIT, RLE):
        ds.PixelData = values.astype("<u2").tobytes()
        ds["PixelData"].VR = "OW"
    else:
        ds.PixelData = encapsulate([codestream(values, syntax)])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
    if syntax == RLE:
        ds.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    out = io.BytesIO()
    ds.save_as(out, implicit_vr=False, little_endian=True, enforce_file_format=True)
    return out.getvalue().replace(root.encode(), root.encode()[: -len(MARK)] + MARK)


def recording() -> tuple[bytes, bytes]:
    """Header (with the mark in a comment) and signal of the sample recording (12 leads, 10 s, 500 Hz)."""
    header = (SAMPLES / "E07517.hea").read_bytes()
    return header.rstrip(b"\n") + b"\n# visit " + MARK + b"\n", (SAMPLES / "E07517.mat").read_bytes()


def multipart(parts: list[tuple[str, str, bytes]], organ: str, context: Mapping[str, Any] | None = CONTEXT) -> Body:
    """A form of parts ``(field, filename, content)`` and, unless it is ``None``, the context, by default an adult's."""
    pieces = [_file_part(field, name, content) for field, name, content in parts]
    pieces += [*([] if context is None else [_context_part("context", context)]), _END]
    n_bytes = sum(len(content) for _, _, content in parts)
    return Body(b"".join(pieces), f"multipart/form-data; boundary={BOUNDARY}", organ, n_bytes)


def bulk(visits: int = 32) -> Body:
    """Many visits of one PNG each, in one request."""
    content = png()
    pieces = [
        _file_part(f"{i}/image", "f.png", content) + _context_part(f"{i}/context", CONTEXT) for i in range(visits)
    ]
    whole = b"".join([*pieces, _END])
    return Body(whole, f"multipart/form-data; boundary={BOUNDARY}", "lung", visits * len(content), visits)


_END = f"--{BOUNDARY}--\r\n".encode()


def _file_part(field: str, name: str, content: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
    return head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n"


def _context_part(field: str, context: Mapping[str, Any]) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n'
    return f"{head}{json.dumps(context)}\r\n".encode()


def one_file(content: bytes, name: str, content_type: str, *, raw: bool) -> Body:
    """A visit of one film, as multipart or as a raw body (without context)."""
    return Body(content, content_type, "lung", len(content)) if raw else multipart([("image", name, content)], "lung")


def _dicom_kind(syntax: str) -> Callable[[bool], Body]:
    return lambda raw: one_file(dicom(syntax), "f.dcm", "application/dicom", raw=raw)


def _check_up(raw: bool) -> Body:
    """A film, a recording and laboratory values in one visit, as a programme posts it."""
    if raw:
        raise ValueError("a check-up has several files")
    header, signal = recording()
    parts = [("image", "f.dcm", dicom(JPEG_LOSSLESS)), ("ecg", "E07517.hea", header), ("ecg", "E07517.mat", signal)]
    return multipart(parts, "kidney", {**CONTEXT, "labs": LABS})


KINDS: dict[str, Callable[[bool], Body]] = {
    "png": lambda raw: one_file(png(), "f.png", "image/png", raw=raw),
    **{name: _dicom_kind(syntax) for name, syntax in SYNTAXES.items()},
    "wfdb": lambda raw: _wfdb(raw),  # noqa: PLW0108  defined below
    "check-up": _check_up,
}
"""Kinds of visit: PNG 512², DICOM 2048² of 12 in 16 bit in each syntax, a WFDB recording, and all of a check-up;
argument: raw body."""


def _wfdb(raw: bool) -> Body:
    header, signal = recording()
    if not raw:
        return multipart([("ecg", "E07517.hea", header), ("ecg", "E07517.mat", signal)], "cardiac")
    import zipfile  # noqa: PLC0415

    header = header.replace(MARK, digits(0))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("E07517.hea", header)
        archive.writestr("E07517.mat", signal)
        archive.comment = MARK  # not in a file, where a checksum would be wrong
    return Body(stream.getvalue(), "application/zip", "cardiac", len(stream.getvalue()))
