"""What an HL7 v2 order message asks for, and how it is carried out in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import delete
from sqlalchemy.orm import Session

from data_specs.visit.context import Context
from service.protocols.er7 import DUPLICATE_KEY, UNKNOWN_KEY, NotUsable
from service.storage.audit import acting_for, note
from service.storage.tables import OrderMessageRow, OrderRow

Control = Literal["store", "replace", "delete"]
REMEMBERED = timedelta(days=30)
"""How long a message is remembered, so that it is not carried out a second time."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One order of a message.

    Parameters
    ----------
    control
        What to do with the order.
    location
        Where its accession number stands in the message, as ERR-2 names it.
    context
        ``None`` where the order is deleted.
    """

    control: Control
    accession_number: str
    location: str
    context: Context | None = None


@dataclass(frozen=True, slots=True)
class OrderMessage:
    """A message that can be carried out.

    Parameters
    ----------
    sender
        SHA-256 of the sending application and facility: each counts its own control ids.
    control_id
        MSH-10.
    sha256
        Of the whole message: the same control id with another content is an error.
    """

    sender: str
    control_id: str
    sha256: str
    instructions: tuple[Instruction, ...]


def carry_out(session: Session, site: str, message: OrderMessage, now: datetime) -> NotUsable | None:
    """Carry out all orders of the message, or none and say why. To be called in a writing transaction."""
    known = session.get(OrderMessageRow, (site, message.sender, message.control_id))
    if known:
        return None if known.sha256 == message.sha256 else NotUsable(DUPLICATE_KEY, "MSH^1^10")
    staged: dict[str, str | None] = {}
    for instruction in message.instructions:
        number = instruction.accession_number
        if number not in staged:
            row = session.get(OrderRow, (site, number))
            staged[number] = row.context if row else None
        wanted = instruction.context.model_dump_json() if instruction.context else None
        if instruction.control == "store" and staged[number] not in {None, wanted}:
            return NotUsable(DUPLICATE_KEY, instruction.location)
        if instruction.control != "store" and staged[number] is None:
            return NotUsable(UNKNOWN_KEY, instruction.location)
        staged[number] = wanted
    for number, wanted in staged.items():
        row = session.get(OrderRow, (site, number))
        if wanted is None:
            if row:
                session.delete(row)
        elif row is None:
            session.add(OrderRow(site=site, accession_number=number, context=wanted, received_at=now))
        elif row.context != wanted:
            row.context, row.received_at = wanted, now
    session.execute(delete(OrderMessageRow).where(OrderMessageRow.received_at < now - REMEMBERED))
    session.add(
        OrderMessageRow(
            site=site,
            sender=message.sender,
            control_id=message.control_id,
            sha256=message.sha256,
            received_at=now,
        )
    )
    note(
        session,
        "orders_received",
        actor=acting_for(session, "hl7"),
        site=site,
        orders=len(staged),
        message=message.sha256,
    )
    session.flush()  # the next message of the same transaction has to find it
    return None
