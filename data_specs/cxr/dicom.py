"""Reads a chest film from a DICOM file: checks that it is a frontal chest film, decodes it, prepares it for display."""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from typing import Literal

from data_specs.cxr.display import displayed
from data_specs.cxr.image import MIN_SHORT_SIDE_PX, ChestImage
from data_specs.cxr.pixels import frame_of, stored_values
from data_specs.dicom.header import Header, read_header
from data_specs.dicom.reference import CAPTURE_CLASS_PREFIX, RADIOGRAPH_CLASSES
from data_specs.person import age_at_examination, dicom_day, read_age, read_binary_sex, read_identifier
from data_specs.problems import Problem, Refused

MODALITIES = ("CR", "DX", "DR", "RG")
"""Projection radiography (PS3.3 C.7.3.1.1.1); DR is no defined term, but many detectors write it."""

CAPTURE_MODALITIES = ("", "OT", "SC", "HC")
"""Modalities that a secondary capture (PS3.3 A.8: digitised film, screen capture) may state: other, hard copy, none."""

CHEST_STEMS = (
    *("CHEST", "THORA", "TORAX", "TORACIC", "LUNG", "PULM", "POUMON", "RIB", "HEART", "CARDI", "MEDIAST", "STERN"),
    *("PLEUR", "TRUNK", "NGUC", "PHOI"),
)
"""Beginnings of chest terms of BodyPartExamined (PS3.16 Annex L, table L-1), of their French, Italian and Spanish
forms, and of Vietnamese ngực and phổi."""

NOT_CHEST_STEMS = ("SPINE", "VERTEB", "RACHIS", "COLUMN", "COLONNE")
"""Stems of the spine: 'thoracic spine' has a chest word and is another examination."""

UNSTATED_PARTS = {"", "UNKNOWN", "OTHER", "NONE", "NA", "N A", "DEFAULT", "UNDEFINED", "UNSPECIFIED", "PEDIATRIC"}
"""Values of BodyPartExamined that name no body part. They count as an empty one: the pixels decide."""

CHEST_CODES = {
    *("51185008", "816094009", "T-D3000", "39607008", "T-28000", "80891009", "T-32000", "43799004", "T-D3200"),
    *("113197003", "T-11300", "272710004", "T-D0170", "78904004", "T-D3050", "416550000", "R-FAB55"),
    *("416775004", "R-FAB56"),
}
"""SNOMED CT and SNOMED RT codes of thorax, chest, lung, heart, thoracic cavity, rib, thoracic bone, chest wall, chest
with abdomen, and with pelvis (PS3.16 CID 4031 and CID 4009)."""

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


def read_dicom(content: bytes) -> ChestImage:
    """Read a chest film from a DICOM file.

    Parameters
    ----------
    content
        The whole file.

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
    _check_body_part(header)
    view = _view(header)
    frames = header.integer("NumberOfFrames")
    if frames is not None and frames > 1:
        raise Refused("multiframe", frames, 1)
    frame = frame_of(header)
    if min(frame.rows, frame.columns) < MIN_SHORT_SIDE_PX:
        raise Refused("too_small", f"{frame.columns} × {frame.rows} px", f"{MIN_SHORT_SIDE_PX} px")
    pixels, problems = displayed(header, frame, stored_values(header, frame))
    if header.text("BurnedInAnnotation").upper() == "YES":
        problems = (*problems, Problem("burned_in_annotation", "warn", "YES", "NO"))
    recorded_on = dicom_day(header.text("StudyDate"))
    stated, born = read_age(header.text("PatientAge"), unit=""), dicom_day(header.text("PatientBirthDate"))
    return ChestImage(
        pixels=pixels,
        format="dicom",
        view=view,
        age_years=age_at_examination(stated, born, recorded_on),
        sex=read_binary_sex(header.text("PatientSex"), "dicom"),
        person_id=read_identifier(header.text("PatientID")),
        recorded_on=recorded_on,
        problems=problems,
    )


def _check_pixels_present(header: Header) -> None:
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
    raise Refused("wrong_modality", modality[:16] or sop_class, "CR, DX")


def _check_body_part(header: Header) -> None:
    stated = _plain(header.text("BodyPartExamined"))
    if stated not in UNSTATED_PARTS:
        if not _is_chest(stated):
            raise Refused("wrong_body_part", stated[:32], "CHEST")
        return
    for item in header.items("AnatomicRegionSequence"):
        code, meaning = _code(item)
        if (code or meaning) and code not in CHEST_CODES and not _is_chest(meaning):
            raise Refused("wrong_body_part", meaning[:32] or code, "CHEST")


def _is_chest(stated: str) -> bool:
    words = stated.split()
    if any(word.startswith(stem) for word in words for stem in NOT_CHEST_STEMS) or "TSPINE" in words:
        return False
    return any(word.startswith(stem) for word in words for stem in CHEST_STEMS)


def _view(header: Header) -> Literal["PA", "AP"] | None:
    """View as recorded.

    Raises
    ------
    Refused
        ``wrong_view``: a lateral, oblique or decubitus film by ViewPosition, ViewCodeSequence or PatientOrientation.
    """
    stated = _plain(header.text("ViewPosition"))
    view = _view_of_words(stated)
    for item in header.items("ViewCodeSequence"):
        code, meaning = _code(item)
        if code in OTHER_VIEW_CODES:
            raise Refused("wrong_view", meaning[:32] or code, "PA, AP")
        coded: Literal["PA", "AP"] | None = "PA" if code in PA_CODES else "AP" if code in AP_CODES else None
        view = view or coded or _view_of_words(meaning)
    # The rows of a frontal film run to the left or right of the body, those of a lateral film to its front or back
    # (PS3.3 C.7.6.1.1.1)
    rows_run_to = header.text("PatientOrientation").upper()[:1]
    if view is None and rows_run_to in ("A", "P"):
        raise Refused("wrong_view", header.text("PatientOrientation")[:16], "PA, AP")
    return view


def _view_of_words(stated: str) -> Literal["PA", "AP"] | None:
    words = stated.replace("ANTERO POSTERIOR", "ANTEROPOSTERIOR").replace("POSTERO ANTERIOR", "POSTEROANTERIOR").split()
    if any(word in OTHER_VIEW_WORDS or word.startswith(OTHER_VIEW_STEMS) for word in words):
        raise Refused("wrong_view", stated[:32], "PA, AP")
    if any(word in PA_WORDS for word in words):
        return "PA"
    return "AP" if any(word in AP_WORDS for word in words) else None


def _plain(text: str) -> str:
    """Upper case without accents; anything but letters and digits becomes one blank.

    pydicom reads CS values as ISO 8859-1; many clinics write their accents in UTF-8.
    """
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    bare = unicodedata.normalize("NFKD", text.upper().replace("Đ", "D"))
    letters = "".join(c if c.isalnum() else " " for c in bare if not unicodedata.combining(c))
    return " ".join(letters.split())


def _code(item: dict[str, object]) -> tuple[str, str]:
    value, meaning = item.get("CodeValue"), item.get("CodeMeaning")
    return str(value or "").strip(), _plain(str(meaning or ""))
