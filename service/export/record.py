"""What was exported, imported and answered: who, when, to whom, and the digest of the manifest. No person is named.

The audit log has each of them too, and which visits left.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.storage import audit
from service.storage.database import database_now, insert_rows
from service.storage.tables import ExportRow

Kind = Literal["exported", "imported", "answered", "taken"]
"""``exported`` and ``taken`` (answers) at home, ``imported`` and ``answered`` at the other end."""


def note(
    session: Session,
    kind: Kind,
    *,
    who: str,
    partner: str,
    manifest: str,
    about: str | None,
    counts: Mapping[str, int],
    left: Iterable[str] = (),
) -> None:
    """Record one of them, in the transaction of what it does where that changes the database.

    Parameters
    ----------
    partner
        The recipient, or at the other end the site that was made.
    manifest, about
        Digest of the package's manifest, and of the one that its answers are about.
    left
        The visits of which something leaves.
    """
    row = ExportRow(
        id=str(uuid.uuid4()),
        kind=kind,
        at=database_now(session),
        who=who,
        partner=partner,
        manifest=manifest,
        about=about,
        counts=json.dumps(counts, sort_keys=True),
    )
    insert_rows(session, row)
    audit.note(session, f"package_{kind}", manifest=manifest, about=about, counts=dict(counts))
    for visit in left:
        audit.note(session, "visit_exported", visit, purpose=kind, manifest=manifest)


def noted(session: Session, kind: Kind, manifest: str) -> ExportRow | None:
    """The record of a package; of several, the first."""
    query = select(ExportRow).where(ExportRow.kind == kind, ExportRow.manifest == manifest).order_by(ExportRow.at)
    return session.scalars(query.limit(1)).one_or_none()


def latest(session: Session, at_most: int) -> Sequence[ExportRow]:
    """The latest records, newest first."""
    return session.scalars(select(ExportRow).order_by(ExportRow.at.desc(), ExportRow.id).limit(at_most)).all()
