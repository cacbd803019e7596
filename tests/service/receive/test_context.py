"""The posted context, read: what ``null`` says."""

from __future__ import annotations

import json

from data_specs.visit.context import Context
from service.receive.context import read_context


def test_null_says_the_same_as_leaving_out():
    members = ("person", "referrer", "visited_on", "labs", "vitals", "conditions", "ecg_unit")
    assert read_context(json.dumps(dict.fromkeys(members)).encode()) == Context()
    given = {"person": {"age_years": 54.5}, "labs": [{"name": "hba1c", "value": 6.1, "unit": "%"}], "vitals": None}
    assert read_context(json.dumps(given).encode()) == Context.model_validate({k: v for k, v in given.items() if v})
