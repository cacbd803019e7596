"""Checks of a FHIR document that a schema does not make: references, codes, units, probabilities, invariants.

:func:`check` takes a Bundle as parsed JSON, and returns one line for each fault, which begins with its path. It never
raises: a value of an unexpected type is a fault.

References
----------
FHIR R4 (4.0.1): bundle (bdl-*), domainresource (dom-*), element and extension (ele-1, ext-1), narrative (txt-*),
composition (cmp-*), observation (obs-*), references (ref-1), datatypes (qty-3, per-1), and the status value sets.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from tests.service.report.fhir_elements import element_faults

STATUSES = {
    "Composition": {"preliminary", "final", "amended", "entered-in-error"},
    "DiagnosticReport": {
        *("registered", "partial", "preliminary", "final", "amended", "corrected"),
        *("appended", "cancelled", "entered-in-error", "unknown"),
    },
    "Observation": {
        *("registered", "preliminary", "final", "amended", "corrected", "cancelled", "entered-in-error", "unknown"),
    },
    "ImagingStudy": {"registered", "available", "cancelled", "entered-in-error", "unknown"},
    "Device": {"active", "inactive", "entered-in-error", "unknown"},
}
STATUSES["RiskAssessment"] = STATUSES["Observation"]

REQUIRED = {
    "Composition": ("status", "type", "date", "author", "title"),
    "DiagnosticReport": ("status", "code"),
    "Observation": ("status", "code"),
    "RiskAssessment": ("status", "subject"),
    "ImagingStudy": ("status", "subject"),
    "Provenance": ("target", "recorded", "agent"),
}
"""Required members by resource type."""

MAY_POINT_OUTSIDE = {"basedOn"}
"""Members whose reference may be to a resource in the hospital's system: the request of the report."""

SUBJECTS = {"subject": ("Patient",), "practitioner": ("Practitioner",)}
"""Members whose reference has to be to a resource of one of these types."""

_URN = re.compile(r"urn:(uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|oid:[0-2](\.(0|[1-9]\d*))+)")
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")


def check(bundle: dict[str, Any]) -> list[str]:
    """Every fault of a document Bundle, each with its path."""
    faults = [*_bundle(bundle)]
    entries = bundle.get("entry")
    resources = [
        (f"Bundle.entry[{index}].resource", entry.get("fullUrl"), entry["resource"])
        for index, entry in enumerate(entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("resource"), dict)
    ]
    known = Counter(url for _, url, _ in resources if isinstance(url, str))
    kinds = {url: resource.get("resourceType") for _, url, resource in resources if isinstance(url, str)}
    faults += element_faults("Bundle", bundle)
    for path, _, resource in resources:
        faults += _resource(path, resource)
        faults += _references(path, resource, known, kinds)
    return faults


# ---------------------------------------------------------------- the Bundle
def _bundle(bundle: dict[str, Any]) -> Iterator[str]:
    if bundle.get("resourceType") != "Bundle":
        yield "Bundle.resourceType: has to be Bundle"
    if bundle.get("type") != "document":
        yield "Bundle.type: has to be document"
    identifier = bundle.get("identifier")
    if not isinstance(identifier, dict) or not identifier.get("system") or not identifier.get("value"):
        yield "Bundle.identifier: a document has an identifier with system and value (bdl-9)"
    if not _is_instant(bundle.get("timestamp")):
        yield "Bundle.timestamp: a document has an instant with a time zone (bdl-10)"
    if "total" in bundle:
        yield "Bundle.total: not in a document (bdl-1)"
    entries = bundle.get("entry")
    if not isinstance(entries, list) or not entries:
        yield "Bundle.entry: a document has entries (bdl-11)"
        return
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        path = f"Bundle.entry[{index}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("resource"), dict):
            yield f"{path}: has no resource (bdl-5)"
            continue
        kind = entry["resource"].get("resourceType")
        if index == 0 and kind != "Composition":
            yield f"{path}.resource: the first entry is a Composition (bdl-11)"
        for member in ("search", "request", "response"):
            if member in entry:
                yield f"{path}.{member}: not in a document (bdl-2, bdl-3, bdl-4)"
        yield from _full_url(path, entry, seen)


def _full_url(path: str, entry: dict[str, Any], seen: set[str]) -> Iterator[str]:
    url = entry.get("fullUrl")
    if not isinstance(url, str) or not _ABSOLUTE.fullmatch(url):
        yield f"{path}.fullUrl: has to be an absolute address or URN"
        return
    if url.startswith("urn:") and not _URN.fullmatch(url):
        yield f"{path}.fullUrl: not a urn:uuid: in lower case or urn:oid:"
    if url in seen:
        yield f"{path}.fullUrl: given twice (bdl-7)"
    if "/_history/" in url:
        yield f"{path}.fullUrl: names a version (bdl-8)"
    seen.add(url)
    if url.startswith("urn:uuid:") and entry["resource"].get("id") != url.removeprefix("urn:uuid:"):
        yield f"{path}.resource.id: is not that of fullUrl"


def _is_instant(value: object) -> bool:
    if not isinstance(value, str) or not re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", value
    ):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------- each resource
def _resource(path: str, resource: dict[str, Any]) -> Iterator[str]:
    kind = resource.get("resourceType")
    if not isinstance(kind, str) or not kind:
        yield f"{path}.resourceType: missing"
        return
    if not isinstance(resource.get("id"), str) or not _ID.fullmatch(resource["id"]):
        yield f"{path}.id: 1 to 64 letters, digits, '-' and '.'"
    for member in REQUIRED.get(kind, ()):
        if member not in resource:
            yield f"{path}.{member}: {kind} has to have it"
    status = resource.get("status")
    if kind in STATUSES and status is not None and (not isinstance(status, str) or status not in STATUSES[kind]):
        yield f"{path}.status: not a status of {kind}"
    if "text" not in resource:
        yield f"{path}.text: a resource is to say itself in words (dom-6)"
    yield from _contained(path, resource)
    yield from {"Composition": _composition, "Observation": _observation, "RiskAssessment": _risk}.get(kind, _nothing)(
        path, resource
    )


def _nothing(_path: str, _resource: dict[str, Any]) -> Iterator[str]:
    return iter(())


def _contained(path: str, resource: dict[str, Any]) -> Iterator[str]:
    contained = resource.get("contained", [])
    pointed_at = {each for _, each, _ in _found_references(path, resource)}
    for index, inner in enumerate(contained if isinstance(contained, list) else []):
        at = f"{path}.contained[{index}]"
        if not isinstance(inner, dict):
            yield f"{at}: not a resource"
            continue
        if "contained" in inner:
            yield f"{at}.contained: nothing is contained twice over (dom-2)"
        if f"#{inner.get('id')}" not in pointed_at:
            yield f"{at}: nothing refers to it (dom-3)"
        meta = inner.get("meta")
        if isinstance(meta, dict) and meta.keys() & {"versionId", "lastUpdated", "security"}:
            yield f"{at}.meta: no version, date or security in what is contained (dom-4, dom-5)"


def _composition(path: str, resource: dict[str, Any]) -> Iterator[str]:
    sections = resource.get("section", [])
    for index, section in enumerate(sections if isinstance(sections, list) else []):
        yield from _section(f"{path}.section[{index}]", section)


def _section(path: str, section: object) -> Iterator[str]:
    if not isinstance(section, dict) or not section.keys() & {"text", "entry", "section"}:
        yield f"{path}: a section has text, entries or sections (cmp-1)"
        return
    if "emptyReason" in section and section.get("entry"):
        yield f"{path}.emptyReason: and yet it has entries (cmp-2)"
    inner = section.get("section", [])
    for index, each in enumerate(inner if isinstance(inner, list) else []):
        yield from _section(f"{path}.section[{index}]", each)


def _observation(path: str, resource: dict[str, Any]) -> Iterator[str]:
    valued = [member for member in resource if re.fullmatch(r"value[A-Z]\w*", member)]
    if len(valued) > 1:
        yield f"{path}: has more than one value ({', '.join(valued)})"
    if valued and "dataAbsentReason" in resource:
        yield f"{path}.dataAbsentReason: and yet there is a value (obs-6)"
    if not valued and not resource.keys() & {"dataAbsentReason", "component", "hasMember"}:
        yield f"{path}: has neither a value nor a reason why not"
    code = _codes(resource.get("code"))
    components = resource.get("component", [])
    for index, component in enumerate(components if isinstance(components, list) else []):
        if isinstance(component, dict) and valued and code & _codes(component.get("code")):
            yield f"{path}.component[{index}].code: is that of the Observation, which has a value (obs-7)"


def _codes(concept: object) -> set[tuple[str, str]]:
    coded = concept.get("coding", []) if isinstance(concept, dict) else []
    members = coded if isinstance(coded, list) else []
    return {(str(each.get("system")), str(each.get("code"))) for each in members if isinstance(each, dict)}


def _risk(path: str, resource: dict[str, Any]) -> Iterator[str]:
    predictions = resource.get("prediction", [])
    for index, prediction in enumerate(predictions if isinstance(predictions, list) else []):
        at = f"{path}.prediction[{index}]"
        if not isinstance(prediction, dict):
            yield f"{at}: not a prediction"
        elif "probabilityDecimal" in prediction and not _is_share(prediction["probabilityDecimal"]):
            yield f"{at}.probabilityDecimal: a share from 0 to 1"


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


# ---------------------------------------------------------------- references
def _references(path: str, resource: dict[str, Any], known: Counter[str], kinds: dict[str, object]) -> Iterator[str]:
    contained = resource.get("contained", [])
    inside = Counter(
        f"#{each.get('id')}" for each in (contained if isinstance(contained, list) else []) if isinstance(each, dict)
    )
    for at, target, member in _found_references(path, resource):
        if target.startswith("#"):
            matches = [target] * inside[target]
        else:
            plain = target.split("/_history/")[0]
            matches = [url for url in known.elements() if url == plain or _ends_with(url, plain)]
        if len(matches) > 1:
            yield f"{at}: leads to {len(matches)} resources"
        elif not matches and (member not in MAY_POINT_OUTSIDE or target.startswith(("urn:", "#"))):
            yield f"{at}: leads nowhere in the document"
        elif matches and member in SUBJECTS and kinds.get(matches[0], SUBJECTS[member][0]) not in SUBJECTS[member]:
            yield f"{at}: has to lead to a {SUBJECTS[member][0]}"


def _ends_with(url: str, relative: str) -> bool:
    """Whether an entry's address ends with this relative reference (``Patient/1``)."""
    return bool(re.fullmatch(r"[A-Za-z]+/[A-Za-z0-9.-]{1,64}", relative)) and url.endswith(f"/{relative}")


def _found_references(path: str, resource: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Path, target and member name of each literal reference in a resource."""
    found = []
    todo: list[tuple[str, object, str]] = [(path, resource, "")]
    while todo:
        at, value, member = todo.pop()
        if isinstance(value, list):
            todo += [(f"{at}[{index}]", each, member) for index, each in enumerate(value)]
        elif isinstance(value, dict):
            if isinstance(value.get("reference"), str):
                found.append((f"{at}.reference", value["reference"], member))
            todo += [(f"{at}.{name}", each, name) for name, each in value.items()]
    return found
