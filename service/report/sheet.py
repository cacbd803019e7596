"""The text of the report's page, in reading order. The HTML page and the PDF show the same content.

The most important comes first: whether a doctor has signed, the priority and its reasons, the conclusion, what to do
next, what was not assessed, and the doctors' opinions. Then follow the findings with their numbers, the pictures, the
posted files, the posted values, and the models.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import UTC, tzinfo

from data_specs.visit.context import Context, Lab
from data_specs.visit.contract import Code, ModelUsed, Organ
from data_specs.visit.next_step import NextStep
from data_specs.visit.opinion import Opinion
from data_specs.visit.report import Report, ReportFinding, ReportInput, ReportOrgan
from data_specs.vocabulary import SYSTEMS, Language, display, is_reassuring, terms, with_unit
from service.language.texts import age, category_words, opening, quantity, text, verdict
from service.language.zone import day_and_time
from service.report import words
from service.report.words import say

SYSTEM_NAMES = {SYSTEMS["sct"]: "SNOMED CT", SYSTEMS["loinc"]: "LOINC", SYSTEMS["own"]: "Sàng Lọc"}
SHORT_SHA = 12


@dataclass(frozen=True)
class LabelledText:
    label: str
    text: str


@dataclass(frozen=True)
class FindingLine:
    """One finding.

    Parameters
    ----------
    mark
        ``above`` or ``below`` the threshold; empty if the machine did not decide.
    stands_out
        The finding is positive and is not a reassuring one, such as a normal ECG.
    notes
        The threshold and its cohort, then each doctor's verdict.
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
class OrganLines:
    """One organ. ``basis`` says what its category rests on, ``sought`` what was looked for and what was not."""

    organ: Organ
    title: str
    category: str
    basis: str
    sought: tuple[str, ...]
    findings: tuple[FindingLine, ...]


@dataclass(frozen=True)
class Limitation:
    """Why an organ was not assessed, or what limits its assessment.

    Parameters
    ----------
    reasons
        Code and sentence of each reason.
    """

    organ: Organ
    assessed: bool
    title: str
    reasons: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class StepLine:
    """One next step. ``lead`` says what to do and how soon, and ``rest`` is the rest of the sentence."""

    step: NextStep
    lead: str
    rest: str
    source: str


@dataclass(frozen=True)
class OpinionLine:
    """One signed opinion. ``signature`` says who signed and when, and ``sentences`` say what."""

    opinion: Opinion
    signature: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class InputLine:
    """One posted file.

    Parameters
    ----------
    kind
        Film or recording, and its format.
    use
        Whether the file was accepted.
    problems
        Why it was refused, or what limits its use.
    """

    posted: ReportInput
    kind: str
    filename: str
    use: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class ModelLine:
    model: ModelUsed
    text: str


@dataclass(frozen=True)
class Sheet:
    """The whole page, from top to bottom. ``colon`` is the colon as the page's language sets it."""

    title: str
    colon: str
    status: str
    version: str
    decision_support: str
    footer: str
    person: tuple[LabelledText, ...]
    order: tuple[LabelledText, ...]
    priority: str
    priority_reasons: tuple[str, ...]
    conclusion: str
    steps: tuple[StepLine, ...]
    opinions: tuple[OpinionLine, ...]
    organs: tuple[OrganLines, ...]
    limitations: tuple[Limitation, ...]
    inputs: tuple[InputLine, ...]
    values: tuple[LabelledText, ...]
    models: tuple[ModelLine, ...]


def make_sheet(report: Report, language: Language, zone: tzinfo = UTC) -> Sheet:
    """The content of a report's page in ``language``, with its times in ``zone``."""
    return Sheet(
        title=say("title", language),
        colon=words.colon(language),
        status=say(f"status_{report.status}", language),
        version=say("version", language, version=report.version, issued=day_and_time(report.issued_at, zone)),
        decision_support=say("decision_support", language),
        footer=say("page_visit_version", language, visit=report.visit, version=report.version),
        person=_person(report, language),
        order=_order(report, language),
        priority=text(f"priority_{report.priority}", language),
        priority_reasons=tuple(opening(reason.message(language)) for reason in report.priority_reasons),
        conclusion=words.findings_that_hold(report, language),
        steps=tuple(_step(step, language) for step in report.next_steps),
        opinions=tuple(_opinion(opinion, language, zone) for opinion in report.opinions),
        organs=tuple(_organ(report, name, language) for name, organ in report.organs.items() if organ.findings),
        limitations=tuple(
            _limitation(name, organ, language)
            for name, organ in report.organs.items()
            if organ.status == "not_assessed" or organ.reasons
        ),
        inputs=tuple(_input(posted, language) for posted in report.inputs),
        values=posted_values(report, language),
        models=tuple(_model(model) for model in report.models),
    )


def outlined(report: Report, index: int) -> tuple[ReportFinding, ...]:
    """The flagged findings with a heatmap on the film ``index``, in the order in which their outlines are numbered."""
    return tuple(
        finding
        for finding in report.findings
        if finding.positive and not is_reassuring(finding.name)
        if any(evidence.kind == "heatmap" and evidence.input == index for evidence in finding.evidence)
    )


def picture_caption(report: Report, line: InputLine, language: Language) -> str:
    """Film or recording, its file, and what its numbered outlines are."""
    names = [
        f"{n} {display(finding.name, language)}" for n, finding in enumerate(outlined(report, line.posted.index), 1)
    ]
    said = f"{line.kind}, {line.filename}"
    return f"{said}. {say('page_outlines', language, findings=', '.join(names))}" if names else said


def plain(free: str) -> str:
    """Free text that is safe to show: accents composed, no control character, no change of writing direction.

    References
    ----------
    Unicode Standard Annex 15 (NFC) and 9 (explicit directional formatting characters).
    """
    composed = unicodedata.normalize("NFC", free.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " "))
    forbidden = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
    return "".join(c for c in composed if c == "\n" or not (unicodedata.category(c) in ("Cc", "Cs") or c in forbidden))


def _labelled(*pairs: tuple[str, str | None], language: Language) -> tuple[LabelledText, ...]:
    """Each value under the words of its key; a value that is not known is left out."""
    return tuple(LabelledText(say(key, language), plain(value)) for key, value in pairs if value)


def _person(report: Report, language: Language) -> tuple[LabelledText, ...]:
    person = report.person
    sex = text(f"sex_{person.sex or 'unknown'}", language)
    return _labelled(
        ("page_name", person.name),
        ("page_identifier", person.id or text("no_person_id", language)),
        ("page_age_and_sex", f"{age(person.age_years, language)}, {sex}"),
        ("page_born", person.birth_date.isoformat() if person.birth_date else None),
        ("page_visited_on", report.visited_on.isoformat() if report.visited_on else None),
        language=language,
    )


def _order(report: Report, language: Language) -> tuple[LabelledText, ...]:
    referrer, order = report.referrer, report.order
    doctor = ", ".join(each for each in (referrer.name, referrer.facility, referrer.id) if each) if referrer else None
    numbers = ", ".join(each for each in (order.placer, order.accession_number, order.request) if each) if order else ""
    return _labelled(
        ("page_referrer", doctor),
        ("page_site", report.site),
        ("page_order", numbers),
        ("page_reason_asked", order.reason if order else None),
        language=language,
    )


def _step(step: NextStep, language: Language) -> StepLine:
    lead, colon, rest = words.next_step(step, language).partition(f"{words.colon(language)} ")
    return StepLine(
        step, lead + colon.rstrip(), rest, say("page_source", language, source=words.source_of(step, language))
    )


def _opinion(opinion: Opinion, language: Language, zone: tzinfo) -> OpinionLine:
    signature, *sentences = words.opinion_sentences(opinion, language, zone)
    return OpinionLine(opinion, plain(signature), tuple(map(plain, sentences)))


def _organ(report: Report, name: Organ, language: Language) -> OrganLines:
    organ = report.organs[name]
    return OrganLines(
        organ=name,
        title=text(f"organ_{name}", language),
        category=category_words(name, organ.category, language) if organ.category else "",
        basis=organ.category_basis.message(language) if organ.category_basis else "",
        sought=tuple(words.sought(organ, language)),
        findings=tuple(_finding(report, finding, language) for finding in organ.findings if not finding.alternative),
    )


def _finding(report: Report, finding: ReportFinding, language: Language) -> FindingLine:
    mark = "" if finding.positive is None else "above" if finding.positive else "below"
    stands_out = bool(finding.positive) and not is_reassuring(finding.name)
    verdicts = [
        f"{opinion.author.name}{words.colon(language)} {say(f'verdict_{judgement.verdict}', language)}"
        for opinion in report.opinions
        for judgement in opinion.judgements
        if judgement.finding == finding.name
    ]
    return FindingLine(
        finding=finding,
        name=opening(display(finding.name, language)),
        code=code_text(finding.code),
        result=result_text(finding, language),
        mark=mark,
        stands_out=stands_out,
        verdict=verdict(finding, language),
        notes=tuple(plain(opening(each)) for each in (*_threshold(finding, language), *verdicts)),
    )


def code_text(code: Code) -> str:
    """A code after the name of its system; after the system's address where the name is not known here."""
    return f"{SYSTEM_NAMES.get(code.system, code.system)} {code.code}"


def result_text(finding: ReportFinding, language: Language) -> str:
    """A finding's value with its unit, or its probability in per cent."""
    if finding.value is not None:
        return quantity(finding.value, finding.unit, language)
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


def _limitation(name: Organ, organ: ReportOrgan, language: Language) -> Limitation:
    assessed = organ.status == "assessed"
    title = text(f"organ_{name}", language)
    return Limitation(
        organ=name,
        assessed=assessed,
        title=title if assessed else f"{title}{words.colon(language)} {text('not_assessed', language).lower()}",
        reasons=tuple((reason.code, plain(opening(reason.message(language)))) for reason in organ.reasons),
    )


def _input(posted: ReportInput, language: Language) -> InputLine:
    use = "input_refused" if not posted.accepted else "input_warned" if posted.problems else "input_accepted"
    return InputLine(
        posted=posted,
        kind=" · ".join(each for each in (text(f"field_{posted.field}", language), posted.format) if each),
        filename=plain(posted.filename),
        use=text(use, language),
        problems=tuple(map(plain, words.input_problems(posted, language))),
    )


def _model(model: ModelUsed) -> ModelLine:
    return ModelLine(model, f"{model.name} {model.version} ({model.sha256[:SHORT_SHA]})")


def posted_values(given: Report | Context, language: Language) -> tuple[LabelledText, ...]:
    """Laboratory values and vitals as they were posted, and the conditions that were stated."""
    vitals = given.vitals.model_dump(exclude_none=True).items()
    conditions = [display(name, language) for name in given.conditions or ()]
    return (
        *(LabelledText(opening(display(lab.name, language)), plain(_lab(lab, language))) for lab in given.labs),
        *(
            LabelledText(opening(display(name, language)), quantity(value, terms()[name].unit, language))
            for name, value in vitals
        ),
        *_labelled(("page_conditions", ", ".join(conditions)), language=language),
    )


def _lab(lab: Lab, language: Language) -> str:
    """The value as the laboratory wrote it. The value that the machine computed with is shown with the findings."""
    written = f"{lab.value:.6g}"
    return with_unit(written if language == "en" else written.replace(".", ","), lab.unit, language)
