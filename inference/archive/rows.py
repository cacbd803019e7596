"""The rows of the archive: one for each finding of a case, one without a finding where an organ was not assessed.

A row repeats what is true of its whole case, which Parquet stores once for many rows. So each question that is asked of
an archive (how many are positive, which persons, how do two versions differ) is one condition on rows, in pandas and in
SQL, and no list has to be taken apart. ``count(distinct input)`` counts cases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import pyarrow as pa  # type: ignore[import-untyped]

from data_specs.fields import FileField
from data_specs.problems import Problem
from data_specs.visit.assessment import AssessedOrgan, Assessment, FoundFinding, is_recalled
from data_specs.visit.contract import FIELD_OF_ORGAN

Row = dict[str, Any]

_PROBLEM = [(name, pa.string()) for name in ("code", "severity", "found", "expected")]
SCHEMA = pa.schema(
    [
        ("day", pa.date32()),
        ("site", pa.string()),
        ("input", pa.string()),
        ("seen", pa.string()),
        ("sha256", pa.list_(pa.string())),
        ("file", pa.string()),
        ("visit", pa.string()),
        ("person", pa.string()),
        ("organ", pa.string()),
        ("status", pa.string()),
        ("refused", pa.bool_()),
        ("bundle", pa.string()),
        ("version", pa.string()),
        ("gate", pa.string()),
        ("finding", pa.string()),
        ("probability", pa.float64()),
        ("positive", pa.bool_()),
        ("recalled", pa.bool_()),
        ("strength", pa.string()),
        ("use", pa.string()),
        ("operating_point", pa.string()),
        ("threshold", pa.float64()),
        ("likelihood_ratio", pa.float64()),
        ("calibrated", pa.bool_()),
        ("value", pa.float64()),
        ("unit", pa.string()),
        ("category", pa.string()),
        ("problems", pa.list_(pa.struct([("file", pa.int16()), *_PROBLEM]))),
        ("reasons", pa.list_(pa.struct(_PROBLEM))),
    ]
)
"""Columns of a part. Day and site are in the rows, not only in the folders' names: pandas reads no null from a name."""
GATE, GATED = "cxr_gate", "lung"


class Partition(NamedTuple):
    """Day and site of a case, which are the folder of its rows; ``None``: not stated."""

    day: date | None
    site: str | None


class Versions(NamedTuple):
    """What an organ's row was computed with; ``gate``: the version of the gate before it, where it has one."""

    bundle: str
    version: str
    gate: str | None


def versions_of(bundles: Mapping[str, str]) -> dict[str, Versions]:
    """Versions by organ, from the version of each bundle; bundles of organs are named like them."""
    return {
        organ: Versions(organ, bundles[organ], bundles[GATE] if organ == GATED else None) for organ in FIELD_OF_ORGAN
    }


def rows_of(
    found: Assessment, fields: Sequence[FileField], versions: Mapping[str, Versions], of_case: Mapping[str, Any]
) -> list[Row]:
    """Rows of one case.

    Parameters
    ----------
    fields
        Whether each file was a film or a recording.
    of_case
        What is the same in all rows: from ``day`` to ``person``.
    """
    rows: list[Row] = []
    for name, field in FIELD_OF_ORGAN.items():
        if field not in fields:
            continue
        organ = found.organs[name]
        inputs = [each for each in found.inputs if fields[each.index] == field]
        of_organ = {
            **dict.fromkeys(SCHEMA.names),
            **of_case,
            "organ": name,
            "status": organ.status,
            "refused": not all(each.accepted for each in inputs),
            **versions[name]._asdict(),
            "category": organ.category,
            "problems": [{"file": each.index, **_as_row(problem)} for each in inputs for problem in each.problems],
            "reasons": [_as_row(problem) for problem in organ.reasons],
        }
        rows += [{**of_organ, **each} for each in _findings(organ)]
    return rows


def _findings(organ: AssessedOrgan) -> list[Row]:
    return [_finding(found) for found in organ.findings] or [{}]


def _finding(found: FoundFinding) -> Row:
    point = found.operating_point
    return {
        "finding": found.name,
        "probability": found.probability,
        "positive": found.positive,
        "recalled": is_recalled(found),
        "strength": found.strength,
        "use": found.use,
        "operating_point": point.name if point else None,
        "threshold": point.threshold if point else None,
        "likelihood_ratio": found.likelihood_ratio,
        "calibrated": found.calibrated,
        "value": found.value if isinstance(found.value, float | int) else None,
        "unit": found.unit,
    }


def refusals(rows: Iterable[Row]) -> list[tuple[int, Problem]]:
    """Why files of a case were not used, each reason once, with the place of the file among the case's files."""
    told = {
        Problem(each["code"], "reject", each["found"], each["expected"]): each["file"]
        for row in rows
        for each in reversed(row["problems"])
        if each["severity"] == "reject"
    }
    return [(index, problem) for problem, index in told.items()]


def _as_row(problem: Problem) -> dict[str, str]:
    return {name: getattr(problem, name) for name, _ in _PROBLEM}
