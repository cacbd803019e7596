"""The report as an HL7 v2.5.1 result message (ORU^R01): person, visit, order and request, then the observations.

The same version in the same language gives the same bytes, including the control id (MSH-10), so that a receiver
recognises a repeated message.

References
----------
HL7 v2.5.1, chapter 7: ORU^R01 (7.3.1), OBR (7.4.1), table 0123; chapter 2: MSH (2.15.9); chapter 3: PID (3.4.2), PV1
(3.4.3), tables 0001, 0203; chapter 4: ORC (4.5.1), table 0038.
"""

from __future__ import annotations

import base64

from data_specs.visit.context import Referrer
from data_specs.visit.opinion import Opinion
from data_specs.visit.report import Report, identifier
from data_specs.vocabulary import Language, display
from service.language.texts import opening
from service.language.zone import day_and_time
from service.protocols.er7 import OUR_APPLICATION, composed, encoded, line, segment
from service.report.hl7.observations import observations
from service.report.hl7.values import moment, notes, number, own_code
from service.report.words import colon, say

RESULT_STATUS = {"preliminary": "P", "final": "F", "amended": "C"}
"""Tables 0123 (OBR-25) and 0085 (OBX-11). C: this result replaces the one that was sent before."""
SEXES = {"female": "F", "male": "M", "other": "O", "unknown": "U", None: ""}
CONTROL_ID_BYTES = 12
"""96 bits. In base 32 they take 20 characters, which is the length of MSH-10."""


def render(report: Report, language: Language) -> bytes:
    """One version of a report as one message in UTF-8.

    Parameters
    ----------
    language
        Of names and sentences. Codes and numbers do not depend on it.
    """
    return encoded(
        [
            _header(report, language),
            *_person(report, language),
            _visit(report),
            _order(report),
            _request(report, language),
            *notes(
                say("title", language),
                say("version", language, version=report.version, issued=day_and_time(report.issued_at)),
                say(f"status_{report.status}", language),
            ),
            *(
                written
                for n, observation in enumerate(observations(report, language), 1)
                for written in observation.segments(n, RESULT_STATUS[report.status])
            ),
        ]
    )


def control_id(report: Report, language: Language) -> str:
    """MSH-10, which depends on visit, version and language only."""
    uuid = identifier(report.visit, report.version, "hl7", language)
    return base64.b32encode(uuid.bytes[:CONTROL_ID_BYTES]).decode().rstrip("=")


def _header(report: Report, language: Language) -> str:
    return segment(
        "MSH",
        {
            3: OUR_APPLICATION,
            4: line(report.site),
            7: moment(report.issued_at),
            9: "ORU^R01^ORU_R01",
            10: control_id(report, language),
            11: "P",
            12: "2.5.1",
            18: "UNICODE UTF-8",
            19: composed(language, "", "ISO639"),
        },
    )


def _person(report: Report, language: Language) -> list[str]:
    """PID, and the age as a note if there is no birth date. PID-3 and PID-5 are required and never empty."""
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
    return [pid, *notes(f"{opening(display('age_years', language))}{colon(language)} {number(person.age_years)}")]


def _visit(report: Report) -> str:
    """PV1. The class (inpatient, outpatient) is unknown: ``U``."""
    visit_number = composed(report.visit, "", "", OUR_APPLICATION, "VN")
    return segment("PV1", {1: "1", 2: "U", 8: _referrer(report.referrer), 19: visit_number})


def _placer(report: Report) -> str:
    return line((report.order and report.order.placer) or "")


def _filler(report: Report) -> str:
    """The accession number, or the visit's id with the name of our application."""
    accession = report.order and report.order.accession_number
    return line(accession) if accession else composed(report.visit, OUR_APPLICATION)


def _order(report: Report) -> str:
    """ORC. ``RE``: observations follow. ``A``: some results are there, ``CM``: complete (table 0038)."""
    facility = line((report.referrer and report.referrer.facility) or "")
    status = "A" if report.status == "preliminary" else "CM"
    fields = {1: "RE", 2: _placer(report), 3: _filler(report), 5: status, 12: _referrer(report.referrer), 21: facility}
    return segment("ORC", fields)


def _request(report: Report, language: Language) -> str:
    """OBR. OBR-32 is who signed last, OBR-33 who signed before."""
    reason = line((report.order and report.order.reason) or "")
    signers = [_interpreter(opinion) for opinion in reversed(report.opinions)]
    return segment(
        "OBR",
        {
            1: "1",
            2: _placer(report),
            3: _filler(report),
            4: own_code("screening_report", say("title", language)),
            7: f"{report.visited_on:%Y%m%d}" if report.visited_on else moment(report.received_at),
            16: _referrer(report.referrer),
            22: moment(report.issued_at),
            25: RESULT_STATUS[report.status],
            31: composed("", reason),
            32: signers[0] if signers else "",
            33: "~".join(dict.fromkeys(each for each in signers[1:] if each != signers[0])),
        },
    )


def _referrer(referrer: Referrer | None) -> str:
    """XCN: id and name. The whole name is in the component of the family name, because its parts are not known."""
    return composed(line(referrer.id or ""), line(referrer.name or "")) if referrer else ""


def _interpreter(opinion: Opinion) -> str:
    """NDL. Its first component is the doctor, with id and name as subcomponents."""
    return composed(line(opinion.author.id), line(opinion.author.name), by="&")
