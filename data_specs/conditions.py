"""Conditions that a visit may state, and the names that state each of them."""

from __future__ import annotations

import unicodedata

CONDITIONS = {
    "diabetes": frozenset({"diabetes", "diabetes_type_1", "diabetes_type_2", "diabetes_mellitus"}),
    "hypertension": frozenset({"hypertension", "arterial_hypertension", "high_blood_pressure"}),
    "coronary_heart_disease": frozenset(
        {
            "coronary_heart_disease",
            "coronary_artery_disease",
            "ischaemic_heart_disease",
            "ischemic_heart_disease",
            "chd",
        }
    ),
    "vascular_disease": frozenset({"vascular_disease", "peripheral_vascular_disease", "peripheral_arterial_disease"}),
    "smoking": frozenset({"smoking", "smoker", "current_smoker"}),
    "dyslipidaemia": frozenset({"dyslipidaemia", "dyslipidemia", "hyperlipidaemia", "hyperlipidemia"}),
    "obesity": frozenset({"obesity"}),
}
"""Condition (a term of the vocabulary, a feature of the kidney's models, 0 or 1) to the names that state it, as
:func:`normal_name` writes them. The list of conditions is complete where a visit has one: what is not in it is absent.
"""


def normal_name(text: str) -> str:
    """A condition's name as :data:`CONDITIONS` writes it: small letters, ``_`` in the place of blanks and hyphens."""
    return unicodedata.normalize("NFC", text).casefold().strip().replace(" ", "_").replace("-", "_")
