"""The part of the body that a film says it shows: chest, another one, or a word that is not known."""

from __future__ import annotations

import unicodedata

from data_specs.dicom.header import Header
from data_specs.problems import Problem
from data_specs.reading import refuse_to_assess


def _words(text: str) -> tuple[str, ...]:
    """Words between blanks; those that belong together are joined by an underscore."""
    return tuple(word.replace("_", " ") for word in text.split())


CHEST_STEMS = _words("""
    CHEST THORA TORAX TORACIC LUNG LUNGS PULMO POUMON RIB RIBS COSTA COSTILL HEART CARDI MEDIAST STERN PLEUR
    TRUNK NGUC PHOI PECHO PEITO BRUST CXR
""")
"""Beginnings of chest terms of BodyPartExamined (PS3.16 Annex L, table L-1), of their French, Italian, Spanish,
Portuguese and German forms, and of Vietnamese ngực and phổi."""

CHEST_PARTS = ("CHEST", "THORAX", "TORAX", "NGUC", "PHOI")
"""Of these also words that contain them: ``TIMPHOI``, ``PORTABLECHEST``."""

SPINE_STEMS = _words("""
    SPINE VERTEB RACHIS COLUMN COLONN WIRBEL BRUSTWIRBEL TSPINE COT_SONG
""")
"""The spine, also in Vietnamese: 'thoracic spine' has a chest word and is another examination."""

OTHER_PART_STEMS = _words("""
    HEAD SKULL BRAIN FACIAL FACE SINUS NASAL NOSE ORBIT JAW MANDIB MAXILL TEETH TOOTH DENTAL NECK CERVIC CRANE
    CRANI TETE COU SCHADEL KOPF HALS CABEZA CUELLO CSPINE LSPINE LUMBA LUMBO LOMBA SACRUM SACRO COCCY ABDOM
    KUB VENTRE BAUCH PELVI BASSIN BECKEN HIP HIPS HANCHE HUFT CADERA KIDNEY BLADDER LIVER STOMACH COLON UTERUS
    BREAST MAMMO MAMMA SEIN SHOULDER EPAULE SCHULTER HOMBRO CLAVIC SCAPUL ARM ARMS FOREARM HUMER ELBOW COUDE
    ELLENBOGEN CODO RADIUS ULNA WRIST POIGNET MUNECA CARPAL CARPUS METACARP HAND HANDS MAIN MAINS MANO FINGER
    DOIGT DEDO THUMB BRAS LEG LEGS JAMBE BEIN PIERNA THIGH CUISSE FEMUR FEMOR KNEE KNEES GENOU KNIE RODILLA
    PATELL TIBIA FIBULA ANKLE CHEVILLE TOBILLO FOOT FEET PIED PIEDS FUSS PIE TOE TOES ORTEIL HEEL CALCAN
    METATARS TARSUS TARSAL EXTREM LIMB LIMBS MEMBRE BUNG KHUNG_CHAU GOI CHAN TAY VAI HONG DAU XOANG KHUYU HAM
    CO_CHAN CO_TAY HANG
""")
"""Parts that are known not to be the chest (PS3.16 Annex L, and the same languages). Those of four letters or
fewer count as whole words only."""

MAX_WHOLE_WORD = 4

UNSTATED_PARTS = {"", "UNKNOWN", "OTHER", "NONE", "NA", "N A", "DEFAULT", "UNDEFINED", "UNSPECIFIED", "PEDIATRIC"}
"""Values of BodyPartExamined that name no body part. They count as an empty one: the pixels decide."""

CHEST_CODES = {
    *("51185008", "816094009", "T-D3000", "39607008", "T-28000", "80891009", "T-32000", "43799004", "T-D3200"),
    *("113197003", "T-11300", "272710004", "T-D0170", "78904004", "T-D3050", "416550000", "R-FAB55"),
    *("416775004", "R-FAB56"),
}
"""SNOMED CT and SNOMED RT codes of thorax, chest, lung, heart, thoracic cavity, rib, thoracic bone, chest wall, chest
with abdomen, and with pelvis (PS3.16 CID 4031 and CID 4009)."""


def body_part_problems(header: Header) -> tuple[Problem, ...]:
    """Refuse a body part that is known to be another one; one that is not known is left to the pixels, and said.

    Devices of all countries write BodyPartExamined in words of their own.
    """
    stated = words_of(header.text("BodyPartExamined"))
    named = [("", stated)] if stated not in UNSTATED_PARTS else []
    named = named or [code_and_meaning(item) for item in header.items("AnatomicRegionSequence")]
    unknown = []
    for code, words in named:
        if code in CHEST_CODES or _is_chest(words) or not (code or words):
            continue
        if _is_spine(words) or _begins(words, OTHER_PART_STEMS):
            refuse_to_assess("wrong_body_part", words[:32], "CHEST")
        unknown.append(Problem("body_part_unknown", "warn", words[:32] or code[:32], "CHEST"))
    return tuple(unknown[:1])


def _is_chest(words: str) -> bool:
    return not _is_spine(words) and (_begins(words, CHEST_STEMS) or any(part in words for part in CHEST_PARTS))


def _is_spine(words: str) -> bool:
    return _begins(words, SPINE_STEMS)


def _begins(words: str, stems: tuple[str, ...]) -> bool:
    """Whether one of the words begins with a stem; short stems have to be whole words."""
    line = f" {words} "
    return any(f" {stem} " in line if len(stem) <= MAX_WHOLE_WORD else f" {stem}" in line for stem in stems)


def words_of(text: str) -> str:
    """Upper case without accents; anything but letters and digits becomes one blank."""
    bare = unicodedata.normalize("NFKD", text.upper().replace("Đ", "D"))
    letters = "".join(c if c.isalnum() else " " for c in bare if not unicodedata.combining(c))
    return " ".join(letters.split())


def code_and_meaning(item: dict[str, object]) -> tuple[str, str]:
    value, meaning = item.get("CodeValue"), item.get("CodeMeaning")
    return str(value or "").strip(), words_of(str(meaning or ""))
