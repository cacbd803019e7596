"""Chest films that tests make: a phantom, and DICOM files around it in every transfer syntax."""

from __future__ import annotations

import io
import struct
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

import data_specs.dicom.header  # noqa: F401  pydicom then takes strange values without a warning

EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED, UNCOMPRESSED, DEFLATED_FRAME = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.8.1"
RLE = "1.2.840.10008.1.2.5"
JPEG, JPEG_12, JPEG_LOSSLESS, JPEG_LOSSLESS_SV1 = (f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70))
JPEG_LS, JPEG_LS_NEAR, J2K, J2K_LOSSY = (f"1.2.840.10008.1.2.4.{n}" for n in (80, 81, 90, 91))
J2K_PART2, HTJ2K, HTJ2K_RPCL, HTJ2K_LOSSY = (f"1.2.840.10008.1.2.4.{n}" for n in (92, 201, 202, 203))

CR, DX, SC, CT = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("1", "1.1", "7", "2"))


def phantom(bits: int = 12, rows: int = 256, columns: int = 240) -> NDArray[np.uint16]:
    """Two dark lungs in a bright body under a bright marker in the upper left corner: which way up shows."""
    y, x = np.mgrid[0:rows, 0:columns] / np.array([rows, columns]).reshape(2, 1, 1)
    body = 0.75 + 0.15 * np.cos(3 * x) + 0.05 * np.sin(40 * y)
    for center in (0.3, 0.72):
        body -= 0.55 * np.exp(-(((x - center) / 0.13) ** 4) - ((y - 0.45) / 0.3) ** 4)
    body[5:20, 5:25] = 1
    return np.rint(np.clip(body, 0.02, 1) * (2**bits - 1)).astype(np.uint16)


def full_window(bits: int) -> dict[str, float]:
    """A window that shows every value of this depth."""
    return {"WindowCenter": 2 ** (bits - 1), "WindowWidth": 2**bits}


def encoded(values: NDArray[Any], syntax: str, bits: int) -> bytes:
    """One frame as a codestream of ``syntax``."""
    codec, options = {
        JPEG: ("jpeg8", {"level": 95}),
        JPEG_12: ("jpeg8", {"level": 98, "bitspersample": 12}),
        JPEG_LOSSLESS: ("jpeg8", {"lossless": True, "predictor": 4, "bitspersample": bits}),
        JPEG_LOSSLESS_SV1: ("jpeg8", {"lossless": True, "predictor": 1, "bitspersample": bits}),
        JPEG_LS: ("jpegls", {}),
        JPEG_LS_NEAR: ("jpegls", {"level": 2}),
        J2K: ("jpeg2k", {"codecformat": "j2k", "reversible": True, "bitspersample": bits}),
        J2K_PART2: ("jpeg2k", {"codecformat": "j2k", "reversible": True, "bitspersample": bits}),
        J2K_LOSSY: ("jpeg2k", {"codecformat": "j2k", "level": 70, "bitspersample": bits}),
        HTJ2K: ("htj2k", {"reversible": True}),
        HTJ2K_RPCL: ("htj2k", {"reversible": True}),
        HTJ2K_LOSSY: ("htj2k", {"reversible": False}),
    }[syntax]
    content: bytes = getattr(imagecodecs, f"{codec}_encode")(values, **options)
    return content


def rle(values: NDArray[Any]) -> bytes:
    """One grey frame in RLE (PS3.5 Annex G): a segment for each byte of a value, the highest first, of even length."""
    width = values.dtype.itemsize
    planes = np.ascontiguousarray(values).astype(f"<u{width}").reshape(-1).view(np.uint8).reshape(-1, width)
    segments = [bytes(imagecodecs.packbits_encode(planes[:, k].tobytes())) for k in reversed(range(width))]
    segments = [segment + b"\x80" * (len(segment) % 2) for segment in segments]
    offsets = [64 + sum(map(len, segments[:k])) for k in range(width)]
    return struct.pack("<16L", width, *offsets, *[0] * (15 - width)) + b"".join(segments)


def dicom(
    values: NDArray[Any] | None,
    syntax: str = EXPLICIT,
    *,
    bits: int = 12,
    codestream: bytes | None = None,
    signed: bool = False,
    **tags: Any,
) -> bytes:
    """A DICOM file around ``values``; ``tags`` are set last, ``None`` removes an element."""
    ds = Dataset()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3.4.5.7", "1.2.3.4.5"
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = DX, "1.2.3.4.5.6", "DX"
    ds.StudyDate, ds.PatientID, ds.PatientName = "20260102", "P-17", "Secret^Name"
    ds.BodyPartExamined, ds.ViewPosition, ds.PhotometricInterpretation = "CHEST", "PA", "MONOCHROME2"
    if values is not None:
        ds.Rows, ds.Columns = values.shape[:2]
        ds.SamplesPerPixel = 1 if values.ndim == 2 else 3
        if values.ndim == 3:
            ds.PlanarConfiguration = 0
        ds.BitsAllocated = 8 * values.dtype.itemsize
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, int(signed)
        _set_pixels(ds, values, syntax, bits, codestream)
    set_tags(ds, tags)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID") or "1.2.3.4.5.6"
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == RLE and codestream is None:
        ds.file_meta.TransferSyntaxUID = EXPLICIT
        ds.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    out = io.BytesIO()
    if syntax == DEFLATED_FRAME:  # younger than pydicom's dictionary
        ds.file_meta.TransferSyntaxUID = JPEG
    ds.save_as(out, implicit_vr=syntax == IMPLICIT, little_endian=syntax != BIG, enforce_file_format=True)
    content = out.getvalue()
    return content.replace(JPEG.encode(), f"{DEFLATED_FRAME}\0".encode(), 1) if syntax == DEFLATED_FRAME else content


def set_tags(dataset: Dataset, tags: dict[str, Any]) -> None:
    """Set elements; ``None`` removes one. Identifiers are written as they are, with what stands around them."""
    for keyword, value in tags.items():
        if value is None:
            dataset.pop(keyword, None)
        elif dictionary_VR(keyword) == "UI":
            dataset.add_new(keyword, "UI", None)
            dataset[keyword]._value = value.encode().decode("latin-1")
        else:
            setattr(dataset, keyword, value)


def _set_pixels(ds: Dataset, values: NDArray[Any], syntax: str, bits: int, codestream: bytes | None) -> None:
    native = syntax in (EXPLICIT, IMPLICIT, BIG, DEFLATED, RLE)
    if native and codestream is None:
        order = ">" if syntax == BIG else "<"
        data = np.ascontiguousarray(values).astype(values.dtype.newbyteorder(order)).tobytes()
        if syntax == BIG and values.dtype.itemsize == 1:
            data = np.frombuffer(data, np.uint16).byteswap().tobytes()
        ds.PixelData = data
        ds["PixelData"].VR = "OW"
        return
    if codestream is None and syntax == UNCOMPRESSED:
        codestream = values.astype(values.dtype.newbyteorder("<")).tobytes()
    elif codestream is None and syntax == DEFLATED_FRAME:
        import zlib

        deflater = zlib.compressobj(wbits=-15)
        codestream = deflater.compress(values.astype(values.dtype.newbyteorder("<")).tobytes()) + deflater.flush()
    ds.PixelData = encapsulate([codestream or encoded(values, syntax, bits)])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
