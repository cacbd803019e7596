"""The report as an HL7 v2.5.1 result message (ORU^R01): one OBR, an OBX for each fact, sentences as text and notes.

The bytes are the same whenever the same version is rendered in the same language, the control id (MSH-10) included,
so that a receiver knows a repetition as one.

References
----------
HL7 v2.5.1, chapter 7: ORU^R01 (7.3.1), OBR (7.4.1), OBX (7.4.2), tables 0078, 0085, 0123; chapter 2: MSH (2.15.9),
NTE (2.15.10); chapter 3: PID (3.4.2), PV1 (3.4.3), tables 0001, 0203; chapter 4: ORC (4.5.1).
DICOM PS3.16, DCM 113014 (DICOM Study), as IHE RAD sends it in an OBX.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from data_specs.next_steps.table import REASSURING
from data_specs.visit.context import Referrer
from data_specs.visit.contract import Code
from data_specs.visit.opinion import Author, Opinion
from data_specs.visit.report import Report, ReportFinding, ReportInput, identifier
from data_specs.vocabulary import SYSTEMS, Language, display, term_of, terms
from service.language.texts import opening, text
from service.protocols.er7 import OUR_APPLICATION, OWN_SYSTEM, composed, encoded, escaped, line, segment
from service.report.words import (
    colon,
    conclusion,
    day_and_time,
    finding_sentence,
    input_problems,
    next_step,
    opinion_sentences,
    organ_reasons,
    point_sentence,
    say,
)

RESULT_STATUS = {"preliminary": "P", "final": "F", "amended": "C"}
"""Tables 0123 (OBR-25) and 0085 (OBX-11); C: replaces the result that was sent before."""
NOT_OBTAINED = "X"
"""Table 0085: results cannot be obtained for this observation."""
SEXES = {"female": "F", "male": "M", "other": "O", "unknown": "U", None: ""}
SYSTEM_NAMES = {SYSTEMS["sct"]: "SCT", SYSTEMS["loinc"]: "LN", SYSTEMS["own"]: OWN_SYSTEM}
"""Table 0396."""
CONTROL_ID_BYTES = 12
"""96 bits; base 32 writes them in the 20 characters that MSH-10 has."""
NO_UNIT = "1"
"""UCUM's unity, for a probability."""


def render(report: Report, language: Language) -> bytes:
    """One version of a report as one message, in UTF-8.

    Parameters
    ----------
    language
        Of names and sentences; codes and numbers are the same in each.
    """
    return encoded(
        [
            _header(report, language),
            *_person(report, language),
            _visit(report),
            _order(report),
            _request(report, language),
            *_notes(
                say("title", language),
                say("version", language, version=report.version, issued=day_and_time(report.issued_at)),
                say(f"status_{report.status}", language),
            ),
            *(
                each
                for number, observation in enumerate(_observations(report, language), 1)
                for each in observation.segments(number, RESULT_STATUS[report.status])
            ),
        ]
    )


def control_id(report: Report, language: Language) -> str:
    """MSH-10: of this version in this language, whenever it is rendered."""
    made = identifier(report.visit, report.version, "hl7", language)
    return base64.b32encode(made.bytes[:CONTROL_ID_BYTES]).decode().rstrip("=")


# ---------------------------------------------------------------- who, for whom, what was asked
def _header(report: Report, language: Language) -> str:
    return segment(
        "MSH",
        {
            3: OUR_APPLICATION,
            4: line(report.site),
            7: _moment(report.issued_at),
            9: "ORU^R01^ORU_R01",
            10: control_id(report, language),
            11: "P",
            12: "2.5.1",
            18: "UNICODE UTF-8",
            19: composed(language, "", "ISO639"),
        },
    )


def _person(report: Report, language: Language) -> list[str]:
    """PID; where nothing is known of the person, what the standard wants in its required fields."""
    person = report.person
    known = composed(line(person.id), "", "", line(report.site), "PI") if person.id else ""
    pid = segment(
        "PID",
        {
            1: "1",
            3: known or composed(report.visit, "", "", OUR_APPLICATION, "VN"),
            5: composed(line(person.name), *[""] * 5, "U") if person.name else "~^^^^^^U",
            7: f"{person.birth_date:%Y%m%d}" if person.birth_date else "",
            8: SEXES[person.sex],
        },
    )
    if person.birth_date or person.age_years is None:
        return [pid]
    return [pid, *_notes(f"{opening(display('age_years', language))}{colon(language)} {_number(person.age_years)}")]


def _visit(report: Report) -> str:
    """PV1; its class (inpatient, outpatient) is not known here."""
    number = composed(report.visit, "", "", OUR_APPLICATION, "VN")
    return segment("PV1", {1: "1", 2: "U", 8: _referrer(report.referrer), 19: number})


def _placer(report: Report) -> str:
    return line((report.order and report.order.placer) or "")


def _filler(report: Report) -> str:
    """The accession number; without one, the visit under our name."""
    accession = report.order and report.order.accession_number
    return line(accession) if accession else composed(report.visit, OUR_APPLICATION)


def _order(report: Report) -> str:
    """ORC; ``RE``: observations follow. ``A``: some results; ``CM``: complete (table 0038)."""
    facility = line((report.referrer and report.referrer.facility) or "")
    status = "A" if report.status == "preliminary" else "CM"
    fields = {1: "RE", 2: _placer(report), 3: _filler(report), 5: status, 12: _referrer(report.referrer), 21: facility}
    return segment("ORC", fields)


def _request(report: Report, language: Language) -> str:
    reason = line((report.order and report.order.reason) or "")
    signed = [_interpreter(each) for each in reversed(report.opinions)]
    return segment(
        "OBR",
        {
            1: "1",
            2: _placer(report),
            3: _filler(report),
            4: _own("screening_report", say("title", language)),
            7: f"{report.visited_on:%Y%m%d}" if report.visited_on else _moment(report.received_at),
            16: _referrer(report.referrer),
            22: _moment(report.issued_at),
            25: RESULT_STATUS[report.status],
            31: composed("", reason),
            32: signed[0] if signed else "",
            33: "~".join(dict.fromkeys(each for each in signed[1:] if each != signed[0])),
        },
    )


def _referrer(referrer: Referrer | None) -> str:
    """XCN: id and name; the name stands undivided where the family's would."""
    return composed(line(referrer.id or ""), line(referrer.name or "")) if referrer else ""


def _author(author: Author) -> str:
    return composed(line(author.id), line(author.name))


def _interpreter(opinion: Opinion) -> str:
    """NDL, whose first component is the doctor with id and name as subcomponents."""
    return composed(line(opinion.author.id), line(opinion.author.name), by="&")


# ---------------------------------------------------------------- what was found
@dataclass(frozen=True, slots=True)
class _Observation:
    """An OBX and the notes to it; every member is escaped already, ``notes`` are not.

    ``about`` (OBX-4) tells apart those of one code.
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
        return [segment("OBX", fields), *_notes(*self.notes)]


def _observations(report: Report, language: Language) -> Iterator[_Observation]:
    """Every fact of the report, in the order in which a reader wants it."""
    version = _own("report_version", say("report_version", language))
    yield _Observation("NM", version, str(report.version), unit=_unit(NO_UNIT))
    study = composed("113014", "DICOM Study", "DCM")
    yield _Observation("HD", study, composed("", line(report.study_instance_uid), "ISO"))
    level = text(f"priority_{report.priority}", language)
    reasons = tuple(opening(each.message(language)) for each in report.priority_reasons)
    priority = _own("priority", say("priority", language))
    yield _Observation("CWE", priority, _own(report.priority, level), notes=reasons)
    yield from _conclusions(report, language)
    for finding in report.findings:
        yield _finding(finding, language)
    unassessed = _own("not_assessed", say("section_not_assessed", language))
    for organ in report.organs:
        if reasons := tuple(organ_reasons(report, organ, language)):
            said = f"{opening(display(organ, language))}{colon(language)} {' '.join(reasons)}"
            yield _Observation("TX", unassessed, escaped(said), about=organ, status=NOT_OBTAINED)
    steps = _own("next_step", say("section_next_steps", language))
    for n, step in enumerate(report.next_steps, 1):
        yield _Observation("TX", steps, escaped(next_step(step, language)), about=str(n), notes=(step.source,))
    for opinion in report.opinions:
        yield _opinion(opinion, language)
    for posted in report.inputs:
        yield _input(posted, language)
    models = _own("model", say("section_models", language))
    for n, model in enumerate(report.models, 1):
        said = f"{model.name} {model.version} sha256:{model.sha256}"
        yield _Observation("TX", models, escaped(said), about=str(n))
    yield _Observation("TX", _own("decision_support"), escaped(say("decision_support", language)))


def _conclusions(report: Report, language: Language) -> Iterator[_Observation]:
    """What stands, coded, and the sentence that says so, or that nothing does."""
    code = _own("conclusion", say("section_conclusion", language))
    for n, name in enumerate(report.conclusions, 1):
        yield _Observation("CWE", code, _term(name, language), about=str(n))
    said = _own("conclusion_text", say("section_conclusion", language))
    yield _Observation("TX", said, escaped(conclusion(report, language)))


def _finding(finding: ReportFinding, language: Language) -> _Observation:
    """A measured value as it is, or a probability with the range below (or from) its threshold as the normal one."""
    code = _coded(finding.code, display(finding.name, language))
    notes = tuple(filter(None, (finding_sentence(finding, language), point_sentence(finding, language))))
    healthy = finding.name in REASSURING
    flag = "" if finding.positive is None else "A" if finding.positive is not healthy else "N"
    if finding.value is not None or finding.probability is None:
        kind, value = _value(finding.value, language)
        status = "" if value else NOT_OBTAINED
        return _Observation(kind, code, value, unit=_unit(finding.unit), flag=flag, status=status, notes=notes)
    point = finding.operating_point
    normal = f"{'>=' if healthy else '<'}{_number(point.threshold)}" if point and finding.positive is not None else ""
    value = _number(finding.probability)
    return _Observation("NM", code, value, unit=_unit(NO_UNIT), range=normal, flag=flag, notes=notes)


def _value(value: float | str | None, language: Language) -> tuple[str, str]:
    """Type and text of a measured value; a word of the vocabulary is coded, with the value itself as original text."""
    if value is None:
        return "", ""
    if not isinstance(value, str):
        return "NM", _number(value)
    if value in terms():
        return "CWE", composed(_term(value, language), *[""] * 5, line(value))
    return "ST", line(value)


def _opinion(opinion: Opinion, language: Language) -> _Observation:
    return _Observation(
        "FT",
        _own("opinion", say("section_opinions", language)),
        escaped("\n".join(opinion_sentences(opinion, language))),
        about=str(opinion.number),
        at=_moment(opinion.signed_at),
        observer=_author(opinion.author),
    )


def _input(posted: ReportInput, language: Language) -> _Observation:
    """What was looked at, by its hash: a file's name may hold a person's."""
    used = "input_warned" if posted.problems else "input_accepted"
    said = [
        f"{text(f'field_{posted.field}', language)} {posted.index + 1}",
        posted.format or "",
        text(used if posted.accepted else "input_refused", language),
        f"sha256:{posted.sha256}",
    ]
    code = _own("input", say("section_inputs", language))
    notes = tuple(input_problems(posted, language))
    return _Observation("TX", code, escaped(", ".join(filter(None, said))), about=str(posted.index), notes=notes)


# ---------------------------------------------------------------- data types
def _notes(*said: str) -> list[str]:
    """NTE segments; ``L``: from the filler of the order (table 0105)."""
    return [segment("NTE", {1: str(n), 2: "L", 3: escaped(each)}) for n, each in enumerate(said, 1)]


def _coded(code: Code, words: str) -> str:
    return composed(line(code.code), line(words), SYSTEM_NAMES.get(code.system, OWN_SYSTEM))


def _term(name: str, language: Language) -> str:
    term = term_of(name)
    return _coded(Code(system=term.system, code=term.code), display(name, language))


def _own(code: str, words: str = "") -> str:
    return composed(code, line(words), OWN_SYSTEM)


def _unit(unit: str | None) -> str:
    return composed(line(unit), "", "UCUM") if unit else ""


def _number(value: float) -> str:
    """NM: digits alone, no exponent."""
    written = format(Decimal(repr(float(value))), "f")
    return written.removesuffix(".0")


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y%m%d%H%M%S}+0000"
