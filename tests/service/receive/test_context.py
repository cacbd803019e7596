"""The posted context: ``null``, and documents that are no context."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from data_specs.visit.context import Context
from service.receive.context import read_context


def test_null_means_the_same_as_a_missing_member():
    members = ("person", "referrer", "visited_on", "labs", "vitals", "conditions", "ecg_unit")
    assert read_context(json.dumps(dict.fromkeys(members)).encode()) == Context()
    stated = {"person": {"age_years": 54.5}, "labs": [{"name": "hba1c", "value": 6.1, "unit": "%"}], "vitals": None}
    assert read_context(json.dumps(stated).encode()) == Context.model_validate({k: v for k, v in stated.items() if v})


@settings(max_examples=40, deadline=None)
@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.floats() | st.text(max_size=5), st.lists).map(str).map(str.encode)
)
def test_any_context_is_answered_below_500(served, document):
    with served.client(Prefer="respond-async") as client:
        answer = client.post("/v1/visits", files={"context": (None, document)})
    assert answer.status_code in (202, 422), answer.text
