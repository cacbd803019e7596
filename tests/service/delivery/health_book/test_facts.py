"""What the table can name: facts of a signed visit, and the results that it has."""

from __future__ import annotations

import tomllib
from datetime import UTC, date
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_specs.problems import Problem
from data_specs.visit.context import Lab, Residence
from data_specs.visit.opinion import Judgement
from service.delivery.health_book.facts import age_group, facts_of, filled, number, results_of, written
from service.delivery.health_book.table import EXAMPLE, Book, Filled
from tests.service import report_fixture

BOOK = Book.model_validate(tomllib.loads(EXAMPLE.read_text("utf-8").replace('"?"', '"x"')))
DAY = date(2026, 11, 21)


@pytest.mark.parametrize(
    ("born", "stated", "expected"),
    [
        (date(2020, 11, 22), None, "under_6"),
        (date(2020, 11, 21), None, "6_to_17"),
        (date(2008, 11, 22), None, "6_to_17"),
        (date(2008, 11, 21), None, "18_and_over"),
        (date(2008, 11, 22), 40.0, "6_to_17"),
        (None, 5.99, "under_6"),
        (None, 18.0, "18_and_over"),
        (None, None, None),
        (date(2027, 1, 1), None, None),
    ],
)
def test_the_age_group_is_that_of_the_day_of_the_check_up(born, stated, expected):
    assert age_group(born, stated, DAY) == expected


def test_facts_are_those_of_the_version_and_times_those_of_the_zone():
    report = report_fixture.report(2)
    late = report.issued_at.replace(hour=18, minute=5)
    facts = facts_of(
        report.model_copy(update={"issued_at": late}), BOOK, ZoneInfo("Asia/Ho_Chi_Minh"), delivery="k", replaces=True
    )
    assert facts["visited_on"] == report.visited_on
    assert f"{facts['issued_at']:%Y%m%d%H%M}" == "202611220105", "the next day in Vietnam"
    assert (facts["replaces"], facts["delivery"], facts["version"]) == ("yes", "k", "2")
    assert (facts["doctor.id"], facts["doctor.code"], facts["facility.code"]) == ("D-7", None, None)


def test_where_somebody_lives_is_sent_where_the_visit_has_it():
    report = report_fixture.report(2)
    assert facts_of(report, BOOK, UTC, delivery="k", replaces=False)["person.address"] is None
    home = Residence(address="Thôn Thử Nghiệm", province="01", commune="00004")
    person = report.person.model_copy(update={"residence": home})
    facts = facts_of(report.model_copy(update={"person": person}), BOOK, UTC, delivery="k", replaces=False)
    assert [facts[f"person.{name}"] for name in ("address", "province", "commune")] == [
        "Thôn Thử Nghiệm",
        "01",
        "00004",
    ]


def test_results_are_what_doctors_said_and_what_was_measured():
    report = report_fixture.report(3).model_copy(update={"labs": (Lab(name="Creatinin", value=1, unit="mg/dL"),)})
    results, problems = results_of(report, BOOK, "vi")
    assert problems == []
    by_unit = {each["unit"]: each for each in results}
    assert by_unit["umol/L"]["value"] == "88.4"
    film = next(each for each in results if "xẹp phổi" in str(each.get("conclusion")))
    assert "Không thấy đông đặc." in film["description"]
    assert "viêm phổi" not in film["conclusion"], "the specialist has refuted it"
    assert not any(str(finding.probability) in str(results) for finding in report.findings if finding.probability)


def test_without_a_day_of_the_check_up_none_is_taken_in_its_place():
    report = report_fixture.report(2).model_copy(update={"visited_on": None})
    facts = facts_of(report, BOOK, UTC, delivery="k", replaces=False)
    assert facts["visited_on"] is None
    born = report.person.model_copy(update={"birth_date": date(2008, 11, 21), "age_years": None})
    facts = facts_of(report.model_copy(update={"person": born}), BOOK, UTC, delivery="k", replaces=False)
    assert facts["age_group"] is None, "on the day before, it was another one"


def test_what_the_doctors_leave_is_said_as_theirs_not_as_the_machine_s():
    report = report_fixture.report(2)
    refuted = tuple(Judgement(finding=name, verdict="disagree") for name in report.conclusions)
    opinion = report.opinions[0].model_copy(update={"judgements": refuted})
    report = report.model_copy(update={"opinions": (opinion,)})
    for language, word in (("vi", "Bác sĩ"), ("fr", "médecin"), ("en", "doctor")):
        results, _ = results_of(report, BOOK, language)
        said = [each["conclusion"] for each in results if each.get("conclusion")]
        assert said
        for text in said:
            assert word in text
            assert "Máy" not in text


def test_the_text_is_that_of_the_opinion_which_is_signed():
    """An earlier opinion may say the contrary, and the doctor who signs now does not sign that."""
    report = report_fixture.report(3)
    first, last = report.opinions[0], report.opinions[-1]
    first, last = first.model_copy(update={"text": "Có đông đặc."}), last.model_copy(update={"text": " Không. "})
    results, _ = results_of(report.model_copy(update={"opinions": (first, last)}), BOOK, "vi")
    assert {each["description"] for each in results if "description" in each} == {"Không."}


def test_a_number_is_written_in_digits_alone():
    for value, text in ((1234000.0, "1234000"), (1.234e-5, "0.00001234"), (88.4, "88.4"), (4.0, "4"), (-30.0, "-30")):
        assert number(value) == text


def test_a_laboratory_value_needs_a_row_and_an_unknown_one_is_said():
    labs = (Lab(name="potassium", value=4, unit="mmol/L"), Lab(name="something", value=1, unit="x"))
    report = report_fixture.report(2).model_copy(update={"labs": labs})
    _, problems = results_of(report, BOOK, "vi")
    assert [(each.code, each.found) for each in problems] == [
        ("lab_unknown", "labs[1]"),
        ("book_code_missing", "potassium_mmol_per_l"),
    ]
    lenient = BOOK.model_copy(update={"leave_out_unknown_labs": True})
    assert [each.code for each in results_of(report, lenient, "vi")[1]] == ["book_code_missing"]


def test_a_ratio_that_was_computed_is_no_laboratory_value():
    labs = (Lab(name="urine_albumin", value=30, unit="mg/L"), Lab(name="urine_creatinine", value=10, unit="mmol/L"))
    report = report_fixture.report(2).model_copy(update={"labs": labs})
    named = [each.found for each in results_of(report, BOOK, "vi")[1]]
    assert named == ["urine_albumin_mg_per_l", "urine_creatinine_mmol_per_l"]


@pytest.mark.parametrize(
    ("field", "fact", "expected"),
    [
        ({"required": True}, None, Problem("book_field_missing", "reject", "A", "person.id")),
        ({}, None, ""),
        ({"digits": 12}, "001061000123", "001061000123"),
        ({"digits": 12}, "00106100012", Problem("book_field_invalid", "reject", "A", "12 × 0–9")),
        ({"digits": 3}, "１２３", Problem("book_field_invalid", "reject", "A", "3 × 0–9")),
        ({"longest": 2}, "abc", Problem("book_field_invalid", "reject", "A", "≤ 2 × U+")),
        ({"fact": "visited_on", "form": "%d/%m/%Y"}, DAY, "21/11/2026"),
        ({"codes": {"male": "1"}}, "male", "1"),
        ({"codes": {"male": "1"}}, "other", Problem("book_field_invalid", "reject", "A", "male")),
    ],
)
def test_a_field_is_written_or_the_reason_is_said(field, fact, expected):
    filled_by = Filled(**{"name": "A", "fact": "person.id", **field})
    assert written(filled_by, {filled_by.fact: fact}) == expected


@given(st.text(max_size=30))
def test_a_reason_never_quotes_what_the_visit_says(text):
    fields = [Filled(name="A", fact="person.id", digits=12, required=True)]
    texts, problems = filled(fields, {"person.id": text})
    assert len(texts) + len(problems) == 1
    assert all((each.found, each.expected) in (("A", "12 × 0–9"), ("A", "person.id")) for each in problems)
