"""Facts of a signed visit that the table of the health book can name, and the results that the visit has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, tzinfo
from decimal import Decimal

from data_specs.labs import standard_labs
from data_specs.person import age_on
from data_specs.problems import Problem
from data_specs.visit.contract import FIELD_OF_ORGAN, Organ
from data_specs.visit.report import Report
from data_specs.vocabulary import Language, display, term_of
from service.delivery.health_book.table import Book, Filled
from service.report.words import say

Fact = str | date | datetime | None
Facts = Mapping[str, Fact]
FILMS: Mapping[str, Organ] = {"film": "lung", "ecg": "cardiac"}
"""Names in the table of the two results that a doctor reads, and their organs."""
UNDER_6, UNDER_18, ADULT = "under_6", "6_to_17", "18_and_over"


def age_group(born: date | None, stated_years: float | None, on: date | None) -> str | None:
    """The age group at the day of the check-up: under 6, 6 to under 18, 18 and over; ``None`` where it is not known.

    The birth date counts first: a stated age may be that of another day.
    """
    years = age_on(born, on) if born is not None and on is not None else stated_years
    if years is None:
        return None
    return UNDER_6 if years < 6 else UNDER_18 if years < 18 else ADULT


def facts_of(report: Report, book: Book, zone: tzinfo, *, delivery: str, replaces: bool) -> dict[str, Fact]:
    """The facts of a signed version of a visit's report.

    Parameters
    ----------
    zone
        In which days and times are told.
    delivery
        Key of the delivery: the same each time that it is sent.
    replaces
        Whether an earlier version of the visit is there already.
    """
    person, author = report.person, report.opinions[-1].author
    facility, doctor = book.facility_of(report.site), book.doctor_of(author.id)
    home = person.residence
    return {
        "visit": report.visit,
        "version": str(report.version),
        "delivery": delivery,
        "replaces": "yes" if replaces else "no",
        "issued_at": report.issued_at.astimezone(zone),
        "visited_on": report.visited_on,
        "age_group": age_group(person.birth_date, person.age_years, report.visited_on),
        "person.id": person.id,
        "person.name": person.name,
        "person.birth_date": person.birth_date,
        "person.national_id": person.national_id,
        "person.sex": person.sex,
        "person.address": home.address if home else None,
        "person.province": home.province if home else None,
        "person.commune": home.commune if home else None,
        "facility.code": facility.code if facility else None,
        "facility.gln": facility.gln if facility else None,
        "facility.name": facility.name if facility else None,
        "doctor.id": author.id,
        "doctor.code": doctor.code if doctor else None,
        "doctor.name": author.name,
    }


def results_of(report: Report, book: Book, language: Language) -> tuple[list[Facts], list[Problem]]:
    """The results that are sent, and why some that should be cannot be.

    Of film and ECG it is what the doctors said, never a probability of the machine; of the laboratory it is the values
    that came with the visit, in the units that this service uses.
    """
    results: list[Facts] = []
    problems: list[Problem] = []
    read = _readings(report, language)
    values, lab_problems = _lab_values(report)
    problems += [each for each in lab_problems if each.code != "lab_unknown" or not book.leave_out_unknown_labs]
    measured = {each.name: each.value for each in report.findings if isinstance(each.value, float)}
    optional = {name: value for name, value in measured.items() if book.result_of(name)}
    for name in (*read, *optional, *values):
        row = book.result_of(name)
        if row is None:
            problems.append(Problem("book_code_missing", "reject", name, "[[result]]"))
        elif row.sent:
            value = optional.get(name, values.get(name))
            unit = (row.unit if row.unit is not None else term_of(name).unit) if value is not None else None
            written = None if value is None else number(value)
            about = read.get(name, {})
            results.append(
                {"service": row.service, "indicator": row.indicator, "value": written, "unit": unit, **about}
            )
    return results, problems


def _readings(report: Report, language: Language) -> dict[str, Facts]:
    """What doctors said of film and ECG, where one was posted and used, or where they judged something of it.

    The text is that of the doctor who signed last, and who signs the file: an earlier one may say the contrary.
    """
    posted = {each.field for each in report.inputs if each.accepted}
    judged = {term_of(each.finding).organ for opinion in report.opinions for each in opinion.judgements}
    text = report.opinions[-1].text.strip()
    return {
        name: {"description": text or None, "conclusion": _conclusion(report, organ, language)}
        for name, organ in FILMS.items()
        if FIELD_OF_ORGAN[organ] in posted or organ in judged
    }


def _conclusion(report: Report, organ: Organ, language: Language) -> str:
    """The findings of an organ that hold after all opinions."""
    names = [name for name in report.conclusions if term_of(name).organ == organ]
    if not names:
        return say("conclusion_none_by_doctor", language)
    return say("conclusion_some", language, findings=", ".join(display(name, language) for name in names))


def _lab_values(report: Report) -> tuple[dict[str, float], list[Problem]]:
    """Values by canonical key; not those that are computed from others."""
    values, problems = standard_labs(report.labs)
    reported = {key for lab in report.labs for key in standard_labs((lab,))[0]}
    return {key: value for key, value in values.items() if key in reported}, problems


def number(value: float) -> str:
    """A number in digits alone, to six significant digits: one that was converted has no more."""
    return format(Decimal(f"{value:.6g}"), "f")


def written(field: Filled, facts: Facts) -> str | Problem:
    """The text of a member or an element, empty where the visit has none; the reason where it cannot be sent so."""
    if field.value is not None:
        return field.value
    fact = facts.get(field.fact or "")
    if fact is None or fact == "":
        return Problem("book_field_missing", "reject", field.name, field.fact or "") if field.required else ""
    if isinstance(fact, date):
        fact = f"{fact:{field.form}}" if field.form else fact.isoformat()
    expected = _expected(field, fact)
    if expected is not None:
        return Problem("book_field_invalid", "reject", field.name, expected)
    return field.codes.get(fact, fact)


def _expected(field: Filled, fact: str) -> str | None:
    """What a field accepts, where that is not this fact."""
    if field.codes and fact not in field.codes:
        return " | ".join(field.codes)
    if field.digits is not None and not (len(fact) == field.digits and fact.isascii() and fact.isdigit()):
        return f"{field.digits} × 0–9"
    if field.longest is not None and len(fact) > field.longest:
        return f"≤ {field.longest} × U+"
    return None


def filled(fields: Sequence[Filled], facts: Facts) -> tuple[list[tuple[str, str]], list[Problem]]:
    """Names with their texts, in the order of the table, and the reasons why the visit cannot be sent."""
    texts = [(field.name, written(field, facts)) for field in fields]
    problems = [text for _, text in texts if isinstance(text, Problem)]
    return [(name, text) for name, text in texts if isinstance(text, str)], problems
