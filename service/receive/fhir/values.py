"""Reads laboratory values, vital signs and conditions of a posted Bundle; those not known here are skipped."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from data_specs.conditions import CONDITIONS, normal_name
from data_specs.labs import ANALYTES, Unit, standard_labs
from data_specs.visit.context import Lab
from data_specs.vocabulary import LANGUAGES, SYSTEMS, terms
from service.receive.fhir.bundle import Part, Resource, refuse

UCUM = "http://unitsofmeasure.org"
MAX_UNIT = 30

VITALS: dict[str, dict[str, Unit]] = {
    "systolic_mmHg": {"mm[Hg]": Unit(1)},
    "diastolic_mmHg": {"mm[Hg]": Unit(1)},
    "heart_rate_per_min": {"/min": Unit(1)},
    "spo2_percent": {"%": Unit(1)},
    "temperature_celsius": {"Cel": Unit(1), "[degF]": Unit(5 / 9, -160 / 9)},
    "weight_kg": {"kg": Unit(1), "g": Unit(0.001), "[lb_av]": Unit(0.45359237)},
    "height_cm": {"cm": Unit(1), "m": Unit(100), "[in_i]": Unit(2.54)},
    "bmi_kg_per_m2": {"kg/m2": Unit(1)},
}
"""Vital sign of the context to the units (UCUM) that are read, ``canonical = factor · value + offset``.

References
----------
FHIR R4, Vital Signs profiles: the units that each of them allows. UCUM 2.1: [lb_av] 0.45359237 kg, [in_i] 2.54 cm,
[degF] 5/9 K.
"""

VITAL_CODES = {
    "8480-6": "systolic_mmHg",
    "8462-4": "diastolic_mmHg",
    "8867-4": "heart_rate_per_min",
    "2708-6": "spo2_percent",
    "59408-5": "spo2_percent",
    "8310-5": "temperature_celsius",
    "29463-7": "weight_kg",
    "8302-2": "height_cm",
    "39156-5": "bmi_kg_per_m2",
}
"""LOINC to vital sign.

References
----------
FHIR R4, observation-vitalsigns.html (table of codes; 59408-5 is the companion of 2708-6 by pulse oximetry).
"""


@cache
def lab_codes() -> dict[str, str]:
    """LOINC code to the name of the analyte, from the aliases in :mod:`data_specs.labs` and from the vocabulary."""
    found = {}
    for analyte in ANALYTES:
        for alias in analyte.aliases:
            if re.fullmatch(r"\d+_\d", alias):
                found[alias.replace("_", "-")] = analyte.name
        term = terms()[analyte.name]
        if term.system == SYSTEMS["loinc"]:
            found[term.code] = analyte.name
    return found


@dataclass
class Values:
    """Values of the Observations that were read so far, and the path of each in the Bundle."""

    labs: list[Lab] = field(default_factory=list)
    vitals: dict[str, float] = field(default_factory=dict)
    came_from: dict[str, str] = field(default_factory=dict)

    def take(self, observation: Resource) -> None:
        """Read an Observation and its components; a code that is not known here is skipped.

        Raises
        ------
        InvalidRequest
            The value of a known code is no quantity, or a bound such as ``< 3``; its unit is not read; or a vital sign
            has two different values.
        """
        for part in (observation, *observation.parts("component")):
            name = _name(part)
            if name is None or not _has_value(part):
                continue
            value, unit, path = _quantity(part)
            if name in VITALS:
                self._vital(name, value, unit, path)
            else:
                self._lab(name, value, unit, path)

    def _lab(self, name: str, value: float, unit: str, path: str) -> None:
        lab = Lab(name=name, value=value, unit=unit if len(unit) <= MAX_UNIT else "?")
        _, problems = standard_labs([lab])
        for problem in problems:
            if problem.code == "unit_not_accepted":
                refuse(path, expected=problem.expected, found=unit)
        self.came_from[f"labs.{len(self.labs)}"] = _path_of_value(path)
        self.labs.append(lab)

    def _vital(self, name: str, value: float, unit: str, path: str) -> None:
        known = VITALS[name].get(re.sub(r"\{[^{}]*\}", "", unit))  # an annotation does not change a unit (UCUM, 12)
        if known is None:
            refuse(path, expected=", ".join(VITALS[name]), found=unit)
        canonical = value if known == Unit(1) else round(known.factor * value + known.offset, 3)
        if self.vitals.setdefault(name, canonical) != canonical:
            refuse(_path_of_value(path), "field_repeated")
        self.came_from[f"vitals.{name}"] = _path_of_value(path)


def _name(part: Part) -> str | None:
    """The context's name of what was observed, by its LOINC or own code; ``None`` where the code is not known here."""
    concept = part.part("code")
    names = set()
    for coding in concept.parts("coding") if concept else ():
        system, code = coding.text("system"), coding.text("code") or ""
        if system == SYSTEMS["loinc"]:
            names.add(VITAL_CODES.get(code) or lab_codes().get(code))
        elif system == SYSTEMS["own"] and (code in VITALS or code in {analyte.name for analyte in ANALYTES}):
            names.add(code)
    names.discard(None)
    if len(names) > 1:
        refuse(part.at("code"), expected="1 × LOINC")
    return names.pop() if names else None


def _has_value(part: Part) -> bool:
    return any(re.fullmatch(r"value[A-Z]\w*", name) and part.has(name) for name in part.members)


def _quantity(part: Part) -> tuple[float, str, str]:
    """Value, unit, and the path of the unit. The code of the unit is preferred to the text that is shown for it."""
    quantity: Any = part.part("valueQuantity")
    if quantity is None:
        refuse(part.path, expected="valueQuantity")
    if quantity.has("comparator"):  # '< 3' states a bound, not a measured value
        refuse(quantity.at("comparator"), "field_unknown")
    value = quantity.number("value")
    if value is None:
        refuse(quantity.at("value"), "field_missing")
    if quantity.has("code") and quantity.text("system") in (None, UCUM):
        return value, quantity.text("code") or "", quantity.at("code")
    return value, quantity.text("unit") or "", quantity.at("unit")


def _path_of_value(unit_path: str) -> str:
    """The path of the value whose unit has the path ``unit_path``."""
    return f"{unit_path.rpartition('.')[0]}.value"


# ---------------------------------------------------------------- conditions
_REFUTED = frozenset({"refuted", "entered-in-error"})
_UNCERTAIN = frozenset({"unconfirmed", "provisional", "differential"})
_NOT_NOW = frozenset({"inactive", "remission", "resolved"})
"""FHIR R4, condition-ver-status (the first two) and condition-clinical."""


def is_refuted(condition: Resource) -> bool:
    """Whether a Condition says that the person does not have it, or that it was recorded by mistake."""
    return bool(_status(condition, "verificationStatus") & _REFUTED)


def condition_name(condition: Resource) -> str | None:
    """The vocabulary's name of a condition, by its code in our own system or by its exact words.

    ``None`` where it has no such name, or two of them, and where the condition is not certain or not present now.
    """
    concept = condition.part("code")
    uncertain = _status(condition, "verificationStatus") & _UNCERTAIN or _status(condition, "clinicalStatus") & _NOT_NOW
    if concept is None or uncertain:
        return None
    coded = concept.parts("coding")
    words = [concept.text("text"), *(each.text("display") for each in coded)]
    words += [each.text("code") for each in coded if each.text("system") == SYSTEMS["own"]]
    found = {_conditions()[normal_name(each)] for each in words if each and normal_name(each) in _conditions()}
    return found.pop() if len(found) == 1 else None


def _status(condition: Resource, name: str) -> set[str]:
    status = condition.part(name)
    return {each.text("code") or "" for each in status.parts("coding")} if status else set()


@cache
def _conditions() -> dict[str, str]:
    """All words for a condition that is known here, to the condition's name."""
    shown = {normal_name(terms()[name].display[language]): name for name in CONDITIONS for language in LANGUAGES}
    return shown | {alias: name for name, aliases in CONDITIONS.items() for alias in aliases}
