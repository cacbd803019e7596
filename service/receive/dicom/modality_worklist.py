"""Modality Worklist SCU: asks the hospital's worklist for the order with an AccessionNumber.

References
----------
DICOM PS3.4, Annex K (Basic Worklist Management; K.6.1.2.2, table K.6-1: the attributes), PS3.4 section C.2.2.2
(matching: ``*`` and ``?`` are wild cards, a backslash separates values).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from data_specs.person import dicom_day, read_sex
from data_specs.visit.context import Context, Order, Person, Referrer, known_members
from service.protocols.peers import read_ae_address
from service.receive.dicom.context import MAX_ID, readable_name
from service.settings import Settings

if TYPE_CHECKING:
    from pydicom import Dataset

CONNECT_S, ANSWER_S, WHOLE_S = 3.0, 5.0, 10.0
"""How long to wait for the connection, for one message, and for all answers together."""
MAX_ANSWERS = 8
MAX_PDU = 64 * 1024
PENDING = (0xFF00, 0xFF01)
"""PS3.4, table K.4-1."""
WILD_CARDS = frozenset("*?\\")


class ModalityWorklistFailed(Exception):
    """The modality worklist gave no usable answer in time.

    Parameters
    ----------
    reason
        A code for the log; it holds nothing of the question or the answer.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def ask_modality_worklist(settings: Settings, accession_number: str) -> Context | None:
    """The order with this number, as a context. It blocks, for :data:`WHOLE_S` at most.

    Returns
    -------
    ``None`` where the worklist has no such order, or several that differ: it is not guessed which one is meant.

    Raises
    ------
    ModalityWorklistFailed
        The worklist could not be reached, refused the association, answered with a failure, or not in time.
    """
    if not accession_number.isascii() or WILD_CARDS & set(accession_number):
        return None
    answers = _ask(settings, accession_number)
    contexts = [_context(each) for each in answers if _text(each, "AccessionNumber") == accession_number]
    # an order with several steps gives several answers with the same person and order
    return contexts[0] if contexts and all(each == contexts[0] for each in contexts) else None


def _ask(settings: Settings, accession_number: str) -> list[Dataset]:
    from pynetdicom import AE  # noqa: PLC0415  pynetdicom is loaded where a worklist is set
    from pynetdicom.sop_class import ModalityWorklistInformationFind  # type: ignore[attr-defined]  # noqa: PLC0415

    from data_specs.dicom.quiet import be_quiet  # noqa: PLC0415

    be_quiet()
    address = read_ae_address(settings.dicom_worklist)
    entity = AE(settings.dicom_ae_title)
    entity.connection_timeout = CONNECT_S
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = ANSWER_S
    entity.maximum_pdu_size = MAX_PDU
    entity.add_requested_context(ModalityWorklistInformationFind)
    end = time.monotonic() + WHOLE_S
    try:
        association = entity.associate(address.host, address.port, ae_title=address.ae_title)
    except (OSError, RuntimeError, ValueError):  # the name cannot be resolved, or is no host name
        raise ModalityWorklistFailed("address") from None
    if not association.is_established:
        raise ModalityWorklistFailed("rejected" if association.is_rejected else "not_reached")
    found: list[Dataset] = []
    try:
        for status, identifier in association.send_c_find(_query(accession_number), ModalityWorklistInformationFind):
            code = status.get("Status")
            if code is None:
                raise ModalityWorklistFailed("no_answer")
            if code in PENDING and identifier is not None:
                found.append(identifier)
            elif code != 0:
                raise ModalityWorklistFailed(f"status_{code:04X}")
            if len(found) > MAX_ANSWERS or time.monotonic() > end:
                raise ModalityWorklistFailed("too_long")
    except ModalityWorklistFailed:
        association.abort()
        raise
    association.release()
    return found


def _query(accession_number: str) -> Dataset:
    """The identifier of the C-FIND request: the number to match, and the attributes to return."""
    from pydicom import Dataset  # noqa: PLC0415

    query = Dataset()
    query.SpecificCharacterSet = "ISO_IR 192"  # asks for answers in UTF-8; the number itself is ASCII
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
    """An answer as a context; what is empty in it is left out."""
    id_ = _text(answer, "PatientID")
    person = known_members(
        id=id_ if 0 < len(id_) <= MAX_ID else None,
        name=readable_name(_text(answer, "PatientName")),
        birth_date=dicom_day(_text(answer, "PatientBirthDate")),
        sex=read_sex(_text(answer, "PatientSex"), "dicom"),
    )
    physician = "RequestingPhysician" if _text(answer, "RequestingPhysician") else "ReferringPhysicianName"
    identified = physician.removesuffix("Name") + "IdentificationSequence"
    referrer = known_members(
        id=_physician_id(answer, identified),
        name=readable_name(_text(answer, physician)),
        facility=_text(answer, "RequestingService")[:200] or None,
    )
    reason = _text(answer, "ReasonForTheRequestedProcedure") or _text(answer, "RequestedProcedureDescription")
    placer = _text(answer, "PlacerOrderNumberImagingServiceRequest")
    order = known_members(
        placer=placer if 0 < len(placer) <= MAX_ID else None,
        accession_number=_text(answer, "AccessionNumber")[:MAX_ID],
        reason=reason[:1000] or None,
    )
    return Context.model_validate(
        known_members(
            person=Person.model_validate(person) if person else None,
            referrer=Referrer.model_validate(referrer) if referrer else None,
            order=Order.model_validate(order),
        )
    )


def _physician_id(answer: Dataset, sequence: str) -> str | None:
    """The physician's code in the hospital's systems (PS3.3, table 10-1, PersonIdentificationCodeSequence)."""
    try:
        return str(answer[sequence].value[0].PersonIdentificationCodeSequence[0].CodeValue).strip()[:MAX_ID] or None
    except Exception:  # it is missing or empty, or pydicom cannot read it
        return None


def _text(answer: Dataset, keyword: str) -> str:
    """A value as one printable line; empty where it is missing or unreadable, or its character set is not stated."""
    try:
        text = str(answer.get(keyword) or "")
        if not (text.isascii() or answer.get("SpecificCharacterSet")):
            return ""
    except Exception:  # pydicom converts a value when it is read, and bad bytes may raise anything
        return ""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())
