"""A film without a name as DICOM: Computed Radiography Image, made anew of pixels and of the elements in ``kept.csv``.

References
----------
DICOM PS3.3, section A.2 (CR Image IOD), C.7.1.1 (Patient), C.7.6.3 (Image Pixel), C.12.1 (SOP Common); PS3.15, annex E.
"""

from __future__ import annotations

import io
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data_specs.person import Sex
from inference.render.sharing import SharedFilm
from service.export.profile import CODES
from service.report.dicom.identity import IMPLEMENTATION_UID, SEXES

if TYPE_CHECKING:
    from pydicom import Dataset

CR_IMAGE = "1.2.840.10008.5.1.4.1.1.1"
"""SOP class (PS3.4, table B.5-1)."""
PIXEL_DATA = bytes.fromhex("e07f1000")
"""Tag of the pixel data, little endian (PS3.5, section 7.1); all other elements stand before it."""
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
"""Transfer syntax (PS3.6, table A-1)."""


def film_file(
    film: SharedFilm,
    pixels: NDArray[np.generic],
    *,
    person: str,
    age: int | None,
    sex: Sex | None,
    made_on: date | None,
    uids: tuple[str, str, str],
) -> bytes:
    """The file of a film.

    Parameters
    ----------
    pixels
        ``(rows, columns) uint8``, higher is brighter, text blacked out.
    person
        Pseudonym.
    made_on
        The moved day of the visit.
    uids
        Of study, series and object.
    """
    from pydicom import Dataset  # noqa: PLC0415  loads pydicom

    dataset = Dataset()
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.SOPClassUID, dataset.Modality = CR_IMAGE, "CR"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = uids
    dataset.StudyDate, dataset.StudyTime = (f"{made_on:%Y%m%d}" if made_on else ""), ""
    for keyword in ("AccessionNumber", "Manufacturer", "ReferringPhysicianName", "StudyID", "PatientOrientation"):
        setattr(dataset, keyword, "")
    dataset.SeriesNumber, dataset.InstanceNumber = None, 1
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "", person, ""
    dataset.PatientSex = SEXES.get(sex or "", "")
    if age is not None:
        dataset.PatientAge = f"{age:03}Y"
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethodCodeSequence = [_code(value, meaning) for value, meaning in CODES]
    dataset.LongitudinalTemporalInformationModified = "MODIFIED"
    dataset.BurnedInAnnotation = "NO"
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", film.view or ""
    if film.pixel_mm is not None:
        dataset.ImagerPixelSpacing = [f"{each:.6g}" for each in film.pixel_mm]
    _add_pixels(dataset, np.ascontiguousarray(pixels, np.uint8))
    return _encoded(dataset)


def header_of(content: bytes) -> bytes:
    """What stands before the pixels in a file that :func:`film_file` made."""
    return content.partition(PIXEL_DATA)[0]


def _code(value: str, meaning: str) -> Dataset:
    from pydicom import Dataset  # noqa: PLC0415

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning[:64]
    return item


def _add_pixels(dataset: Dataset, pixels: NDArray[np.uint8]) -> None:
    """Eight bits as they are displayed: the window shows each value as it is."""
    import imagecodecs  # noqa: PLC0415
    from pydicom.encaps import encapsulate  # noqa: PLC0415

    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.WindowCenter, dataset.WindowWidth = 128, 256
    dataset.PixelData = encapsulate([bytes(imagecodecs.jpegls_encode(pixels))])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def _encoded(dataset: Dataset) -> bytes:
    from pydicom.dataset import FileMetaDataset  # noqa: PLC0415

    meta: Any = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID, meta.ImplementationClassUID = JPEG_LS_LOSSLESS, IMPLEMENTATION_UID
    dataset.file_meta = meta
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()
