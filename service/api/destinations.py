"""``/v1/destinations`` and ``/v1/deliveries``: where reports are sent, and the state of each delivery.

An admin manages all of them. A site's key manages only webhooks of its own site, over verified TLS and to addresses
outside our own network (:mod:`service.delivery.addresses` and :mod:`service.delivery.outside`).
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from sqlalchemy import Select, func, select, tuple_, update
from sqlalchemy.orm import Session

from data_specs.problems import Problem
from data_specs.visit.followup import DeliveryStage
from data_specs.vocabulary import Language
from service import errors
from service.api.refusals import problem_responses
from service.api.session import CurrentKey
from service.delivery.health_book.clock import Due, list_due
from service.delivery.health_book.table import book_of
from service.delivery.message import HEALTH_BOOK, Options
from service.delivery.queue import book_members, end, retry
from service.delivery.senders.dispatch import KINDS, Kind
from service.errors import FieldFault, Forbidden, InvalidRequest, NotFound
from service.keys import Key, SiteName
from service.settings import PREFIX, Settings
from service.sites import expect_known, of_callers, with_key
from service.state import service_of
from service.storage.audit import note
from service.storage.cursor import read_cursor, write_cursor
from service.storage.database import database_now, insert_rows, rowcount
from service.storage.tables import VISITS, DeliveryRow, DestinationRow

PAGE, MAX_PAGE = 50, 200
MAX_OF_A_SITE = 20
"""Webhooks that a site may have at a time: every visit is sent to each of them."""
OF_A_SITE = "webhook"
"""The kind of destination that a site's key manages."""

router = APIRouter(
    tags=["deliveries"],
    responses=problem_responses(errors.Unauthorised, errors.Forbidden, errors.InvalidRequest, errors.InternalFault),
)


class NewOptions(Options):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewDestination(BaseModel):
    """A new destination of reports.

    `address` is a URL for `webhook` (where to post), `fhir` (the server's base) and `stow` (the DICOMweb root),
    `AE_TITLE@HOST:PORT` for `dicom`, and `HOST:PORT` for `hl7`; `health_book` is a national health book's gateway, and
    needs the programme's table. `secret` is the key that webhooks are signed with (one
    is made if you give none), or the token of a FHIR or DICOMweb server. Without `site` the reports of all sites are
    sent.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    address: Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[!-~]([ -~]*[!-~])?$")]
    site: SiteName | None = None
    language: Language | None = None
    secret: Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[!-~]([ -~]*[!-~])?$")] | None = None
    options: NewOptions = NewOptions()


class DestinationView(BaseModel):
    """A destination, without its secret."""

    id: str
    kind: Kind
    address: str
    site: str | None
    language: Language
    options: Options
    created_at: datetime
    ended_at: datetime | None


class CreatedDestination(DestinationView):
    """A new destination. If the secret of its webhooks was made here, `secret` shows it this one time."""

    secret: str | None


class DestinationList(BaseModel):
    items: list[DestinationView]


class DeliveryView(BaseModel):
    """One version of one visit's report for one destination; `problem` is the code of the last failure.

    `stage`, `codes` and `reasons` are of a national health book: how far it has come, what the gateway answered, and
    why the visit cannot be sent as it is.
    """

    visit: str
    version: int
    destination: str
    state: Literal["waiting", "delivered", "dead"]
    attempts: int
    problem: str | None
    due_at: datetime
    delivered_at: datetime | None
    stage: DeliveryStage | None = None
    codes: tuple[str, ...] = ()
    reasons: tuple[Problem, ...] = ()


class DueList(BaseModel):
    """Check-ups that have not arrived in the national health book, those first that have to arrive first."""

    items: list[Due]


class DeliveryList(BaseModel):
    """One page of deliveries. `next` is the `cursor` of the following page, `null` on the last."""

    items: list[DeliveryView]
    next: str | None


class Retry(BaseModel):
    """Which `dead` deliveries to send again: all of a destination, or the one of one version of one visit."""

    model_config = ConfigDict(extra="forbid")

    destination: Annotated[str, Field(max_length=36, pattern=r"^[!-~]*$")]
    visit: Annotated[str, Field(max_length=36, pattern=r"^[!-~]*$")] | None = None
    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None

    @model_validator(mode="after")
    def _visit_and_version(self) -> Retry:
        if (self.visit is None) != (self.version is None):
            absent = "visit" if self.visit is None else "version"
            raise PydanticCustomError("member_missing", "visit and version belong together", {"member": absent})
        return self


class Retried(BaseModel):
    retried: int


DestinationId = Annotated[str, Path(max_length=36)]


@router.post("/v1/destinations", status_code=201)
async def create_destination(request: Request, key: CurrentKey, asked: NewDestination) -> CreatedDestination:
    """Send every report from now on to an address."""
    _expect_manager(key)
    if key.role != "admin":
        if asked.kind != OF_A_SITE or asked.site not in (None, key.site) or asked.options.allow_http:
            raise Forbidden
        asked = asked.model_copy(update={"site": key.site})
    _check_address(asked, is_admin=key.role == "admin")
    _check_secret(asked)
    service = service_of(request)
    _check_setting(asked, service.settings)
    made = secrets.token_urlsafe(32) if KINDS[asked.kind].makes_secret and asked.secret is None else None
    row = DestinationRow(
        id=str(uuid.uuid4()),
        kind=asked.kind,
        address=asked.address,
        site=asked.site,
        language=asked.language or service.settings.language,
        secret=asked.secret or made,
        options=asked.options.model_dump_json(),
        may_be_inside=key.role == "admin",
        ended_at=None,
    )

    def insert(session: Session) -> None:
        if key.role != "admin" and session.scalars(_visible(_COUNT, key)).one() >= MAX_OF_A_SITE:
            raise InvalidRequest(FieldFault("body", "field_too_many", f"≤ {MAX_OF_A_SITE}"))
        if asked.site is not None:
            expect_known("site", asked.site, with_key(session) | of_callers(service.settings))
        row.created_at = database_now(session)
        insert_rows(session, row)
        note(session, "destination_made", destination=row.id, kind=row.kind, site=row.site)

    await service.database.write(insert)
    return CreatedDestination(**_view(row).model_dump(), secret=made)


@router.get("/v1/destinations")
async def list_destinations(request: Request, key: CurrentKey) -> DestinationList:
    """All destinations, also the ended ones, oldest first."""
    _expect_manager(key)
    query = _visible(select(DestinationRow), key).order_by(DestinationRow.created_at, DestinationRow.id)
    rows = await service_of(request).database.read(lambda session: session.scalars(query).all())
    return DestinationList(items=[_view(row) for row in rows])


@router.delete("/v1/destinations/{destination_id}", status_code=204, responses=problem_responses(errors.NotFound))
async def end_destination(request: Request, key: CurrentKey, destination_id: DestinationId) -> Response:
    """Send nothing more there: its waiting deliveries become `dead`, and its secret is deleted."""
    _expect_manager(key)

    def end_it(session: Session) -> int:
        now = database_now(session)
        mine = _visible(select(DestinationRow.id), key).where(
            DestinationRow.id == destination_id, DestinationRow.ended_at.is_(None)
        )
        ended = rowcount(
            session.execute(update(DestinationRow).where(DestinationRow.id.in_(mine)).values(ended_at=now, secret=None))
        )
        if ended:
            session.execute(end(destination_id, now))
            note(session, "destination_ended", destination=destination_id)
        return ended

    if not await service_of(request).database.write(end_it):
        raise NotFound
    return Response(status_code=204)


@router.get("/v1/deliveries")
async def list_deliveries(
    request: Request,
    key: CurrentKey,
    *,
    state: Literal["waiting", "delivered", "dead"] | None = None,
    destination: Annotated[str | None, Query(max_length=36)] = None,
    visit: Annotated[str | None, Query(max_length=36)] = None,
    cursor: Annotated[str | None, Query(max_length=300, description="`next` of the previous page")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = PAGE,
) -> DeliveryList:
    """Page through deliveries, ordered by visit, version and destination; `state=dead` are those that were given up."""
    _expect_manager(key)
    query = select(DeliveryRow).order_by(*_KEY).limit(limit + 1)
    if key.role != "admin":
        query = query.where(DeliveryRow.destination_id.in_(_visible(select(DestinationRow.id), key)))
    for column, wanted in (
        (DeliveryRow.state, state),
        (DeliveryRow.destination_id, destination),
        (DeliveryRow.visit_id, visit),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    if cursor is not None:
        query = query.where(tuple_(*_KEY) > tuple_(*_read_cursor(cursor)))

    def find(session: Session) -> tuple[Sequence[DeliveryRow], Collection[str]]:
        return session.scalars(query).all(), session.scalars(_BOOKS).all()

    rows, books = await service_of(request).database.read(find)
    return DeliveryList(
        items=[_delivery_view(row, row.destination_id in books) for row in rows[:limit]],
        next=_cursor_after(rows[limit - 1]) if len(rows) > limit else None,
    )


@router.get("/v1/deliveries/due")
async def list_check_ups_due(
    request: Request, key: CurrentKey, limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = PAGE
) -> DueList:
    """Check-ups that the national health book does not have yet, and by when it has to; the late ones first."""
    _expect_manager(key)
    service = service_of(request)
    book = book_of(service.settings)
    if book is None:
        return DueList(items=[])
    which = () if key.role == "admin" else (VISITS.c.site == key.site,)
    return DueList(items=await service.database.read(lambda session: list_due(session, book, limit, *which)))


@router.post("/v1/deliveries/retry", responses=problem_responses(errors.NotFound))
async def retry_deliveries(request: Request, key: CurrentKey, asked: Retry) -> Retried:
    """Send `dead` deliveries again, with the same identifiers."""
    _expect_manager(key)
    service = service_of(request)

    def retry_them(session: Session) -> int | None:
        mine = _visible(select(DestinationRow.id), key).where(
            DestinationRow.id == asked.destination, DestinationRow.ended_at.is_(None)
        )
        if session.scalars(mine).first() is None:
            return None
        return retry(session, asked.destination, asked.visit, asked.version)

    found = await service.database.write(retry_them)
    if found is None or (asked.visit is not None and not found):
        raise NotFound
    service.deliveries.try_now(asked.destination)
    return Retried(retried=found)


# ---------------------------------------------------------------------- checks
def _expect_manager(key: Key) -> None:
    if key.role not in ("admin", "site"):
        raise Forbidden


def _visible(query: Select, key: Key) -> Select:  # type: ignore[type-arg]
    """A query over destinations, limited to those that ``key`` manages."""
    if key.role == "admin":
        return query
    return query.where(DestinationRow.site == key.site, DestinationRow.kind == OF_A_SITE)


def _check_address(asked: NewDestination, *, is_admin: bool) -> None:
    kind = KINDS[asked.kind]
    try:
        kind.check_address(asked.address, asked.options, is_admin)
    except ValueError:
        raise InvalidRequest(FieldFault("body.address", "field_invalid", kind.address_form)) from None


def _check_secret(asked: NewDestination) -> None:
    if asked.secret is None:
        return
    least = KINDS[asked.kind].min_secret
    if least is None:
        raise InvalidRequest(FieldFault("body.secret", "field_unknown"))
    if len(asked.secret) < least:
        raise InvalidRequest(FieldFault("body.secret", "field_invalid", f"≥ {least} × U+"))


def _check_setting(asked: NewDestination, settings: Settings) -> None:
    needed = KINDS[asked.kind].needs
    if needed is not None and getattr(settings, needed) is None:
        raise InvalidRequest(FieldFault("body.kind", "field_invalid", f"{PREFIX}{needed.upper()}"))


# ---------------------------------------------------------------------- views
def _view(row: DestinationRow) -> DestinationView:
    return DestinationView(
        id=row.id,
        kind=row.kind,
        address=row.address,
        site=row.site,
        language=row.language,  # type: ignore[arg-type]  # languages only
        options=Options.model_validate_json(row.options),
        created_at=row.created_at,
        ended_at=row.ended_at,
    )


def _delivery_view(row: DeliveryRow, of_a_book: bool) -> DeliveryView:
    return DeliveryView(
        **(book_members(row) if of_a_book else {}),
        visit=row.visit_id,
        version=row.version,
        destination=row.destination_id,
        state=row.state,  # type: ignore[arg-type]  # states only
        attempts=row.attempts,
        problem=row.last_problem,
        due_at=row.due_at,
        delivered_at=row.delivered_at,
    )


def _cursor_after(row: DeliveryRow) -> str:
    return write_cursor(row.visit_id, row.version, row.destination_id)


def _read_cursor(cursor: str) -> tuple[str, int, str]:
    try:
        visit_id, version, destination_id = read_cursor(cursor, 3)
        if not (_ID.fullmatch(visit_id) and _VERSION.fullmatch(version) and _ID.fullmatch(destination_id)):
            raise ValueError(cursor)
    except ValueError:
        raise InvalidRequest(FieldFault("cursor", "field_invalid", "next")) from None
    return visit_id, int(version), destination_id


_ID = re.compile(r"[0-9a-f-]{36}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_KEY = (DeliveryRow.visit_id, DeliveryRow.version, DeliveryRow.destination_id)
_BOOKS = select(DestinationRow.id).where(DestinationRow.kind == HEALTH_BOOK)
_COUNT = select(func.count()).select_from(DestinationRow).where(DestinationRow.ended_at.is_(None))
