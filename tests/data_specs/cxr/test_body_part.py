"""Which words and codes of a body part are the chest, which are another part, and which are not known."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts

from data_specs.cxr.body_part import body_part_problems, code_and_meaning, words_of
from data_specs.dicom.header import EXPLICIT_BIG, Header
from data_specs.problems import Problem, Refused


def told(**values: Any) -> Problem | None:
    """What the service says of a body part; ``None`` where it is the chest, or not stated."""
    try:
        problems = body_part_problems(Header(EXPLICIT_BIG, values, little_endian=False, pixels=None))
    except Refused as refusal:
        return refusal.problem
    assert len(problems) <= 1
    return problems[0] if problems else None


def region(*items: tuple[str, str]) -> Problem | None:
    return told(AnatomicRegionSequence=tuple({"CodeValue": code, "CodeMeaning": meaning} for code, meaning in items))


def unknown(words: str) -> Problem:
    return Problem("body_part_unknown", "warn", words, "CHEST")


def other(words: str) -> Problem:
    return Problem("wrong_body_part", "reject", words, "CHEST")


# ---------------------------------------------------------------- words
@pytest.mark.parametrize(
    "words",
    [
        *("CHEST", "CHESTABDOMEN", "THORAX", "THORACIC CAVITY", "LUNG", "LUNGS", "RIB", "RIBS", "HEART", "CARDIAC"),
        *("MEDIASTINUM", "STERNUM", "PLEURA", "TRUNK", "CXR", "BILAT CHEST"),
        *("POUMONS", "GRIL COSTAL", "COSTALE", "COSTILLAS", "TÓRAX", "PECHO", "PEITO", "PULMON", "BRUST", "BRUSTKORB"),
        *("TORACICO", "NGỰC", "PHỔI", "TIMPHOI", "NGUCTHANG", "PORTABLECHEST", "XTHORAX", "XTORAX"),
    ],
)
def test_words_for_the_chest(words: str) -> None:
    assert told(BodyPartExamined=words) is None


@pytest.mark.parametrize(
    "words",
    [
        *("SPINE", "THORACIC SPINE", "TSPINE", "VERTEBRA THORACIC", "RACHIS THORACIQUE", "COLUMNA TORACICA"),
        *("COLONNA TORACICA", "WIRBEL BRUST", "BRUSTWIRBEL", "COT SONG NGUC"),
    ],
)
def test_the_spine_is_another_part_even_where_the_chest_is_named(words: str) -> None:
    assert told(BodyPartExamined=words) == other(words)


@pytest.mark.parametrize(
    "words",
    [
        *("HEAD", "SKULL", "BRAIN", "FACIAL BONES", "SINUSES", "ORBIT", "JAW", "MANDIBLE", "TEETH", "NECK", "CSPINE"),
        *("ABDOMEN", "KUB", "PELVIS", "HIP", "KIDNEY", "BLADDER", "LIVER", "STOMACH", "COLON", "BREAST", "MAMMOGRAPHY"),
        *("SHOULDER", "CLAVICLE", "SCAPULA", "ARM", "HUMERUS", "ELBOW", "WRIST", "HAND", "FINGER", "THUMB"),
        *("LEG", "THIGH", "FEMUR", "KNEE", "PATELLA", "TIBIA", "ANKLE", "FOOT", "TOE", "CALCANEUS", "EXTREMITY"),
        *("CRANE", "COU", "VENTRE", "BASSIN", "GENOU", "CHEVILLE", "PIED", "BAUCH", "KNIE", "FUSS", "RODILLA", "MANO"),
        *("BUNG", "KHUNG CHAU", "GOI", "CO TAY", "HANG"),
    ],
)
def test_words_for_other_parts(words: str) -> None:
    assert told(BodyPartExamined=words) == other(words)


@pytest.mark.parametrize(
    "words",
    [
        *("XX", "ROUTINE", "CH EST", "1"),
        *("LUNGE", "RIBBON", "CXRAY"),  # LUNG, RIB, CXR are whole words
        *("HANDLUNG", "PIEDMONT", "ARMADA"),  # HAND, PIED, ARM too
        *("KHUNG", "CO"),  # one word of two
    ],
)
def test_words_that_are_not_known_are_said(words: str) -> None:
    assert told(BodyPartExamined=words) == unknown(words)


def test_five_letters_begin_a_word() -> None:
    assert told(BodyPartExamined="SKULLBASE") == other("SKULLBASE")
    assert told(BodyPartExamined="XSKULL") == unknown("XSKULL")


def test_a_long_text_is_quoted_in_part() -> None:
    words = "ABCDEFGH " * 4
    assert told(BodyPartExamined=words) == unknown(words[:32])
    assert told(BodyPartExamined="KNEE " + words) == other(("KNEE " + words)[:32])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Đầu gối", "DAU GOI"),
        ("Tórax/PA_2", "TORAX PA 2"),
        ("  crâne ", "CRANE"),
        ("T?RAX", "T RAX"),
        ("ＣＨＥＳＴ", "CHEST"),
        ("", ""),
    ],
)
def test_words_are_compared_without_case_accents_and_marks(text: str, words: str) -> None:
    assert words_of(text) == words


# ---------------------------------------------------------------- nothing stated, and codes
UNSTATED = ["", "UNKNOWN", "OTHER", "NONE", "NA", "N/A", "DEFAULT", "UNDEFINED", "UNSPECIFIED", "PEDIATRIC"]


@pytest.mark.parametrize("words", UNSTATED)
def test_a_word_that_names_no_part_leaves_it_to_the_coded_region(words: str) -> None:
    knee = ({"CodeValue": "72696002", "CodeMeaning": "Knee"},)
    assert told(BodyPartExamined=words) is None
    assert told(BodyPartExamined=words, AnatomicRegionSequence=knee) == other("KNEE")


def test_a_word_that_names_a_part_counts_before_the_coded_region() -> None:
    knee = ({"CodeValue": "72696002", "CodeMeaning": "Knee"},)
    assert told(BodyPartExamined="CHEST", AnatomicRegionSequence=knee) is None
    assert told(BodyPartExamined="XX", AnatomicRegionSequence=knee) == unknown("XX")


REGIONS = {
    code: meaning
    for scheme, keywords in cid_concepts[4031].items()
    for keyword in keywords
    for code, (meaning, groups) in concepts[scheme][keyword].items()
    if 4031 in groups
}
"""PS3.16 CID 4031, Common Anatomic Regions: SNOMED CT code to its meaning."""
CHEST_REGIONS = {"Chest", "Rib", "Heart", "Chest and Abdomen", "Chest, Abdomen and Pelvis"}


@pytest.mark.parametrize("code", REGIONS)
def test_a_code_alone_is_the_chest_or_not_known(code: str) -> None:
    assert region((code, "")) == (None if REGIONS[code] in CHEST_REGIONS else unknown(code))


WITH_THE_CHEST = CHEST_REGIONS | {"Apex of Lung", "Mediastinum", "Sternum", "Neck and Chest"}
WITH_THE_CHEST |= {"Neck, Chest and Abdomen", "Neck, Chest, Abdomen and Pelvis", "Sternoclavicular joint"}


@pytest.mark.parametrize("code", REGIONS)
def test_a_code_with_its_meaning(code: str) -> None:
    found = region((code, REGIONS[code]))
    assert (found is None) == (REGIONS[code] in WITH_THE_CHEST)
    assert found is None or found.found == words_of(REGIONS[code])[:32]


EARLIER_CODES = {
    "51185008": "thoracic structure",
    "39607008": "lung",
    "43799004": "thoracic cavity",
    "272710004": "thoracic bone",
    "78904004": "chest wall",
}
SNOMED_RT = ["T-D3000", "T-28000", "T-32000", "T-D3200", "T-11300", "T-D0170", "T-D3050", "R-FAB55", "R-FAB56"]


@pytest.mark.parametrize("code", [*EARLIER_CODES, *SNOMED_RT])
def test_codes_of_earlier_editions_and_of_snomed_rt(code: str) -> None:
    assert region((f" {code} ", "")) is None
    assert region((code, "?")) is None, "whatever its meaning is"


def test_several_regions() -> None:
    assert region(("1", ""), ("2", "")) == unknown("1"), "the first that is not known is said"
    assert region(("51185008", ""), ("2", "")) == unknown("2")
    assert region(("1", ""), ("72696002", "Knee")) == other("KNEE"), "any that is another part refuses"
    assert region(("", ""), ("2", "")) == unknown("2"), "an empty item says nothing"
    assert region(("1" * 40, "")) == unknown("1" * 32)
    assert region(("", "Shin bone")) == unknown("SHIN BONE")


def test_code_and_meaning_of_an_item() -> None:
    assert code_and_meaning({"CodeValue": " T-D3000 ", "CodeMeaning": "Chest, PA"}) == ("T-D3000", "CHEST PA")
    assert code_and_meaning({}) == ("", "")
    assert code_and_meaning({"CodeValue": None, "CodeMeaning": None}) == ("", "")
