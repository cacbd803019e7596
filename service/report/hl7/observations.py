"""The observations of an HL7 v2 result: an OBX for each fact of the report, with sentences as text and notes.

References
----------
HL7 v2.5.1, chapter 7: OBX (7.4.2), tables 0078, 0085. DICOM PS3.16, DCM 113014 (DICOM Study), as IHE RAD sends it in an
OBX.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from data_specs.dicom.uids import is_uid
from data_specs.visit.opinion import Opinion
from data_specs.visit.report import Report, ReportFinding, ReportInput
from data_specs.vocabulary import Language, display, is_reassuring, terms
from service.language.texts import category_words, opening, text
from service.protocols.er7 import composed, escaped, line, segment
from service.report.hl7.values import NO_UNIT, coded, moment, notes, number, own_code, term, unit
from service.report.words import (
    colon,
    conclusion,
    finding_sentence,
    input_problems,
    next_step,
    opinion_sentences,
    organ_reasons,
    point_sentence,
    say,
    sought,
    source_of,
)

LOCAL = "L"
"""Table 0301: a universal id of a local kind; ``ISO`` is an OID."""
NOT_OBTAINED = "X"
"""Table 0085: results cannot be obtained for this observation."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One OBX with its notes (NTE). All members except ``notes`` are already escaped.

    Parameters
    ----------
    kind
        Data type of the value (OBX-2).
    about
        OBX-4, which differs between observations of one code.
    range, flag
        Normal range (OBX-7), and ``N`` or ``A``: normal or abnormal (OBX-8).
    status
        OBX-11; empty: that of the report.
    """

    kind: str
    code: str
    value: str
    about: str = ""
    unit: str = ""
    range: str = ""
    flag: str = ""
    status: str = ""
    at: str = ""
    observer: str = ""
    notes: tuple[str, ...] = ()

    def segments(self, number: int, status: str) -> list[str]:
        """The segments: OBX with this number and the report's ``status``, then its notes."""
        fields = {
            1: str(number),
            2: self.kind,
            3: self.code,
            4: self.about,
            5: self.value,
            6: self.unit,
            7: self.range,
            8: self.flag,
            11: self.status or status,
            14: self.at,
            16: self.observer,
        }
        return [segment("OBX", fields), *notes(*self.notes)]


def observations(report: Report, language: Language) -> Iterator[Observation]:
    """Every fact of the report; the most important first."""
    version = own_code("report_version", say("report_version", language))
    yield Observation("NM", version, str(report.version), unit=unit(NO_UNIT))
    study = composed("113014", "DICOM Study", "DCM")
    uid = report.study_instance_uid
    yield Observation("HD", study, composed("", line(uid), "ISO" if is_uid(uid) else LOCAL))
    level = text(f"priority_{report.priority}", language)
    reasons = tuple(opening(reason.message(language)) for reason in report.priority_reasons)
    priority = own_code("priority", say("priority", language))
    yield Observation("CWE", priority, own_code(report.priority, level), notes=reasons)
    yield from _conclusions(report, language)
    for finding in report.findings:
        yield _finding(finding, language)
    yield from _categories(report, language)
    unassessed = own_code("not_assessed", say("section_not_assessed", language))
    for organ in report.organs:
        if reasons := tuple(organ_reasons(report, organ, language)):
            sentence = f"{opening(display(organ, language))}{colon(language)} {' '.join(reasons)}"
            yield Observation("TX", unassessed, escaped(sentence), about=organ, status=NOT_OBTAINED)
    steps = own_code("next_step", say("section_next_steps", language))
    for n, step in enumerate(report.next_steps, 1):
        yield Observation(
            "TX", steps, escaped(next_step(step, language)), about=str(n), notes=(source_of(step, language),)
        )
    for opinion in report.opinions:
        yield _opinion(opinion, language)
    for posted in report.inputs:
        yield _input(posted, language)
    models = own_code("model", say("section_models", language))
    for n, model in enumerate(report.models, 1):
        version_and_hash = f"{model.name} {model.version} sha256:{model.sha256}"
        yield Observation("TX", models, escaped(version_and_hash), about=str(n))
    yield Observation("TX", own_code("decision_support"), escaped(say("decision_support", language)))


def _conclusions(report: Report, language: Language) -> Iterator[Observation]:
    """Each finding that holds after all opinions as a code, then the conclusion as a sentence."""
    code = own_code("conclusion", say("section_conclusion", language))
    for n, name in enumerate(report.conclusions, 1):
        yield Observation("CWE", code, term(name, language), about=str(n))
    sentence = own_code("conclusion_text", say("section_conclusion", language))
    yield Observation("TX", sentence, escaped(conclusion(report, language)))


def _finding(finding: ReportFinding, language: Language) -> Observation:
    """A measured value, or a probability. The normal range of a probability is below its threshold.

    A reassuring finding, such as a normal ECG, is the other way round: normal is at or above its threshold.
    """
    code = coded(finding.code, display(finding.name, language))
    sentences = tuple(filter(None, (finding_sentence(finding, language), point_sentence(finding, language))))
    reassuring = is_reassuring(finding.name)
    flag = "" if finding.positive is None else "A" if finding.positive is not reassuring else "N"
    if finding.value is not None or finding.probability is None:
        kind, value = _value(finding.value, language)
        status = "" if value else NOT_OBTAINED
        return Observation(kind, code, value, unit=unit(finding.unit), flag=flag, status=status, notes=sentences)
    point = finding.operating_point
    normal = f"{'>=' if reassuring else '<'}{number(point.threshold)}" if point and finding.positive is not None else ""
    value = number(finding.probability)
    return Observation("NM", code, value, unit=unit(NO_UNIT), range=normal, flag=flag, notes=sentences)


def _categories(report: Report, language: Language) -> Iterator[Observation]:
    """Each assessed organ's category, what it rests on, and what was looked for and what was not."""
    code = own_code("category", say("sr_category", language))
    for name, organ in report.organs.items():
        basis = [organ.category_basis.message(language)] if organ.category_basis else []
        sentences = (*basis, *sought(organ, language))
        if organ.category is not None:
            words = category_words(name, organ.category, language)
            yield Observation("CWE", code, own_code(organ.category, words), about=name, notes=sentences)
        elif sentences:
            yield Observation("CWE", code, "", about=name, status=NOT_OBTAINED, notes=sentences)


def _value(value: float | str | None, language: Language) -> tuple[str, str]:
    """Data type and text of a measured value. A term of the vocabulary is coded, with the value as original text."""
    if value is None:
        return "", ""
    if not isinstance(value, str):
        return "NM", number(value)
    if value in terms():
        return "CWE", composed(term(value, language), *[""] * 5, line(value))
    return "ST", line(value)


def _opinion(opinion: Opinion, language: Language) -> Observation:
    return Observation(
        "FT",
        own_code("opinion", say("section_opinions", language)),
        escaped("\n".join(opinion_sentences(opinion, language))),
        about=str(opinion.number),
        at=moment(opinion.signed_at),
        observer=composed(line(opinion.author.id), line(opinion.author.name)),
    )


def _input(posted: ReportInput, language: Language) -> Observation:
    """A posted file by its hash and not by its name, which may hold a person's name."""
    used = "input_warned" if posted.problems else "input_accepted"
    parts = [
        f"{text(f'field_{posted.field}', language)} {posted.index + 1}",
        posted.format or "",
        text(used if posted.accepted else "input_refused", language),
        f"sha256:{posted.sha256}",
    ]
    code = own_code("input", say("section_inputs", language))
    problems = tuple(input_problems(posted, language))
    return Observation("TX", code, escaped(", ".join(filter(None, parts))), about=str(posted.index), notes=problems)
