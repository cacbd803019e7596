"""The people of a posted FHIR Bundle: who the order is for, and who asked for it.

References
----------
FHIR R4 (4.0.1): patient, practitioner, practitionerrole, organization, datatypes (HumanName, Identifier).
"""

from __future__ import annotations

from datetime import date
from typing import Any

from data_specs.person import MAX_AGE_YEARS, SEXES, age_on, is_national
from data_specs.visit.context import known_members
from service.faults import BETWEEN
from service.receive.fhir.bundle import Bundle, Part, Resource, refuse

IDENTIFIER_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0203"
REQUESTERS = ("Practitioner", "PractitionerRole", "Organization")


def find_patient(bundle: Bundle, request: Resource) -> Resource:
    """The Patient that the ServiceRequest is for.

    Raises
    ------
    InvalidRequest
        The Bundle has no such Patient, or it has modifiers.
    """
    subject = request.part("subject")
    if subject is None:
        refuse(request.at("subject"), "field_missing", "Patient")
    patient = bundle.follow(request, subject, ("Patient",))
    if patient is None:
        refuse(subject.at("reference"), expected="Patient")
    patient.refuse_modified()
    return patient


def check_subject(bundle: Bundle, resource: Resource, patient: Resource) -> None:
    """Check that an Observation or a Condition is of the patient. It needs no subject where the Bundle has one Patient.

    Raises
    ------
    InvalidRequest
        It is of another Patient, or it is not known of which.
    """
    reference = resource.part("subject")
    subject = bundle.follow(resource, reference, ("Patient",)) if reference else None
    if subject is None and (reference is not None or len(bundle.of_kind("Patient")) > 1):
        refuse(resource.at("subject"), expected="Patient")
    if subject is not None and subject.path != patient.path:
        refuse(resource.at("subject"), expected="ServiceRequest.subject")


def read_person(patient: Resource, on: date | None, came_from: dict[str, str]) -> dict[str, Any]:
    """The members of the context's ``person``.

    Parameters
    ----------
    on
        The day for which the age is computed.
    came_from
        Gets the paths of the members in the Bundle.
    """
    came_from |= {"person": patient.path, "person.id": patient.at("identifier"), "person.name": patient.at("name")}
    came_from |= {"person.birth_date": patient.at("birthDate"), "person.national_id": patient.at("identifier")}
    gender = patient.text("gender")
    if gender is not None and gender not in SEXES:
        refuse(patient.at("gender"), expected=BETWEEN.join(SEXES), found=gender)
    born = patient.day("birthDate")
    age = age_on(born, on)
    if born and on and age is None:
        refuse(patient.at("birthDate"), expected=f"≤ {on.isoformat()}" if born > on else f"≤ {MAX_AGE_YEARS:.1f}")
    return known_members(
        id=_identifier(patient, "MR"),
        national_id=_national(patient),
        name=_name(patient),
        birth_date=born,
        age_years=age,
        sex=gender,
    )


def read_referrer(bundle: Bundle, request: Resource, came_from: dict[str, str]) -> dict[str, Any]:
    """The members of the context's ``referrer``; none where the request has no requester.

    Parameters
    ----------
    came_from
        Gets the path of the requester in the Bundle.
    """
    reference = request.part("requester")
    if reference is None:
        return {}
    came_from["referrer"] = reference.path
    requester = bundle.follow(request, reference, REQUESTERS)
    if requester is None:
        return _named_by_reference(reference, REQUESTERS)
    came_from["referrer"] = requester.path
    if requester.kind == "Organization":
        return known_members(facility=requester.text("name"))
    if requester.kind == "Practitioner":
        return known_members(id=_identifier(requester), name=_name(requester))
    return _role(bundle, requester)


def _role(bundle: Bundle, role: Resource) -> dict[str, Any]:
    """A doctor and the facility where they work (PractitionerRole)."""
    doctor: dict[str, Any] = {}
    if reference := role.part("practitioner"):
        practitioner = bundle.follow(role, reference, ("Practitioner",))
        if practitioner:
            doctor = known_members(id=_identifier(practitioner), name=_name(practitioner))
        else:
            doctor = _named_by_reference(reference, ("Practitioner",))
    facility = None
    if reference := role.part("organization"):
        organization = bundle.follow(role, reference, ("Organization",))
        if organization:
            facility = organization.text("name")
        else:
            facility = _named_by_reference(reference, ("Organization",)).get("name")
    return known_members(id=doctor.get("id") or _identifier(role), name=doctor.get("name"), facility=facility)


def _named_by_reference(reference: Part, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Identifier and name in the reference itself, where the Bundle does not have the resource."""
    identifier = reference.part("identifier")
    named = known_members(id=identifier.text("value") if identifier else None, name=reference.text("display"))
    return named or refuse(reference.path, expected=", ".join(kinds))


def _name(resource: Resource) -> str | None:
    """The name as one text: the official one, else the usual one, else the first.

    References
    ----------
    FHIR R4, HumanName: ``text`` is the name as it is shown. Where it is missing, family and given name are joined in
    the Vietnamese order.
    """
    for part in _preferred(resource.parts("name")):
        name = part.text("text") or " ".join(filter(None, [part.text("family"), *part.texts("given")]))
        if name:
            return name
    return None


def _identifier(resource: Resource, kind: str = "") -> str | None:
    """One identifier: of type ``kind`` if there is one, else the official one, else the usual one, else the first."""
    found = _preferred([each for each in resource.parts("identifier") if each.text("value")])
    typed = [each for each in found if kind and has_type(each, kind)]
    return next((each.text("value") for each in [*typed, *found]), None)


def _national(patient: Resource) -> str | None:
    """The identifier of a country's register, by its type (:func:`data_specs.person.is_national`)."""
    for each in patient.parts("identifier"):
        kind = each.part("type")
        codes = [coding.text("code") or "" for coding in (kind.parts("coding") if kind else [])]
        if each.text("value") and any(is_national(code) for code in codes):
            return each.text("value")
    return None


def _preferred(parts: list[Part]) -> list[Part]:
    """Names or identifiers that are in use, the official ones first, then the usual ones."""
    rank = {"official": 0, "usual": 1}
    current = [each for each in parts if each.text("use") not in ("old", "maiden", "anonymous", "temp")]
    return sorted(current, key=lambda each: rank.get(each.text("use") or "", 2))


def has_type(identifier: Part, code: str) -> bool:
    """Whether an identifier is of the type with this code (HL7 v2, table 0203)."""
    kind = identifier.part("type")
    coded = kind.parts("coding") if kind else []
    return any(each.text("code") == code and each.text("system") in (None, IDENTIFIER_TYPE) for each in coded)
