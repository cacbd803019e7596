"""Orders that a hospital's system sent ahead: found by accession number, and joined to what a visit itself says."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel
from sqlalchemy.orm import Session

from data_specs.person import age_at_examination
from data_specs.visit.context import Context, Order, Person
from service.storage.tables import OrderRow

Part = TypeVar("Part", bound=BaseModel)


def find_order(session: Session, site: str, accession_number: str) -> Context | None:
    """The order of that number at that site, if one was sent and not cancelled."""
    row = session.get(OrderRow, (site, accession_number))
    return Context.model_validate_json(row.context) if row else None


def merge_order(context: Context, order: Context) -> Context:
    """A visit's context with what is missing in it filled in from its order.

    What the visit itself says stays. An order of another person, or of another number, is not merged at all.
    """
    if _another_person(context.person, order.person) or _another_number(context.order, order.order):
        return context
    person = _filled(context.person, order.person).model_copy(update={"age_years": _age(context, order)})
    referrer = context.referrer
    if referrer is None or order.referrer is None:
        referrer = referrer or order.referrer
    elif referrer.id in {None, order.referrer.id} and referrer.name in {None, order.referrer.name}:
        referrer = _filled(referrer, order.referrer)
    asked = context.order
    asked = _filled(asked, order.order) if asked and order.order else asked or order.order
    return context.model_copy(update={"person": person, "referrer": referrer, "order": asked})


def _age(context: Context, order: Context) -> float | None:
    """The age on the day of the visit: as the visit states it, else by a birth date, else as the order has it.

    An order's age is that on the day of the order, so it is the last choice. It is not taken where the visit has a
    birth date and the order has none.
    """
    person, ordered = context.person, order.person
    born = person.birth_date or ordered.birth_date
    if person.age_years is not None or (born and context.visited_on):
        return age_at_examination(person.age_years, born, context.visited_on)
    return ordered.age_years if ordered.birth_date or not born else None


def _another_person(one: Person, other: Person) -> bool:
    """Whether two descriptions cannot be of one person: an id, a birth date or a sex that both know differs."""
    sexes = {one.sex, other.sex} - {None, "unknown"}
    return (
        _differ(one.id, other.id)
        or _differ(one.birth_date, other.birth_date)
        or (len(sexes) > 1 and "other" not in sexes)
    )


def _another_number(one: Order | None, other: Order | None) -> bool:
    return one is not None and other is not None and _differ(one.accession_number, other.accession_number)


def _differ(one: object, other: object) -> bool:
    return one is not None and other is not None and one != other


def _filled(given: Part, more: Part) -> Part:
    """``given`` with its missing members from ``more``."""
    missing = {name: getattr(more, name) for name in type(given).model_fields if getattr(given, name) is None}
    return given.model_copy(update=missing)
