"""What stands on the report's page, in words and in order: the one content of the page on screen and on paper.

What the reader is to see first stands first: whether a doctor has signed, how pressing it is and why, what stands, what
to do, what doctors said; then the findings with their numbers, what was not assessed, what was looked at, by what.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from data_specs.next_steps.table import REASSURING
from data_specs.visit.context import Lab
from data_specs.visit.contract import Code, ModelUsed, Organ
from data_specs.visit.opinion import Opinion
from data_specs.visit.report import NextStep, Report, ReportFinding, ReportInput
from data_specs.vocabulary import SYSTEMS, Language, display, terms
from service.language.texts import age, measured, opening, text
from service.report import words
from service.report.words import say

SYSTEM_NAMES = {SYSTEMS["sct"]: "SNOMED CT", SYSTEMS["loinc"]: "LOINC", SYSTEMS["own"]: "Sàng Lọc"}
SHORT_SHA = 12


@dataclass(frozen=True)
class Labelled:
    label: str
    text: str


@dataclass(frozen=True)
class FindingRow:
    """One finding.

    Parameters
    ----------
    mark
        ``above``, ``below``, or empty where nothing decides.
    stands_out
        Positive, and no good news.
    notes
        Threshold and cohort; what doctors said of it.
    """

    finding: ReportFinding
    name: str
    code: str
    result: str
    mark: str
    stands_out: bool
    verdict: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class OrganRows:
    organ: Organ
    title: str
    category: str
    rows: tuple[FindingRow, ...]


@dataclass(frozen=True)
class Reserve:
    """Why an organ was not assessed, or with which reserves it was."""

    organ: Organ
    assessed: bool
    title: str
    reasons: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Step:
    """``lead``: what to do and how soon; together with ``rest`` it is the sentence."""

    step: NextStep
    lead: str
    rest: str
    source: str


@dataclass(frozen=True)
class Signed:
    opinion: Opinion
    signature: str
    said: tuple[str, ...]


@dataclass(frozen=True)
class Looked:
    posted: ReportInput
    what: str
    filename: str
    use: str
    reserves: tuple[str, ...]


@dataclass(frozen=True)
class Model:
    model: ModelUsed
    text: str


@dataclass(frozen=True)
class Sheet:
    title: str
    colon: str
    status: str
    version: str
    decision_support: str
    footer: str
    person: tuple[Labelled, ...]
    asked: tuple[Labelled, ...]
    priority: str
    priority_reasons: tuple[str, ...]
    conclusion: str
    steps: tuple[Step, ...]
    opinions: tuple[Signed, ...]
    organs: tuple[OrganRows, ...]
    reserves: tuple[Reserve, ...]
    inputs: tuple[Looked, ...]
    values: tuple[Labelled, ...]
    models: tuple[Model, ...]


def sheet(report: Report, language: Language) -> Sheet:
    """The content of a report's page in ``language``."""
    return Sheet(
        title=say("title", language),
        colon=words.colon(language),
        status=say(f"status_{report.status}", language),
        version=say("version", language, version=report.version, issued=words.day_and_time(report.issued_at)),
        decision_support=say("decision_support", language),
        footer=say("page_visit_version", language, visit=report.visit, version=report.version),
        person=_person(report, language),
        asked=_asked(report, language),
        priority=text(f"priority_{report.priority}", language),
        priority_reasons=tuple(opening(each.message(language)) for each in report.priority_reasons),
        conclusion=words.conclusion(report, language),
        steps=tuple(_step(each, language) for each in report.next_steps),
        opinions=tuple(_signed(each, language) for each in report.opinions),
        organs=tuple(_organ(report, name, language) for name, organ in report.organs.items() if organ.findings),
        reserves=tuple(
            _reserve(report, name, language) for name, organ in report.organs.items() if _open(report, name)
        ),
        inputs=tuple(_looked(each, language) for each in report.inputs),
        values=_values(report, language),
        models=tuple(Model(each, f"{each.name} {each.version} ({each.sha256[:SHORT_SHA]})") for each in report.models),
    )


def plain(free: str) -> str:
    """What somebody wrote, as it may be shown: accents composed, no control character, no change of direction.

    References
    ----------
    Unicode Standard Annex 15 (NFC) and 9 (explicit directional formatting characters).
    """
    composed = unicodedata.normalize("NFC", free.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " "))
    turned = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
    return "".join(c for c in composed if c == "\n" or not (unicodedata.category(c) in ("Cc", "Cs") or c in turned))


def _given(*pairs: tuple[str, str | None], language: Language) -> tuple[Labelled, ...]:
    return tuple(Labelled(say(key, language), plain(value)) for key, value in pairs if value)


def _person(report: Report, language: Language) -> tuple[Labelled, ...]:
    person = report.person
    sex = text(f"sex_{person.sex or 'unknown'}", language)
    return _given(
        ("page_name", person.name),
        ("page_identifier", person.id or text("no_person_id", language)),
        ("page_age_and_sex", f"{age(person.age_years, language)}, {sex}"),
        ("page_born", person.birth_date.isoformat() if person.birth_date else None),
        ("page_visited_on", report.visited_on.isoformat() if report.visited_on else None),
        language=language,
    )


def _asked(report: Report, language: Language) -> tuple[Labelled, ...]:
    referrer, order = report.referrer, report.order
    by = ", ".join(each for each in (referrer.name, referrer.facility, referrer.id) if each) if referrer else None
    numbers = ", ".join(each for each in (order.placer, order.accession_number, order.request) if each) if order else ""
    return _given(
        ("page_referrer", by),
        ("page_site", report.site),
        ("page_order", numbers),
        ("page_reason_asked", order.reason if order else None),
        language=language,
    )


def _step(step: NextStep, language: Language) -> Step:
    lead, colon, rest = words.next_step(step, language).partition(f"{words.colon(language)} ")
    return Step(step, lead + colon.rstrip(), rest, say("page_source", language, source=step.source))


def _signed(opinion: Opinion, language: Language) -> Signed:
    signature, *said = words.opinion_sentences(opinion, language)
    return Signed(opinion, plain(signature), tuple(map(plain, said)))


def _organ(report: Report, name: Organ, language: Language) -> OrganRows:
    organ = report.organs[name]
    return OrganRows(
        organ=name,
        title=text(f"organ_{name}", language),
        category=text(f"category_{organ.category}", language) if organ.category else "",
        rows=tuple(_row(report, finding, language) for finding in organ.findings),
    )


def _row(report: Report, finding: ReportFinding, language: Language) -> FindingRow:
    mark = "" if finding.positive is None else "above" if finding.positive else "below"
    stands_out = bool(finding.positive) and finding.name not in REASSURING
    judged = [
        f"{opinion.author.name}{words.colon(language)} {say(f'verdict_{given.verdict}', language)}"
        for opinion in report.opinions
        for given in opinion.judgements
        if given.finding == finding.name
    ]
    return FindingRow(
        finding=finding,
        name=opening(display(finding.name, language)),
        code=coded(finding.code),
        result=result(finding, language),
        mark=mark,
        stands_out=stands_out,
        verdict=text(f"{mark}_threshold", language) if mark else "",
        notes=tuple(plain(opening(each)) for each in (*_threshold(finding, language), *judged)),
    )


def coded(code: Code) -> str:
    """A code with the name of its system; of a system that is not known here, its address."""
    return f"{SYSTEM_NAMES.get(code.system, code.system)} {code.code}"


def result(finding: ReportFinding, language: Language) -> str:
    """The number of a finding as every rendering says it."""
    if finding.value is not None:
        return " ".join(measured(finding.value, finding.unit, language)).rstrip()
    return "" if finding.probability is None else words.percent(finding.probability, language)


def _threshold(finding: ReportFinding, language: Language) -> list[str]:
    if finding.probability is None:
        return []
    if finding.calibrated is False:
        return [say("page_not_calibrated", language)]
    point = finding.operating_point
    if point is None:
        return []
    threshold = words.percent(point.threshold, language)
    known = words.point_sentence(finding, language) or point.cohort
    return [f"{say('page_threshold_at', language, threshold=threshold, point=point.name)}; {known}"]


def _open(report: Report, name: Organ) -> bool:
    return report.organs[name].status == "not_assessed" or bool(report.organs[name].reasons)


def _reserve(report: Report, name: Organ, language: Language) -> Reserve:
    organ = report.organs[name]
    assessed = organ.status == "assessed"
    title = text(f"organ_{name}", language)
    return Reserve(
        organ=name,
        assessed=assessed,
        title=title if assessed else f"{title}{words.colon(language)} {text('not_assessed', language).lower()}",
        reasons=tuple((each.code, plain(opening(each.message(language)))) for each in organ.reasons),
    )


def _looked(posted: ReportInput, language: Language) -> Looked:
    use = "input_refused" if not posted.accepted else "input_warned" if posted.problems else "input_accepted"
    return Looked(
        posted=posted,
        what=" · ".join(each for each in (text(f"field_{posted.field}", language), posted.format) if each),
        filename=plain(posted.filename),
        use=text(use, language),
        reserves=tuple(map(plain, words.input_reserves(posted, language))),
    )


def _values(report: Report, language: Language) -> tuple[Labelled, ...]:
    vitals = report.vitals.model_dump(exclude_none=True).items()
    known = [] if report.conditions is None else [display(each, language) for each in report.conditions]
    return (
        *(Labelled(opening(display(lab.name, language)), plain(_lab(lab, language))) for lab in report.labs),
        *(
            Labelled(opening(display(name, language)), " ".join(measured(value, _vital_unit(name), language)))
            for name, value in vitals
        ),
        *_given(("page_conditions", ", ".join(known)), language=language),
    )


def _lab(lab: Lab, language: Language) -> str:
    """As the laboratory wrote it; the value that was computed with stands among the findings."""
    written = f"{lab.value:.6g}"
    return f"{written if language == 'en' else written.replace('.', ',')} {lab.unit}".rstrip()


def _vital_unit(name: str) -> str | None:
    unit = terms()[name].unit
    return {"mm[Hg]": "mmHg", "Cel": "°C", "kg/m2": "kg/m²"}.get(unit or "", unit)
