"""The table of terms and the sentences hold what the wire contract and the source promise, in three languages."""

from __future__ import annotations

import re
import string
import tomllib

import pytest

from data_specs.labs import ANALYTES
from data_specs.problems import message
from data_specs.visit.contract import ORGANS, visible_findings
from data_specs.vocabulary import LANGUAGES, SYSTEMS, display, findings_of, judged_findings, localise, terms
from tests.conftest import ROOT

LUNG = [
    "abnormal",
    "pneumonia",
    "effusion",
    "cardiomegaly",
    "pneumothorax",
    "consolidation",
    "atelectasis",
    "edema",
    "infiltration",
    "mass",
    "nodule",
    "emphysema",
    "fibrosis",
    "pleural_thickening",
    "hernia",
    "tuberculosis",
]
CARDIAC = [
    "normal_ecg",
    "st_t_change",
    "conduction_disturbance",
    "myocardial_infarction",
    "hypertrophy",
    "atrial_fibrillation",
]
MEASURED = {"heart_rate": "/min", "pr_interval": "ms", "qrs_duration": "ms", "qtc_interval": "ms"}
MEASURED_KIDNEY = {"egfr": "mL/min/{1.73_m2}"}
KIDNEY = ["egfr", "kdigo_g", "kdigo_a", "kdigo_risk", "kfre_2y", "kfre_5y", "incident_ckd"]
WIRE_LABS = ["creatinine", "urine_acr", "potassium", "hba1c"]


def raw() -> dict[str, dict[str, str]]:
    return tomllib.loads((ROOT / "data_specs" / "vocabulary.toml").read_text(encoding="utf-8"))


def sentences() -> dict[str, dict[str, str]]:
    return tomllib.loads((ROOT / "data_specs" / "messages.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [*LUNG, *CARDIAC, *MEASURED, *KIDNEY, *WIRE_LABS, "lung", "cardiac", "kidney"])
def test_every_name_of_the_wire_contract_is_a_term(name: str) -> None:
    assert name in terms()


def test_measured_findings_carry_their_unit() -> None:
    for name, unit in (MEASURED | MEASURED_KIDNEY).items():
        assert terms()[name].unit == unit


def test_a_finding_says_its_organ_and_how_it_is_answered() -> None:
    for name, row in raw().items():
        assert ("organ" in row) == ("judged" in row), name
        if "organ" in row:
            assert row["organ"] in ORGANS
            assert terms()[name].judged != terms()[name].measured, name
    assert [term.name for term in findings_of("cardiac")][: len(CARDIAC) + len(MEASURED)] == [*CARDIAC, *MEASURED]
    assert {*KIDNEY} <= {term.name for term in findings_of("kidney")}


def test_what_a_doctor_can_see_is_what_is_judged_on_a_film_or_a_trace() -> None:
    """The findings of the wire contract are there, in its order; more may come between them."""
    for organ, contract in (("lung", LUNG), ("cardiac", CARDIAC)):
        assert [name for name in visible_findings(organ) if name in contract] == contract
    assert visible_findings("kidney") == ()
    assert {"kfre_2y", "kfre_5y", "incident_ckd"} <= {*judged_findings("kidney")}


def test_every_lab_and_its_canonical_key_are_terms() -> None:
    for analyte in ANALYTES:
        assert analyte.name in terms()
        assert terms()[analyte.key].unit == analyte.unit


@pytest.mark.parametrize("name", sorted(raw()))
def test_a_row_is_complete(name: str) -> None:
    row = raw()[name]
    assert row["system"] in SYSTEMS
    assert row["source"].strip()
    for language in LANGUAGES:
        assert row[language] == row[language].strip() != ""
    code = row.get("code", name)
    if row["system"] == "sct":
        assert re.fullmatch(r"[1-9]\d{5,17}", code)
        assert _verhoeff_holds(code), f"{code} is no SNOMED CT identifier: its check digit is wrong"
    elif row["system"] == "loinc":
        assert _luhn_holds(code), f"{code} is no LOINC code: its check digit is wrong"


def test_findings_with_one_code_are_one_finding() -> None:
    codes = [terms()[name].code for name in (*LUNG, *CARDIAC, *MEASURED, *KIDNEY)]
    assert len(set(codes)) == len(codes)


def test_names_are_said_in_the_readers_language() -> None:
    assert display("pneumonia", "vi") == "viêm phổi"
    assert display("effusion", "fr") == "épanchement pleural"
    assert localise("creatinine, age_years, 12 px", "en") == "blood creatinine, age (years), 12 px"


@pytest.mark.parametrize("code", sorted(sentences()))
def test_a_sentence_is_complete(code: str) -> None:
    assert set(sentences()[code]) == set(LANGUAGES)
    used = set()
    for language in LANGUAGES:
        text = sentences()[code][language]
        assert text == text.strip() != ""
        fields = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
        assert fields <= {"found", "expected"}
        used.add(frozenset(fields))
        assert message(code, language, found="1 px", expected="2 px")
    assert len(used) == 1, "the three languages quote different things"


def test_vietnamese_is_written_with_its_marks() -> None:
    for code, row in sentences().items():
        assert re.search(
            "[ăâđêôơưàảãáạằẳẵắặầẩẫấậèẻẽéẹềểễếệìỉĩíịòỏõóọồổỗốộờởỡớợùủũúụừửữứựỳỷỹýỵ]", row["vi"].lower()
        ) or (code == "invalid_request")


def test_french_has_no_break_before_its_double_marks() -> None:
    for code, row in sentences().items():
        assert not re.search(r" [:;?!%»]|« ", row["fr"]), code


def test_every_code_that_the_source_raises_has_a_sentence() -> None:
    raised = set()
    for package in ("data_specs", "inference", "service"):
        for path in (ROOT / package).rglob("*.py"):
            raised |= set(
                re.findall(
                    r"\b(?:Refused|Problem|refuse_to_assess)\(\s*\"([a-z_]+)\"", path.read_text(encoding="utf-8")
                )
            )
    assert {"unreadable", "truncated", "lab_unknown"} <= raised
    assert raised <= set(sentences())


CONTRACT_CODES = [
    "unreadable",
    "truncated",
    "no_pixel_data",
    "unsupported_format",
    "unsupported_transfer_syntax",
    "multiframe",
    "too_small",
    "wrong_modality",
    "wrong_body_part",
    "wrong_view",
    "not_a_chest_image",
    "inverted",
    "lungs_cut_off",
    "saturated",
    "lead_missing",
    "lead_flat",
    "leads_reversed",
    "too_short",
    "sampling_rate",
    "unit_unknown",
    "amplitude_implausible",
    "age_out_of_range",
    "person_mismatch",
    "gains_inconsistent",
    "short",
]


def test_every_code_of_the_wire_contract_has_a_sentence() -> None:
    assert set(CONTRACT_CODES) <= set(sentences())


def _luhn_holds(code: str) -> bool:
    """LOINC check digit: modulus 10 over the digits before the hyphen (LOINC Users' Guide, Mod 10 algorithm)."""
    digits, _, check = code.partition("-")
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled // 10 + doubled % 10
    return check == str(-total % 10)


def _verhoeff_holds(code: str) -> bool:
    """SNOMED CT check digit: Verhoeff's dihedral algorithm (SNOMED CT Release File Specification, SCTID)."""
    permutation = [list(range(10)), [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]]
    for _ in range(6):
        permutation.append([permutation[-1][permutation[1][i]] for i in range(10)])
    check = 0
    for place, digit in enumerate(reversed(code)):
        check = _dihedral(check, permutation[place % 8][int(digit)])
    return check == 0


def _dihedral(a: int, b: int) -> int:
    """Product in the dihedral group of order ten: 0 to 4 are rotations, 5 to 9 reflections."""
    if a < 5:
        return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
    return 5 + (a - b) % 5 if b < 5 else (a - b) % 5
