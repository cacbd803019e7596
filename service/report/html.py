"""The report as one page of HTML: nothing of it is fetched, nothing of it runs, and it prints on one sheet of A4."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from data_specs.visit.report import Report
from data_specs.vocabulary import Language
from service.report.sheet import FindingRow, Sheet, sheet
from service.report.words import say

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Picture:
    """A film with its heatmap or a trace, inline. ``index``: of the posted file."""

    index: int
    title: str
    src: str


def render(report: Report, language: Language, *, pictures: Mapping[int, bytes] | None = None) -> bytes:
    """UTF-8 HTML.

    Parameters
    ----------
    pictures
        PNG by index of the input that it shows: the film with its heatmap, the trace with its evidence. Small ones: the
        page carries them.
    """
    told = sheet(report, language)
    page = _template().render(
        language=language,
        report=report,
        sheet=told,
        say=partial(say, language=language),
        data=data,
        number=number,
        zip=zip,
        pictures=_pictures(told, pictures or {}),
        style=Markup(_style()),  # noqa: S704  our own file
        policy=content_security_policy(),
    )
    return page.encode()


@cache
def content_security_policy() -> str:
    """The policy that the page states of itself, and that it is to be served with: its own style, its own pictures.

    References
    ----------
    W3C, Content Security Policy Level 3, section 6.7.3.3 (hashes of inline styles).
    """
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def data(row: FindingRow) -> dict[str, str | None]:
    """A finding's facts as attributes, numbers as the report's JSON writes them; what it has not is left out."""
    finding, point = row.finding, row.finding.operating_point
    return {
        "data-finding": finding.name,
        "data-system": finding.code.system,
        "data-code": finding.code.code,
        "data-value": finding.value if isinstance(finding.value, str) else number(finding.value),
        "data-unit": finding.unit,
        "data-probability": number(finding.probability),
        "data-calibrated": _truth(finding.calibrated),
        "data-positive": _truth(finding.positive),
        "data-point": point.name if point else None,
        "data-threshold": number(point.threshold) if point else None,
        "data-sensitivity": number(point.sensitivity) if point else None,
        "data-specificity": number(point.specificity) if point else None,
        "data-cohort": point.cohort if point else None,
    }


def number(value: float | None) -> str | None:
    return None if value is None else repr(value)


def _truth(value: bool | None) -> str | None:
    return None if value is None else str(value).lower()


def _pictures(told: Sheet, pictures: Mapping[int, bytes]) -> list[Picture]:
    return [
        Picture(
            index=each.posted.index,
            title=f"{each.what}, {each.filename}",
            src="data:image/png;base64," + base64.b64encode(pictures[each.posted.index]).decode(),
        )
        for each in told.inputs
        if each.posted.index in pictures
    ]


@cache
def _style() -> str:
    return (HERE / "report.css").read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html")
