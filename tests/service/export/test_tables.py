"""Small cells are not told, and k is that of the smallest class of persons."""

from __future__ import annotations

import csv
import io
from datetime import date

import pytest

from data_specs.visit.context import Context, Person
from service.export.tables import anonymity, counts_csv, visit_rows
from service.export.visit import SharedFinding, SharedVisit
from service.export.words import terms_in


def visits(*, n, first=0, age=43, sex="female", site="aa", on=date(2026, 3, 1), flagged="pneumonia", same_person=False):
    return [
        SharedVisit(
            visit=f"{i:020x}",
            person="p" if same_person else f"p{i}",
            site=site,
            context=Context(person=Person(age_years=age, sex=sex), visited_on=on),
            priority="soon",
            findings=(SharedFinding(organ="lung", name=flagged, positive=True),) if flagged else (),
        )
        for i in range(first, first + n)
    ]


def test_k_is_by_persons_and_not_by_visits() -> None:
    rows = visit_rows([*visits(n=12), *visits(n=5, first=100, age=90)])
    found = anonymity(rows, 11)
    assert (found.k, found.classes, found.persons, found.persons_below) == (5, 2, 17, 5)
    assert {row["age_band"] for row in rows} == {"40-49", "90+"}
    assert anonymity(visit_rows(visits(n=12, same_person=True)), 11).k == 1


def told(rows):
    table = csv.DictReader(io.StringIO(counts_csv(visit_rows(rows), 11)))
    return {row["finding"]: row["visits"] for row in table}


def test_small_cells_are_suppressed() -> None:
    rows = [*visits(n=11), *visits(n=10, first=100, flagged="effusion"), *visits(n=1, first=200, flagged="nodule")]
    assert told(rows) == {"pneumonia": "11", "effusion": "<11", "nodule": "<11"}


def test_a_small_cell_that_is_alone_cannot_be_computed_from_the_others() -> None:
    rows = [*visits(n=11), *visits(n=20, first=100, flagged=""), *visits(n=3, first=200, flagged="effusion")]
    assert told(rows) == {"none": "20", "pneumonia": "withheld", "effusion": "<11"}
    assert told(visits(n=3)) == {"pneumonia": "<11"}
    elsewhere = visits(n=30, first=300, on=date(2026, 4, 1), flagged="")
    table = counts_csv(visit_rows([*rows, *elsewhere]), 11)
    assert "2026-04,none,30" in table


def test_rows_come_in_an_order_that_shows_nothing() -> None:
    made = visits(n=5)
    assert visit_rows(reversed(made)) == visit_rows(made)


@pytest.mark.parametrize(
    ("said", "terms"),
    [
        ("Mrs Smith, pneumonia?", ("pneumonia",)),
        ("Ông Nguyễn Văn A, nghi VIÊM PHỔI", ("pneumonia",)),
        ("épanchement pleural de M. Dupont", ("effusion",)),
        ("Pneumoniax, 0912345678", ()),
        ("", ()),
    ],
)
def test_of_a_free_text_only_terms_leave(said: str, terms: tuple[str, ...]) -> None:
    assert terms_in(said) == terms
