"""Orders that a hospital's system sent before the visit: found by accession number, and merged into its context."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel
from sqlalchemy.orm import Session

from data_specs.person import age_at_examination
from data_specs.visit.context import Context, Order, Person
from service.storage.tables import OrderRow

Part = TypeVar("Part", bound=BaseModel)


def find_order(session: Session, site: str, accession_number: str) -> Context | None:
    """The context of the order with that number at that site; ``None`` where none was sent, or it was cancelled."""
    row = session.get(OrderRow, (site, accession_number))
    return Context.model_validate_json(row.context) if row else None


def merge_order(context: Context, order: Context) -> Context:
    """A visit's context, with the members that it lacks taken from its order.

    What the visit itself says is kept. An order for another person, or with another number, is not merged at all.
    """
    if _are_different_persons(context.person, order.person) or _have_different_numbers(context.order, order.order):
        return context
    person = _completed(context.person, order.person).model_copy(update={"age_years": _age(context, order)})
    referrer = context.referrer
    if referrer is None or order.referrer is None:
        referrer = referrer or order.referrer
    elif referrer.id in {None, order.referrer.id} and referrer.name in {None, order.referrer.name}:
        referrer = _completed(referrer, order.referrer)
    own_order = context.order
    own_order = _completed(own_order, order.order) if own_order and order.order else own_order or order.order
    return context.model_copy(update={"person": person, "referrer": referrer, "order": own_order})


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


def _are_different_persons(one: Person, other: Person) -> bool:
    """Whether an id, a birth date or a sex that both descriptions state differs."""
    sexes = {one.sex, other.sex} - {None, "unknown"}
    return (
        _differ(one.id, other.id)
        or _differ(one.birth_date, other.birth_date)
        or (len(sexes) > 1 and "other" not in sexes)
    )


def _have_different_numbers(one: Order | None, other: Order | None) -> bool:
    return one is not None and other is not None and _differ(one.accession_number, other.accession_number)


def _differ(one: object, other: object) -> bool:
    return one is not None and other is not None and one != other


def _completed(part: Part, other: Part) -> Part:
    """``part``, with the members that it lacks taken from ``other``."""
    missing = {name: getattr(other, name) for name in type(part).model_fields if getattr(part, name) is None}
    return part.model_copy(update=missing)
