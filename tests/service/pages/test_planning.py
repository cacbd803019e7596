"""The admins' page of planning, over HTTP, on the bundles that ship."""

from __future__ import annotations

import csv
import html
import io
import re

import pytest

from data_specs.vocabulary import LANGUAGES
from service.language.texts import text
from service.pages.planning import COLUMNS, COSTS
from tests.service.serving import ADMIN

PNEUMONIA = "lung-1.4.0/0/all"
STATED = {
    "finding": PNEUMONIA,
    "people": "8000",
    "prevalence": "0.01; 24/8000",
    "currency": "VND",
    "screening": "60000",
    "recall_visit": "150000",
    "confirmatory_test": "350000",
    "tests_per_recall": "1",
    "treatment_start": "900000",
}


@pytest.fixture
def admin(served):
    with served.client(ADMIN, **{"Accept-Language": "en"}) as client:
        yield client


def table(admin, **stated) -> list[dict[str, str]]:
    answer = admin.get("/planning.csv", params={**STATED, **stated})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    return list(csv.DictReader(io.StringIO(answer.text)))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_form_offers_every_finding_with_figures_and_no_price(served, language):
    with served.client(ADMIN, **{"Accept-Language": language}) as client:
        answer = client.get("/planning")
    page = answer.text
    assert (answer.status_code, answer.headers["content-language"]) == (200, language)
    assert answer.headers["cache-control"] == "no-store"
    offered = re.findall(r'<option value="([^"]+)"', page)
    assert PNEUMONIA in offered
    assert "cardiac-1.2.2/0/all" in offered
    assert any(value.startswith("lung-1.4.0/1/sex F") for value in offered), "groups are offered"
    for name in COSTS:
        assert re.search(rf'<input id="{name}"[^>]* value=""', page), name
        assert text(f"planning_cost_{name}", language) in html.unescape(page)
    assert '<section class="card" aria-labelledby="plan-1"' not in page
    assert "<script" not in page.partition("<main")[2]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_plan_has_a_table_and_curves_for_each_prevalence(served, language):
    with served.client(ADMIN, **{"Accept-Language": language}) as client:
        answer = client.get("/planning", params=STATED)
    page = html.unescape(answer.text)
    assert answer.status_code == 200
    assert page.count('<section class="card" aria-labelledby="plan-') == 2
    assert page.count('<svg class="chart curve"') == 6
    people, sensitivity = {"en": ("8,000", "96.3"), "fr": ("8\u202f000", "96,3"), "vi": ("8.000", "96,3")}[language]
    assert text("planning_at", language, prevalence="24/8000", people=people) in page
    heads = re.findall(r'<th scope="col">([^<]+)</th>', page)
    assert heads[1 : 1 + len(COLUMNS)] == [text(f"planning_figure_{name}", language) for name in COLUMNS]
    assert text("planning_decides", language) in page
    assert not re.search(r"\bnan\b", page)
    assert f">{sensitivity}</span><br>" in page, "the sensitivity at the deciding threshold: 368 of 382"


def test_the_table_has_every_threshold_and_figures_that_can_be_counted(admin):
    rows = table(admin, prevalence="0.01")
    assert len(rows) == 60
    (decides,) = (row for row in rows if row["decides"] == "1")
    assert decides["operating_point"] == "screening"
    found, recalled = 10 * 368 / 382, 10 * 368 / 382 + 990 * 8 / 131
    assert float(decides["found"]) == pytest.approx(found, rel=1e-4)
    assert float(decides["recalled"]) == pytest.approx(recalled, rel=1e-4)
    total = 8 * (1000 * 60000 + recalled * (150000 + 350000) + found * 900000)
    assert float(decides["total"]) == pytest.approx(total, rel=1e-4)
    assert float(decides["total_low"]) < total < float(decides["total_high"])
    assert {row["currency"] for row in rows} == {"VND"}


def test_a_finding_that_reassures_recalls_those_below_its_threshold(admin):
    rows = table(admin, finding="cardiac-1.2.2/0/all", prevalence="0.3")
    shares = [(float(row["sensitivity"]), float(row["specificity"])) for row in rows]
    assert shares == sorted(shares, key=lambda each: (each[0], -each[1])), "a higher threshold recalls more"
    page = admin.get("/planning", params={**STATED, "finding": "cardiac-1.2.2/0/all"}).text
    assert text("planning_below", "en") in page
    assert text("planning_below", "en") not in admin.get("/planning", params=STATED).text


def test_cases_with_one_threshold_have_one_row_and_no_curve(admin):
    answer = admin.get("/planning", params={**STATED, "finding": "lung-1.4.0/1/sex F"})
    assert answer.status_code == 200
    assert text("planning_single", "en") in answer.text
    assert '<svg class="chart curve"' not in answer.text
    assert len(table(admin, finding="lung-1.4.0/1/sex F", prevalence="0.01")) == 1


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"finding": "lung-9.9.9/0/all"}, "finding"),
        ({"finding": "../../etc/passwd"}, "finding"),
        ({"people": "0"}, "people"),
        ({"people": "many"}, "people"),
        ({"prevalence": "3"}, "prevalence"),
        ({"prevalence": "0.3 %"}, "prevalence"),
        ({"prevalence": ""}, "prevalence"),
        ({"currency": "đồng"}, "currency"),
        ({"currency": "vnd"}, "currency"),
        ({"screening": ""}, "screening"),
        ({"recall_visit": "-1"}, "recall_visit"),
        ({"confirmatory_test": "nan"}, "confirmatory_test"),
        ({"treatment_start": "60,000"}, "treatment_start"),
        ({"tests_per_recall": "1e9"}, "tests_per_recall"),
    ],
)
def test_what_cannot_be_planned_is_said_at_its_field_and_kept(served, language, change, field):
    with served.client(ADMIN, **{"Accept-Language": language}) as client:
        answers = [client.get(address, params={**STATED, **change}) for address in ("/planning", "/planning.csv")]
    for answer in answers:
        assert answer.status_code == 422
        assert re.findall(r'id="([\w-]+)-error"', answer.text) == [field]
        assert f'aria-describedby="{field}-error' in answer.text
        assert '<section class="card" aria-labelledby="plan-' not in answer.text
        assert 'value="VND"' in answer.text or field == "currency"
        assert not re.search(r"\^\[|[≥≤] \d+[.]0\b", answer.text), "what is accepted is said to a person"


def test_words_from_the_address_are_shown_as_words(admin):
    page = admin.get("/planning", params={**STATED, "prevalence": '"><script>alert(1)</script>'}).text
    assert "<script>alert" not in page
    assert admin.get("/planning", params={**STATED, "people": "x" * 5000}).status_code == 422


def test_only_admins_plan(served):
    doctor = served.key("doctor", "xã Ba", doctor_id="D-9", label="BS. Thử")
    for address in ("/planning", "/planning.csv"):
        with served.client(doctor) as client:
            assert client.get(address).status_code == 404
        with served.client() as client:
            del client.headers["Authorization"]
            answer = client.get(address)
            assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/login")
    with served.client(doctor) as client:
        assert '"/planning"' not in client.get("/worklist").text
