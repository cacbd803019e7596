"""The first visits: one of each kind, as the service itself writes them, from which the others are made.

A real server takes them over HTTP and assesses them; doctors sign and ask; reports are delivered. What only a node, an
order message or a shadow bundle writes is written by the service's own tables.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from benchmarks.chaos.asking import Answer, Client
from benchmarks.chaos.sink import Sink
from benchmarks.files import LABS, MARK, Body, dicom, multipart, numbered, png, recording
from benchmarks.serving import serving
from data_specs.visit.context import Context
from service.storage.database import Database, database_now, insert_rows
from service.storage.tables import (
    ArrivalRow,
    CaseRow,
    CertificateRow,
    DeliveryRow,
    ExchangeRow,
    InputRow,
    NormalRow,
    OrderMessageRow,
    OrderRow,
    PreviewRow,
    ReadingRow,
    ShadowRow,
    VisitRow,
)

PERSON, NAME, ACCESSION, DOCTOR = "P00000000", "zzzzzzzz", "A000000000", "D-000"
"""Of the first visits. Each further visit has its own in their place, of the same length."""
SITE, HOSPITAL = "site-00", "central"
FILM_PX = 256
WAIT_S = 120.0
SHARES = {
    "check-up": 4,
    "check-up, signed": 2,
    "check-up, asked": 1,
    "film": 4,
    "recording": 3,
    "labs": 5,
    "refused": 1,
}
"""Kinds of visit, and how many of twenty are of each. Two of twenty came by a node, one from an archive (STOW-RS)."""
OF_A_NODE, OF_AN_ARCHIVE = ("check-up", "recording"), ("film",)


@dataclass(frozen=True)
class First:
    """The first visits.

    Parameters
    ----------
    ids
        Of each kind.
    keys
        The secret of a key of each role.
    """

    ids: dict[str, str]
    keys: dict[str, str]


def first_visits(url: str) -> First:
    """Have a server write them into the empty database of this address.

    Raises
    ------
    RuntimeError
        A visit was not taken, or its report not delivered in time.
    """
    settings = {"SANGLOC_DATABASE_URL": url, "SANGLOC_SESSION": "onnxruntime:fp32"}
    with Sink() as sink, serving(settings=settings) as server, ExitStack() as closing:
        admin = closing.enter_context(Client(server.port))
        _ask(admin, "/v1/destinations", {"kind": "webhook", "address": sink.address})
        keys = {
            role: str(_ask(admin, "/v1/keys", {"role": role, "site": site, **more}).json["key"])
            for role, site, more in (
                ("site", SITE, {}),
                ("doctor", SITE, {"doctor_id": DOCTOR, "label": "doctor"}),
                ("specialist", HOSPITAL, {"doctor_id": "CK", "label": "specialist"}),
                ("node", SITE, {}),
            )
        }
        roles = ("site", "doctor", "specialist")
        site, doctor, specialist = (closing.enter_context(Client(server.port, keys[role])) for role in roles)
        ids = {kind: _post(site, body, n) for n, (kind, body) in enumerate(_bodies().items())}
        for kind in ("check-up, signed", "check-up, asked"):
            _ask(doctor, f"/v1/visits/{ids[kind]}/opinions", {"version": 1, "text": 10 * "As described. "})
        asked = ids["check-up, asked"]
        _ask(doctor, f"/v1/visits/{asked}/referrals", {"question": 5 * "Is that new? ", "to_site": HOSPITAL})
        advice = {"version": 2, "advice": "refer", "text": 10 * "Seen before. "}
        _ask(specialist, f"/v1/visits/{asked}/opinions", advice)
        _ask(doctor, f"/v1/visits/{asked}/outcomes", {"finding": "effusion", "outcome": "refuted", "source": "CT"})
        database = Database(url)
        try:
            with database.transaction(write=True) as session:
                _of_other_ways(session, ids)
            _wait_until_delivered(database)
        finally:
            database.close()
    return First(ids, keys)


def _bodies() -> dict[str, Body]:
    header, signal = recording()
    film = [("image", "film.dcm", dicom("1.2.840.10008.1.2.1", FILM_PX))]
    trace = [("ecg", "E07517.hea", header), ("ecg", "E07517.mat", signal)]
    person = {"id": PERSON, "name": f"Nguyễn Thị {NAME}", "age_years": 61, "sex": "female"}
    base = {
        "person": person,
        "visited_on": datetime.now(UTC).date().isoformat(),
        "referrer": {"id": DOCTOR, "name": "doctor"},
        "order": {"accession_number": ACCESSION},
    }
    check_up = multipart([*film, *trace], "lung", {**base, "labs": LABS})
    cut = png(FILM_PX)
    return {
        "check-up": check_up,
        "check-up, signed": check_up,
        "check-up, asked": check_up,
        "film": multipart(film, "lung", base),
        "recording": multipart(trace, "cardiac", base),
        "labs": multipart([], "kidney", {**base, "labs": LABS}),
        "refused": multipart([("image", "f.png", cut[: len(cut) // 2] + MARK)], "lung", base),
    }


def _post(client: Client, body: Body, number: int) -> str:
    headers = {"Content-Type": body.content_type, "Idempotency-Key": f"visit-{number:09}", "Prefer": "wait=110"}
    content = numbered(body.content, number) if MARK in body.content else body.content
    answer = client.ask("POST", "/v1/visits", content, headers)
    if answer.status != 201 or answer.json["status"] != "complete":
        raise RuntimeError(f"a first visit was not assessed: {answer.status} {answer.body[:500]!r}")
    return str(answer.json["id"])


def _ask(client: Client, path: str, document: dict[str, object]) -> Answer:
    answer = client.ask("POST", path, json.dumps(document).encode(), {"Content-Type": "application/json"})
    if answer.status != 201:
        raise RuntimeError(f"{path}: {answer.status} {answer.body[:500]!r}")
    return answer


def _of_other_ways(session: Session, ids: dict[str, str]) -> None:
    """What an order message, a node, an archive, a shadow bundle and a certificate leave beside a visit.

    And a case to learn from with its reading, which only a teaching site has: so that its tables are not empty.
    """
    now = database_now(session)
    check_up = session.get_one(VisitRow, ids["check-up"])
    ordered = Context.model_validate_json(check_up.context).model_dump_json(exclude_unset=True)
    digest = 64 * "0"
    rows = [
        OrderRow(site=SITE, accession_number=ACCESSION, context=ordered, received_at=now),
        OrderMessageRow(site=SITE, sender=digest, control_id="0", sha256=digest, received_at=now),
        ShadowRow(
            visit_id=check_up.id, name="lung", version="0.0.0", sha256=digest, in_service="0.0.0", answered_at=now,
            assessment=check_up.assessment,
        ),
        CertificateRow(digest=digest, site=SITE, abnormal_at_most=0.01, confidence=0.95),
        NormalRow(visit_id=check_up.id, certificate=digest, held_back=False),
        CaseRow(visit_id=ids["film"], set_digest=digest, known="{}"),
        ReadingRow(
            id="reading", visit_id=ids["film"], key_id="trainee", number=1, given_at=now, signed_at=now, reading="{}"
        ),
    ]  # fmt: skip
    for kind in OF_A_NODE:
        rows.append(
            ExchangeRow(visit_id=ids[kind], changes=1, sent=1, left=0, due_at=now - timedelta(hours=1), attempts=0)
        )
    rows.append(PreviewRow(visit_id=check_up.id, index=0, sha256=digest, n_bytes=60_000))
    insert_rows(session, *rows)
    for kind in OF_AN_ARCHIVE:
        film = session.scalars(select(InputRow).where(InputRow.visit_id == ids[kind])).one()
        arrived = ArrivalRow(
            site=SITE, sop_uid="2.25.0", sha256=film.sha256, study_uid="2.25.0", field=film.field, n_bytes=film.n_bytes,
            dicom=film.dicom, source="ARCHIVE", received_at=now, visit_id=film.visit_id,
        )  # fmt: skip
        insert_rows(session, arrived)


def _wait_until_delivered(database: Database) -> None:
    end = time.monotonic() + WAIT_S
    waiting = select(func.count()).select_from(DeliveryRow).where(DeliveryRow.state == "waiting")
    while time.monotonic() < end:
        with database.transaction() as session:
            if not session.scalars(waiting).one():
                return
        time.sleep(0.2)
    raise RuntimeError("a report of the first visits was not delivered")
