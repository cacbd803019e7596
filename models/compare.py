"""Compares a bundle in the shadow with the one in service, by the answers that the service stored."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import create_engine, inspect, text

from data_specs.visit.assessment import Assessment, FoundFinding

ACCEPTED = "file accepted"
"""Compared like a finding: whether a posted file was used, which is all that a gate answers."""


@dataclass(frozen=True)
class Pair:
    """The answers of two versions to one finding of one visit; ``None`` where a version has no answer."""

    visit_id: str
    finding: str
    served: FindingAnswer | None
    shadow: FindingAnswer | None

    @property
    def differs(self) -> bool:
        """Whether only one version answered, or the two verdicts are not the same."""
        return self.served is None or self.shadow is None or self.served.verdict != self.shadow.verdict

    @property
    def distance(self) -> float:
        """Between the two probabilities; infinite where only one version answered, so that such pairs come first."""
        if self.served is None or self.shadow is None:
            return float("inf")
        return abs((self.served.probability or 0.0) - (self.shadow.probability or 0.0))


@dataclass(frozen=True)
class FindingAnswer:
    """What a version said about a finding: positive or not, or a measured value."""

    verdict: bool | str | None
    probability: float | None = None


@dataclass
class Comparison:
    """All pairs of one finding.

    Parameters
    ----------
    cells
        Number of visits by (positive in service, positive in the shadow).
    """

    n: int = 0
    one_only: int = 0
    agree: int = 0
    cells: dict[tuple[bool, bool], int] = field(default_factory=lambda: defaultdict(int))
    probabilities: list[tuple[float, float]] = field(default_factory=list)

    def add(self, pair: Pair) -> None:
        """Count one more pair."""
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
        """Share of the pairs with the same verdict."""
        return self.agree / self.n if self.n else None

    @property
    def kappa(self) -> float | None:
        """Agreement beyond chance (Cohen, Educational and Psychological Measurement 1960).

        ``None`` where all verdicts are the same: kappa is then not defined.
        """
        n = sum(self.cells.values())
        if not n:
            return None
        table = np.array([[self.cells[a, b] for b in (False, True)] for a in (False, True)]) / n
        chance = float(table.sum(axis=0) @ table.sum(axis=1))
        return None if chance >= 1 else float((np.trace(table) - chance) / (1 - chance))

    @property
    def correlation(self) -> float | None:
        """Pearson's correlation of the probabilities."""
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
    """Comparison of two versions on the visits that both answered."""

    visits: int = 0
    findings: dict[str, Comparison] = field(default_factory=lambda: defaultdict(Comparison))
    differing: list[Pair] = field(default_factory=list)


def compare(database: str, name: str, *, shadow: str | None = None) -> dict[tuple[str, str], Versions]:
    """By (version in service, version in the shadow): how far they agree on each finding.

    Parameters
    ----------
    database
        Address of the service's database.
    shadow
        Only this version in the shadow; ``None``: all.

    Raises
    ------
    LookupError
        The database has no table for the answers of a shadow.
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
        for visit_id, version, in_service, shadow_assessment, assessment in rows:
            if shadow not in (None, version):
                continue
            served = Assessment.model_validate_json(assessment)
            # A visit without an answer of this bundle names no version: the one in service at that time is taken.
            used = next((m.version for m in served.models if m.name == name), in_service)
            both = found[used, version]
            both.visits += 1
            for pair in pairs(visit_id, served, Assessment.model_validate(json.loads(shadow_assessment))):
                both.findings[pair.finding].add(pair)
                if pair.differs:
                    both.differing.append(pair)
    engine.dispose()
    for both in found.values():
        both.differing.sort(key=lambda pair: -pair.distance)
    return dict(found)


def pairs(visit_id: str, served: Assessment, shadow: Assessment) -> Iterator[Pair]:
    """Each finding and file in the shadow's answer, with the answer of the visit to the same."""
    for organ, answer in shadow.organs.items():
        in_shadow = {found.name: found for found in answer.findings}
        in_service = {found.name: found for found in served.organs[organ].findings} if organ in served.organs else {}
        for name in dict.fromkeys([*in_service, *in_shadow]):
            yield Pair(visit_id, name, _answer(in_service.get(name)), _answer(in_shadow.get(name)))
    accepted = {posted.index: posted.accepted for posted in served.inputs}
    for posted in shadow.inputs:
        if posted.index in accepted:
            answers = FindingAnswer(accepted[posted.index]), FindingAnswer(posted.accepted)
            yield Pair(visit_id, ACCEPTED, *answers)


def _answer(found: FoundFinding | None) -> FindingAnswer | None:
    if found is None:
        return None
    return FindingAnswer(found.positive if found.probability is not None else str(found.value), found.probability)
