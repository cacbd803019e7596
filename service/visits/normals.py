"""Visits that a site's certificate calls normal: decided with the visit, counted when they are read, stopped if broken.

A certificate stands in the registry's log (``python -m models certify``). Here is what follows from it: a row for each
visit that it calls normal, whether the visit is of the random tenth that is read in full, and what was found in it.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import cast

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from data_specs.next_steps.decision import is_unremarkable
from data_specs.person import age_at_examination
from data_specs.planning.normals import in_sample, is_below, is_broken
from data_specs.planning.sample import NOT_STATED, groups_of, reading
from data_specs.visit.assessment import Assessment
from data_specs.visit.contract import Organ
from data_specs.visit.opinion import Opinion
from inference.bundles.registry import Certificate, Entry, log_mark, read_log, read_registry
from service.storage.audit import SERVICE, note
from service.storage.database import database_now, insert_rows
from service.storage.tables import (
    THE_KEY,
    Base,
    CertificateRow,
    NormalRow,
    OpinionRow,
    OutcomeRow,
    SampleKeyRow,
    VisitRow,
)

BUNDLE: Organ = "lung"
"""Whose films are called normal; bundles of organs are named like them."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Certified:
    """A certificate and the digest of its line, which names it."""

    digest: str
    bundle: str
    certificate: Certificate

    @classmethod
    def of(cls, entry: Entry) -> Certified:
        return cls(entry.digest, f"{entry.name} {entry.to_version}", cast("Certificate", entry.certificate))


@dataclass(frozen=True, slots=True)
class Counts:
    """Visits that a certificate has called normal.

    Parameters
    ----------
    called, held_back
        All of them, and those of the random tenth.
    read, abnormal
        Of the random tenth: read in full, and with a finding.
    found_later
        Of the others, those in which a finding was found later.
    """

    called: int
    held_back: int
    read: int
    abnormal: int
    found_later: int


def certified(bundles: Path, site: str) -> Certified | None:
    """The site's certificate; ``None`` where none holds."""
    return all_certified(bundles).get(site) if site in _sites(bundles, log_mark(bundles)) else None


def all_certified(bundles: Path) -> dict[str, Certified]:
    """The certificates that hold, by site."""
    sites = _sites(bundles, log_mark(bundles))
    if not sites:
        return {}
    registry, now = read_registry(bundles), datetime.now(UTC)
    return {site: Certified.of(entry) for site in sites if (entry := registry.certified(BUNDLE, site, now)) is not None}


@lru_cache(maxsize=8)
def _sites(bundles: Path, _mark: tuple[int, int, int] | None) -> tuple[str, ...]:
    """Sites that have ever had a certificate; asked for every visit and page, and hardly any log has one."""
    entries, _ = read_log(bundles)
    return tuple(sorted({entry.site for entry in entries if entry.action == "certify" and entry.site}))


def call_normal(session: Session, bundles: Path, row: VisitRow, found: Assessment) -> None:
    """Write that a visit is called normal, in the transaction of its outcome, if its site's certificate says so."""
    holding = certified(bundles, row.site)
    if holding is None or not calls_normal(holding, row, found):
        return
    if session.get(CertificateRow, holding.digest) is None:
        said = holding.certificate
        first = CertificateRow(
            digest=holding.digest,
            site=row.site,
            abnormal_at_most=said.abnormal_at_most,
            confidence=said.confidence,
        )
        _insert_once(session, first)
    if session.get_one(CertificateRow, holding.digest).stopped_at is not None:
        return
    held_back = in_sample(_key(session), row.id)
    insert_rows(session, NormalRow(visit_id=row.id, certificate=holding.digest, held_back=held_back))
    note(session, "visit_called_normal", row.id, actor=SERVICE, certificate=holding.digest, held_back=held_back)


def calls_normal(holding: Certified, row: VisitRow, found: Assessment) -> bool:
    """Whether the certificate calls the visit normal."""
    said, context, organ = holding.certificate, row.read_context(), found.organs.get(BUNDLE)
    if organ is None or holding.bundle not in {f"{model.name} {model.version}" for model in found.models}:
        return False
    probability = next((each.probability for each in organ.findings if each.name == said.finding), None)
    age = age_at_examination(context.person.age_years, context.person.birth_date, context.visited_on)
    if probability is None or not _is_for(said, age):
        return False
    known = groups_of(context, [posted.dicom for posted in row.inputs if posted.field == "image"])
    groups = {kind: known.get(kind, NOT_STATED) for kind in said.groups}
    return is_below(probability, groups, said.thresholds) and is_unremarkable(found, context)


def _is_for(said: Certificate, age_years: float | None) -> bool:
    return said.age_years is None or (age_years is not None and said.age_years[0] <= age_years < said.age_years[1])


def count_reading(session: Session, visit_id: str, batch: str | None = None) -> None:
    """Count what is known of a visit, in the transaction that adds to it. It may show that the bound is broken.

    Parameters
    ----------
    batch
        The batch in which it is signed.
    """
    normal = session.get(NormalRow, visit_id)
    if normal is None:
        return
    opinions = select(OpinionRow.opinion).where(OpinionRow.visit_id == visit_id).order_by(OpinionRow.number)
    read = [Opinion.model_validate_json(each) for each in session.scalars(opinions)]
    normal.abnormal = reading(BUNDLE, read, _outcomes(session, visit_id))
    normal.batch = normal.batch or batch
    if normal.held_back:
        # locked, so that of two readings at the same moment the second one counts the first
        locked = select(CertificateRow).where(CertificateRow.digest == normal.certificate).with_for_update()
        _stop_if_broken(session, session.scalars(locked).one())


def _stop_if_broken(session: Session, row: CertificateRow) -> None:
    session.flush()
    counts = counts_of(session, row.digest)
    broken = is_broken(counts.abnormal, counts.read, row.abnormal_at_most, row.confidence)
    if row.stopped_at is not None or not broken:
        return
    row.stopped_at, row.n_read, row.n_abnormal = database_now(session), counts.read, counts.abnormal
    seen = {"site": row.site, "read": counts.read, "abnormal": counts.abnormal}
    note(session, "normals_stopped", actor=SERVICE, certificate=row.digest, **seen)
    log.error("normals_stopped", certificate=row.digest, **seen)


def counts_of(session: Session, certificate: str) -> Counts:
    """What is known of the visits that a certificate has called normal."""
    grouped = select(NormalRow.held_back, NormalRow.abnormal, func.count()).where(NormalRow.certificate == certificate)
    found: dict[tuple[bool, bool | None], int] = defaultdict(int)
    for is_held_back, abnormal, n in session.execute(grouped.group_by(NormalRow.held_back, NormalRow.abnormal)):
        found[is_held_back, abnormal] += n
    held_back = sum(n for (held, _), n in found.items() if held)
    return Counts(
        called=sum(found.values()),
        held_back=held_back,
        read=held_back - found[True, None],
        abnormal=found[True, True],
        found_later=found[False, True],
    )


def count_stopped(session: Session, bundles: Path) -> int:
    """How many of the certificates that hold were stopped."""
    holding = [each.digest for each in all_certified(bundles).values()]
    query = select(func.count()).select_from(CertificateRow)
    return session.execute(
        query.where(CertificateRow.digest.in_(holding), CertificateRow.stopped_at.is_not(None))
    ).scalar_one()


def _outcomes(session: Session, visit_id: str) -> Mapping[str, str]:
    query = select(OutcomeRow.finding, OutcomeRow.outcome).where(OutcomeRow.visit_id == visit_id)
    rows = session.execute(query.order_by(OutcomeRow.recorded_at, OutcomeRow.id))
    return {row.finding: row.outcome for row in rows}


def _key(session: Session) -> bytes:
    """The secret of the random sample, made where it is first needed."""
    row = session.get(SampleKeyRow, THE_KEY)
    if row is None:
        _insert_once(session, SampleKeyRow(id=THE_KEY, key=secrets.token_hex(32)))
        row = session.get_one(SampleKeyRow, THE_KEY)
    return bytes.fromhex(row.key)


def _insert_once(session: Session, row: Base) -> bool:
    """Insert a row, unless another process just has; whether it was this one."""
    try:
        with session.begin_nested():
            insert_rows(session, row)
    except IntegrityError:
        return False
    return True
