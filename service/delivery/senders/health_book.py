"""Signed visits to the gateway of a national health book: login, push, and what it answers.

Nothing here is from the Ministry's own text: see ``docs/how-to/send-to-the-health-book.md``.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Literal

import httpx

from data_specs.problems import Problem
from data_specs.visit.followup import DeliveryAnswer, DeliveryStage
from data_specs.visit.report import Report
from service.delivery.health_book.answer import MAX_CODES, codes_in, expect_arrival, member, read_answer
from service.delivery.health_book.envelope import record_of, request_of, sealed
from service.delivery.health_book.facts import facts_of, results_of
from service.delivery.health_book.keys import KeyUnusable, Signer, read_secret, read_signer
from service.delivery.health_book.table import Book
from service.delivery.message import Delivery, NotDelivered
from service.delivery.senders.http import answer_of, expect_success
from service.language.zone import zone_named

MAX_ANSWER_BYTES = 1_000_000
TOKEN_MARGIN = 0.1
"""Share of a token's time at whose end it is no longer used: it must not end on the way."""
UNAUTHORISED = frozenset({401, 403})
FORM = {
    "Content-Type": "application/json; charset=utf-8",
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # an answer is bounded as it comes, and not unpacked
}


@dataclass(slots=True)
class Login:
    """The login of this process at one gateway: a token, and until when it is used, by the process's own clock.

    One at a time logs in: at some gateways a new token ends the one before.
    """

    token: str = ""
    until: float = 0.0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


def prepare(
    book: Book, delivery: Delivery, report: Report, standing: Literal["first", "replaces", "superseded"], time_zone: str
) -> bytes:
    """The body of the request for one version of a report. It blocks.

    Raises
    ------
    NotDelivered
        The version is not signed, or has been replaced; the visit lacks something; a key cannot be used.
    """
    if not report.opinions:
        raise NotDelivered("unsigned", permanent=True, answer=DeliveryAnswer(stage="unsigned"))
    if standing == "superseded":
        raise NotDelivered("superseded", permanent=True)
    zone = zone_named(time_zone)
    facts = facts_of(report, book, zone, delivery=delivery.key, replaces=standing == "replaces")
    results, problems = results_of(report, book, delivery.language)
    if book.facility_of(report.site) is None:
        problems.insert(0, Problem("book_facility_missing", "reject", expected="[[facility]]"))
    if not results and not problems:
        problems.append(Problem("book_nothing_to_send", "reject"))
    record, lacking = record_of(book, facts, results)
    if problems or lacking:
        raise NotDelivered("book_validation", permanent=True, answer=_invalid([*problems, *lacking]))
    facility = _facility(book, report)
    envelope = sealed(book, record, facility, _doctor(book, report))
    return request_of(book, record, facts, envelope, facility)


def _invalid(problems: list[Problem]) -> DeliveryAnswer:
    return DeliveryAnswer(stage="validation", reasons=tuple(dict.fromkeys(problems)))


def _facility(book: Book, report: Report) -> Signer:
    facility = book.facility_of(report.site)
    assert facility is not None  # noqa: S101  a visit without one is not valid
    try:
        return read_signer(facility)
    except KeyUnusable as reason:
        raise _waits("unsealed", str(reason)) from None


def _doctor(book: Book, report: Report) -> Signer | None:
    """The keys of the doctor who signed last, where a file of the table asks for a doctor's signature."""
    if not any(file.signed_in for file in book.file):
        return None
    doctor = book.doctor_of(report.opinions[-1].author.id)
    if doctor is None:
        missing = Problem("book_doctor_missing", "reject", expected="[[doctor]]")
        raise NotDelivered(missing.code, answer=DeliveryAnswer(stage="unsigned", reasons=(missing,)))
    try:
        return read_signer(doctor)
    except KeyUnusable as reason:
        raise _waits("unsigned", str(reason)) from None


def _waits(stage: DeliveryStage, reason: str) -> NotDelivered:
    reasons = (Problem("book_key_unusable", "reject", reason),)
    return NotDelivered(f"book_{reason}", answer=DeliveryAnswer(stage=stage, reasons=reasons))


async def send(
    client: httpx.AsyncClient, delivery: Delivery, request: bytes, book: Book, login: Login, *, timeout_s: float
) -> DeliveryAnswer:
    """Push a request that was prepared, and return what the gateway answered.

    Raises
    ------
    NotDelivered
        It did not answer, a result code is no success, or it has not come as far as the table asks.
    """
    return await Gateway(client, delivery, book, login, timeout_s).push(request)


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway, by the table's paths and headers.

    Parameters
    ----------
    login
        It is renewed here when it has ended.
    timeout_s
        For each request.
    """

    client: httpx.AsyncClient
    delivery: Delivery
    book: Book
    login: Login
    timeout_s: float

    async def push(self, request: bytes) -> DeliveryAnswer:
        """Send a request; once more with a new token where the one that was used is not taken.

        Raises
        ------
        NotDelivered
        """
        for _ in range(2):
            token = await self._token()
            status, headers, body = await self._send(request, token)
            if status not in UNAUTHORISED:
                break
            if self.login.token == token:
                self.login.until = 0.0
        else:
            raise _login_failed(self.book, status, body)
        answer = read_answer(self.book, body)
        try:
            expect_success(status, headers)
            return expect_arrival(self.book, answer)
        except NotDelivered as reason:
            reason.may_have_arrived = not 400 <= status < 500
            raise

    async def _send(self, request: bytes, token: str) -> tuple[int, httpx.Headers, bytes]:
        headers = {**self.book.gateway.headers, "Authorization": f"Bearer {token}"}
        try:
            return await self._post(self.book.gateway.push, request, headers)
        except NotDelivered as reason:
            reason.may_have_arrived = reason.code in ("timeout", "broken_off")
            raise

    async def _token(self) -> str:
        async with self.login.turn:
            if self.login.until <= time.monotonic():
                await self._log_in()
            return self.login.token

    async def _log_in(self) -> None:
        form = self.book.gateway
        try:
            content = await asyncio.to_thread(_credentials, self.book)
        except KeyUnusable as reason:
            answer = DeliveryAnswer(stage="login", reasons=(Problem("book_key_unusable", "reject", str(reason)),))
            raise NotDelivered(f"book_{reason}", answer=answer) from None
        status, headers, body = await self._post(form.login, content, {})
        if 400 <= status < 500 and status not in (408, 425, 429):
            raise _login_failed(self.book, status, body)
        expect_success(status, headers)
        token = member(body, form.token)
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise _login_failed(self.book, status, body)
        lasts = member(body, form.duration)
        lasts_s = min(lasts, form.lasts_s) if isinstance(lasts, int | float) and lasts > 0 else form.lasts_s
        self.login.token, self.login.until = token, time.monotonic() + lasts_s * (1 - TOKEN_MARGIN)

    async def _post(self, path: str, content: bytes, headers: dict[str, str]) -> tuple[int, httpx.Headers, bytes]:
        return await answer_of(
            self.client,
            "POST",
            f"{self.delivery.address.rstrip('/')}{path}",
            headers={**FORM, **headers},
            content=content,
            timeout_s=self.timeout_s,
            at_most=MAX_ANSWER_BYTES,
        )


def _login_failed(book: Book, status: int, body: bytes) -> NotDelivered:
    codes = codes_in(book, body.decode("utf-8", "replace"))[:MAX_CODES] or (f"HTTP {status}",)
    return NotDelivered("book_login", answer=DeliveryAnswer(stage="login", codes=codes))


def _credentials(book: Book) -> bytes:
    names = {"username": book.gateway.username_file, "password": book.gateway.password_file}
    return json.dumps({name: read_secret(path) for name, path in names.items()}).encode()
