"""The table of the health book, read from a TOML file. ``example.toml`` explains it, and says what is not known."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.settings import PREFIX, BadSettings, Settings

EXAMPLE = Path(__file__).parent / "example.toml"
SETTING = f"{PREFIX}HEALTH_BOOK"
MAX_BYTES = 256_000
UNFILLED = "?"
"""What stands in the example for something that the programme has to find out."""

FACTS = (
    *("visit", "version", "delivery", "replaces", "issued_at", "visited_on", "age_group"),
    *("person.id", "person.name", "person.birth_date", "person.national_id", "person.sex"),
    *("person.address", "person.province", "person.commune"),
    *("facility.code", "facility.gln", "facility.name", "doctor.id", "doctor.code", "doctor.name"),
)
"""Facts of a visit."""
DAYS = ("issued_at", "visited_on", "person.birth_date")
"""Those that are a day or a moment."""
RESULT_FACTS = ("service", "indicator", "value", "unit", "description", "conclusion")
"""Facts of a result, beside those of its visit."""
CONTENT = "content"
"""The fact that is the signed envelope itself, in base64: of ``[[data]]`` only."""

Text = Annotated[str, Field(min_length=1, max_length=200)]
Step = r"[A-Za-z_][A-Za-z0-9_.-]{0,59}"
ElementPath = Annotated[str, Field(pattern=rf"^{Step}(/{Step}){{0,9}}$")]
"""Names of XML elements from outside in, parted by ``/``."""
Arrival = Literal["sent", "verified", "saved"]
ARRIVALS: tuple[Arrival, ...] = ("sent", "verified", "saved")
"""How far a delivery has come, by what the gateway answered, the least first."""
Meaning = Literal["sent", "verified", "saved", "validation", "signature", "login", "refused", "again"]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Filled(_Row):
    """One member or element, and what fills it.

    Parameters
    ----------
    name
        Of a member of JSON, or the path of an element.
    fact, value
        A fact of :mod:`service.delivery.health_book.facts`, or a text that is always the same.
    required
        A visit without it is not sent.
    form
        How a day or a moment is written (``strftime``).
    digits
        It has exactly so many digits, and nothing else.
    longest
        Most characters.
    codes
        What each value is written as; a value that is not in it has no code, and the visit is not sent.
    """

    name: ElementPath
    fact: Text | None = None
    value: Annotated[str, Field(max_length=500)] | None = None
    required: bool = False
    form: Text | None = None
    digits: Annotated[int, Field(ge=1, le=50)] | None = None
    longest: Annotated[int, Field(ge=1, le=100_000)] | None = None
    codes: Mapping[str, str] = {}

    @model_validator(mode="after")
    def _is_filled_once(self) -> Self:
        if (self.fact is None) == (self.value is None):
            raise ValueError("either a fact or a value fills it")
        if self.form is not None and self.fact not in DAYS:
            raise ValueError(f"{self.name}: only a day or a moment has a form: {', '.join(DAYS)}")
        return self


class File(_Row):
    """One file of the record: its kind (``XML1`` …), its root, its elements, and one row for each result.

    ``signed_in`` is the element that holds the signature of the doctor; it is signed where the table says so.
    """

    kind: Text
    root: ElementPath
    fields: tuple[Filled, ...] = ()
    row: ElementPath | None = None
    row_fields: tuple[Filled, ...] = ()
    signed_in: ElementPath | None = None


class Envelope(_Row):
    """What holds the files, and where the facility's signature stands."""

    root: ElementPath
    fields: tuple[Filled, ...]
    file: ElementPath
    file_kind: ElementPath
    file_content: ElementPath
    signed_in: ElementPath


class Gateway(_Row):
    """Paths below the destination's address, the headers, and the members of the answer to a login."""

    login: Annotated[str, Field(pattern=r"^/[!-~]*$", max_length=200)]
    push: Annotated[str, Field(pattern=r"^/[!-~]*$", max_length=200)]
    headers: Mapping[str, str] = {}
    username_file: Path
    password_file: Path
    token: tuple[Text, ...]
    duration: tuple[Text, ...]
    lasts_s: Annotated[float, Field(gt=0, le=86_400)]
    """How long a token is used where the answer does not say it."""


class Clock(_Row):
    """Within how many hours a check-up has to arrive, what counts as that, and for how long a late one is watched."""

    hours: Annotated[float, Field(gt=0, le=720)]
    arrived: Arrival
    watched_days: Annotated[int, Field(ge=1, le=3650)]


class Keys(_Row):
    """Files of a private key (PEM), of its certificate and those that issued it, and of the key's passphrase."""

    key_file: Path
    certificate_file: Path
    passphrase_file: Path | None = None


class Facility(Keys):
    """A site: its codes, and the keys with which it signs."""

    site: Text
    code: Text
    gln: Text | None = None
    name: Text | None = None


class Doctor(Keys):
    """A doctor who signs here with ``id``: the code that the Ministry knows, and the keys of their signature."""

    id: Text
    code: Text


class Result(_Row):
    """What a result is called: of ``film``, ``ecg``, a measured finding or a laboratory value."""

    of: Text
    service: str = ""
    indicator: str = ""
    unit: str | None = None
    sent: bool = True


class Book(_Row):
    """The whole table."""

    gateway: Gateway
    clock: Clock
    header: Annotated[tuple[Filled, ...], Field(min_length=1)]
    data: Annotated[tuple[Filled, ...], Field(min_length=1)]
    envelope: Envelope
    file: Annotated[tuple[File, ...], Field(min_length=1, max_length=20)]
    result: Annotated[tuple[Result, ...], Field(min_length=1)]
    leave_out_unknown_labs: bool = False
    codes: Mapping[str, Meaning]
    code_prefixes: Annotated[tuple[Text, ...], Field(min_length=1)]
    facility: tuple[Facility, ...] = ()
    doctor: tuple[Doctor, ...] = ()

    def facility_of(self, site: str) -> Facility | None:
        return next((each for each in self.facility if each.site == site), None)

    def doctor_of(self, doctor_id: str) -> Doctor | None:
        return next((each for each in self.doctor if each.id == doctor_id), None)

    def result_of(self, name: str) -> Result | None:
        return next((each for each in self.result if each.of == name), None)

    @model_validator(mode="after")
    def _facts_are_known(self) -> Self:
        of_visit = [*self.header, *self.envelope.fields, *(each for file in self.file for each in file.fields)]
        of_results = [each for file in self.file for each in file.row_fields]
        for fields, known in (
            (of_visit, FACTS),
            (of_results, (*FACTS, *RESULT_FACTS)),
            (self.data, (*FACTS, CONTENT)),
        ):
            for each in fields:
                if each.fact is not None and each.fact not in known:
                    raise ValueError(f"{each.name}: no such fact: {each.fact}; known are {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for name, found in (
            ("header", [each.name for each in self.header]),
            ("data", [each.name for each in self.data]),
            ("facility", [each.site for each in self.facility]),
            ("doctor", [each.id for each in self.doctor]),
            ("result", [each.of for each in self.result]),
            ("file", [each.kind for each in self.file]),
        ):
            if len(set(found)) < len(found):
                raise ValueError(f"{name}: one row for each")
        return self


def book_of(settings: Settings) -> Book | None:
    """The programme's table; ``None`` where the setting names none.

    Raises
    ------
    BadSettings
        The table, or the packages that sign, cannot be used.
    """
    if settings.health_book is None:
        return None
    if find_spec("signxml") is None:
        raise BadSettings(f"{SETTING}: it needs the packages of the extra health-book")
    return read_book(settings.health_book)


def read_book(path: Path) -> Book:
    """A programme's table.

    Raises
    ------
    BadSettings
        Something in it is missing, unknown, impossible or not filled in: the whole table is then refused.
    """
    return _read(path)


@lru_cache(maxsize=4)
def _read(path: Path) -> Book:
    where = f"{SETTING}: {path}"
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise BadSettings(f"{where}: a table has at most {MAX_BYTES} bytes")
        found = tomllib.loads(content.decode())
    except OSError as error:
        raise BadSettings(f"{where}: {error.strerror or 'cannot be read'}") from None
    except (ValueError, RecursionError) as error:
        raise BadSettings(f"{where}: is not TOML in UTF-8: {' '.join(str(error).split())}") from None
    for unfilled in _unfilled(found):
        raise BadSettings(f"{where}: {unfilled}: it still is {UNFILLED!r}; find out what belongs there")
    try:
        return Book.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        member = ".".join(map(str, first["loc"])) or "table"
        raise BadSettings(f"{where}: {member}: {first['msg'].removeprefix('Value error, ')}") from None


def _unfilled(value: Any, path: str = "") -> Iterator[str]:
    if value == UNFILLED:
        yield path
    for name, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _unfilled(each, f"{path}.{name}".lstrip("."))
