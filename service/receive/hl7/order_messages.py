"""Reads HL7 v2 order messages.

References
----------
HL7 v2.5.1, chapter 4: ORM^O01 (4.4.1), OMG^O19 (4.4.4), ORC (4.5.1), OBR (4.5.3), table 0119 (order control codes);
chapter 3: PID (3.4.2), table 0001 (sex); chapter 2A: CX, XPN, XCN, table 0444 (name assembly order).
IHE RAD TF-2, section 4.4: the accession number travels in OBR-18.
"""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from data_specs.person import age_on, hl7_day, is_national, read_sex
from data_specs.visit.context import Context, Order, Person, Referrer
from service.protocols.er7 import (
    DATA_TYPE,
    FIELD_MISSING,
    SEGMENT_SEQUENCE,
    TABLE_VALUE,
    UNKNOWN_EVENT,
    UNKNOWN_PROCESSING,
    UNKNOWN_TYPE,
    UNKNOWN_VERSION,
    VERSIONS,
    Message,
    NotUsable,
    Segment,
)
from service.receive.hl7.instructions import Control, Instruction, OrderMessage

Part = TypeVar("Part", bound=BaseModel)
CONTROLS: dict[str, Control] = {"NW": "store", "XO": "replace", "CA": "delete", "DC": "delete"}
"""Table 0119: new order, change, cancel, discontinue."""
MAX_ORDERS = 100
MAX_CONTROL_ID, MAX_ACCESSION = 199, 64


def read_orders(frame: bytes, today: date) -> OrderMessage:
    """Read an order message.

    Parameters
    ----------
    today
        Day of the order where the message does not state one; ages are computed for it.

    Raises
    ------
    NotUsable
        It is no order message, or something in it cannot be used. Then no order of it is carried out.
    """
    message = Message(frame)
    header = message.header
    _check_header(header)
    control_id = _required(header, 10)
    if len(control_id) > MAX_CONTROL_ID or "\n" in control_id or not control_id.isascii():
        raise NotUsable(DATA_TYPE, header.at(10))
    persons = [n for n, each in enumerate(message.segments) if each.name == "PID"]
    starts = [n for n, each in enumerate(message.segments) if each.name == "ORC"]
    if not starts or len(starts) > MAX_ORDERS or len(persons) > 1 or (persons and persons[0] > starts[0]):
        raise NotUsable(FIELD_MISSING if not starts else SEGMENT_SEQUENCE, "" if starts else "ORC^1^1")
    before = message.segments[: starts[0]]
    ends = [*starts[1:], len(message.segments)]
    groups = [message.segments[start:end] for start, end in zip(starts, ends, strict=True)]
    return OrderMessage(
        sender=hashlib.sha256(f"{header.repetitions(3)}{header.repetitions(4)}".encode()).hexdigest(),
        control_id=control_id,
        sha256=hashlib.sha256(message.body).hexdigest(),
        instructions=tuple(_instruction(before, group, today) for group in groups),
    )


def _check_header(header: Segment) -> None:
    """Check version, type, event and processing id of the message."""
    if _required(header, 12) not in VERSIONS:
        raise NotUsable(UNKNOWN_VERSION, header.at(12), rejected=True)
    events = {"ORM": "O01", "OMG": "O19"}
    kind = _required(header, 9)
    if kind not in events:
        raise NotUsable(UNKNOWN_TYPE, header.at(9), rejected=True)
    if header.text(9, 2) != events[kind]:
        raise NotUsable(UNKNOWN_EVENT, header.at(9), rejected=True)
    if _required(header, 11) != "P":  # D and T are tests: they must not become orders
        raise NotUsable(UNKNOWN_PROCESSING, header.at(11), rejected=True)


def _required(segment: Segment, field: int) -> str:
    """The text of a field that must not be empty."""
    text = segment.text(field)
    if not text:
        raise NotUsable(FIELD_MISSING, segment.at(field))
    return text


# ---------------------------------------------------------------- one order
def _instruction(before: list[Segment], group: list[Segment], today: date) -> Instruction:
    """Read one order.

    Parameters
    ----------
    before
        The segments before the first order: MSH, PID, PV1.
    group
        The order's segments: its ORC first.
    """
    orc = group[0]
    control = CONTROLS.get(_required(orc, 1))
    if control is None:
        raise NotUsable(TABLE_VALUE, orc.at(1))
    requests = [each for each in group if each.name == "OBR"]
    if len(requests) > 1:
        raise NotUsable(SEGMENT_SEQUENCE, requests[1].at(1))
    obr = requests[0] if requests else None
    number, location = _accession_number(orc, obr)
    if control == "delete":
        return Instruction(control, number, location)
    pid = next((each for each in before if each.name == "PID"), None)
    if pid is None:
        raise NotUsable(FIELD_MISSING, "PID^1^3")
    if obr is None:
        raise NotUsable(FIELD_MISSING, "OBR^1^4")
    pv1 = next((each for each in before if each.name == "PV1"), None)
    ordered_on = _day(orc, 9) or _day(before[0], 7) or today
    context = Context(
        person=_person(pid, ordered_on), referrer=_referrer(orc, obr, pv1), order=_order(orc, obr, number)
    )
    return Instruction(control, number, location, context)


def _accession_number(orc: Segment, obr: Segment | None) -> tuple[str, str]:
    """The accession number and its location: OBR-18, else the filler's number (OBR-3, ORC-3)."""
    places = [(obr, 18), (obr, 3), (orc, 3)] if obr else [(orc, 3)]
    for segment, field in places:
        number = segment.text(field)
        if number:
            if len(number) > MAX_ACCESSION or "\n" in number:
                raise NotUsable(DATA_TYPE, segment.at(field))
            return number, segment.at(field)
    raise NotUsable(FIELD_MISSING, (obr or orc).at(18 if obr else 3))


def _order(orc: Segment, obr: Segment, number: str) -> Order:
    placers = {orc.text(2), obr.text(2)} - {""}
    if len(placers) > 1:
        raise NotUsable(DATA_TYPE, obr.at(2))
    reasons = [obr.part(31, each, 2) or obr.part(31, each, 1) for each in obr.repetitions(31)]
    reason = "; ".join(filter(None, reasons)) or obr.text(13)
    locations = {"placer": obr.at(2), "reason": obr.at(31)}
    members = {"placer": next(iter(placers), None), "accession_number": number, "reason": reason or None}
    return _part_of_context(Order, members, locations)


def _person(pid: Segment, ordered_on: date) -> Person:
    """The person that the order is for; a birth date of PID that is not complete stays unknown."""
    identifiers = [(pid.part(3, each, 5), pid.part(3, each)) for each in pid.repetitions(3)]
    ranked = sorted(((kind, id_) for kind, id_ in identifiers if id_), key=lambda pair: pair[0] not in {"MR", "PI"})
    if not ranked:
        raise NotUsable(FIELD_MISSING, pid.at(3))
    sex = read_sex(pid.text(8), "hl7v2")
    if sex is None and pid.text(8):
        raise NotUsable(TABLE_VALUE, pid.at(8))
    born = _day(pid, 7)
    if born and born > ordered_on:
        raise NotUsable(DATA_TYPE, pid.at(7))
    members = {
        "id": ranked[0][1],
        "national_id": next((id_ for kind, id_ in identifiers if id_ and is_national(kind)), None),
        "name": next(filter(None, (_name(pid, 5, each, 1) for each in pid.repetitions(5))), None),
        "birth_date": born,
        "age_years": age_on(born, ordered_on),
        "sex": sex,
    }
    return _part_of_context(Person, members, {"id": pid.at(3), "national_id": pid.at(3), "name": pid.at(5)})


def _referrer(orc: Segment, obr: Segment, pv1: Segment | None) -> Referrer | None:
    """The ordering provider (ORC-12, OBR-16), else the referring doctor (PV1-8); and the ordering facility (ORC-21)."""
    places = [(orc, 12), (obr, 16)] + ([(pv1, 8)] if pv1 else [])
    segment, field = next(((s, f) for s, f in places if s.repetitions(f)), (orc, 12))
    doctor = next(iter(segment.repetitions(field)), "")
    members = {
        "id": segment.part(field, doctor) or None,
        "name": _name(segment, field, doctor, 2),
        "facility": orc.text(21) or None,
    }
    locations = {"id": segment.at(field), "name": segment.at(field), "facility": orc.at(21)}
    return _part_of_context(Referrer, members, locations) if any(members.values()) else None


def _name(segment: Segment, field: int, repetition: str, first: int) -> str | None:
    """A person's name in one text.

    The order is family, middle, given name, as in Vietnamese, unless the message says that the given name comes first.

    Parameters
    ----------
    first
        Component of the family name: 1 in XPN, 2 in XCN.
    """
    family, given, middle, suffix, prefix = (segment.part(field, repetition, first + n) for n in range(5))
    assembly = segment.part(field, repetition, 11 if first == 1 else 18)
    body = [given, middle, family] if assembly == "G" else [family, middle, given]
    return " ".join(" ".join([prefix, *body, suffix]).split()) or None


def _day(segment: Segment, field: int) -> date | None:
    """The day of a time stamp; ``None`` where it is absent, or a year or month alone."""
    try:
        return hl7_day(segment.text(field))
    except ValueError:
        raise NotUsable(DATA_TYPE, segment.at(field)) from None


def _part_of_context(part: type[Part], members: dict[str, Any], locations: dict[str, str]) -> Part:
    """A part of the context.

    Parameters
    ----------
    locations
        Where in the message each member stands.

    Raises
    ------
    NotUsable
        With the location of the member that cannot be used.
    """
    try:
        return part(**members)
    except ValidationError as error:
        raise NotUsable(DATA_TYPE, locations.get(str(error.errors()[0]["loc"][0]), "")) from None
