"""A posted FHIR Bundle as it can be trusted: typed members, each with its path, and references that lead somewhere."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

from service.errors import FieldFault, InvalidRequest

MAX_ENTRIES = 500
"""Resources that one Bundle may bring: an order, its people and a few years of laboratory values."""

TYPES = ("collection", "document", "message", "transaction")
"""FHIR R4 Bundle.type of what may be posted; the others are answers of a server, or several requests in one."""

PATH = "context"


def refuse(path: str, code: str = "field_invalid", expected: str = "") -> NoReturn:
    raise InvalidRequest(FieldFault(path, code, expected))


@dataclass(frozen=True)
class Part:
    """One JSON object of the Bundle, and where it stands. Members of another type than asked for are refused."""

    members: dict[str, Any]
    path: str

    def at(self, name: str) -> str:
        return f"{self.path}.{name}"

    def has(self, name: str) -> bool:
        return self.members.get(name) is not None

    def text(self, name: str) -> str | None:
        """A string, its ends trimmed; an empty one says nothing."""
        value = self.members.get(name)
        if value is not None and not isinstance(value, str):
            refuse(self.at(name), expected='"…"')
        return (value or "").strip() or None

    def number(self, name: str) -> float | None:
        value = self.members.get(name)
        if value is None:
            return None
        try:
            number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            refuse(self.at(name), expected="0.0")
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
    """A resource of the Bundle, or one that another contains (``within``)."""

    url: str | None = None
    within: Resource | None = None

    @property
    def kind(self) -> str:
        return self.text("resourceType") or ""


@dataclass(frozen=True)
class Bundle:
    """The resources of a posted Bundle, in its order."""

    resources: tuple[Resource, ...]

    @classmethod
    def read(cls, document: dict[str, Any]) -> Bundle:
        """Typed, so far as it is looked at.

        Raises
        ------
        InvalidRequest
            It is of another type than :data:`TYPES`, has too many entries, or an entry is no resource.
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
        """The resource that a reference leads to; ``None`` where it is not in the Bundle.

        Raises
        ------
        InvalidRequest
            It leads to more than one resource, or to one of another kind.

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
            Resource(each.members, each.path, within=outer)
            for each in outer.parts("contained")
            if id_ and each.text("id") == id_
        ]

    def _entries(self, holder: Resource, target: str) -> list[Resource]:
        target = target.split("/_history/", maxsplit=1)[0]
        exact = self._by_url.get(target, [])
        relative = re.fullmatch(r"([A-Za-z]+)/([A-Za-z0-9.-]{1,64})", target)
        if exact or relative is None:
            return exact
        outer = holder.within or holder
        base = re.fullmatch(r"(https?://.+/)[A-Za-z]+/[A-Za-z0-9.-]{1,64}", outer.url or "")
        beside = self._by_url.get(base[1] + target, []) if base else []
        return beside or self._by_id.get((relative[1], relative[2]), [])

    @cached_property
    def _by_url(self) -> dict[str | None, list[Resource]]:
        found: dict[str | None, list[Resource]] = {}
        for each in self.resources:
            found.setdefault(each.url, []).append(each)
        return found

    @cached_property
    def _by_id(self) -> dict[tuple[str, str | None], list[Resource]]:
        found: dict[tuple[str, str | None], list[Resource]] = {}
        for each in self.resources:
            found.setdefault((each.kind, each.text("id")), []).append(each)
        return found
