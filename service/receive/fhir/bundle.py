"""Reads a posted FHIR Bundle: members of a checked type, each with its path, and references to its resources."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, NoReturn

from data_specs.person import fhir_day
from service.errors import FieldFault, InvalidRequest
from service.faults import quoted_value

MAX_ENTRIES = 500
"""Resources of one Bundle: enough for an order, its people and a few years of laboratory values."""

TYPES = ("collection", "document", "message", "transaction")
"""FHIR R4 Bundle.type that may be posted. The other types are answers of a server, or hold several requests."""

PATH = "context"
"""Path of the Bundle: it is posted as the visit's ``context``."""


def refuse(path: str, code: str = "field_invalid", expected: str = "", found: object = None) -> NoReturn:
    """Refuse what stands at ``path``; ``found`` is quoted where :func:`service.faults.quoted_value` lets it through."""
    raise InvalidRequest(FieldFault(path, code, expected, quoted_value(found)))


@dataclass(frozen=True)
class Part:
    """One JSON object of the Bundle, and its path.

    Each method reads one member; ``None``, or an empty list, where it is missing.

    Raises
    ------
    InvalidRequest
        The member is of another type than the method reads.
    """

    members: dict[str, Any]
    path: str

    def at(self, name: str) -> str:
        return f"{self.path}.{name}"

    def has(self, name: str) -> bool:
        return self.members.get(name) is not None

    def text(self, name: str) -> str | None:
        """A string without blanks at its ends; ``None`` where it is empty."""
        value = self.members.get(name)
        if value is not None and not isinstance(value, str):
            refuse(self.at(name), expected='"…"')
        return (value or "").strip() or None

    def day(self, name: str) -> date | None:
        """The day of a date or dateTime; ``None`` where it is a year or month alone."""
        try:
            return fhir_day(self.text(name) or "")
        except ValueError:
            refuse(self.at(name), expected="YYYY-MM-DD")

    def number(self, name: str) -> float | None:
        value = self.members.get(name)
        if value is None:
            return None
        try:
            number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            refuse(self.at(name), expected="0.5", found=value)
        return number

    def part(self, name: str) -> Part | None:
        value = self.members.get(name)
        if value is not None and not isinstance(value, dict):
            refuse(self.at(name), expected="{…}")
        return None if value is None else Part(value, self.at(name))

    def parts(self, name: str) -> list[Part]:
        value = self.members.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            refuse(self.at(name), expected="[{…}]")
        return [Part(each, f"{self.at(name)}.{index}") for index, each in enumerate(value)]

    def texts(self, name: str) -> list[str]:
        value = self.members.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(each is None or isinstance(each, str) for each in value):
            refuse(self.at(name), expected='["…"]')
        return [each.strip() for each in value if each and each.strip()]


@dataclass(frozen=True)
class Resource(Part):
    """A resource of the Bundle.

    Parameters
    ----------
    url
        The entry's ``fullUrl``.
    within
        The resource that contains it, for a contained one.
    """

    url: str | None = None
    within: Resource | None = None

    @property
    def kind(self) -> str:
        return self.text("resourceType") or ""

    def refuse_modified(self) -> None:
        """Refuse a resource whose meaning may be changed in a way that is not known here.

        References
        ----------
        FHIR R4, section 2.4.1: such a resource must not be read.
        """
        for name in ("implicitRules", "modifierExtension"):
            if self.has(name):
                refuse(self.at(name), "field_unknown")


@dataclass(frozen=True)
class Bundle:
    """The resources of a posted Bundle, in its order."""

    resources: tuple[Resource, ...]

    @classmethod
    def read(cls, document: dict[str, Any]) -> Bundle:
        """Read the entries of a Bundle.

        Raises
        ------
        InvalidRequest
            Its type is none of :data:`TYPES`, it has too many entries, or an entry has no resource.
        """
        bundle = Part(document, PATH)
        if bundle.text("type") not in TYPES:
            refuse(bundle.at("type"), expected=", ".join(TYPES))
        entries = bundle.parts("entry")
        if len(entries) > MAX_ENTRIES:
            refuse(bundle.at("entry"), "field_too_many", str(MAX_ENTRIES))
        resources = []
        for entry in entries:
            resource = entry.part("resource")
            if resource is None:
                refuse(entry.at("resource"), "field_missing")
            resources.append(Resource(resource.members, resource.path, entry.text("fullUrl")))
            if not resources[-1].kind:
                refuse(resource.at("resourceType"), "field_missing")
        return cls(tuple(resources))

    def of_kind(self, kind: str) -> list[Resource]:
        return [each for each in self.resources if each.kind == kind]

    def follow(self, holder: Resource, reference: Part, kinds: Sequence[str]) -> Resource | None:
        """The resource that a reference names; ``None`` where the Bundle does not have it.

        Parameters
        ----------
        holder
            The resource that holds the reference.
        kinds
            Kinds of resources that may be referred to.

        Raises
        ------
        InvalidRequest
            More than one resource has that name, or it is of another kind.

        References
        ----------
        FHIR R4, bundle.html#references (resolving references in Bundles); references.html#contained.
        """
        target = reference.text("reference")
        if target is None:
            return None
        found = self._contained(holder, target[1:]) if target.startswith("#") else self._entries(holder, target)
        if len(found) > 1:
            refuse(reference.at("reference"), expected=f"1 × {', '.join(kinds)}")
        if found and found[0].kind not in kinds:
            refuse(reference.at("reference"), expected=", ".join(kinds))
        return found[0] if found else None

    def _contained(self, holder: Resource, id_: str) -> list[Resource]:
        outer = holder.within or holder
        return [
            Resource(part.members, part.path, within=outer)
            for part in outer.parts("contained")
            if id_ and part.text("id") == id_
        ]

    def _entries(self, holder: Resource, target: str) -> list[Resource]:
        target = target.split("/_history/", maxsplit=1)[0]
        exact = self._by_url.get(target, [])
        relative = re.fullmatch(r"([A-Za-z]+)/([A-Za-z0-9.-]{1,64})", target)
        if exact or relative is None:
            return exact
        outer = holder.within or holder
        base = re.fullmatch(r"(https?://.+/)[A-Za-z]+/[A-Za-z0-9.-]{1,64}", outer.url or "")
        on_same_server = self._by_url.get(base[1] + target, []) if base else []
        return on_same_server or self._by_id.get((relative[1], relative[2]), [])

    @cached_property
    def _by_url(self) -> dict[str | None, list[Resource]]:
        found: dict[str | None, list[Resource]] = {}
        for resource in self.resources:
            found.setdefault(resource.url, []).append(resource)
        return found

    @cached_property
    def _by_id(self) -> dict[tuple[str, str | None], list[Resource]]:
        found: dict[tuple[str, str | None], list[Resource]] = {}
        for resource in self.resources:
            found.setdefault((resource.kind, resource.text("id")), []).append(resource)
        return found
