"""The site's recent visits, as the version in service and the one in its shadow answered them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import DateTime, Row, column, create_engine, inspect, select, table
from sqlalchemy.engine import Connection

from data_specs.bundle import BundleManifest, FindingSpec
from data_specs.person import age_at_examination, age_band
from data_specs.visit.assessment import Assessment, FoundFinding, is_recalled
from data_specs.visit.context import Context
from data_specs.vocabulary import is_reassuring
from inference.bundles.acceptance import AT_SITE, manifest_at_site
from inference.bundles.registry import Registry
from inference.findings import offered, operating_point

_SHADOWS = table("shadow_answers", *map(column, ("visit_id", "name", "version", "in_service", "assessment")))
_VISITS = table(
    "visits",
    *map(column, ("id", "site", "person_id", "context", "assessment")),
    column("received_at", DateTime(timezone=True)),
)
_OUTCOMES = table(
    "outcomes",
    *map(column, ("id", "visit_id", "finding", "outcome")),
    column("recorded_at", DateTime(timezone=True)),
)


@dataclass(frozen=True)
class Answered:
    """One finding of one visit by both versions.

    Parameters
    ----------
    person
        The same for visits of one person, where the visits state who it was.
    groups
        Site, sex and age band, named like ``sex female``.
    served, shadow
        Whether the version recalls the person; ``None``: it leaves that open.
    probability, served_probability
        By the version in the shadow and by the one in service.
    is_case
        Whether a recorded outcome says that the person has what is looked for; ``None``: not known.
    """

    finding: str
    person: tuple[str, ...]
    groups: tuple[str, ...]
    served: bool | None
    shadow: bool | None
    served_probability: float
    probability: float
    is_case: bool | None


@dataclass(frozen=True)
class Recent:
    """Visits of the last days that both versions answered."""

    name: str
    in_service: str
    version: str
    days: int
    visits: int
    answers: tuple[Answered, ...]

    def of(self, finding: str) -> tuple[Answered, ...]:
        return tuple(each for each in self.answers if each.finding == finding)

    @property
    def findings(self) -> tuple[str, ...]:
        """Those that decide in both versions, in the order in which they were found."""
        return tuple(dict.fromkeys(each.finding for each in self.answers))


def recent(
    database: str,
    registry: Registry,
    manifest: BundleManifest,
    in_service: str,
    days: int,
    *,
    site: str | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> Recent:
    """Read the visits that both versions answered; the shadow's findings count as it would serve the visit's site.

    Parameters
    ----------
    database
        Address of the service's database.
    manifest
        Of the version in the shadow.
    in_service
        The version that it is compared with; visits that another one assessed are left out.
    site
        Only visits of this site.
    thresholds
        By finding, in the place of the thresholds at which it would serve: what if.

    Raises
    ------
    LookupError
        The database has no table for the answers of a shadow.
    """
    engine = create_engine(database, hide_parameters=True)
    since = datetime.now(UTC) - timedelta(days=days)
    answers: list[Answered] = []
    visits = 0
    try:
        with engine.connect() as connection:
            if "shadow_answers" not in inspect(connection).get_table_names():
                raise LookupError("the database has no table of shadow answers: no service of this version has used it")
            if engine.dialect.name == "sqlite":  # which stores times without a zone
                since = since.replace(tzinfo=None)
            outcomes = _latest_outcomes(connection, since)
            for row in _rows(connection, manifest, in_service, since, site):
                served = Assessment.model_validate_json(row.served)
                if not any((m.name, m.version) == (manifest.name, in_service) for m in served.models):
                    continue
                visits += 1
                shadow = Assessment.model_validate(json.loads(row.shadow))
                context = Context.model_validate_json(row.context)
                person = context.person
                age = age_at_examination(person.age_years, person.birth_date, context.visited_on)
                of_site = offered(manifest_at_site(manifest, registry, row.site), age)
                at = {spec.name: _own_threshold(spec) for spec in of_site if spec.use == "triage"}
                at |= {name: threshold for name, threshold in (thresholds or {}).items() if name in at}
                who = (row.site, row.person_id) if row.person_id else (row.id,)
                answers += _answered(served, shadow, outcomes[row.id], who, _groups(row.site, context, age), at)
    finally:
        engine.dispose()
    return Recent(manifest.name, in_service, manifest.version, days, visits, tuple(answers))


def _rows(
    connection: Connection, manifest: BundleManifest, in_service: str, since: datetime, site: str | None
) -> Iterator[Row[tuple[object, ...]]]:
    s, v = _SHADOWS.c, _VISITS.c
    query = (
        select(v.id, v.site, v.person_id, v.context, v.assessment.label("served"), s.assessment.label("shadow"))
        .join_from(_SHADOWS, _VISITS, v.id == s.visit_id)
        .where(s.name == manifest.name, s.version == manifest.version, s.in_service == in_service)
        .where(v.received_at >= since, v.assessment.is_not(None))
        .order_by(v.received_at, v.id)
    )
    if site is not None:
        query = query.where(v.site == site)
    yield from connection.execution_options(yield_per=200).execute(query)


def _latest_outcomes(connection: Connection, since: datetime) -> dict[str, dict[str, str]]:
    """By visit and finding, for visits since then; rows are only added, and the latest counts."""
    o = _OUTCOMES.c
    query = (
        select(o.visit_id, o.finding, o.outcome)
        .join_from(_OUTCOMES, _VISITS, _VISITS.c.id == o.visit_id)
        .where(_VISITS.c.received_at >= since)
        .order_by(o.recorded_at, o.id)
    )
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for visit, finding, outcome in connection.execute(query):
        found[visit][finding] = outcome
    return found


def _groups(site: str, context: Context, age: float | None) -> tuple[str, ...]:
    sex, band = context.person.sex, None if age is None else age_band(age)
    return (f"site {site}", *([f"sex {sex}"] if sex else []), *([f"age {band}"] if band else []))


def _answered(
    served: Assessment,
    shadow: Assessment,
    outcomes: Mapping[str, str],
    person: tuple[str, ...],
    groups: tuple[str, ...],
    at: Mapping[str, float | None],
) -> Iterator[Answered]:
    """Findings that decide in both versions; ``at``: those of the shadow, with a threshold if not its own counts."""
    for organ, answer in shadow.organs.items():
        before = {found.name: found for found in served.organs[organ].findings} if organ in served.organs else {}
        for found in answer.findings:
            other = before.get(found.name)
            if other is None or found.name not in at or not (_decides(other) and _decides(found, at[found.name])):
                continue
            yield Answered(
                finding=found.name,
                person=person,
                groups=groups,
                served=is_recalled(other),
                shadow=_recalled_at(found, at[found.name]),
                served_probability=other.probability or 0.0,
                probability=found.probability or 0.0,
                is_case=_is_case(found.name, outcomes.get(found.name)),
            )


def _decides(found: FoundFinding, threshold: float | None = None) -> bool:
    return found.probability is not None and (found.operating_point is not None or threshold is not None)


def _own_threshold(spec: FindingSpec) -> float | None:
    """The threshold that the site accepted the finding at; ``None``: that of the bundle."""
    own = operating_point(spec, AT_SITE)
    return None if own is None else own.threshold


def _recalled_at(found: FoundFinding, threshold: float | None) -> bool | None:
    """As the version says, or at another threshold, where no person is undecided."""
    if threshold is None or found.probability is None:
        return is_recalled(found)
    return (found.probability >= threshold) is not is_reassuring(found.name)


def _is_case(finding: str, outcome: str | None) -> bool | None:
    if outcome not in ("confirmed", "refuted"):
        return None
    return (outcome == "confirmed") is not is_reassuring(finding)


def persons_of(answers: Sequence[Answered]) -> list[int]:
    """A running number for each person, which names nobody."""
    numbers: dict[tuple[str, ...], int] = {}
    return [numbers.setdefault(each.person, len(numbers)) for each in answers]
