"""Figures of screening: counted by hand on made visits, through the API and on the page, over both databases."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime, timedelta

import pytest

from data_specs.next_steps.decision import is_flagged
from data_specs.visit.assessment import AssessedOrgan, FoundFinding
from data_specs.vocabulary import LANGUAGES
from service.followup.reads import ReadFile, ReadVisit
from service.followup.screening import by_device, by_finding, by_reason, interval, screening
from service.followup.statistics import Statistics, Turnaround
from service.language.texts import text
from service.pages.statistics import charts
from tests.service.serving import visit_files

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def read(machine, *, recalled=False, files=(), site="xa", **outcomes):
    return ReadVisit(
        id="v", site=site, received_at=NOW, completed_at=NOW, blind=False, assessed=bool(machine), machine=machine,
        flagged=any(positive and name != "normal_ecg" for name, positive in machine.items()),
        recalled=recalled, files=tuple(files), opinions=(), questions=(), outcomes=outcomes,
    )  # fmt: skip


# ------------------------------------------------------------------ counting
def test_from_screening_to_confirmation():
    reads = [
        read({"pneumonia": True, "normal_ecg": True}, recalled=True, pneumonia="confirmed"),
        read({"pneumonia": False, "normal_ecg": True}),
        read({}, site="huyen"),
    ]
    found = {row.site: row.model_dump(exclude={"site"}) for row in screening(reads)}
    assert found == {
        "xa": {"visits": 2, "assessed": 2, "flagged": 1, "recalled": 1, "confirmed": 1},
        "huyen": {"visits": 1, "assessed": 0, "flagged": 0, "recalled": 0, "confirmed": 0},
    }


@pytest.mark.parametrize(
    ("category", "positive", "flagged"),
    [("high", [], True), ("intermediate", [], True), ("low", [], False), (None, [], False), (None, ["effusion"], True),
     (None, ["normal_ecg"], False)],
)  # fmt: skip
def test_a_kidney_risk_that_is_not_low_is_flagged_too(category, positive, flagged):
    findings = [FoundFinding(name=name, probability=0.9, positive=True) for name in positive]
    assert is_flagged(AssessedOrgan(status="assessed", category=category, findings=findings)) is flagged


@pytest.mark.parametrize("known", [9, 10])
def test_a_predictive_value_needs_ten_known_outcomes(known):
    reads = [read({"pneumonia": True}, pneumonia="confirmed") for _ in range(6)]
    reads += [read({"pneumonia": True}, pneumonia="refuted") for _ in range(known - 6)]
    reads += [read({"pneumonia": True}, pneumonia="lost"), read({"pneumonia": True})]
    reads += [read({"pneumonia": False}, pneumonia="confirmed"), read({"normal_ecg": True}, normal_ecg="confirmed")]
    (row,) = by_finding(reads)
    assert (row.finding, row.judged, row.flagged) == ("pneumonia", known + 3, known + 2)
    assert (row.confirmed, row.refuted, row.missed) == (6, known - 6, 1)
    expected = (0.6, 0.313, 0.832) if known == 10 else (None, None, None)
    assert (row.ppv, row.low, row.high) == expected


def test_the_interval_is_wilsons():
    """Values of Newcombe R.G., Statistics in Medicine 1998;17:857-872, table I, method 3: 81 of 263, and 0 of 20."""
    assert interval(81, 263) == (0.255, 0.366)
    assert interval(0, 20) == (0.0, 0.161)


def test_refusals_by_reason_and_device():
    files = [
        ReadFile("image", "Acme X1", ()),
        ReadFile("image", "Acme X1", ("wrong_view", "inverted")),
        ReadFile("image", "jpeg", ("wrong_view",)),
        ReadFile("ecg", "wfdb", ()),
    ]
    reasons = [(row.field, row.name, row.refused, row.files, row.share) for row in by_reason([read({}, files=files)])]
    assert reasons == [("image", "wrong_view", 2, 3, 0.667), ("image", "inverted", 1, 3, 0.333)]
    devices = [(row.field, row.name, row.refused, row.files) for row in by_device([read({}, files=files)])]
    assert devices == [("image", "Acme X1", 1, 2), ("image", "jpeg", 1, 1), ("ecg", "wfdb", 0, 1)]


def test_the_chart_of_turnaround_spans_the_slowest_site():
    found = Statistics(
        since=NOW, before=None, site=None, agreement=(), unheard=(), screening=(), findings=(), refusals=(), devices=(),
        turnaround=tuple(
            Turnaround(
                site=site, visits=1, signed=1, sign_hours_median=median, sign_hours_p90=p90, asked=0, answered=0,
                answer_hours_median=None, answer_hours_p90=None, complete_seconds_median=1, complete_seconds_p90=2,
            )
            for site, median, p90 in (("xa", 2.5, 5.0), ("huyen", 5.0, 10.0), ("none", None, None))
        ),
    )  # fmt: skip
    bars = charts(found, "vi")["turnaround"]
    assert [(bar.label, bar.shown, bar.length, bar.high) for bar in bars] == [
        ("xa", "2,5 / 5", 0.25, 0.5),
        ("huyen", "5 / 10", 0.5, 1.0),
    ]


# ------------------------------------------------------------------ through the service
@pytest.fixture(scope="module")
def district(served):
    """Ten visits with a flag, confirmed but for one; three are signed. One visit has no film."""
    made = []
    with (
        served.client(served.key("site", "figures-2")) as site,
        served.client(served.key("doctor", "figures-2", doctor_id="D-2", label="BS. Thử")) as doctor,
    ):
        for n in range(10):
            about = {"person": {"id": f"VN-{n}", "age_years": 50}, "referrer": {"id": "D-2"}}
            made.append(site.post("/v1/visits", files=visit_files(f"film {n}".encode(), **about)).json()["id"])
            outcome = {"finding": "pneumonia", "outcome": "confirmed" if n else "refuted"}
            assert doctor.post(f"/v1/visits/{made[n]}/outcomes", json=outcome).status_code == 201
        site.post("/v1/visits", files=visit_files(person={"id": "VN-N"}, referrer={"id": "D-2"})[1:])
        for n, advice in enumerate(("manage", "refer", "ask")):
            assert (
                doctor.post(f"/v1/visits/{made[n]}/opinions", json={"version": 1, "advice": advice}).status_code == 201
            )
    return served.key("doctor", "figures-2", doctor_id="D-2", label="BS. Thử")


def test_the_api_counts_a_district(served, district):
    with served.client(district) as doctor:
        found = doctor.get("/v1/statistics").json()
        (row,) = found["screening"]
        assert (row["visits"], row["assessed"], row["flagged"], row["confirmed"]) == (11, 10, 10, 9)
        unsigned = [each["id"] for each in doctor.get("/v1/visits", params={"signed": "no"}).json()["items"]]
        steps = [doctor.get(f"/v1/visits/{each}/report.json").json()["next_steps"] for each in unsigned]
        recalled = sum(any(step["step"] != "manage" for step in of_visit) for of_visit in steps)
        assert row["recalled"] == 2 + recalled, "two by advice, the others by their next steps"
        (finding,) = found["findings"]
        assert (finding["flagged"], finding["confirmed"], finding["refuted"], finding["ppv"]) == (10, 9, 1, 0.9)
        assert found["devices"][0]["name"] == "png"
        assert found["turnaround"][0]["complete_seconds_median"] < 60
        lines = doctor.get("/v1/statistics/findings.csv").text
        (line,) = csv.DictReader(io.StringIO(lines))
        assert (line["finding"], line["ppv"]) == ("pneumonia", "0.9")
        for table in ("screening", "refusals", "devices", "turnaround", "agreement", "unheard"):
            assert doctor.get(f"/v1/statistics/{table}.csv").status_code == 200


@pytest.mark.parametrize(
    ("query", "visits"),
    [
        ({"days": 1}, 11),
        ({"since": "2000-01-01"}, 11),
        ({"since": "2000-01-01", "before": "2001-01-01"}, 0),
        ({"site": "elsewhere"}, 0),
        ({"before": "2000-01-01T00:00:00Z"}, 0),
    ],
)
def test_a_period_and_a_site(served, district, query, visits):
    with served.client(district) as doctor:
        found = doctor.get("/v1/statistics", params=query).json()
    assert sum(row["visits"] for row in found["screening"]) == visits


@pytest.mark.parametrize("query", [{"since": "soon"}, {"before": "0001-01-01T00:00:00+23:59"}, {"days": 0}])
def test_a_period_that_is_none_is_refused(served, district, query):
    with served.client(district) as doctor:
        assert doctor.get("/v1/statistics", params=query).status_code == 422


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_has_a_chart_beside_each_table(served, district, language):
    with served.client(district, **{"Accept-Language": language}) as doctor:
        html = doctor.get("/statistics").text
        charts = re.findall(r'<svg class="chart"[^>]*aria-labelledby="(\w+)"', html)
        assert {"screening", "findings", "ppv", "agreement", "devices"} <= {*charts}
        assert text("ppv", language) in html
        assert f"{text('statistics_period', language)} {text('last_year', language)}" in html
        assert not re.search(r"365\s+(days|derniers|ngày)", html), "a year is said as a year"
        today = datetime.now(UTC).date()
        for query in (f"from={today}&to={today}", "to=2001-01-01", "from=x&days=9", "to=0001-01-01&offset=840"):
            page = doctor.get(f"/statistics?{query}")
            assert page.status_code == 200, query
            link = re.search(r'href="(/v1/statistics/screening\.csv[^"]*)"', page.text)
            assert link
            assert doctor.get(link[1].replace("&amp;", "&")).status_code == 200, link[1]


def test_days_that_have_not_ended_have_no_end(served, district):
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    with served.client(district) as doctor:
        html = doctor.get(f"/statistics?from=2026-01-01&to={tomorrow}").text
    assert "before=" not in html
