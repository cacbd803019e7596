"""The way back: opinions that specialists signed at the other end, and at home the persons that they are about.

Answers name visits by their pseudonyms. At home the pseudonym of each visit is computed again by the secret key, so no
table of names is needed, and an answer can only reach the visit that was exported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from data_specs.problems import Refused
from data_specs.schema import Schema
from data_specs.visit.opinion import Opinion
from service.exchange.merge import add_followup
from service.exchange.ours import uid_of
from service.exchange.queue import note_change
from service.exchange.record import Followup, OpinionRecord
from service.export.importing import IMPORTED
from service.export.names import Names
from service.export.package import ANSWERS, FORMAT, Manifest, PackedFile, finish, new_folder, read_package, write_file
from service.export.record import note, noted
from service.storage.commands import NotDone
from service.storage.database import Database, database_now
from service.storage.tables import IS_CASE, OpinionRow, VisitRow

MOST_OF_A_VISIT = 100
Pseudonym = Annotated[str, Field(pattern=r"^[0-9a-f]{20}$")]


class Answers(Schema):
    """Opinions by the pseudonym of their visit, in the order in which they were signed."""

    opinions: dict[Pseudonym, Annotated[tuple[OpinionRecord, ...], Field(max_length=MOST_OF_A_VISIT)]]


def make_answers(database: Database, about: str, folder: Path, *, who: str, legal_basis: str) -> tuple[str, int]:
    """Write the opinions on the visits of an imported package into a new folder; its digest, and how many they are.

    Raises
    ------
    NotDone
        The folder is not empty, or nobody has signed anything.
    Refused
        ``export_not_known``: no such package was imported here.
    """
    with database.transaction() as session:
        imported = noted(session, "imported", about)
        if imported is None:
            raise Refused("export_not_known", about[:16])
        signed = list(_signed(session, imported.partner, about))
    answers = Answers(opinions={pseudonym: said for _, pseudonym, said in signed})
    n_opinions = sum(map(len, answers.opinions.values()))
    if not n_opinions:
        raise NotDone("no opinion was signed on these visits")
    counts = {"visits": len(answers.opinions), "opinions": n_opinions}

    def record(digest: str) -> None:
        with database.transaction(write=True) as session:
            note(
                session, "answered", who=who, partner=imported.partner, manifest=digest, about=about,
                counts=counts, left=[visit for visit, _, _ in signed],
            )  # fmt: skip

    with new_folder(folder):
        files: dict[str, PackedFile] = {}
        write_file(folder, ANSWERS, answers.model_dump_json(indent=1).encode() + b"\n", files)
        manifest = Manifest(
            kind="answers",
            made_at=datetime.now(UTC).replace(microsecond=0),
            made_by=who,
            recipient=imported.partner,
            legal_basis=legal_basis,
            about=about,
            counts=counts,
            files=files,
        )
        return finish(folder, manifest, record), n_opinions


def _signed(session: Session, site: str, about: str) -> Iterator[tuple[str, str, tuple[OpinionRecord, ...]]]:
    """The visits of a package that have opinions: id, pseudonym, opinions. Which question they answer stays here."""
    visits = select(VisitRow.id, VisitRow.idempotency_key).where(
        VisitRow.site == site, VisitRow.key_id == IMPORTED, VisitRow.idempotency_key.startswith(f"{about}:")
    )
    for visit_id, key in session.execute(visits.order_by(VisitRow.id)):
        query = select(OpinionRow).where(OpinionRow.visit_id == visit_id).order_by(OpinionRow.number)
        said = tuple(
            OpinionRecord(
                uid=uid_of(row),
                opinion=Opinion.model_validate_json(row.opinion).model_copy(update={"referral": None}),
            )
            for row in session.scalars(query)
        )
        if said:
            yield visit_id, (key or "").partition(":")[2], said


def take_answers(database: Database, key: bytes, folder: Path, digest: str, *, who: str) -> tuple[int, int]:
    """Put answers on the visits that they are about: how many opinions are new, and how many visits are not here.

    A visit that was erased since it was exported is not here; the others get their answers. It may be taken again.

    Raises
    ------
    Refused
        As :func:`service.export.package.read_package`; ``export_not_known``: nothing with that manifest was exported
        from here; ``export_unknown_format``.
    """
    package = read_package(folder, digest, "answers")
    answers = _read(package.read(ANSWERS) if ANSWERS in package.manifest.files else b"")
    about = package.manifest.about or ""
    with database.transaction() as session:
        exported = noted(session, "exported", about)
        if exported is None:
            raise Refused("export_not_known", about[:16])
        found = _visits_of(session, Names(key, exported.partner), answers)
    with database.transaction(write=True) as session:
        now = database_now(session)
        n_visits = n_new = 0
        for pseudonym, visit in found.items():
            row = session.get(VisitRow, visit, with_for_update=True)
            if row is None:  # it was erased meanwhile
                continue
            opinions, before = answers.opinions[pseudonym], row.version
            _expect_own_uids(session, row.id, opinions)
            add_followup(session, row, Followup(opinions=opinions), now)
            note_change(session, row.id)
            n_visits, n_new = n_visits + 1, n_new + row.version - before
        counts = {"visits": n_visits, "opinions": n_new}
        note(session, "taken", who=who, partner=exported.partner, manifest=digest, about=about, counts=counts)
    return n_new, len(answers.opinions) - n_visits


def _read(content: bytes) -> Answers:
    try:
        return Answers.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Refused("export_unknown_format", ".".join(map(str, first["loc"]))[:60] or ANSWERS, FORMAT) from None


def _visits_of(session: Session, names: Names, answers: Answers) -> dict[str, str]:
    """Ids of visits by pseudonym, in their order; of a million visits it takes some seconds."""
    finished = select(VisitRow.id).where(VisitRow.status == "complete", ~IS_CASE).order_by(VisitRow.id)
    ids = session.scalars(finished.execution_options(yield_per=1000))
    named = ((names.visit(visit_id), visit_id) for visit_id in ids)
    return {pseudonym: visit_id for pseudonym, visit_id in named if pseudonym in answers.opinions}


def _expect_own_uids(session: Session, visit_id: str, opinions: Sequence[OpinionRecord]) -> None:
    """Refuse an opinion whose identity an opinion of another visit has."""
    elsewhere = select(OpinionRow.uid).where(OpinionRow.uid.in_([each.uid for each in opinions]))
    if session.scalars(elsewhere.where(OpinionRow.visit_id != visit_id).limit(1)).one_or_none() is not None:
        raise Refused("export_unknown_format", "uid", FORMAT)
