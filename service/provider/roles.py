"""Which role a person has here: a table of the operator's, from what the provider says to role and site.

The file is TOML::

    claim = "groups"              # or ["realm_access", "roles"]: a claim within a claim
    identifier = "employee_id"    # a doctor's or specialist's identifier here
    name = "name"                 # the name with which the person signs
    scopes = ["openid", "profile", "groups"]

    [[role]]
    value = "xray-doctors-xa"
    role = "doctor"
    site = "xa"

The first row whose value the claim has decides. A person without one is refused; nothing is guessed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from data_specs.visit.teaching import teaches
from service.errors import SignInRefused
from service.keys import MAX_DOCTOR_ID, MAX_LABEL, PERSONS, Role, SiteName

MAX_TABLE_BYTES = 256_000
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Where = Text | Annotated[tuple[Text, ...], Field(min_length=1, max_length=5)]
"""A claim, or a way through claims within claims."""


class BadTable(Exception):
    """The table cannot be used; the message is one line that says why."""


@dataclass(frozen=True, slots=True)
class Person:
    """A person as they sign in.

    Parameters
    ----------
    doctor_id
        A doctor's or specialist's identifier; nobody else has one.
    """

    role: Role
    site: str
    doctor_id: str | None
    label: str


class Row(BaseModel):
    """Whoever has ``value`` in the claim has this role at this site."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: Text
    role: Role
    site: SiteName

    @model_validator(mode="after")
    def _only_trainees_learn(self) -> Row:
        if teaches(self.site) and self.role != "doctor":
            raise ValueError("at a teaching site there are doctors only")
        return self


class Roles(BaseModel):
    """The table, as the head of this module describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    claim: Where
    identifier: Where
    name: Where
    scopes: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=r"^[!#-\[\]-~]+$")], ...], Field(max_length=20)
    ] = (
        "openid",
        "profile",
    )
    """What is asked of the provider (RFC 6749, section 3.3)."""
    role: Annotated[tuple[Row, ...], Field(min_length=1)]

    @property
    def claims(self) -> list[str]:
        """Names of the claims that it reads."""
        read = (self.claim, self.identifier, self.name)
        return list(dict.fromkeys(where if isinstance(where, str) else where[0] for where in read))

    def person_of(self, claims: Mapping[str, Any]) -> Person:
        """The person of whom an ID token says ``claims``.

        Raises
        ------
        SignInRefused
            ``no_role``, or ``claim_missing`` with the name of the claim.
        """
        said = _said(claims, self.claim)
        values = said if isinstance(said, list) else [said]
        row = next((each for each in self.role if each.value in values), None)
        if row is None:
            raise SignInRefused("no_role")
        doctor_id = _text(claims, self.identifier, MAX_DOCTOR_ID) if row.role in PERSONS else None
        return Person(row.role, row.site, doctor_id, _text(claims, self.name, MAX_LABEL))


def _said(claims: Mapping[str, Any], where: Where) -> Any:
    said: Any = claims
    for name in (where,) if isinstance(where, str) else where:
        said = said.get(name) if isinstance(said, Mapping) else None
    return said


def _text(claims: Mapping[str, Any], where: Where, most: int) -> str:
    """A claim as one line of text."""
    said = _said(claims, where)
    text = " ".join(said.split()) if isinstance(said, str) else ""
    if not 0 < len(text) <= most or not text.isprintable():
        raise SignInRefused("claim_missing", where if isinstance(where, str) else ".".join(where))
    return text


def read_roles(path: Path) -> Roles:
    """The table of a file.

    Raises
    ------
    BadTable
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TABLE_BYTES + 1)
        if len(content) > MAX_TABLE_BYTES:
            raise BadTable(f"it has more than {MAX_TABLE_BYTES} bytes")
        roles = Roles.model_validate(tomllib.loads(content.decode()))
    except OSError as error:
        raise BadTable(f"it cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise BadTable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise BadTable(f"it is no TOML: {' '.join(str(error).split())}") from None
    if "openid" not in roles.scopes:
        raise BadTable("scopes: openid is missing")
    return roles
