"""An order as a hospital's system sends it: a FHIR Bundle with one ServiceRequest, read as the visit's context.

What is read is taken as it stands; what is not known here is left out and so missing, never normal. ``docs/fhir.md``
says which members are read.

References
----------
FHIR R4 (4.0.1): servicerequest, patient, practitionerrole, observation, condition, datatypes (HumanName, Identifier).
"""

from __future__ import annotations

import re
from datetime import date
from typing import Any

from pydantic import ValidationError

from data_specs.person import MAX_AGE_YEARS, SEXES, age_on, fhir_day
from data_specs.visit.context import Context
from service.errors import FieldFault, InvalidRequest, field_faults
from service.receive.fhir.bundle import PATH, Bundle, Part, Resource, refuse
from service.receive.fhir.values import Values, condition_name, is_refuted

IDENTIFIER_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0203"
NOT_AN_ORDER = ("revoked", "entered-in-error")
ORDERS = ("draft", "active", "on-hold", "completed", "unknown")
"""FHIR R4 request-status, without those by which the orderer takes it back."""
REQUESTERS = ("Practitioner", "PractitionerRole", "Organization")
MAX_REASONS = 50
REASONS = ("Condition", "Observation", "DiagnosticReport", "DocumentReference")

_NOT_OBSERVED = ("cancelled", "entered-in-error")
"""FHIR R4 observation-status of what is no observation (any more)."""


def is_bundle(document: dict[str, Any]) -> bool:
    """Whether a posted context is a FHIR Bundle; ours has no such member."""
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
        Naming the field: no or several orders, a reference that leads nowhere, a unit that is not read, and so on.
    """
    bundle = Bundle.read(document)
    request = _request(bundle)
    patient = _patient(bundle, request)
    occurrence = _day(request, "occurrenceDateTime")
    came_from: dict[str, str] = {}
    person = _person(patient, occurrence or _day(request, "authoredOn"), came_from)
    referrer = _referrer(bundle, request, came_from)
    order = _order(bundle, request, came_from)
    values = Values()
    for each in bundle.of_kind("Observation"):
        _refuse_modified(each)
        if each.text("status") not in _NOT_OBSERVED and _is_of(bundle, each, patient):
            values.take(each)
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

    try:
        return Context.model_validate(members)
    except ValidationError as error:
        faults = field_faults(error.errors(include_url=False))
        raise InvalidRequest(*(FieldFault(_posted(f.field, came_from), f.code, f.expected) for f in faults)) from None


def _posted(field: str, came_from: dict[str, str]) -> str:
    """Where in the Bundle a member of the context came from."""
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
    _refuse_modified(request)
    if request.text("status") in NOT_AN_ORDER:
        refuse(request.at("status"), expected=", ".join(ORDERS))
    if request.members.get("doNotPerform") not in (None, False):
        refuse(request.at("doNotPerform"), expected="false")
    return request


def _refuse_modified(resource: Resource) -> None:
    """What changes the meaning of a resource in a way that is not known here forbids to read it (FHIR R4, 2.4.1)."""
    for name in ("implicitRules", "modifierExtension"):
        if resource.has(name):
            refuse(resource.at(name), "field_unknown")


def _order(bundle: Bundle, request: Resource, came_from: dict[str, str]) -> dict[str, Any]:
    identifiers = request.parts("identifier")
    placer = _one([each for each in identifiers if _is_typed(each, "PLAC")])
    accession = _one([each for each in identifiers if _is_accession(each)])
    rest = [each for each in identifiers if not each.has("type") and not _is_accession(each)]
    if placer is None and len(rest) == 1:
        placer = rest[0]  # who sends the order is who placed it, and it has no other number
    came_from |= {
        "order.placer": placer.at("value") if placer else request.at("identifier"),
        "order.accession_number": accession.at("value") if accession else request.at("identifier"),
        "order.request": request.path,
        "order.reason": request.at("reasonCode"),
    }
    id_ = request.text("id")
    return _known(
        placer=placer.text("value") if placer else None,
        accession_number=accession.text("value") if accession else None,
        request=request.url or (f"ServiceRequest/{id_}" if id_ else None),
        reason="; ".join(_reasons(bundle, request)) or None,
    )


def _one(found: list[Part]) -> Part | None:
    if len({each.text("value") for each in found}) > 1:
        refuse(found[1].path, "field_repeated")
    return found[0] if found else None


def _is_typed(identifier: Part, code: str) -> bool:
    kind = identifier.part("type")
    coded = kind.parts("coding") if kind else []
    return any(each.text("code") == code and each.text("system") in (None, IDENTIFIER_TYPE) for each in coded)


def _is_accession(identifier: Part) -> bool:
    """By its type; or, where it has none, by a system that says so (``…/accession``, ``…:accession-number``)."""
    system = (identifier.text("system") or "").lower()
    return _is_typed(identifier, "ACSN") or (
        not identifier.has("type") and bool(re.search(r"[/:#]accession[-_]?(no|number|numbers|s)?$", system))
    )


def _reasons(bundle: Bundle, request: Resource) -> list[str]:
    """Why it was asked for, in the orderer's words."""
    said = [words for each in request.parts("reasonCode") for words in [_words(each)] if words]
    references = request.parts("reasonReference")
    if len(references) > MAX_REASONS:
        refuse(request.at("reasonReference"), "field_too_many", str(MAX_REASONS))
    for reference in references:
        resource = bundle.follow(request, reference, REASONS)
        code = (resource.part("code") or resource.part("type")) if resource else None
        words = (_words(code) if code else None) or reference.text("display")
        if words:
            said.append(words)
        elif resource is None:
            refuse(reference.path, expected=", ".join(REASONS))
    return list(dict.fromkeys(said))


def _words(concept: Part) -> str | None:
    """The text of a concept as it was written, else the display of its first code, else the code."""
    coded = concept.parts("coding")
    shown = [each.text("display") for each in coded] + [each.text("code") for each in coded]
    return concept.text("text") or next((each for each in shown if each), None)


# ---------------------------------------------------------------- people
def _patient(bundle: Bundle, request: Resource) -> Resource:
    subject = request.part("subject")
    if subject is None:
        refuse(request.at("subject"), "field_missing", "Patient")
    patient = bundle.follow(request, subject, ("Patient",))
    if patient is None:
        refuse(subject.at("reference"), expected="Patient")
    _refuse_modified(patient)
    return patient


def _is_of(bundle: Bundle, resource: Resource, patient: Resource) -> bool:
    """Whether an Observation or a Condition is of the person; without a subject, where the Bundle has one person.

    Raises
    ------
    InvalidRequest
        It is of somebody else, or of nobody knows whom.
    """
    subject = resource.part("subject")
    whose = bundle.follow(resource, subject, ("Patient",)) if subject else None
    if whose is None and (subject is not None or len(bundle.of_kind("Patient")) > 1):
        refuse(resource.at("subject"), expected="Patient")
    if whose is not None and whose.path != patient.path:
        refuse(resource.at("subject"), expected="ServiceRequest.subject")
    return True


def _person(patient: Resource, on: date | None, came_from: dict[str, str]) -> dict[str, Any]:
    came_from |= {"person": patient.path, "person.id": patient.at("identifier"), "person.name": patient.at("name")}
    came_from["person.birth_date"] = patient.at("birthDate")
    gender = patient.text("gender")
    if gender is not None and gender not in SEXES:
        refuse(patient.at("gender"), expected=", ".join(SEXES))
    born = _day(patient, "birthDate")
    age = age_on(born, on)
    if born and on and age is None:
        refuse(patient.at("birthDate"), expected=f"≤ {on.isoformat()}" if born > on else f"≤ {MAX_AGE_YEARS:.1f}")
    return _known(
        id=_identifier(patient, "MR"),
        name=_name(patient),
        birth_date=born,
        age_years=age,
        sex=gender,
    )


def _referrer(bundle: Bundle, request: Resource, came_from: dict[str, str]) -> dict[str, Any]:
    reference = request.part("requester")
    if reference is None:
        return {}
    came_from["referrer"] = reference.path
    by = bundle.follow(request, reference, REQUESTERS)
    if by is None:
        return _only_named(reference, REQUESTERS)
    came_from["referrer"] = by.path
    if by.kind == "Organization":
        return _known(facility=by.text("name"))
    if by.kind == "Practitioner":
        return _known(id=_identifier(by), name=_name(by))
    return _role(bundle, by)


def _role(bundle: Bundle, role: Resource) -> dict[str, Any]:
    """A doctor where they work."""
    who, where = role.part("practitioner"), role.part("organization")
    doctor = bundle.follow(role, who, ("Practitioner",)) if who else None
    place = bundle.follow(role, where, ("Organization",)) if where else None
    named = _known(id=_identifier(doctor), name=_name(doctor)) if doctor else {}
    if who and not doctor:
        named = _only_named(who, ("Practitioner",))
    facility = place.text("name") if place else None
    if where and not place:
        facility = _only_named(where, ("Organization",)).get("name")
    return _known(id=named.get("id") or _identifier(role), name=named.get("name"), facility=facility)


def _only_named(reference: Part, kinds: tuple[str, ...]) -> dict[str, Any]:
    """What a reference says by itself of somebody whose resource was not sent along."""
    identifier = reference.part("identifier")
    named = _known(id=identifier.text("value") if identifier else None, name=reference.text("display"))
    return named or refuse(reference.path, expected=", ".join(kinds))


def _name(of: Resource) -> str | None:
    """The name as one text, diacritics as they came; the official one first, then the usual one, then the first.

    References
    ----------
    FHIR R4, HumanName: ``text`` is the name as it is to be shown; where it is absent, family and given are put in the
    order that Vietnamese has.
    """
    for each in _preferred(of.parts("name")):
        name = each.text("text") or " ".join(filter(None, [each.text("family"), *each.texts("given")]))
        if name:
            return name
    return None


def _identifier(of: Resource, kind: str = "") -> str | None:
    """One identifier: of the type that is asked for, then the official one, then the usual one, then the first."""
    found = _preferred([each for each in of.parts("identifier") if each.text("value")])
    typed = [each for each in found if kind and _is_typed(each, kind)]
    return next((each.text("value") for each in [*typed, *found]), None)


def _preferred(parts: list[Part]) -> list[Part]:
    rank = {"official": 0, "usual": 1}
    current = [each for each in parts if each.text("use") not in ("old", "maiden", "anonymous", "temp")]
    return sorted(current, key=lambda each: rank.get(each.text("use") or "", 2))


# ---------------------------------------------------------------- conditions
def _conditions(bundle: Bundle, request: Resource, patient: Resource) -> list[str] | None:
    """What the person is known to have, by names of the vocabulary; ``None`` where that is not wholly known.

    A list that is given is taken as complete (a condition that is not in it is absent). So there is none where one
    Condition is not recognised or not certain, nor where all that was sent is the reason for the order.
    """
    followed = [bundle.follow(request, each, REASONS) for each in request.parts("reasonReference")]
    reasons = {each.path for each in followed if each}
    stated = []
    for each in bundle.of_kind("Condition"):
        _refuse_modified(each)
        if not is_refuted(each) and _is_of(bundle, each, patient):
            stated.append(each)
    names = [condition_name(each) for each in stated]
    if all(each.path in reasons for each in stated) or None in names:
        return None
    return list(dict.fromkeys(filter(None, names)))


# ---------------------------------------------------------------- dates
def _day(of: Resource, name: str) -> date | None:
    """The day of a date or dateTime; ``None`` where it is absent, or a year or month alone."""
    try:
        return fhir_day(of.text(name) or "")
    except ValueError:
        refuse(of.at(name), expected="YYYY-MM-DD")


def _known(**members: Any) -> dict[str, Any]:
    return {name: member for name, member in members.items() if member is not None}
