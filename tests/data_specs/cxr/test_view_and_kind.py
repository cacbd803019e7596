"""Which films are frontal radiographs by what they state, against the terms of the standard; and what a film says."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping

from data_specs.cxr.dicom import read_dicom
from data_specs.problems import Problem, Refused
from tests.data_specs.cxr_made import CR, CT, DX, SC, dicom, phantom

FILM = phantom(8, 224, 224).astype("uint8")


def film_with(*, film: Any = FILM, **tags: Any) -> bytes:
    """``SOPClassUID=None`` leaves the element out of the data set; the file meta information keeps its copy."""
    if tags.get("SOPClassUID", "") is not None:
        return dicom(film, bits=8, **tags)
    content = dicom(film, bits=8, **{key: value for key, value in tags.items() if value is not None})
    uid = DX.encode() + b"\0" * (len(DX) % 2)
    element = b"\x08\0\x16\0UI" + len(uid).to_bytes(2, "little") + uid
    assert content.count(element) == 1
    return content.replace(element, b"")


def refused(**tags: Any) -> Problem:
    with pytest.raises(Refused) as raised:
        read_dicom(film_with(**tags))
    return raised.value.problem


def view(**tags: Any) -> str | None:
    return read_dicom(film_with(**tags)).view


def item(code: str, meaning: str = "", scheme: str = "SCT") -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator = code, scheme
    if meaning:
        made.CodeMeaning = meaning
    return made


# ---------------------------------------------------------------- views
@pytest.mark.parametrize(
    ("stated", "seen"),
    [
        ("PA", "PA"),
        ("POSTEROANTERIOR", "PA"),
        ("POSTERO ANTERIOR", "PA"),
        ("POSTERO-ANTERIOR", "PA"),
        ("CHEST PA", "PA"),
        ("AP", "AP"),
        ("ANTEROPOSTERIOR", "AP"),
        ("ANTERO POSTERIOR", "AP"),
        ("AP PORTABLE", "AP"),
        ("ERECT", None),
        ("", None),
    ],
)
def test_words_of_frontal_views(stated: str, seen: str | None) -> None:
    assert view(ViewPosition=stated) == seen


@pytest.mark.parametrize(
    "stated",
    [
        # PS3.3 C.8.7.1.1.1: lateral, decubitus and oblique views; C.8.11.7: the same in DX.
        *("LL", "RL", "LLD", "RLD", "LLO", "RLO"),
        *("LLAT", "RLAT", "RAO", "LAO", "RPO", "LPO", "LAT", "LATERAL", "LATERALE", "OBLIQUE", "DECUBITUS"),
        # French, Vietnamese, Spanish and German for lateral
        *("PROFIL", "NGHIENG", "PERFIL", "SEITLICH"),
        *("PA LAT", "CHEST LL"),
    ],
)
def test_words_of_other_views(stated: str) -> None:
    assert refused(ViewPosition=stated) == Problem("wrong_view", "reject", stated, "PA, AP")


def test_a_long_view_is_quoted_in_part() -> None:
    assert refused(ViewPosition="LATERAL LEFT X").found == "LATERAL LEFT X"
    known = Sequence([item("399067008", "X" * 60)])
    assert refused(ViewPosition="", ViewCodeSequence=known).found == "X" * 32
    long = Sequence([item("0", "LATERAL " + "X" * 60)])
    assert refused(ViewPosition="", ViewCodeSequence=long).found == "LATERAL " + "X" * 24


NAMES_OF_CID_4010 = {
    code: concepts[scheme][keyword][code][0]
    for scheme, keywords in cid_concepts[4010].items()
    for keyword in keywords
    for code, (_, groups) in concepts[scheme][keyword].items()
    if 4010 in groups
}
"""PS3.16 CID 4010, DX View: SNOMED CT code to its meaning."""
MAMMOGRAPHY = {"medial oblique", "medio-lateral oblique"}
AXIAL = {"oblique axial", "frontal-oblique axial", "sagittal-oblique axial"}
CRANIAL = {"oblique caudo-cranial", "oblique cranio-caudal"}
OTHER_VIEWS = {
    code: meaning
    for code, meaning in NAMES_OF_CID_4010.items()
    if ("lateral" in meaning or "oblique" in meaning) and meaning not in MAMMOGRAPHY | AXIAL | CRANIAL
} | {"399260004": "medial-lateral"}


@pytest.mark.parametrize("code", OTHER_VIEWS)
def test_codes_of_lateral_and_oblique_views(code: str) -> None:
    """By SNOMED CT, and by the SRT code that older files have."""
    for stated in (code, mapping["SCT"][code]):
        coded = Sequence([item(stated)])
        assert refused(ViewPosition="", ViewCodeSequence=coded) == Problem("wrong_view", "reject", stated, "PA, AP")
    named = Sequence([item(code, "as the room calls it")])
    assert refused(ViewPosition="", ViewCodeSequence=named).found == "AS THE ROOM CALLS IT"
    assert refused(ViewPosition="PA", ViewCodeSequence=Sequence([item(code)])).code == "wrong_view"
    assert len(OTHER_VIEWS) == 17


@pytest.mark.parametrize("code", ["399297009", "G-5222"])
def test_codes_of_views_that_later_editions_do_not_have(code: str) -> None:
    assert refused(ViewPosition="", ViewCodeSequence=Sequence([item(code)])).code == "wrong_view"


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("272479007", "PA"),
        ("R-40888", "PA"),
        ("R-10214", "PA"),
        ("399348003", "AP"),
        ("R-10206", "AP"),
        ("399033003", None),
    ],
)
def test_codes_of_frontal_views(code: str, seen: str | None) -> None:
    assert view(ViewPosition="", ViewCodeSequence=Sequence([item(code)])) == seen
    if seen:
        other = "AP" if seen == "PA" else "PA"
        assert view(ViewPosition=other, ViewCodeSequence=Sequence([item(code)])) == other, "the words count first"
        both = Sequence([item(code), item("0", "PA" if seen == "AP" else "AP")])
        assert view(ViewPosition="", ViewCodeSequence=both) == seen


def test_a_code_that_is_not_known_is_read_by_its_meaning() -> None:
    assert view(ViewPosition="", ViewCodeSequence=Sequence([item("X1", "postero-anterior")])) == "PA"
    assert view(ViewPosition="", ViewCodeSequence=Sequence([item("X1", "frontal")])) is None
    assert refused(ViewPosition="", ViewCodeSequence=Sequence([item("X1", "lateral")])).found == "LATERAL"
    second = Sequence([item("X1", "frontal"), item("399067008")])
    assert refused(ViewPosition="", ViewCodeSequence=second).code == "wrong_view"


@pytest.mark.parametrize("rows_run_to", ["A", "P", "a", "AF", "PH"])
def test_rows_that_run_to_the_front_or_the_back_are_those_of_a_lateral_film(rows_run_to: str) -> None:
    given = {"ViewPosition": "", "PatientOrientation": [rows_run_to, "F"]}
    assert refused(**given) == Problem("wrong_view", "reject", f"{rows_run_to}\\F", "PA, AP")
    assert view(**{**given, "ViewPosition": "PA"}) == "PA"
    long = refused(ViewPosition="", PatientOrientation=["AAAAAAAAAAAAAAAA", "F"])
    assert long.found == "A" * 16


@pytest.mark.parametrize("orientation", [["L", "F"], ["R", "F"], ["H", "L"], "", ["", "A"]])
def test_rows_that_run_to_a_side_say_nothing(orientation: Any) -> None:
    assert view(ViewPosition="", PatientOrientation=orientation) is None


# ---------------------------------------------------------------- kinds
@pytest.mark.parametrize(
    ("modality", "sop_class", "read"),
    [
        *((modality, sop_class, True) for modality in ("CR", "DX", "DR", "RG", "dx") for sop_class in (CR, DX, SC, CT)),
        *((modality, SC, True) for modality in ("", "OT", "SC", "HC")),
        *((modality, f"{SC}.1", True) for modality in ("", "OT", "SC", "HC")),
        *((modality, DX, False) for modality in ("OT", "SC", "HC")),
        *((modality, SC, False) for modality in ("CT", "US", "XC")),
        ("", CR, True),
        ("", DX, True),
        ("", None, True),
        ("", CT, False),
        ("OT", None, False),
    ],
)
def test_kinds_of_images_that_are_read(modality: str, sop_class: str | None, read: bool) -> None:
    tags = {"Modality": modality, "SOPClassUID": sop_class}
    if read:
        assert view(**tags) == "PA"
    else:
        assert refused(**tags) == Problem("wrong_modality", "reject", modality or str(sop_class), "CR, DX")


def test_a_modality_is_quoted_in_part() -> None:
    assert refused(Modality="MAGNETICRESONANCES").found == "MAGNETICRESONANC"


@pytest.mark.parametrize(
    ("tags", "found"),
    [({"Modality": "SR"}, "SR"), ({"Modality": ""}, DX), ({"Modality": "", "SOPClassUID": None}, "—")],
)
def test_a_file_without_pixels_is_named_by_what_it_is(tags: dict[str, Any], found: str) -> None:
    assert refused(film=None, **tags) == Problem("no_pixel_data", "reject", found, "(7FE0,0010) PixelData")


def test_a_file_that_ends_within_an_element_of_its_header_is_truncated() -> None:
    content = film_with()
    with pytest.raises(Refused) as raised:
        read_dicom(content[: content.index(b"\xe0\x7f\x10\0") - 1])
    assert raised.value.problem == Problem("truncated", "reject", "DICOM", "(7FE0,0010) PixelData")


def test_pixel_data_of_another_kind_or_of_nothing_is_none() -> None:
    assert refused(PixelData=b"").code == "no_pixel_data"
    content = dicom(FILM, bits=8, PixelData=None, FloatPixelData=b"\0" * 224 * 224 * 4)
    with pytest.raises(Refused) as raised:
        read_dicom(content)
    assert raised.value.problem.code == "no_pixel_data"


@pytest.mark.parametrize(("frames", "read"), [(None, True), (0, True), (1, True), (2, False)])
def test_one_frame_is_read(frames: int | None, read: bool) -> None:
    given = {} if frames is None else {"NumberOfFrames": frames}
    if read:
        assert view(**given) == "PA"
    else:
        assert refused(**given) == Problem("multiframe", "reject", "2", "1")


@pytest.mark.parametrize(("rows", "columns", "read"), [(224, 224, True), (223, 300, False), (300, 223, False)])
def test_the_shortest_side_that_is_read(rows: int, columns: int, read: bool) -> None:
    content = dicom(phantom(8, rows, columns).astype("uint8"), bits=8)
    if read:
        assert read_dicom(content).pixels.shape == (rows, columns)
        return
    with pytest.raises(Refused) as raised:
        read_dicom(content)
    assert raised.value.problem == Problem("too_small", "reject", f"{columns} × {rows} px", "224 px")


# ---------------------------------------------------------------- what a film says
def test_what_a_film_says_of_its_person() -> None:
    film = read_dicom(
        dicom(FILM, bits=8, PatientAge="044Y", PatientSex="M", PatientID="P-1", PatientBirthDate="19820101")
    )
    assert (film.format, film.age_years, film.sex, film.person_id) == ("dicom", 44, "male", "P-1")
    assert film.recorded_on == date(2026, 1, 2)
    assert film.problems == ()
    born = read_dicom(dicom(FILM, bits=8, PatientBirthDate="19660102"))
    assert born.age_years == 60
    bare = read_dicom(dicom(FILM, bits=8, PatientAge="044", PatientID=None, StudyDate=None, PatientSex="O"))
    assert (bare.age_years, bare.sex, bare.person_id, bare.recorded_on) == (None, None, None, None)


@pytest.mark.parametrize(("stated", "told"), [("YES", True), ("yes", True), ("NO", False), ("", False)])
def test_letters_in_the_picture_are_told(stated: str, told: bool) -> None:
    problems = read_dicom(dicom(FILM, bits=8, BurnedInAnnotation=stated)).problems
    assert problems == ((Problem("burned_in_annotation", "warn", "YES", "NO"),) if told else ())


@pytest.mark.parametrize("keyword", ["PatientName", "PatientID", "ReferringPhysicianName"])
def test_letters_that_are_lost_are_told_by_their_element(keyword: str) -> None:
    content = dicom(FILM, bits=8, SpecificCharacterSet="ISO_IR 192", **{keyword: "JQXZ"})
    assert content.count(b"JQXZ") == 1
    film = read_dicom(content.replace(b"JQXZ", b"J\xffXZ"))
    assert film.problems == (Problem("letters_left_out", "warn", keyword, "SpecificCharacterSet"),)


def test_every_reserve_of_a_film_is_told() -> None:
    content = dicom(
        FILM, bits=8, SpecificCharacterSet="ISO_IR 192", PatientName="JQXZ", PatientID="ZXQJ", BodyPartExamined="XYZ",
        BurnedInAnnotation="YES", WindowCenter=9000, WindowWidth=2, PatientAge="020Y", PatientBirthDate="19500101",
    )  # fmt: skip
    film = read_dicom(content.replace(b"JQXZ", b"J\xffXZ").replace(b"ZXQJ", b"Z\xffQJ"))
    assert [problem.code for problem in film.problems] == [
        "body_part_unknown",
        "window_implausible",
        "burned_in_annotation",
        "letters_left_out",
        "age_contradicts",
    ]
    assert film.problems[3].found == "PatientName, PatientID"
