"""Reads an order of a hospital's system, a FHIR Bundle with one ServiceRequest, as the visit's context.

A value that is not known here is left out: it is then missing, never normal. ``docs/reference/fhir.md``
lists the members that are read.

References
----------
FHIR R4 (4.0.1): servicerequest, observation, condition, datatypes (Identifier).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from data_specs.visit.context import Context, known_members
from service.errors import InvalidRequest
from service.faults import BETWEEN, field_faults
from service.receive.fhir.bundle import PATH, Bundle, Part, Resource, refuse
from service.receive.fhir.people import check_subject, find_patient, has_type, read_person, read_referrer
from service.receive.fhir.values import Values, condition_name, is_refuted

NOT_AN_ORDER = ("revoked", "entered-in-error")
ORDERS = ("draft", "active", "on-hold", "completed", "unknown")
"""FHIR R4 request-status, in two parts: the order was withdrawn, or it stands."""
MAX_REASONS = 50
REASONS = ("Condition", "Observation", "DiagnosticReport", "DocumentReference")

_NOT_OBSERVED = ("cancelled", "entered-in-error")
"""FHIR R4 observation-status of an Observation without a valid value."""


def is_bundle(document: dict[str, Any]) -> bool:
    """Whether a posted context is a FHIR Bundle; the contract's own document has no ``resourceType``."""
    return document.get("resourceType") == "Bundle"


def context_of_bundle(document: dict[str, Any]) -> Context:
    """The context that a Bundle with one ServiceRequest states.

    Parameters
    ----------
    document
        Parsed JSON without repeated members and control characters: see :func:`service.receive.context.read_context`.

    Raises
    ------
    InvalidRequest
        It names the field: no order or several, a reference to a missing resource, a unit that is not read, and so on.
    """
    bundle = Bundle.read(document)
    request = _request(bundle)
    patient = find_patient(bundle, request)
    occurrence = request.day("occurrenceDateTime")
    came_from: dict[str, str] = {}
    person = read_person(patient, occurrence or request.day("authoredOn"), came_from)
    referrer = read_referrer(bundle, request, came_from)
    order = _order(bundle, request, came_from)
    values = Values()
    for observation in bundle.of_kind("Observation"):
        observation.refuse_modified()
        if observation.text("status") not in _NOT_OBSERVED:
            check_subject(bundle, observation, patient)
            values.take(observation)
    members = {
        "person": person,
        "referrer": referrer,
        "order": order,
        "visited_on": occurrence,
        "labs": values.labs,
        "vitals": values.vitals,
        "conditions": _conditions(bundle, request, patient),
    }
    came_from |= {"labs": f"{PATH}.entry", "vitals": f"{PATH}.entry", **values.came_from}
    return _context({name: member for name, member in members.items() if member}, came_from)


def _context(members: dict[str, Any], came_from: dict[str, str]) -> Context:
    """The context of these members.

    Raises
    ------
    InvalidRequest
        It names the place in the Bundle of each member that cannot be used.
    """
    try:
        return Context.model_validate(members)
    except ValidationError as error:
        faults = field_faults(error.errors(include_url=False))
        raise InvalidRequest(*(replace(each, field=_path(each.field, came_from)) for each in faults)) from None


def _path(field: str, came_from: dict[str, str]) -> str:
    """The path in the Bundle of a member of the context, or of the part that holds it."""
    while field and field not in came_from:
        field = field.rpartition(".")[0]
    return came_from.get(field, PATH)


# ---------------------------------------------------------------- the order
def _request(bundle: Bundle) -> Resource:
    requests = bundle.of_kind("ServiceRequest")
    if not requests:
        refuse(f"{PATH}.entry", "field_missing", "ServiceRequest")
    if len(requests) > 1:
        refuse(requests[1].path, "field_too_many", "1 × ServiceRequest")
    request = requests[0]
    request.refuse_modified()
    if request.text("status") in NOT_AN_ORDER:
        refuse(request.at("status"), expected=BETWEEN.join(ORDERS), found=request.text("status"))
    if request.members.get("doNotPerform") not in (None, False):
        refuse(request.at("doNotPerform"), expected="false")
    return request


def _order(bundle: Bundle, request: Resource, came_from: dict[str, str]) -> dict[str, Any]:
    identifiers = request.parts("identifier")
    placer = _only_one([each for each in identifiers if has_type(each, "PLAC")])
    accession = _only_one([each for each in identifiers if _is_accession(each)])
    rest = [each for each in identifiers if not each.has("type") and not _is_accession(each)]
    if placer is None and len(rest) == 1:
        placer = rest[0]  # the sender placed the order, and this is its only number
    came_from |= {
        "order.placer": placer.at("value") if placer else request.at("identifier"),
        "order.accession_number": accession.at("value") if accession else request.at("identifier"),
        "order.request": request.path,
        "order.reason": request.at("reasonCode"),
    }
    id_ = request.text("id")
    return known_members(
        placer=placer.text("value") if placer else None,
        accession_number=accession.text("value") if accession else None,
        request=request.url or (f"ServiceRequest/{id_}" if id_ else None),
        reason="; ".join(_reasons(bundle, request)) or None,
    )


def _only_one(found: list[Part]) -> Part | None:
    """The identifier; ``None`` where there is none.

    Raises
    ------
    InvalidRequest
        There are several with different values.
    """
    if len({each.text("value") for each in found}) > 1:
        refuse(found[1].path, "field_repeated")
    return found[0] if found else None


def _is_accession(identifier: Part) -> bool:
    """Whether it is an accession number: by its type, else by its system (``…/accession``, ``…:accession-number``)."""
    system = (identifier.text("system") or "").lower()
    return has_type(identifier, "ACSN") or (
        not identifier.has("type") and bool(re.search(r"[/:#]accession[-_]?(no|number|numbers|s)?$", system))
    )


def _reasons(bundle: Bundle, request: Resource) -> list[str]:
    """Why the visit was ordered, in the orderer's words."""
    reasons = [words for each in request.parts("reasonCode") if (words := _words(each))]
    references = request.parts("reasonReference")
    if len(references) > MAX_REASONS:
        refuse(request.at("reasonReference"), "field_too_many", str(MAX_REASONS))
    for reference in references:
        resource = bundle.follow(request, reference, REASONS)
        code = (resource.part("code") or resource.part("type")) if resource else None
        words = (_words(code) if code else None) or reference.text("display")
        if words:
            reasons.append(words)
        elif resource is None:
            refuse(reference.path, expected=", ".join(REASONS))
    return list(dict.fromkeys(reasons))


def _words(concept: Part) -> str | None:
    """The text of a concept, else the display of its first code, else the code."""
    coded = concept.parts("coding")
    shown = [each.text("display") for each in coded] + [each.text("code") for each in coded]
    return concept.text("text") or next((each for each in shown if each), None)


# ---------------------------------------------------------------- conditions
def _conditions(bundle: Bundle, request: Resource, patient: Resource) -> list[str] | None:
    """The person's conditions, by their names in the vocabulary; ``None`` where they are not all known.

    A condition that is not in the list counts as absent. So there is no list where a Condition is not recognised or
    not certain, or where the Bundle has no Conditions but the reasons for the order.
    """
    followed = [bundle.follow(request, each, REASONS) for each in request.parts("reasonReference")]
    reasons = {resource.path for resource in followed if resource}
    stated = []
    for condition in bundle.of_kind("Condition"):
        condition.refuse_modified()
        if not is_refuted(condition):
            check_subject(bundle, condition, patient)
            stated.append(condition)
    names = [condition_name(each) for each in stated]
    if all(each.path in reasons for each in stated) or None in names:
        return None
    return list(dict.fromkeys(filter(None, names)))
