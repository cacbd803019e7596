"""Modality Worklist SCU: the order behind an AccessionNumber, asked of the hospital's own worklist.

References
----------
DICOM PS3.4, Annex K (Basic Worklist Management; K.6.1.2.2, table K.6-1: the attributes), PS3.4 section C.2.2.2
(matching: ``*`` and ``?`` are wild cards, a backslash parts values).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from data_specs.person import dicom_day, read_sex
from data_specs.visit.context import Context, Order, Person, Referrer
from service.protocols.dicom_peers import read_address
from service.receive.dicom.context import MAX_ID, given, readable_name
from service.settings import Settings

if TYPE_CHECKING:
    from pydicom import Dataset

CONNECT_S, ANSWER_S, WHOLE_S = 3.0, 5.0, 10.0
"""To the transport connection; between two messages; for the whole question."""
MOST_ANSWERS = 8
MAX_PDU = 64 * 1024
PENDING = (0xFF00, 0xFF01)
"""PS3.4, table K.4-1."""
WILD = frozenset("*?\\")


class WorklistSilent(Exception):
    """The worklist gave no usable answer in time. ``reason`` is a word, and names nobody."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def find(settings: Settings, accession_number: str) -> Context | None:
    """What the worklist says of the order with this number. It blocks, for some seconds at most.

    ``None`` where it has no such order, or several of different persons: which of them is meant is not guessed.

    Raises
    ------
    WorklistSilent
        It could not be reached, refused the association, answered with a failure, or not in time.
    """
    if not accession_number.isascii() or WILD & set(accession_number):
        return None
    answers = _ask(settings, accession_number)
    contexts = [_context(each) for each in answers if _text(each, "AccessionNumber") == accession_number]
    # several steps of one order are several answers that say the same of person and order
    return contexts[0] if contexts and all(each == contexts[0] for each in contexts) else None


def _ask(settings: Settings, accession_number: str) -> list[Dataset]:
    from pynetdicom import AE  # noqa: PLC0415  a protocol stack, for who has a worklist
    from pynetdicom.sop_class import ModalityWorklistInformationFind  # type: ignore[attr-defined]  # noqa: PLC0415

    from service.protocols.dicom_quiet import be_quiet  # noqa: PLC0415

    be_quiet()
    address = read_address(settings.dicom_worklist)
    entity = AE(settings.dicom_ae_title)
    entity.connection_timeout = CONNECT_S
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = ANSWER_S
    entity.maximum_pdu_size = MAX_PDU
    entity.add_requested_context(ModalityWorklistInformationFind)
    end = time.monotonic() + WHOLE_S
    try:
        association = entity.associate(address.host, address.port, ae_title=address.ae_title)
    except (OSError, RuntimeError, ValueError):  # a name that is not known, or is none
        raise WorklistSilent("address") from None
    if not association.is_established:
        raise WorklistSilent("rejected" if association.is_rejected else "not_reached")
    found: list[Dataset] = []
    try:
        for status, identifier in association.send_c_find(_query(accession_number), ModalityWorklistInformationFind):
            code = status.get("Status")
            if code is None:
                raise WorklistSilent("no_answer")
            if code in PENDING and identifier is not None:
                found.append(identifier)
            elif code != 0:
                raise WorklistSilent(f"status_{code:04X}")
            if len(found) > MOST_ANSWERS or time.monotonic() > end:
                raise WorklistSilent("too_long")
    except WorklistSilent:
        association.abort()
        raise
    association.release()
    return found


def _query(accession_number: str) -> Dataset:
    """The identifier of the question: the number to match, the attributes wanted back."""
    from pydicom import Dataset  # noqa: PLC0415

    query = Dataset()
    query.SpecificCharacterSet = "ISO_IR 192"  # the number is ASCII; it says in what answers are understood best
    query.AccessionNumber = accession_number
    for keyword in (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "ReferringPhysicianName"),
        *("RequestingPhysician", "RequestedProcedureID", "RequestedProcedureDescription"),
        *("ReasonForTheRequestedProcedure", "PlacerOrderNumberImagingServiceRequest", "RequestingService"),
    ):
        setattr(query, keyword, "")
    for keyword in ("ReferringPhysicianIdentificationSequence", "RequestingPhysicianIdentificationSequence"):
        setattr(query, keyword, [])
    step = Dataset()
    step.Modality = step.ScheduledProcedureStepStartDate = step.ScheduledProcedureStepID = ""
    query.ScheduledProcedureStepSequence = [step]
    return query


def _context(answer: Dataset) -> Context:
    """An answer as an order's context: what it leaves empty is left out."""
    id_ = _text(answer, "PatientID")
    person = given(
        id=id_ if 0 < len(id_) <= MAX_ID else None,
        name=readable_name(_text(answer, "PatientName")),
        birth_date=dicom_day(_text(answer, "PatientBirthDate")),
        sex=read_sex(_text(answer, "PatientSex"), "dicom"),
    )
    asked_by = "RequestingPhysician" if _text(answer, "RequestingPhysician") else "ReferringPhysicianName"
    identified = asked_by.removesuffix("Name") + "IdentificationSequence"
    referrer = given(
        id=_physician_id(answer, identified),
        name=readable_name(_text(answer, asked_by)),
        facility=_text(answer, "RequestingService")[:200] or None,
    )
    reason = _text(answer, "ReasonForTheRequestedProcedure") or _text(answer, "RequestedProcedureDescription")
    placer = _text(answer, "PlacerOrderNumberImagingServiceRequest")
    order = given(
        placer=placer if 0 < len(placer) <= MAX_ID else None,
        accession_number=_text(answer, "AccessionNumber")[:MAX_ID],
        reason=reason[:1000] or None,
    )
    return Context.model_validate(
        given(
            person=Person.model_validate(person) if person else None,
            referrer=Referrer.model_validate(referrer) if referrer else None,
            order=Order.model_validate(order),
        )
    )


def _physician_id(answer: Dataset, sequence: str) -> str | None:
    """Who asked, as the hospital's systems know them (PS3.3 table 10-1, PersonIdentificationCodeSequence)."""
    try:
        return str(answer[sequence].value[0].PersonIdentificationCodeSequence[0].CodeValue).strip()[:MAX_ID] or None
    except Exception:  # absent, empty, or whatever pydicom raises for a value that is none
        return None


def _text(answer: Dataset, keyword: str) -> str:
    """One printable line; empty where it is absent, pydicom cannot read it, or it is in letters of no stated set."""
    try:
        text = str(answer.get(keyword) or "")
        if not (text.isascii() or answer.get("SpecificCharacterSet")):
            return ""
    except Exception:  # pydicom converts on access, and lets through whatever the conversion of bad bytes raises
        return ""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())
