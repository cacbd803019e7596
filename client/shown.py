"""Visits as people and other programs read them: a table, CSV, the text of one visit."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from client.posting import Outcome

ORGANS = ("lung", "cardiac", "kidney")
HEADS = ("visit", "id", "status", "priority", *ORGANS, "remarks")


def rows(outcomes: Iterable[Outcome]) -> list[dict[str, str]]:
    """One row a visit: its state, the category of each organ, what was refused or has to be known."""
    return [_row(outcome.case.name, outcome.visit, outcome.refusal) for outcome in outcomes]


def rows_of_visits(visits: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    """As :func:`rows`, for visits that the service listed; they are called by the person's identifier."""
    return [_row(str(visit["person"].get("id") or "-"), visit, "") for visit in visits]


def _row(name: str, visit: dict[str, Any] | None, refusal: str) -> dict[str, str]:
    row = {
        "visit": name,
        "id": "",
        "status": "refused",
        "priority": "",
        **dict.fromkeys(ORGANS, ""),
        "remarks": refusal,
    }
    if visit is None:
        return row
    problems = {p["message"]: None for each in visit["inputs"] for p in each["problems"] if p["severity"] == "reject"}
    row |= {"id": visit["id"], "status": visit["status"], "priority": visit["priority"], "remarks": " ".join(problems)}
    for name_, organ in visit["organs"].items():
        row[name_] = organ["category"] or organ["status"]
        for found in organ["findings"]:
            value = found["probability"] if found["value"] is None else found["value"]
            row[f"{name_}.{found['name']}"] = "" if value is None else str(value)
    return row


STRENGTHS = {
    "strong": "CLEARLY FLAGGED",
    "flagged": "FLAGGED, to be confirmed",
    "near": "not flagged, close to the limit",
    "below": "not flagged",
    "undecided": "undecided",
}


def table(found: Sequence[dict[str, str]]) -> str:
    """Rows as columns of text."""
    widths = [max(len(head), *(len(row[head]) for row in found)) for head in HEADS[:-1]] if found else [0] * len(HEADS)
    lines = [HEADS, *([row[head] for head in HEADS] for row in found)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]).rstrip()
        for line in lines
    )


def write_csv(found: Sequence[dict[str, str]], out: TextIO) -> None:
    """Rows as CSV, with a column for each finding (``lung.pneumonia``): its probability, or its value."""
    findings = sorted({name for row in found for name in row if "." in name})
    writer = csv.DictWriter(out, [*HEADS, *findings], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)


def text(visit: dict[str, Any]) -> str:
    """One visit as lines of text."""
    lines = [f"Priority: {visit['priority']}"]
    lines += [f"  - {reason['message']}" for reason in visit["priority_reasons"]]
    for name, organ in visit["organs"].items():
        lines += ["", f"{name.upper()}: {organ['status'].replace('_', ' ')}, {organ['category'] or 'no category'}"]
        lines += [f"  {organ['category_basis']['message']}"] if organ["category_basis"] else []
        shown = [found for found in organ["findings"] if not found["alternative"]]
        lines += [f"  {found['display']:<44} {answer(found)}" for found in shown]
        lines += [f"  Not looked for: {', '.join(organ['not_looked_for'])}"] if organ["not_looked_for"] else []
        lines += [f"  - {reason['message']}" for reason in organ["reasons"]]
    lines += ["", "Files:"]
    for posted in visit["inputs"]:
        if posted["field"] != "context":
            used = "used" if posted["accepted"] else "NOT USED"
            lines.append(f"  {posted['filename']:<20} {posted['format'] or '?':<8} {used}")
            lines += [f"    - {problem['message']}" for problem in posted["problems"]]
    lines += ["", "Models: " + ", ".join(f"{m['name']} {m['version']}" for m in visit["models"])]
    lines += ["Decision support, never a diagnosis. A doctor decides."]
    return "\n".join(lines)


def answer(found: dict[str, Any]) -> str:
    """A finding's value with its unit, or what its probability decides, and the probability."""
    if found["probability"] is None:
        value = f"{found['value']:g}" if isinstance(found["value"], float) else found["value"]
        return f"{value} {found['unit'] or ''}".rstrip()
    if found["strength"] is None:
        return f"{found['probability']:>6.1%}"
    if found["name"] == "normal_ecg" and found["positive"] is not None:
        return f"{found['probability']:>6.1%}  {'looks normal' if found['positive'] else 'does not look normal'}"
    return f"{found['probability']:>6.1%}  {STRENGTHS[found['strength']]}"
