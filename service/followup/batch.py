"""Films that a certificate calls normal, signed together by a doctor who has looked at each of them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from data_specs.visit.opinion import NewOpinion
from service.errors import Forbidden, NotFound, VersionChanged
from service.followup.actions import author_of, sign
from service.keys import Key
from service.parts import Parts
from service.storage.tables import CertificateRow, NormalRow, VisitRow
from service.visits.normals import Certified, Counts, all_certified, certified, counts_of
from service.visits.stored import seen_by, visible

AT_ONCE = 24
"""Films of one batch: as many as are looked at on one page."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a site may sign in a batch.

    Parameters
    ----------
    holding
        The certificate that holds; ``None``: nothing may be signed so.
    stop
        Where its bound was shown to be broken.
    visits
        The films that are offered, the longest waiting first.
    waiting
        How many there are in all.
    """

    holding: Certified | None
    stop: CertificateRow | None
    counts: Counts | None
    visits: Sequence[VisitRow]
    waiting: int


async def offer(parts: Parts, key: Key) -> Offer:
    """What ``key`` may sign in a batch now."""
    holding = certified(parts.settings.bundles, key.site)
    if holding is None:
        return Offer(None, None, None, (), 0)

    def read(session: Session) -> Offer:
        known = session.get(CertificateRow, holding.digest)
        stop = known if known is not None and known.stopped_at is not None else None
        counts = counts_of(session, holding.digest)
        if stop is not None:
            return Offer(holding, stop, counts, (), 0)
        query = _offered(key, holding.digest)
        waiting = session.scalar(query.with_only_columns(func.count(), maintain_column_froms=True)) or 0
        found = query.order_by(VisitRow.received_at, VisitRow.id).limit(AT_ONCE)
        return Offer(holding, None, counts, seen_by(session, key, found), waiting)

    return await parts.database.read(read)


async def sign_batch(
    parts: Parts, key: Key, visits: Sequence[str], said: str, *, name: str | None = None
) -> tuple[list[str], list[str]]:
    """Sign each of the visits as normal; those that were signed, and those that are no longer offered.

    Each visit is signed in a transaction of its own: what a stop of the process leaves unsigned is offered again.

    Parameters
    ----------
    said
        What the opinion says of the batch.
    name
        As :func:`service.followup.actions.author_of`.

    Raises
    ------
    Forbidden
        The key is not a doctor's.
    """
    author_of(key, name)
    if key.role != "doctor":
        raise Forbidden
    batch, opinion = str(uuid.uuid4()), NewOpinion(text=said, advice="manage")
    signed, left = [], []
    for visit_id in visits:
        if not await _is_offered(parts, key, visit_id):
            left.append(visit_id)
            continue
        try:
            await sign(parts, key, visit_id, opinion, version=1, name=name, batch=batch)
        except (VersionChanged, NotFound):  # signed in full, or deleted, meanwhile
            left.append(visit_id)
        else:
            signed.append(visit_id)
    return signed, left


async def _is_offered(parts: Parts, key: Key, visit_id: str) -> bool:
    holding = certified(parts.settings.bundles, key.site)
    if holding is None:
        return False
    query = _offered(key, holding.digest).with_only_columns(VisitRow.id).where(VisitRow.id == visit_id)
    return await parts.database.read(lambda session: session.scalars(query).first()) is not None


def _offered(key: Key, certificate: str) -> Select[VisitRow]:
    """Visits of ``key`` that the certificate calls normal, that are not read in full, and that nobody has signed."""
    query = select(VisitRow).join(NormalRow, NormalRow.visit_id == VisitRow.id)
    query = query.join(CertificateRow, CertificateRow.digest == NormalRow.certificate)
    return visible(query, key).where(
        NormalRow.certificate == certificate,
        ~NormalRow.held_back,
        NormalRow.abnormal.is_(None),
        CertificateRow.stopped_at.is_(None),
        VisitRow.version == 1,
    )


async def overview(parts: Parts) -> list[tuple[str, Certified, CertificateRow | None, Counts]]:
    """The certificates that hold, by site: each with its stop, if it has one, and what is known of its visits."""
    holding = all_certified(parts.settings.bundles)

    def read(session: Session) -> list[tuple[str, Certified, CertificateRow | None, Counts]]:
        return [
            (site, each, session.get(CertificateRow, each.digest), counts_of(session, each.digest))
            for site, each in holding.items()
        ]

    return await parts.database.read(read)
