"""Laboratory values: from the names and units that laboratories use to one name and one unit each.

One table states the names and units that are read, the factor from each unit to the canonical one, and the values that
a living person can have. A unit that is not in the table is refused, never guessed from the size of the number.

References
----------
Units: UCUM 2.1. Factors: molar masses of the pure substances (creatinine 113.12, glucose 180.16, cholesterol 386.65,
triolein 885.4, urea 60.06, urate as uric acid 168.11 g/mol); KDIGO 2024 CKD guideline, Kidney Int 2024;105(4S),
conversion table (creatinine 88.4, ACR 0.113). HbA1c: NGSP = 0.09148 · IFCC + 2.152, Hoelzel et al., Clin Chem
2004;50:166. Ranges are wide on purpose: they contain every value that a person can survive, and serve to find a
wrong unit.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from data_specs.problems import Problem
from data_specs.visit.context import Lab

SAME_WITHIN = 0.02
"""Two values of one analyte that differ by no more than this share are one value that was rounded in two units."""


@dataclass(frozen=True, slots=True)
class Unit:
    """``canonical = factor · value + offset``."""

    factor: float
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Analyte:
    """One quantity.

    Parameters
    ----------
    name
        On the wire and in the vocabulary.
    key
        Canonical name of the value, with its unit.
    unit
        Canonical unit (UCUM).
    aliases
        Other names, in the form that :func:`_plain_name` gives; LOINC codes among them.
    units
        Accepted units, in the form that :func:`_plain_unit` gives.
    minimum, maximum
        Plausible range in the canonical unit, ends included.
    """

    name: str
    key: str
    unit: str
    aliases: tuple[str, ...]
    units: dict[str, Unit]
    minimum: float
    maximum: float

    @property
    def accepted_units(self) -> tuple[str, ...]:
        """The accepted units as laboratories write them."""
        return tuple(_SHOWN.get(name, name) for name in self.units)


CREATININE_UMOL_PER_MG = 8.84
"""µmol of creatinine in 1 mg (1000 / 113.12): 88.4 µmol/L is 1 mg/dL, and 1 mg/mmol is 8.84 mg/g."""

_MMOL = {"mmol/l": Unit(1), "meq/l": Unit(1)}
_CHOLESTEROL = {"mmol/l": Unit(1), "mg/dl": Unit(10 / 386.65), "g/l": Unit(1000 / 386.65)}
_GRAMS = {"g/l": Unit(1), "g/dl": Unit(10)}

ANALYTES = (
    Analyte(
        name="creatinine",
        key="creatinine_umol_per_l",
        unit="umol/L",
        aliases=("serum_creatinine", "creatinin", "scr", "crea", "creat", "creatininemie", "2160_0", "14682_9"),
        units={
            "umol/l": Unit(1),
            "mmol/l": Unit(1000),
            "mg/dl": Unit(10 * CREATININE_UMOL_PER_MG),
            "mg/l": Unit(CREATININE_UMOL_PER_MG),
        },
        minimum=10,
        maximum=3500,
    ),
    Analyte(
        name="urine_acr",
        key="urine_acr_mg_per_g",
        unit="mg/g",
        aliases=("acr", "uacr", "albumin_creatinine_ratio", "urine_albumin_creatinine_ratio", "9318_7", "14959_1"),
        units={
            "mg/g": Unit(1),
            "ug/mg": Unit(1),
            "mg/mmol": Unit(CREATININE_UMOL_PER_MG),
            "g/mol": Unit(CREATININE_UMOL_PER_MG),
            "g/g": Unit(1000),
            "mg/mg": Unit(1000),
        },
        minimum=0,
        maximum=50_000,
    ),
    Analyte(
        name="potassium",
        key="potassium_mmol_per_l",
        unit="mmol/L",
        aliases=("k", "serum_potassium", "kali", "kaliemie", "2823_3", "6298_4"),
        units=_MMOL,
        minimum=1,
        maximum=11,
    ),
    Analyte(
        name="hba1c",
        key="hba1c_percent",
        unit="%",
        aliases=("a1c", "hb_a1c", "hemoglobin_a1c", "haemoglobin_a1c", "glycated_haemoglobin", "4548_4", "59261_8"),
        units={"%": Unit(1), "mmol/mol": Unit(0.09148, 2.152)},
        minimum=2.5,
        maximum=20,
    ),
    Analyte(
        name="glucose",
        key="glucose_mmol_per_l",
        unit="mmol/L",
        aliases=("blood_glucose", "plasma_glucose", "fasting_glucose", "glycemie", "14749_6", "2345_7"),
        units={"mmol/l": Unit(1), "mg/dl": Unit(10 / 180.16), "g/l": Unit(1000 / 180.16)},
        minimum=0.3,
        maximum=100,
    ),
    Analyte(
        name="total_cholesterol",
        key="total_cholesterol_mmol_per_l",
        unit="mmol/L",
        aliases=("cholesterol", "chol", "tc", "cholesterol_total", "14647_2", "2093_3"),
        units=_CHOLESTEROL,
        minimum=0.5,
        maximum=40,
    ),
    Analyte(
        name="hdl",
        key="hdl_mmol_per_l",
        unit="mmol/L",
        aliases=("hdl_c", "hdl_cholesterol", "14646_4", "2085_9"),
        units=_CHOLESTEROL,
        minimum=0.05,
        maximum=6,
    ),
    Analyte(
        name="ldl",
        key="ldl_mmol_per_l",
        unit="mmol/L",
        aliases=("ldl_c", "ldl_cholesterol", "22748_8", "2089_1", "13457_7"),
        units=_CHOLESTEROL,
        minimum=0.05,
        maximum=30,
    ),
    Analyte(
        name="triglycerides",
        key="triglycerides_mmol_per_l",
        unit="mmol/L",
        aliases=("triglyceride", "tg", "14927_8", "2571_8"),
        units={"mmol/l": Unit(1), "mg/dl": Unit(10 / 885.4), "g/l": Unit(1000 / 885.4)},
        minimum=0.1,
        maximum=150,
    ),
    Analyte(
        name="haemoglobin",
        key="haemoglobin_g_per_l",
        unit="g/L",
        aliases=("hemoglobin", "hb", "hgb", "hemoglobine", "718_7"),
        units=_GRAMS,
        minimum=15,
        maximum=270,
    ),
    Analyte(
        name="urea",
        key="urea_mmol_per_l",
        unit="mmol/L",
        aliases=("serum_urea", "ure", "uree", "22664_7"),
        units={"mmol/l": Unit(1), "mg/dl": Unit(10 / 60.06), "g/l": Unit(1000 / 60.06)},
        minimum=0.2,
        maximum=120,
    ),
    Analyte(
        name="urea_nitrogen",
        key="urea_mmol_per_l",
        unit="mmol/L",
        aliases=("bun", "blood_urea_nitrogen", "3094_0"),
        units={"mg/dl": Unit(10 / 28.014)},  # two nitrogen atoms of 14.007 to a molecule of urea
        minimum=0.2,
        maximum=120,
    ),
    Analyte(
        name="uric_acid",
        key="uric_acid_umol_per_l",
        unit="umol/L",
        aliases=("urate", "acide_urique", "acid_uric"),
        units={"umol/l": Unit(1), "mmol/l": Unit(1000), "mg/dl": Unit(10_000 / 168.11)},
        minimum=20,
        maximum=2500,
    ),
    Analyte(
        name="albumin",
        key="albumin_g_per_l",
        unit="g/L",
        aliases=("serum_albumin", "alb", "albumine", "1751_7"),
        units=_GRAMS,
        minimum=5,
        maximum=80,
    ),
    Analyte(
        name="sodium",
        key="sodium_mmol_per_l",
        unit="mmol/L",
        aliases=("na", "serum_sodium", "natri", "natremie", "2951_2"),
        units=_MMOL,
        minimum=90,
        maximum=210,
    ),
    Analyte(
        name="bicarbonate",
        key="bicarbonate_mmol_per_l",
        unit="mmol/L",
        aliases=("hco3", "total_co2", "tco2", "1963_8"),
        units=_MMOL,
        minimum=1,
        maximum=65,
    ),
    Analyte(
        name="urine_albumin",
        key="urine_albumin_mg_per_l",
        unit="mg/L",
        aliases=("urinary_albumin", "microalbumin", "urine_microalbumin"),
        units={"mg/l": Unit(1), "ug/ml": Unit(1), "mg/dl": Unit(10), "g/l": Unit(1000)},
        minimum=0,
        maximum=50_000,
    ),
    Analyte(
        name="urine_creatinine",
        key="urine_creatinine_mmol_per_l",
        unit="mmol/L",
        aliases=("urinary_creatinine",),
        units={
            "mmol/l": Unit(1),
            "umol/l": Unit(0.001),
            "mg/dl": Unit(CREATININE_UMOL_PER_MG / 100),
            "mg/l": Unit(CREATININE_UMOL_PER_MG / 1000),
            "g/l": Unit(CREATININE_UMOL_PER_MG),
        },
        minimum=0.1,
        maximum=100,
    ),
)

_BY_NAME = {name: analyte for analyte in ANALYTES for name in (analyte.name, *analyte.aliases)}
_SHOWN = {"umol/l": "umol/L", "mmol/l": "mmol/L", "mg/dl": "mg/dL", "g/l": "g/L", "g/dl": "g/dL", "meq/l": "meq/L"}
_SHOWN |= {"mg/l": "mg/L", "ug/ml": "ug/mL"}


def standard_labs(labs: Sequence[Lab]) -> tuple[dict[str, float], list[Problem]]:
    """Canonical values of the reported ones.

    Parameters
    ----------
    labs
        As they came with the visit.

    Returns
    -------
    Canonical key to value in the unit that the key names (``creatinine_umol_per_l``), and the problems:
    ``lab_unknown`` (warn) for a name that is not in the table, ``unit_not_accepted``, ``value_implausible`` and
    ``lab_conflict`` (reject) for values that were left out. An analyte that is reported twice with different values is
    left out, since either may be the right one. Where urine albumin and urine creatinine were reported without their
    ratio, the ratio is computed.
    """
    reported: dict[str, list[tuple[Analyte, float]]] = {}
    problems: list[Problem] = []
    for position, lab in enumerate(labs):
        analyte = _BY_NAME.get(_plain_name(lab.name))
        if analyte is None:
            # The message gives its position, because its name may be any text, even a person's name; and the names that
            # are read as they have to be written, not as a reader calls them: no commas between them.
            problems.append(Problem("lab_unknown", "warn", f"labs[{position}]", " | ".join(_names())))
            continue
        value, problem = _canonical(lab, analyte)
        if problem is not None:
            problems.append(problem)
        else:
            reported.setdefault(analyte.key, []).append((analyte, value))
    values: dict[str, float] = {}
    for key, found in reported.items():
        analyte, first = found[0]
        if all(math.isclose(first, other, rel_tol=SAME_WITHIN) for _, other in found):
            values[key] = first
        else:
            shown = ", ".join(f"{value:.4g} {analyte.unit}" for _, value in found)
            problems.append(Problem("lab_conflict", "reject", f"{analyte.name}, {shown}", "1"))
    acr = values.get("urine_albumin_mg_per_l"), values.get("urine_creatinine_mmol_per_l")
    if "urine_acr_mg_per_g" not in reported and acr[0] is not None and acr[1] is not None:
        values["urine_acr_mg_per_g"] = acr[0] / acr[1] * CREATININE_UMOL_PER_MG
    return values, problems


def _canonical(lab: Lab, analyte: Analyte) -> tuple[float, Problem | None]:
    unit = analyte.units.get(_plain_unit(lab.unit))
    if unit is None:
        accepted = ", ".join(analyte.accepted_units)
        found = f"{analyte.name}, {_quotable(lab.unit)}" if lab.unit.strip() else analyte.name
        return math.nan, Problem("unit_not_accepted", "reject", found, accepted)
    value = unit.factor * lab.value + unit.offset
    if not analyte.minimum <= value <= analyte.maximum:
        expected = f"{analyte.minimum:g}–{analyte.maximum:g} {analyte.unit}"
        found = f"{analyte.name}, {lab.value:g} {_quotable(lab.unit)}"
        return math.nan, Problem("value_implausible", "reject", found, expected)
    return value, None


def _plain_name(name: str) -> str:
    """Lower case, without accents, words joined by one underscore."""
    bare = unicodedata.normalize("NFKD", name.lower().replace("đ", "d"))
    letters = "".join(c if c.isalnum() else " " for c in bare if not unicodedata.combining(c))
    return "_".join(letters.split())


_SLASHES_AND_MICRO = str.maketrans("\u2044\u2215\u03bc", "//u")


def _plain_unit(unit: str) -> str:
    """Lower case, full-width forms as plain ones, ``u`` for micro, without blanks, UCUM annotations and a repeated
    ``creatinine`` or ``Hb``."""
    plain = unicodedata.normalize("NFKC", unit).translate(_SLASHES_AND_MICRO)
    plain = re.sub(r"\{[^{}]*\}", "", plain).lower()
    plain = re.sub(r"\s+", "", plain)
    plain = re.sub(r"(?<=[lg])\.?(creatinine?|creat|crea|cr)$", "", plain)
    plain = re.sub(r"(?<=mol)\.?(hb|creatinine?|creat|crea|cr)$", "", plain)
    plain = re.sub(r"^(mcmol|micromol)", "umol", plain)
    plain = re.sub(r"^(mcg|microg)", "ug", plain)
    return {"mg%": "mg/dl", "g%": "g/dl", "percent": "%", "%hb": "%"}.get(plain, plain)


def _quotable(text: str) -> str:
    """A unit as a message may quote it: its letters, digits and characters of units."""
    return "".join(c for c in text if c.isalnum() or c in " _-/%µ.").strip() or "—"


def _names() -> tuple[str, ...]:
    return tuple(analyte.name for analyte in ANALYTES)
