"""Every laboratory value: its names, its units against molar masses, both ends of its plausible range."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from data_specs.labs import ANALYTES, SAME_WITHIN, standard_labs
from data_specs.problems import Problem
from data_specs.visit.context import Lab

ATOMIC_WEIGHTS = {"C": 12.011, "H": 1.008, "N": 14.007, "O": 15.999}
"""Abridged standard atomic weights, IUPAC 2021."""


def molar_mass(**atoms: int) -> float:
    """g/mol."""
    return sum(ATOMIC_WEIGHTS[element] * number for element, number in atoms.items())


CREATININE = molar_mass(C=4, H=7, N=3, O=1)
GLUCOSE = molar_mass(C=6, H=12, O=6)
CHOLESTEROL = molar_mass(C=27, H=46, O=1)
TRIOLEIN = molar_mass(C=57, H=104, O=6)
UREA = molar_mass(C=1, H=4, N=2, O=1)
URATE = molar_mass(C=5, H=4, N=4, O=3)
NITROGEN_OF_UREA = molar_mass(N=2)

G_PER_L = {"g/L": 1.0, "g/dL": 10.0, "mg/dL": 0.01, "mg/L": 0.001, "ug/mL": 0.001}
MOL_PER_L = {"mol/L": 1.0, "mmol/L": 1e-3, "umol/L": 1e-6, "meq/L": 1e-3}
"""meq (UCUM): of ions with one charge."""
G_PER_G = {"g/g": 1.0, "mg/mg": 1.0, "mg/g": 1e-3, "ug/mg": 1e-3, "g/mol": 1 / CREATININE, "mg/mmol": 1 / CREATININE}


@dataclass(frozen=True)
class Row:
    """How laboratories write an analyte.

    Parameters
    ----------
    units
        As a message shows them.
    range
        Plausible values in the unit of the key, ends included.
    g_per_mol
        Of the substance that the units weigh.
    names
        As people and LOINC write them.
    """

    key: str
    unit: str
    units: tuple[str, ...]
    range: tuple[float, float]
    names: tuple[str, ...]
    g_per_mol: float = math.nan

    def factor(self, unit: str) -> float:
        """Canonical value of 1 in ``unit``, from SI prefixes and the molar mass alone."""
        if unit in G_PER_G:
            return G_PER_G[unit] / G_PER_G[self.unit]
        if unit in MOL_PER_L:
            return MOL_PER_L[unit] / MOL_PER_L[self.unit]
        if self.unit in MOL_PER_L:
            return G_PER_L[unit] / self.g_per_mol / MOL_PER_L[self.unit]
        return G_PER_L[unit] / G_PER_L[self.unit]


LIPID_UNITS = ("mmol/L", "mg/dL", "g/L")
TABLE = {
    "creatinine": Row(
        "creatinine_umol_per_l", "umol/L", ("umol/L", "mmol/L", "mg/dL", "mg/L"), (10, 3500),
        ("Creatinine", "serum creatinine", "Créatinine", "Creatinin", "SCr", "CREA", "creat", "créatininémie",
         "2160-0", "14682-9"),
        CREATININE,
    ),
    "urine_acr": Row(
        "urine_acr_mg_per_g", "mg/g", ("mg/g", "ug/mg", "mg/mmol", "g/mol", "g/g", "mg/mg"), (0, 50_000),
        ("ACR", "UACR", "albumin/creatinine ratio", "Urine albumin/creatinine ratio", "urine ACR", "9318-7", "14959-1"),
    ),
    "potassium": Row(
        "potassium_mmol_per_l", "mmol/L", ("mmol/L", "meq/L"), (1, 11),
        ("Potassium", "K", "serum potassium", "Kali", "kaliémie", "2823-3", "6298-4"),
    ),
    "glucose": Row(
        "glucose_mmol_per_l", "mmol/L", LIPID_UNITS, (0.3, 100),
        ("Glucose", "blood glucose", "plasma glucose", "fasting glucose", "glycémie", "14749-6", "2345-7"),
        GLUCOSE,
    ),
    "total_cholesterol": Row(
        "total_cholesterol_mmol_per_l", "mmol/L", LIPID_UNITS, (0.5, 40),
        ("total cholesterol", "Cholesterol", "Chol", "TC", "cholestérol total", "14647-2", "2093-3"),
        CHOLESTEROL,
    ),
    "hdl": Row(
        "hdl_mmol_per_l", "mmol/L", LIPID_UNITS, (0.05, 6),
        ("HDL", "HDL-C", "HDL cholesterol", "14646-4", "2085-9"), CHOLESTEROL,
    ),
    "ldl": Row(
        "ldl_mmol_per_l", "mmol/L", LIPID_UNITS, (0.05, 30),
        ("LDL", "LDL-C", "LDL cholesterol", "22748-8", "2089-1", "13457-7"), CHOLESTEROL,
    ),
    "triglycerides": Row(
        "triglycerides_mmol_per_l", "mmol/L", LIPID_UNITS, (0.1, 150),
        ("Triglycerides", "triglyceride", "TG", "14927-8", "2571-8"), TRIOLEIN,
    ),
    "haemoglobin": Row(
        "haemoglobin_g_per_l", "g/L", ("g/L", "g/dL"), (15, 270),
        ("Haemoglobin", "hemoglobin", "Hb", "HGB", "hémoglobine", "718-7"),
    ),
    "urea": Row(
        "urea_mmol_per_l", "mmol/L", LIPID_UNITS, (0.2, 120),
        ("Urea", "serum urea", "Ure", "urée", "22664-7"), UREA,
    ),
    "urea_nitrogen": Row(
        "urea_mmol_per_l", "mmol/L", ("mg/dL",), (0.2, 120),
        ("urea nitrogen", "BUN", "blood urea nitrogen", "3094-0"), NITROGEN_OF_UREA,
    ),
    "uric_acid": Row(
        "uric_acid_umol_per_l", "umol/L", ("umol/L", "mmol/L", "mg/dL"), (20, 2500),
        ("uric acid", "urate", "acide urique", "acid uric"), URATE,
    ),
    "albumin": Row(
        "albumin_g_per_l", "g/L", ("g/L", "g/dL"), (5, 80),
        ("Albumin", "serum albumin", "ALB", "albumine", "1751-7"),
    ),
    "sodium": Row(
        "sodium_mmol_per_l", "mmol/L", ("mmol/L", "meq/L"), (90, 210),
        ("Sodium", "Na", "serum sodium", "natri", "natrémie", "2951-2"),
    ),
    "bicarbonate": Row(
        "bicarbonate_mmol_per_l", "mmol/L", ("mmol/L", "meq/L"), (1, 65),
        ("Bicarbonate", "HCO3", "total CO2", "TCO2", "1963-8"),
    ),
    "urine_albumin": Row(
        "urine_albumin_mg_per_l", "mg/L", ("mg/L", "ug/mL", "mg/dL", "g/L"), (0, 50_000),
        ("urine albumin", "urinary albumin", "microalbumin", "urine microalbumin"),
    ),
    "urine_creatinine": Row(
        "urine_creatinine_mmol_per_l", "mmol/L", ("mmol/L", "umol/L", "mg/dL", "mg/L", "g/L"), (0.1, 100),
        ("urine creatinine", "urinary creatinine"), CREATININE,
    ),
}  # fmt: skip
"""HbA1c is not here: its second unit is no multiple of the first."""

HBA1C_NAMES = (
    "HbA1c",
    "A1c",
    "Hb A1c",
    "hemoglobin A1c",
    "haemoglobin A1c",
    "glycated haemoglobin",
    "4548-4",
    "59261-8",
)
NAMES = [(analyte, name) for analyte, row in TABLE.items() for name in row.names]
NAMES += [("hba1c", name) for name in HBA1C_NAMES]
RANGES = {analyte: (row.key, row.unit, *row.range) for analyte, row in TABLE.items()}
RANGES |= {"hba1c": ("hba1c_percent", "%", 2.5, 20)}


def read(name: str, value: float, unit: str) -> tuple[dict[str, float], list[Problem]]:
    return standard_labs([Lab(name=name, value=value, unit=unit)])


def test_the_table_is_complete() -> None:
    assert {*TABLE, "hba1c"} == {analyte.name for analyte in ANALYTES}
    assert len(NAMES) >= sum(1 + len(analyte.aliases) for analyte in ANALYTES)


@pytest.mark.parametrize("analyte", TABLE)
def test_every_unit_of_an_analyte_is_its_substance_by_weight_or_by_number(analyte: str) -> None:
    row = TABLE[analyte]
    for unit in row.units:
        value = 10 * row.range[1] / row.factor(unit) / 11
        values, problems = read(analyte, value, unit)
        assert problems == []
        # 2 in 10,000: molar masses are rounded in the fifth figure, and creatinine's 88.4 (KDIGO) in the third.
        assert values == {row.key: pytest.approx(value * row.factor(unit), rel=2e-4)}, unit
    assert read(analyte, 1, "furlong")[1] == [
        Problem("unit_not_accepted", "reject", f"{analyte}, furlong", ", ".join(row.units))
    ]


def test_published_pairs_of_two_units() -> None:
    """KDIGO 2024, conversion table: creatinine 1 mg/dL = 88.4 µmol/L, ACR 1 mg/g = 0.113 mg/mmol. ADA Standards of
    Care: glucose 126 mg/dL = 7.0 mmol/L, 200 = 11.1. ESC/EAS 2019: LDL-C 70 mg/dL = 1.8 mmol/L, 116 = 3.0;
    triglycerides 150 = 1.7."""
    for name, value, unit, canonical, digits in (
        ("creatinine", 1, "mg/dL", 88.4, 1),
        ("creatinine", 1.2, "mg/dL", 106.1, 1),
        ("acr", 0.113, "mg/mmol", 1.0, 2),
        ("acr", 3, "mg/mmol", 27, 0),
        ("acr", 33.94, "mg/mmol", 300, 0),
        ("glucose", 126, "mg/dL", 7.0, 1),
        ("glucose", 200, "mg/dL", 11.1, 1),
        ("ldl", 70, "mg/dL", 1.8, 1),
        ("ldl", 116, "mg/dL", 3.0, 1),
        ("triglycerides", 150, "mg/dL", 1.7, 1),
        ("uric_acid", 6, "mg/dL", 357, 0),
        ("bun", 28, "mg/dL", 10.0, 1),
        ("urine_albumin", 2, "mg/dL", 20, 6),
        ("urine_creatinine", 113.12, "mg/dL", 10.0, 2),
    ):
        values, problems = read(name, value, unit)
        assert (problems, len(values)) == ([], 1)
        assert round(next(iter(values.values())), digits) == canonical, (name, value, unit)


def test_hba1c_has_two_units_that_are_no_multiples() -> None:
    """NGSP master equation (Hoelzel 2004): % = 0.09148 · mmol/mol + 2.152."""
    for unit, value, percent in (("%", 6.5, 6.5), ("mmol/mol", 42, 5.99416), ("mmol/mol", 100, 11.3)):
        assert read("hba1c", value, unit) == ({"hba1c_percent": pytest.approx(percent, abs=1e-9)}, [])
    (refused,) = read("hba1c", 48, "mg/dL")[1]
    assert (refused.code, refused.found, refused.expected) == ("unit_not_accepted", "hba1c, mg/dL", "%, mmol/mol")


@pytest.mark.parametrize(("analyte", "name"), NAMES)
def test_every_name_of_an_analyte_is_read(analyte: str, name: str) -> None:
    key, unit, low, high = RANGES[analyte]
    written = "mg/dL" if analyte == "urea_nitrogen" else unit
    assert read(name, (low + high) / 2, written)[0].keys() == {key}


@pytest.mark.parametrize("analyte", RANGES)
def test_a_plausible_range_includes_both_ends_and_nothing_beyond(analyte: str) -> None:
    key, unit, low, high = RANGES[analyte]
    # Units that are not the key's are converted with rounding: just inside and just outside, not at the end.
    written, factor, at = (
        (unit, 1.0, 0.0) if analyte != "urea_nitrogen" else ("mg/dL", TABLE[analyte].factor("mg/dL"), 1e-4)
    )
    for end, outwards in ((low, -1), (high, 1)):
        inside = end / factor * (1 - outwards * at)
        outside = math.nextafter(end, outwards * math.inf) / factor * (1 + outwards * at)
        assert read(analyte, inside, written) == ({key: pytest.approx(end, rel=2e-4, abs=0)}, [])
        values, (problem,) = read(analyte, outside, written)
        assert (values, problem.code, problem.severity) == ({}, "value_implausible", "reject")
        assert problem.found == f"{analyte}, {outside:g} {written}"
        assert problem.expected == f"{low:g}–{high:g} {unit}"


def test_nothing_is_below_nothing() -> None:
    """-0.001 mmol/mol of HbA1c would be 2.15 %; of 4 it is 2.52 %, which is plausible."""
    for analyte, (_, unit, low, _) in RANGES.items():
        assert low >= 0
        assert read(analyte, -0.001, "mg/dL" if analyte == "urea_nitrogen" else unit)[1][0].code == "value_implausible"
    assert read("hba1c", -0.001, "mmol/mol")[1][0].code == "value_implausible"
    assert read("hba1c", 4, "mmol/mol")[1] == []


def test_two_values_are_one_where_they_differ_by_two_percent_and_are_left_out_from_there_on() -> None:
    """2 % of the larger one: a value of three figures that was rounded in two units."""
    assert SAME_WITHIN == 0.02
    for second, kept in ((98.0, True), (math.nextafter(98, 0), False), (102.0, True), (102.05, False)):
        values, problems = standard_labs([Lab(name="crea", value=value, unit="umol/L") for value in (second, 100.0)])
        assert values == ({"creatinine_umol_per_l": second} if kept else {})
        assert [(p.code, p.severity, p.found, p.expected) for p in problems] == (
            [] if kept else [("lab_conflict", "reject", f"creatinine, {second:.4g} umol/L, 100 umol/L", "1")]
        )


@pytest.mark.parametrize("left_out", ["urine_albumin", "urine_creatinine", None])
def test_a_ratio_needs_both_of_its_parts(left_out: str | None) -> None:
    parts = [("urine_albumin", 17.68, "mg/L"), ("urine_creatinine", 8.84, "mmol/L")]
    values, _ = standard_labs([Lab(name=n, value=v, unit=u) for n, v, u in parts if n != left_out])
    # 17.68 mg of albumin to 8.84 mmol, which is 1 g, of creatinine.
    assert values.get("urine_acr_mg_per_g") == (None if left_out else pytest.approx(17.68, rel=1e-4))


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("MG%", "mg/dL"), ("mg %", "mg/dL"), ("mg/dl", "mg/dL"), ("mg / dL", "mg/dL"),
        ("mcmol/L", "umol/L"), ("micromol/L", "umol/L"), ("µmol/L", "umol/L"), ("μMol/l", "umol/L"),
    ],
)  # fmt: skip
def test_units_as_they_are_written_by_hand(written: str, plain: str) -> None:
    value = {"mg/dL": 2, "umol/L": 200}[plain]
    assert read("creatinine", value, written) == read("creatinine", value, plain)
    assert read("creatinine", value, written)[1] == []


@pytest.mark.parametrize(
    ("name", "value", "written", "plain"),
    [
        ("haemoglobin", 13, "g%", "g/dL"),
        ("hba1c", 7, "percent", "%"),
        ("hba1c", 7, "% Hb", "%"),
        ("hba1c", 50, "mmol/mol Hb", "mmol/mol"),
        ("hba1c", 50, "mmol/mol.Hb", "mmol/mol"),
        ("acr", 3, "mg/mmol creatinine", "mg/mmol"),
        ("acr", 3, "mg/mmol.creat", "mg/mmol"),
        ("acr", 3, "mg/mmol Cr", "mg/mmol"),
        ("acr", 3, "mg/mmol crea", "mg/mmol"),
        ("acr", 3, "mg/mmol creatinin", "mg/mmol"),
        ("acr", 30, "mg/g creatinin", "mg/g"),
        ("acr", 30, "mg/g.crea", "mg/g"),
        ("acr", 30, "mg/gCr", "mg/g"),
        ("acr", 30, "mcg/mg", "ug/mg"),
        ("acr", 30, "microg/mg", "ug/mg"),
        ("urine_albumin", 30, "mcg/mL", "ug/mL"),
    ],
)
def test_units_that_say_what_they_are_of(name: str, value: float, written: str, plain: str) -> None:
    assert read(name, value, written) == read(name, value, plain)
    assert read(name, value, written)[1] == []


def test_a_vietnamese_keyboard_writes_a_stroke_into_a_d() -> None:
    assert read("LĐL-c", 3, "mmol/L") == ({"ldl_mmol_per_l": 3}, [])


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    _, (problem,) = read("unobtainium", 5, "mmol/L")
    assert problem.code == "lab_unknown"
    assert problem.expected.startswith("creatinine | urine_acr | potassium | hba1c | ")
    assert len(problem.expected.split(" | ")) == len(ANALYTES)


def test_a_message_quotes_no_character_that_no_unit_has() -> None:
    def quoted(unit: str) -> str:
        (problem,) = read("potassium", 4, unit)[1]
        return problem.found

    assert quoted("a_b-c/d%µ.e") == "potassium, a_b-c/d%µ.e"
    assert quoted(" <b>g l</b>") == "potassium, bg l/b"
    assert quoted("<>") == "potassium, —"
    assert quoted("  ") == "potassium"
