"""The context document: what is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from data_specs.visit.context import Context


@pytest.mark.parametrize(
    "document",
    [
        {"person": {"age_years": -1}},
        {"person": {"age_years": 131}},
        {"person": {"sex": "f"}},
        {"person": {"surname": "x"}},
        {"labs": [{"name": "creatinine", "value": "NaN", "unit": "umol/L"}]},
        {"labs": [{"name": "creatinine", "unit": "umol/L"}]},
        {"ecg_unit": "V"},
        {"conditions": ["x"] * 101},
    ],
)
def test_what_does_not_fit_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Context.model_validate(document)
