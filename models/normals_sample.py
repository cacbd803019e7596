"""A site's sample: the random tenth of its visits as doctors read them without the machine, or cases of a file."""

from __future__ import annotations

import csv
import hashlib
import json
import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import DateTime, column, create_engine, inspect, select, table
from sqlalchemy.engine import Connection

from data_specs.bundle import BundleManifest, FindingSpec
from data_specs.next_steps.decision import is_unremarkable
from data_specs.person import age_at_examination
from data_specs.planning.normals import Case, in_sample
from data_specs.planning.sample import NOT_STATED, groups_of, reading
from data_specs.visit.assessment import Assessment
from data_specs.visit.context import Context
from data_specs.visit.opinion import Opinion

GROUPS = ("sex", "age", "device")
OUTCOMES = {"confirmed": True, "1": True, "refuted": False, "0": False}
MAX_BYTES = 200_000_000
SHOWN = 10

_VISITS = table(
    "visits",
    *map(column, ("id", "site", "person_id", "status", "context", "assessment")),
    column("received_at", DateTime(timezone=True)),
)
_INPUTS = table("inputs", *map(column, ("visit_id", "field", "dicom", "index")))
_OPINIONS = table("opinions", *map(column, ("visit_id", "number", "opinion")))
_OUTCOMES = table(
    "outcomes",
    *map(column, ("id", "visit_id", "finding", "outcome")),
    column("recorded_at", DateTime(timezone=True)),
)
_KEY = table("sample_key", *map(column, ("id", "key")))


@dataclass(frozen=True)
class Sample:
    """The cases that were read, and the visits of the sample that nobody has read yet."""

    cases: tuple[Case, ...]
    unread: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the cases, whatever their order."""
        lines = sorted(json.dumps(asdict(case), sort_keys=True) for case in self.cases)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


# ---------------------------------------------------------------- the random tenth
def read_sample(database: str, site: str, days: int, manifest: BundleManifest, spec: FindingSpec) -> Sample:
    """The random tenth of the site's visits of the last days that this version has assessed.

    Raises
    ------
    LookupError
        The database has no table for the sample's key: a service of this release has to be started on it first.
    """
    engine = create_engine(database, hide_parameters=True)
    since = datetime.now(UTC) - timedelta(days=days)
    try:
        with engine.begin() as connection:
            if "sample_key" not in inspect(connection).get_table_names():
                raise LookupError("the database has no table 'sample_key': start a server of this release first")
            if engine.dialect.name == "sqlite":  # which stores times without a zone
                since = since.replace(tzinfo=None)
            found = list(_cases(connection, site, since, manifest, spec))
    finally:
        engine.dispose()
    unread = tuple(visit for visit, case in found if case is None)
    return Sample(tuple(case for _, case in found if case is not None), unread)


def _cases(
    connection: Connection, site: str, since: datetime, manifest: BundleManifest, spec: FindingSpec
) -> Iterator[tuple[str, Case | None]]:
    """Each visit of the sample, and what was read in it."""
    key, v = _sample_key(connection), _VISITS.c
    ids = connection.scalars(select(v.id).where(v.site == site, v.received_at >= since, v.status == "complete"))
    for visit_id in [each for each in ids if in_sample(key, each)]:
        row = connection.execute(select(v.person_id, v.context, v.assessment).where(v.id == visit_id)).one()
        found, context = Assessment.model_validate_json(row.assessment), Context.model_validate_json(row.context)
        probability = _probability(found, context, manifest, spec)
        if probability is None or manifest.organ is None:
            continue
        opinions, outcomes, headers = _said(connection, visit_id)
        abnormal = reading(manifest.organ, opinions, outcomes, blind_only=True)
        if abnormal is None:
            yield visit_id, None
            continue
        groups = groups_of(context, headers)
        person = row.person_id or visit_id
        yield visit_id, Case(person, probability, abnormal, groups, is_unremarkable(found, context))


def _probability(found: Assessment, context: Context, manifest: BundleManifest, spec: FindingSpec) -> float | None:
    """By this version, of a person of the finding's ages."""
    organ = found.organs.get(manifest.organ) if manifest.organ else None
    if organ is None or (manifest.name, manifest.version) not in {(m.name, m.version) for m in found.models}:
        return None
    person = context.person
    age = age_at_examination(person.age_years, person.birth_date, context.visited_on)
    if spec.age_years is not None and (age is None or not spec.age_years[0] <= age < spec.age_years[1]):
        return None
    return next((each.probability for each in organ.findings if each.name == spec.name), None)


def _said(connection: Connection, visit_id: str) -> tuple[list[Opinion], Mapping[str, str], list[str | None]]:
    """Opinions in order, the latest outcome by finding, and the headers of the films of a visit."""
    o, r, i = _OPINIONS.c, _OUTCOMES.c, _INPUTS.c
    opinions = connection.scalars(select(o.opinion).where(o.visit_id == visit_id).order_by(o.number))
    recorded = select(r.finding, r.outcome).where(r.visit_id == visit_id).order_by(r.recorded_at, r.id)
    outcomes = {row.finding: row.outcome for row in connection.execute(recorded)}
    films = select(i.dicom).where(i.visit_id == visit_id, i.field == "image").order_by(i.index)
    return [Opinion.model_validate_json(each) for each in opinions], outcomes, list(connection.scalars(films))


def _sample_key(connection: Connection) -> bytes:
    """The key by which the service draws the sample; made here if nothing has been drawn by it yet."""
    key = connection.scalars(select(_KEY.c.key)).first()
    if key is None:
        key = secrets.token_hex(32)
        connection.execute(_KEY.insert().values(id=1, key=key))
    return bytes.fromhex(key)


# ---------------------------------------------------------------- cases from a file
def read_scores(path: Path, finding: str | None = None) -> Sample:
    """Cases of a CSV as ``recalls --scores`` writes it: ``person``, ``probability``, ``outcome`` and groups.

    Groups are those of the columns ``sex``, ``age`` and ``device`` that the file has. Lines without an outcome, or
    ``lost``, are visits that were not read.

    Raises
    ------
    LookupError
        The message has the fault and its lines.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise LookupError(f"{path}: larger than {MAX_BYTES} bytes")
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise LookupError(f"{path}: cannot be read as a CSV ({type(error).__name__})") from error
    columns = lines[0].keys() if lines else ()
    if missing := [name for name in ("person", "probability", "outcome") if name not in columns]:
        raise LookupError(f"{path}: no column {', '.join(missing)}")
    kinds = [kind for kind in GROUPS if kind in columns]
    cases, unread = [], []
    wrong: dict[str, list[int]] = defaultdict(list)
    for number, line in enumerate(lines, start=2):
        if finding is not None and line.get("finding", finding) != finding:
            continue
        outcome = (line["outcome"] or "").strip().lower()
        probability = _share(line["probability"])
        for name, holds in (
            ("probability", probability is not None),
            ("person", bool(line["person"])),
            ("outcome", outcome in {*OUTCOMES, "lost", ""}),
        ):
            if not holds:
                wrong[name].append(number)
        if outcome not in OUTCOMES:
            unread.append(str(number))
        elif probability is not None:
            groups = {kind: (line[kind] or "").strip() or NOT_STATED for kind in kinds}
            cases.append(Case(line["person"], probability, OUTCOMES[outcome], groups))
    if wrong:
        said = (f"'{name}' in line {', '.join(map(str, at[:SHOWN]))}" for name, at in wrong.items())
        raise LookupError(f"{path}: cannot be used: {'; '.join(said)}")
    return Sample(tuple(cases), tuple(unread))


def _share(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None
