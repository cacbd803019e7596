"""The report as one HTML page without scripts or outside resources. It usually prints on one sheet of A4."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from functools import cache, partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from data_specs.visit.report import Report
from data_specs.vocabulary import Language
from service.report.sheet import FindingLine, Sheet, make_sheet, picture_caption
from service.report.words import say

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Picture:
    """A picture inside the page. ``index`` is that of the posted file, ``src`` a ``data:`` URL."""

    index: int
    title: str
    src: str


@dataclass(frozen=True)
class Bar:
    """What stands above the report on a screen: a note, and addresses with their words. It is not printed."""

    note: str
    links: Mapping[str, str]


def render(
    report: Report,
    language: Language,
    *,
    pictures: Mapping[int, bytes] | None = None,
    bar: Bar | None = None,
    zone: tzinfo = UTC,
) -> bytes:
    """The page as UTF-8 HTML.

    Parameters
    ----------
    pictures
        PNG by index of the posted file: the film with numbered outlines. They become part of the page, so they should
        be small.
    zone
        Of its times.
    """
    sheet = make_sheet(report, language, zone)
    page = _template().render(
        language=language,
        report=report,
        sheet=sheet,
        say=partial(say, language=language),
        data=data,
        number=number,
        zip=zip,
        pictures=_pictures(report, sheet, language, pictures or {}),
        bar=bar,
        style=Markup(_style()),  # noqa: S704  our own file
        policy=content_security_policy(),
    )
    return page.encode()


@cache
def content_security_policy() -> str:
    """The Content-Security-Policy of the page, in a ``meta`` element and as a header: only its own style and pictures.

    References
    ----------
    W3C, Content Security Policy Level 3, section 6.7.3.3 (hashes of inline styles).
    """
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def data(line: FindingLine) -> dict[str, str | None]:
    """A finding's ``data-`` attributes, with numbers as in the report's JSON. ``None``: the attribute is left out."""
    finding, point = line.finding, line.finding.operating_point
    return {
        "data-finding": finding.name,
        "data-system": finding.code.system,
        "data-code": finding.code.code,
        "data-value": finding.value if isinstance(finding.value, str) else number(finding.value),
        "data-unit": finding.unit,
        "data-probability": number(finding.probability),
        "data-calibrated": _boolean(finding.calibrated),
        "data-positive": _boolean(finding.positive),
        "data-point": point.name if point else None,
        "data-threshold": number(point.threshold) if point else None,
        "data-sensitivity": number(point.sensitivity) if point else None,
        "data-specificity": number(point.specificity) if point else None,
        "data-cohort": point.cohort if point else None,
    }


def number(value: float | None) -> str | None:
    return None if value is None else repr(value)


def _boolean(value: bool | None) -> str | None:
    return None if value is None else str(value).lower()


def _pictures(report: Report, sheet: Sheet, language: Language, pictures: Mapping[int, bytes]) -> list[Picture]:
    return [
        Picture(
            index=line.posted.index,
            title=picture_caption(report, line, language),
            src="data:image/png;base64," + base64.b64encode(pictures[line.posted.index]).decode(),
        )
        for line in sheet.inputs
        if line.posted.index in pictures
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
