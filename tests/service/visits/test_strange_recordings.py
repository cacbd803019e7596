"""Short recordings, and recordings whose leads have gains of their own: what the API, the page and the reports say."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data_specs.ecg_made import wfdb16
from tests.inference.ecg.synthesis import ecg
from tests.service.serving import ADMIN

CONTEXT = b'{"person": {"age_years": 54, "sex": "female"}}'
REPORTS = ("report.json", "report.fhir.json", "report.html", "report.pdf", "report.hl7", "report/sr.dcm")


def files(samples):
    made = wfdb16(np.rint(samples * 200).astype(np.int16))
    posted = [("ecg", (name, content, "application/octet-stream")) for name, content in made.items()]
    return [*posted, ("context", ("context.json", CONTEXT, "application/json"))]


@pytest.fixture(scope="module")
def client(real):
    with real.client() as client:
        yield client


def post(client, samples):
    answer = client.post("/v1/visits", files=files(samples), headers={"Prefer": "wait=60"})
    assert answer.status_code == 201, answer.text
    return answer.json()


def codes(problems):
    return {problem["code"] for problem in problems}


def names(visit):
    return {finding["name"] for finding in visit["organs"]["cardiac"]["findings"]}


@pytest.mark.parametrize("seconds", [5.0, 5.5, 7.3])
def test_a_short_recording_is_assessed_with_a_reserve(client, seconds):
    visit = post(client, ecg(seconds=seconds).samples)
    heart = visit["organs"]["cardiac"]
    assert heart["status"] == "assessed"
    assert {"normal_ecg", "atrial_fibrillation", "heart_rate"} <= names(visit)
    said = next(problem for problem in visit["inputs"][0]["problems"] if problem["code"] == "short")
    assert said["severity"] == "warn"
    assert f"{seconds:g} s" in said["message"]
    assert "irregular rhythm" in said["message"]
    assert "short" in codes(heart["reasons"])
    assert client.get(f"/v1/visits/{visit['id']}/inputs/0/trace.svg").status_code == 200
    for finding in heart["findings"]:
        for evidence in finding["evidence"]:
            assert client.get(evidence["href"]).content.startswith(b"\x89PNG")
    rate = next(finding["value"] for finding in heart["findings"] if finding["name"] == "heart_rate")
    assert rate == pytest.approx(70, abs=1)


def test_a_recording_with_padding_is_as_short_as_what_was_recorded(client):
    padded = np.pad(ecg(seconds=7.3).samples, ((0, 0), (700, 800)))
    problems = post(client, padded)["inputs"][0]["problems"]
    assert ["7.3 s" in problem["message"] for problem in problems if problem["code"] == "short"] == [True]
    refused = post(client, np.pad(ecg(seconds=4.5).samples, ((0, 0), (1000, 1750))))
    assert refused["organs"]["cardiac"]["status"] == "not_assessed"
    assert "too_short" in codes(refused["inputs"][0]["problems"])


def test_a_slow_heart_has_its_rate_in_five_seconds(client):
    visit = post(client, ecg(seconds=5.0, rate=26, qt_ms=480).samples)
    values = {f["name"]: f["value"] for f in visit["organs"]["cardiac"]["findings"] if f["value"] is not None}
    assert values["heart_rate"] == pytest.approx(26, abs=1)
    assert visit["priority"] == "urgent"


def test_gains_of_their_own_withhold_what_needs_voltage(client):
    whole = ecg().samples
    scaled = whole * np.linspace(0.4, 1.6, 12)[[3, 9, 1, 7, 11, 0, 5, 2, 8, 6, 10, 4]][:, None]
    common, own = post(client, whole), post(client, scaled)
    assert set(names(common)) - set(names(own)) == {"qrs_axis"}
    heart = own["organs"]["cardiac"]
    assert heart["status"] == "assessed"
    (why,) = [reason for reason in heart["reasons"] if reason["code"] == "gains_inconsistent"]
    assert "ventricular hypertrophy" in why["message"]
    assert "gains_inconsistent" in codes(own["inputs"][0]["problems"])
    login = client.post("/login", data={"key": ADMIN, "next": "/worklist"}, headers={"Origin": str(client.base_url)})
    assert login.status_code in (200, 303)
    for visit, gain in ((common, "10 mm/mV"), (own, "? mm/mV")):
        trace = client.get(f"/v1/visits/{visit['id']}/inputs/0/trace.svg")
        assert gain in trace.text
        page = client.get(f"/visits/{visit['id']}").text
        assert gain in page
        assert ('data-caliper="y"' in page) is (visit is common)  # no voltage to be measured


@pytest.mark.parametrize("report", REPORTS)
def test_every_report_says_what_was_not_assessed(client, report):
    visit = post(client, ecg(seconds=7.3).samples * np.linspace(0.5, 1.5, 12)[:, None])
    answer = client.get(f"/v1/visits/{visit['id']}/{report}")
    assert answer.status_code == 200
    if "pdf" not in report:  # compressed
        assert b"hypertrophy" in answer.content
        assert b"7.3 s" in answer.content
