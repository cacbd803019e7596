"""A bundle in the shadow against the one in service, from the answers that the service stored."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import create_engine, inspect, text

from data_specs.visit.assessment import Assessment

ACCEPTED = "file accepted"
"""Stands beside the findings: whether a posted file was used. It is all that a gate answers."""


@dataclass(frozen=True)
class Pair:
    """What two versions said of one thing in one visit; ``None`` where a version said nothing of it."""

    visit_id: str
    finding: str
    served: Said | None
    shadow: Said | None

    @property
    def differs(self) -> bool:
        return self.served is None or self.shadow is None or self.served.verdict != self.shadow.verdict

    @property
    def distance(self) -> float:
        """Between the probabilities; what only one version says comes first."""
        if self.served is None or self.shadow is None:
            return float("inf")
        return abs((self.served.probability or 0.0) - (self.shadow.probability or 0.0))


@dataclass(frozen=True)
class Said:
    """A finding's answer: positive or not, or a measured value."""

    verdict: bool | str | None
    probability: float | None = None


@dataclass
class Comparison:
    """All pairs of one finding.

    Parameters
    ----------
    cells
        Visits by (positive in service, positive in the shadow).
    """

    n: int = 0
    one_only: int = 0
    agree: int = 0
    cells: dict[tuple[bool, bool], int] = field(default_factory=lambda: defaultdict(int))
    probabilities: list[tuple[float, float]] = field(default_factory=list)

    def add(self, pair: Pair) -> None:
        if pair.served is None or pair.shadow is None:
            self.one_only += 1
            return
        self.n += 1
        self.agree += not pair.differs
        if isinstance(pair.served.verdict, bool) and isinstance(pair.shadow.verdict, bool):
            self.cells[pair.served.verdict, pair.shadow.verdict] += 1
        if pair.served.probability is not None and pair.shadow.probability is not None:
            self.probabilities.append((pair.served.probability, pair.shadow.probability))

    @property
    def agreement(self) -> float | None:
        return self.agree / self.n if self.n else None

    @property
    def kappa(self) -> float | None:
        """Agreement beyond chance (Cohen, Educational and Psychological Measurement 1960).

        ``None`` where one verdict is all there is: there is then nothing for chance to explain.
        """
        n = sum(self.cells.values())
        if not n:
            return None
        table = np.array([[self.cells[a, b] for b in (False, True)] for a in (False, True)]) / n
        chance = float(table.sum(axis=0) @ table.sum(axis=1))
        return None if chance >= 1 else float((np.trace(table) - chance) / (1 - chance))

    @property
    def correlation(self) -> float | None:
        """Pearson's, of the probabilities."""
        if len(self.probabilities) < 3:
            return None
        served, shadow = np.array(self.probabilities).T
        return None if min(served.std(), shadow.std()) == 0 else float(np.corrcoef(served, shadow)[0, 1])

    @property
    def distance(self) -> float | None:
        """Mean absolute difference of the probabilities."""
        return float(np.mean([abs(a - b) for a, b in self.probabilities])) if self.probabilities else None


@dataclass
class Versions:
    """What one pair of versions said of the visits that both saw."""

    visits: int = 0
    findings: dict[str, Comparison] = field(default_factory=lambda: defaultdict(Comparison))
    differing: list[Pair] = field(default_factory=list)


def compare(database: str, name: str, *, shadow: str | None = None) -> dict[tuple[str, str], Versions]:
    """By (version in service, version in the shadow): how far they agree, finding by finding.

    Parameters
    ----------
    database
        Address of the service's database.
    shadow
        This version in the shadow alone.

    Raises
    ------
    LookupError
        The database has no answers of a shadow in it, nor a table for them.
    """
    engine = create_engine(database, hide_parameters=True)
    found: dict[tuple[str, str], Versions] = defaultdict(Versions)
    with engine.connect() as connection:
        if "shadow_answers" not in inspect(connection).get_table_names():
            raise LookupError("the database has no table of shadow answers: no service of this version has used it")
        query = text(
            "SELECT s.visit_id, s.version, s.in_service, s.assessment, v.assessment FROM shadow_answers s "
            "JOIN visits v ON v.id = s.visit_id WHERE s.name = :name AND v.assessment IS NOT NULL "
            "ORDER BY s.answered_at"
        )
        rows = connection.execution_options(yield_per=200).execute(query, {"name": name})
        for visit_id, version, in_service, said_by_shadow, said in rows:
            if shadow not in (None, version):
                continue
            served = Assessment.model_validate_json(said)
            # the version that the visit was computed with; the one that served when the shadow ran where it has none
            used = next((m.version for m in served.models if m.name == name), in_service)
            both = found[used, version]
            both.visits += 1
            for pair in pairs(visit_id, served, Assessment.model_validate(json.loads(said_by_shadow))):
                both.findings[pair.finding].add(pair)
                if pair.differs:
                    both.differing.append(pair)
    engine.dispose()
    for each in found.values():
        each.differing.sort(key=lambda pair: -pair.distance)
    return dict(found)


def pairs(visit_id: str, served: Assessment, shadow: Assessment) -> Iterator[Pair]:
    """Findings and files of the shadow's answer against those of the visit; only what the shadow was asked about."""
    for organ, answer in shadow.organs.items():
        theirs = {f.name: f for f in answer.findings}
        ours = {f.name: f for f in served.organs[organ].findings} if organ in served.organs else {}
        for finding in dict.fromkeys([*ours, *theirs]):
            a, b = ours.get(finding), theirs.get(finding)
            said = [
                None if f is None else Said(f.positive if f.probability is not None else str(f.value), f.probability)
                for f in (a, b)
            ]
            yield Pair(visit_id, finding, *said)
    accepted = {each.index: each.accepted for each in served.inputs}
    for each in shadow.inputs:
        if each.index in accepted:
            yield Pair(visit_id, ACCEPTED, Said(accepted[each.index]), Said(each.accepted))
