"""Reads a chest film from a DICOM file: checks that it is a frontal chest film, decodes it, prepares it for display."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from data_specs.cxr.body_part import body_part_problems, code_and_meaning, words_of
from data_specs.cxr.display import displayed
from data_specs.cxr.image import MIN_SHORT_SIDE_PX, ChestImage
from data_specs.cxr.pixels import frame_of, stored_values
from data_specs.dicom.header import Header, read_header
from data_specs.dicom.reference import CAPTURE_CLASS_PREFIX, RADIOGRAPH_CLASSES
from data_specs.dicom.uids import identifier_problems
from data_specs.person import dicom_day, read_age, read_binary_sex, read_identifier
from data_specs.problems import Problem, Refused
from data_specs.reading import refuse_to_assess
from data_specs.subject import Subject

MODALITIES = ("CR", "DX", "DR", "RG")
"""Projection radiography (PS3.3 C.7.3.1.1.1); DR is no defined term, but many detectors write it."""

CAPTURE_MODALITIES = ("", "OT", "SC", "HC")
"""Modalities that a secondary capture (PS3.3 A.8: digitised film, screen capture) may state: other, hard copy, none."""

NAMES = ("PatientName", "PatientID", "ReferringPhysicianName")
"""Texts that people read, beside the film's own."""

LEAST_PIXEL_MM, MOST_PIXEL_MM = 0.02, 5.0
"""Limits of a pixel's side. A detector has 0.1 to 0.2 mm; pixels of a film that was made smaller are larger."""

PA_WORDS = {"PA", "POSTEROANTERIOR"}
AP_WORDS = {"AP", "ANTEROPOSTERIOR"}
OTHER_VIEW_WORDS = {"LL", "RL", "LLD", "RLD", "LLO", "RLO", "LLAT", "RLAT", "RAO", "LAO", "RPO", "LPO", "LAT", "PROFIL"}
OTHER_VIEW_STEMS = ("LATER", "OBLIQ", "DECUB", "NGHIENG", "PERFIL", "SEITLICH")
"""Words of ViewPosition (PS3.3 C.8.11.7, C.8.7.1.1.1 and common usage) for films that are not frontal."""

PA_CODES = frozenset(("272479007", "R-40888", "R-10214"))
AP_CODES = frozenset(("399348003", "R-10206"))
OTHER_VIEW_CODES = {
    *("399067008", "R-102CD", "399198007", "R-10232", "399297009", "G-5222", "399173006", "R-10236"),
    *("399352003", "R-10228", "399260004", "R-10224", "260427002", "R-40783", "399099002", "R-10230"),
    *("399135007", "R-10220", "399184004", "R-10238", "399006002", "R-10212", "399182000", "R-102C1"),
    *("399356000", "R-40985", "399236003", "R-10234", "399038007", "R-10210", "399312000", "R-10208"),
    *("399059000", "R-10216", "399160007", "R-10204"),
}
"""Codes of ViewCodeSequence: postero-anterior, antero-posterior; lateral and oblique (PS3.16 CID 4010)."""


def read_dicom(content: bytes, between: tuple[float, float] | None = None, least_px: int | None = None) -> ChestImage:
    """Read a chest film from a DICOM file.

    Parameters
    ----------
    content
        The whole file.
    between
        As :func:`data_specs.cxr.display.displayed` takes it.
    least_px
        As :func:`data_specs.cxr.pixels.stored_values` takes it.

    Returns
    -------
    The film; a file that states no body part or view is read, and the gate decides by its pixels

    Raises
    ------
    Refused
        ``no_pixel_data``, ``wrong_modality``, ``wrong_body_part``, ``wrong_view``, ``multiframe``, ``too_small``, and
        as :func:`data_specs.dicom.header.read_header`, :func:`data_specs.cxr.pixels.frame_of`,
        :func:`data_specs.cxr.pixels.stored_values` and :func:`data_specs.cxr.display.displayed` say.
    """
    header = read_header(content)
    _check_pixels_present(header)
    _check_modality(header)
    body_part = body_part_problems(header)
    view = _view(header)
    frames = header.integer("NumberOfFrames")
    if frames is not None and frames > 1:
        raise Refused("multiframe", frames, 1)
    frame = frame_of(header)
    if min(frame.rows, frame.columns) < MIN_SHORT_SIDE_PX:
        refuse_to_assess("too_small", f"{frame.columns} × {frame.rows} px", f"{MIN_SHORT_SIDE_PX} px")
    pixels, problems = displayed(header, frame, stored_values(header, frame, least_px), between)
    if header.text("BurnedInAnnotation").upper() == "YES":
        problems = (*problems, Problem("burned_in_annotation", "warn", "YES", "NO"))
    lost = [keyword for keyword in NAMES if header.has_lost_letters(keyword)]
    if lost:
        problems = (*problems, Problem("letters_left_out", "warn", ", ".join(lost), "SpecificCharacterSet"))
    subject = Subject(
        stated_years=read_age(header.text("PatientAge"), unit=""),
        born=dicom_day(header.text("PatientBirthDate")),
        sex=read_binary_sex(header.text("PatientSex"), "dicom"),
        person_id=read_identifier(header.text("PatientID")),
        recorded_on=dicom_day(header.text("StudyDate")),
    )
    return ChestImage(
        pixels=pixels,
        format="dicom",
        view=view,
        pixel_mm=_pixel_mm(header),
        recorded_px=(frame.rows, frame.columns),
        age_years=subject.age_years,
        sex=subject.sex,
        person_id=subject.person_id,
        recorded_on=subject.recorded_on,
        problems=(*body_part, *problems, *subject.problems, *identifier_problems(header.identifiers)),
    )


def _pixel_mm(header: Header) -> tuple[float, float] | None:
    """Height and width of a pixel: PixelSpacing, which may be calibrated, else ImagerPixelSpacing (PS3.3 10.7.1.3)."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        with suppress(Refused):  # no reason to refuse a film: its lengths are not known then
            spacing = header.numbers(keyword)
            if len(spacing) == 2 and all(LEAST_PIXEL_MM <= each <= MOST_PIXEL_MM for each in spacing):
                return spacing[0], spacing[1]
    return None


def _check_pixels_present(header: Header) -> None:
    if header.ends_within_element:
        raise Refused("truncated", "DICOM", "(7FE0,0010) PixelData")
    if header.pixels is None or header.pixels.keyword != "PixelData" or header.pixels.length == 0:
        stated = header.text("Modality") or header.text("SOPClassUID") or "—"
        raise Refused("no_pixel_data", stated, "(7FE0,0010) PixelData")


def _check_modality(header: Header) -> None:
    modality, sop_class = header.text("Modality").upper(), header.text("SOPClassUID")
    captured = sop_class.startswith(CAPTURE_CLASS_PREFIX)
    if modality in MODALITIES or (captured and modality in CAPTURE_MODALITIES):
        return
    if not modality and sop_class in (*RADIOGRAPH_CLASSES, ""):
        return
    refuse_to_assess("wrong_modality", modality[:16] or sop_class, "CR, DX")


def _view(header: Header) -> Literal["PA", "AP"] | None:
    """View as recorded.

    Raises
    ------
    Refused
        ``wrong_view``: a lateral, oblique or decubitus film by ViewPosition, ViewCodeSequence or PatientOrientation.
    """
    stated = words_of(header.text("ViewPosition"))
    view = _view_of_words(stated)
    for item in header.items("ViewCodeSequence"):
        code, meaning = code_and_meaning(item)
        if code in OTHER_VIEW_CODES:
            refuse_to_assess("wrong_view", meaning[:32] or code, "PA, AP")
        coded: Literal["PA", "AP"] | None = "PA" if code in PA_CODES else "AP" if code in AP_CODES else None
        view = view or coded or _view_of_words(meaning)
    # The rows of a frontal film run to the left or right of the body, those of a lateral film to its front or back
    # (PS3.3 C.7.6.1.1.1)
    rows_run_to = header.text("PatientOrientation").upper()[:1]
    if view is None and rows_run_to in ("A", "P"):
        refuse_to_assess("wrong_view", header.text("PatientOrientation")[:16], "PA, AP")
    return view


def _view_of_words(stated: str) -> Literal["PA", "AP"] | None:
    words = stated.replace("ANTERO POSTERIOR", "ANTEROPOSTERIOR").replace("POSTERO ANTERIOR", "POSTEROANTERIOR").split()
    if any(word in OTHER_VIEW_WORDS or word.startswith(OTHER_VIEW_STEMS) for word in words):
        refuse_to_assess("wrong_view", stated[:32], "PA, AP")
    if any(word in PA_WORDS for word in words):
        return "PA"
    return "AP" if any(word in AP_WORDS for word in words) else None
