"""A visit's context and the order that was sent ahead of it."""

from __future__ import annotations

from datetime import date

import pytest

from data_specs.visit.context import Context, Order, Person, Referrer
from service.receive.orders import merge_order

ORDERED = Context(
    person=Person(
        id="VN-0042", name="Bà Người Được Khám Thử Nghiệm", birth_date=date(1961, 5, 30), age_years=65, sex="female"
    ),
    referrer=Referrer(id="D-7", name="BS. Thử Nghiệm Tuyến Dưới", facility="Trạm y tế thử nghiệm"),
    order=Order(placer="ORD-1", accession_number="ACC-1", reason="Khám sức khỏe & ho"),
)


def test_an_order_fills_in_what_is_missing_in_the_context():
    visit = Context(person=Person(id="VN-0042", age_years=64), referrer=Referrer(id="D-7"), ecg_unit="mV")
    merged = merge_order(visit, ORDERED)
    assert merged.person == ORDERED.person.model_copy(update={"age_years": 64})
    assert merged.referrer == ORDERED.referrer
    assert merged.order == ORDERED.order
    assert merged.ecg_unit == "mV"
    assert merge_order(Context(), ORDERED) == ORDERED
    assert merge_order(ORDERED, Context()) == ORDERED
    other = Referrer(id="D-1", name="Khác")
    assert merge_order(Context(referrer=other), ORDERED).referrer == other


@pytest.mark.parametrize(
    "visit",
    [
        Context(person=Person(id="VN-0043")),
        Context(person=Person(birth_date=date(1990, 1, 1))),
        Context(person=Person(sex="male")),
        Context(order=Order(accession_number="ACC-2")),
    ],
)
def test_an_order_of_another_person_or_number_is_not_merged(visit):
    assert merge_order(visit, ORDERED) == visit
