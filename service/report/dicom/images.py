"""The heatmap as DICOM: a secondary capture, which any viewer shows, and outlines over the hospital's film (GSPS).

The capture is uncompressed, because every archive accepts that, and its size is limited, because the archive has the
film in full resolution already. 1024 × 1024 pixels are 3.1 MB (0.8 MB with lossless compression; 0.1 MB as JPEG, which
is lossy and which some archives refuse). The presentation state is 5 kB.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from data_specs.dicom.reference import DicomReference
from data_specs.problems import Refused
from data_specs.visit.assessment import EvidenceMap
from data_specs.visit.report import Report, ReportFinding
from data_specs.vocabulary import Language, display
from inference.render.outlines import outlines
from service.language.texts import opening
from service.report.dicom.identity import MAKER, encoded, made, new_dataset, presentable, reference
from service.report.dicom.values import day, paragraph, short, time
from service.report.words import finding_sentence, percent, say

if TYPE_CHECKING:
    from pydicom import Dataset

    from data_specs.dicom.header import Header

MAX_SIDE_PX = 1024
"""Longest side of a capture."""

LAYER = "FINDING"
LAYER_GREY = 65535
"""Recommended grey of the outlines in P-values: white (PS3.3 C.10.7)."""


def render_heatmap(report: Report, language: Language, finding: str, index: int, film_png: bytes) -> bytes:
    """The film with the heatmap over it, as a Secondary Capture in RGB (PS3.3 A.8.1), explicit VR little endian.

    No text is drawn into the pixels. The finding and its probability are in ImageComments and DerivationDescription.
    BurnedInAnnotation is left out: the film may show a name, so 'NO' could be false.

    Parameters
    ----------
    finding, index
        Of one of :func:`service.report.dicom.identity.instances`.
    film_png
        PNG of :func:`inference.render.pictures.evidence_png`; reduced to :data:`MAX_SIDE_PX` if it is larger.

    Raises
    ------
    KeyError
        This version has no such heatmap.
    Refused
        ``unreadable``: ``film_png`` is not a PNG image.
    """
    instance = made(report, language, "sc", finding, index)
    dataset = new_dataset(report, language, instance)
    sentence = finding_sentence(_finding(report, finding), language)
    dataset.ContentDate, dataset.ContentTime = day(report.issued_at), time(report.issued_at)
    dataset.ConversionType = "WSD"
    dataset.SecondaryCaptureDeviceManufacturer = MAKER
    dataset.DateOfSecondaryCapture, dataset.TimeOfSecondaryCapture = day(report.issued_at), time(report.issued_at)
    dataset.ImageType = ["DERIVED", "SECONDARY", "HEATMAP"]
    dataset.BodyPartExamined, dataset.PatientOrientation = "CHEST", ""
    dataset.DerivationDescription = paragraph(f"{say('sr_evidence', language)}: {sentence}")
    dataset.ImageComments = paragraph(f"{sentence}. {say('decision_support', language)}")
    source = reference(report, index)
    if source is not None:
        dataset.SourceImageSequence = [_source_image(source)]
    _add_pixels(dataset, film_png)
    return encoded(dataset)


def render_presentation(report: Report, language: Language, finding: str, index: int, posted: bytes) -> bytes:
    """Outlines of the heatmap over the hospital's film, as a Grayscale Softcopy Presentation State (PS3.3 A.33.1).

    Parameters
    ----------
    finding, index
        Of one of :func:`service.report.dicom.identity.instances`.
    posted
        The film's DICOM file. A presentation state replaces the film's own grey scale, so the film's rescaling and
        window are copied, and a MONOCHROME1 film is inverted (otherwise it would be shown as a negative).

    Raises
    ------
    KeyError
        This version has no such presentation state.
    Refused
        ``posted`` cannot be read: as :func:`data_specs.dicom.header.read_header`.

    References
    ----------
    DICOM PS3.4 section N.2 (the greyscale transformations of a presentation state); PS3.3 C.10.4, C.10.5, C.10.7,
    C.11.6, C.11.8, C.11.10, C.11.11.
    """
    from data_specs.dicom.header import read_header  # noqa: PLC0415  loads pydicom

    instance = made(report, language, "gsps", finding, index)
    film = presentable(report, index)
    if film is None or not film.Rows or not film.Columns:
        raise KeyError("gsps")
    found = _finding(report, finding)
    dataset = new_dataset(report, language, instance)
    name = opening(display(finding, language))
    dataset.BodyPartExamined = "CHEST"
    dataset.ContentLabel = "HEATMAP"
    dataset.ContentDescription = short(name)
    dataset.PresentationCreationDate, dataset.PresentationCreationTime = day(report.issued_at), time(report.issued_at)
    dataset.ContentCreatorName = ""
    dataset.ReferencedSeriesSequence = [
        _item(
            ReferencedImageSequence=[_image(film)],
            SeriesInstanceUID=film.SeriesInstanceUID,
        )
    ]
    dataset.DisplayedAreaSelectionSequence = [
        _item(
            DisplayedAreaTopLeftHandCorner=[1, 1],
            DisplayedAreaBottomRightHandCorner=[film.Columns, film.Rows],
            PresentationSizeMode="SCALE TO FIT",
            PresentationPixelAspectRatio=[1, 1],
        )
    ]
    dataset.GraphicLayerSequence = [
        _item(
            GraphicLayer=LAYER,
            GraphicLayerOrder=1,
            GraphicLayerRecommendedDisplayGrayscaleValue=LAYER_GREY,
            GraphicLayerDescription=short(say("sr_evidence", language)),
        )
    ]
    maps = [evidence for evidence in found.evidence if evidence.kind == "heatmap" and evidence.input == index]
    probability = percent(found.probability, language) if found.probability is not None else ""
    dataset.GraphicAnnotationSequence = [_annotation(film, maps, f"{name} {probability}".rstrip())]
    _add_grey_scale(dataset, read_header(posted))
    return encoded(dataset)


def _finding(report: Report, name: str) -> ReportFinding:
    return next(finding for finding in report.findings if finding.name == name)


def _item(**elements: Any) -> Dataset:
    from pydicom import Dataset  # noqa: PLC0415  only who renders DICOM loads pydicom

    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def _image(film: DicomReference) -> Dataset:
    return _item(ReferencedSOPClassUID=film.SOPClassUID, ReferencedSOPInstanceUID=film.SOPInstanceUID)


def _source_image(source: DicomReference) -> Dataset:
    """Item of SourceImageSequence (PS3.3 C.7.6.1), with its purpose (PS3.16 CID 7202)."""
    item = _image(source)
    item.PurposeOfReferenceCodeSequence = [
        _item(
            CodeValue="121322",
            CodingSchemeDesignator="DCM",
            CodeMeaning="Source image for image processing operation",
        )
    ]
    return item


def _add_pixels(dataset: Dataset, film_png: bytes) -> None:
    """Image Pixel module (PS3.3 C.7.6.3): 8-bit RGB, colour by pixel."""
    from PIL import Image  # noqa: PLC0415

    try:
        with Image.open(io.BytesIO(film_png), formats=("PNG",)) as image:
            picture = image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for bytes that are not a PNG
        raise Refused("unreadable", f"{len(film_png)} B", "PNG") from error
    picture.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture)
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    content = pixels.tobytes()
    dataset.add_new("PixelData", "OB", content + b"\0" * (len(content) % 2))


def _annotation(film: DicomReference, maps: list[EvidenceMap], words: str) -> Dataset:
    """Outlines in pixels of the film, and the words in a corner of the display (PS3.3 C.10.5)."""
    rows, columns = film.Rows or 1, film.Columns or 1
    lines = [
        _item(
            GraphicAnnotationUnits="PIXEL",
            GraphicDimensions=2,
            NumberOfGraphicPoints=len(points),
            GraphicData=(points * (columns, rows)).round(2).ravel().tolist(),
            GraphicType="POLYLINE",
            GraphicFilled="N",
        )
        for evidence in maps
        for points in outlines(evidence.values)
    ]
    label = _item(
        BoundingBoxAnnotationUnits="DISPLAY",
        UnformattedTextValue=paragraph(words),
        BoundingBoxTopLeftHandCorner=[0.02, 0.02],
        BoundingBoxBottomRightHandCorner=[0.98, 0.08],
        BoundingBoxTextHorizontalJustification="LEFT",
    )
    item = _item(ReferencedImageSequence=[_image(film)], GraphicLayer=LAYER, TextObjectSequence=[label])
    if lines:
        item.GraphicObjectSequence = lines
    return item


def _add_grey_scale(dataset: Dataset, header: Header) -> None:
    """The film's own steps from stored values to displayed greys: Modality LUT, window or VOI LUT, polarity."""
    inverse = header.text("PhotometricInterpretation").strip().upper() == "MONOCHROME1"
    dataset.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    tables = [
        table for item in header.items("ModalityLUTSequence")[:1] if (table := _table(header, item, normalised=False))
    ]
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    if tables:
        tables[0].ModalityLUTType = "US"
        dataset.ModalityLUTSequence = tables
    elif slope is not None and intercept is not None:
        dataset.RescaleIntercept, dataset.RescaleSlope = _decimal(intercept), _decimal(slope)
        dataset.RescaleType = "US"
    tables = [table for item in header.items("VOILUTSequence")[:1] if (table := _table(header, item, normalised=True))]
    centre, width = header.number("WindowCenter"), header.number("WindowWidth")
    shown = None
    if tables:
        shown = _item(VOILUTSequence=tables)
    elif centre is not None and width is not None and width >= 1:
        shown = _item(WindowCenter=_decimal(centre), WindowWidth=_decimal(width))
        function = header.text("VOILUTFunction").strip().upper()
        if function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
            shown.VOILUTFunction = function
    if shown is not None:
        dataset.SoftcopyVOILUTSequence = [shown]


def _decimal(value: float) -> str:
    """DS: a number in at most 16 characters (PS3.5 table 6.2-1)."""
    from pydicom.valuerep import format_number_as_ds  # noqa: PLC0415

    return format_number_as_ds(value)


def _table(header: Header, item: dict[str, Any], *, normalised: bool) -> Dataset | None:
    """A look-up table of the film in 16 bits, which a presentation state allows; ``None`` if it is not valid.

    Parameters
    ----------
    normalised
        For a VOI LUT, whose entries are scaled to their range. The stated depth is not used if an entry exceeds it, or
        if all entries are below a quarter of its range: some writers state 16 bits for 12. Our display does the same.

    References
    ----------
    DICOM PS3.3 C.11.1.1, C.11.2.1.1; C.11.8 (8 or 16 bits).
    """
    from data_specs.dicom.header import Header  # noqa: PLC0415

    part = Header(header.transfer_syntax, item, header.little_endian, None)
    descriptor = tuple(map(int, part.numbers("LUTDescriptor")))
    if len(descriptor) != 3 or item.get("LUTData") is None:
        return None
    count, first, bits = descriptor
    entries = header.words(item["LUTData"])
    if entries.size != (count & 0xFFFF or 65536) or not -0x8000 <= first <= 0xFFFF:
        return None
    if normalised:
        top = int(entries.max())
        if not 8 <= bits <= 16 or top >= 2**bits or top < 2 ** (bits - 2):
            bits = max(1, top.bit_length())
        entries = np.rint(entries * (65535 / (2**bits - 1))).astype(np.uint16)
    table = _item()
    count &= 0xFFFF
    if first < 0:
        table.add_new("LUTDescriptor", "SS", [count - 0x10000 if count >= 0x8000 else count, first, 16])
    else:
        table.add_new("LUTDescriptor", "US", [count, first, 16])
    table.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return table
