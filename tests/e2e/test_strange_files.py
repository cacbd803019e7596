"""Every kind of strange file by every way in: taken as the plain file beside it, or refused with its code.

What the service does with each kind, and why, stands in ``docs/reference/strange-files.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e.strange import FILMS, ORDERS, PLAIN, WAVEFORMS, WFDB, Kind, film, in_wfdb
from tests.e2e.ways import SITE, Files, Ways
from tests.service.api.test_dicomweb import related
from tests.service.orthanc import free_port, listens
from tests.service.receive.dicom.made import PEER
from tests.service.serving import real_server, until

Visit = dict[str, Any]
IN_TURN = ("form", "body", "upload")
"""How files are posted: one of these for each kind, since they lead to the same place."""
POSTED, SENT = ("POST", "zip"), ("C-STORE", "STOW-RS")
UNITS = [
    ("creatinine", 1.2, "mg/dL", ["mg／dl", "ＭＧ/ＤＬ", "mg⁄dl", " mg/dL "]),
    ("urine_acr", 85, "mg/g", ["mg/g．CR", "mg／g", "mg/g.CR"]),
    ("creatinine", 106, "umol/L", ["µmol／L", "μmol/L", "ｕｍｏｌ/L"]),
]


@dataclass
class Sent:
    """What became of everything that was sent.

    Parameters
    ----------
    by_id
        The visits of posted files.
    by_person
        The visits of objects that came by C-STORE and STOW-RS.
    ids
        Of the visit of a kind, by its name and the way in which it was posted.
    plain
        Of the visit of each plain file.
    """

    ways: Ways
    ids: dict[tuple[str, str], str] = field(default_factory=dict)
    plain: dict[int, str] = field(default_factory=dict)
    by_id: dict[str, Visit] = field(default_factory=dict)
    by_person: dict[str, list[Visit]] = field(default_factory=dict)

    def of(self, kind: Kind, way: str) -> Visit:
        if way in POSTED:
            return self.by_id[self.ids[kind.name, way]]
        (visit,) = self.by_person[f"{way} {NUMBERS[kind.name]}"]
        return visit


NUMBERS = {kind.name: number for number, kind in enumerate([*FILMS, *WAVEFORMS])}
assert len(NUMBERS) == len(FILMS) + len(WAVEFORMS), "each kind has a name of its own"


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    """The service as it ships, with a site's DICOM and HL7 v2 peers on loopback."""
    dicom_port, hl7_port = free_port(), free_port()
    process = real_server(
        tmp_path_factory.mktemp("strange"),
        SANGLOC_DICOM_PORT=str(dicom_port),
        SANGLOC_DICOM_PEERS=f"{PEER}@127.0.0.1={SITE}",
        SANGLOC_DICOM_GATHER_SECONDS="0.5",
        SANGLOC_HL7_PORT=str(hl7_port),
        SANGLOC_HL7_PEERS=f"127.0.0.1={SITE}",
    )
    try:
        served = process.start(seconds=120).served
        until(lambda: listens(dicom_port), 20)
        made = Ways(served, dicom_port, hl7_port)
        yield made
        made.client.close()
    finally:
        code = process.stop()
    assert code == 0


@pytest.fixture(scope="module")
def sent(ways: Ways) -> Sent:
    """Everything is sent at once, and waited for once."""
    sent, n_sent = Sent(ways), 0
    for kinds, posted_as in ((FILMS, "image"), (WAVEFORMS, "ecg")):
        for kind in kinds:
            name = f"{posted_as}.dcm"
            if kind.plain is not None and id(kind.plain) not in sent.plain:
                sent.plain[id(kind.plain)] = ways.form({name: kind.plain("plain")}, posted_as)
            number = NUMBERS[kind.name]
            posted = getattr(ways, IN_TURN[number % len(IN_TURN)])
            sent.ids[kind.name, "POST"] = posted({name: kind.made(f"POST {number}")}, posted_as)
            sent.ids[kind.name, "zip"] = ways.zip({name: kind.made(f"zip {number}")}, posted_as)
        stored = [kind.made(f"C-STORE {NUMBERS[kind.name]}") for kind in kinds]
        assert dict(zip((kind.name for kind in kinds), ways.c_store(stored), strict=True)) == {
            kind.name: 0 for kind in kinds
        }
        assert ways.stow([kind.made(f"STOW-RS {NUMBERS[kind.name]}") for kind in kinds]) == 200
        n_sent += 2 * len(kinds)
    for visit in ways.visits(n_sent + len(sent.ids) + len(sent.plain)):
        sent.by_id[visit["id"]] = visit
        sent.by_person.setdefault(visit["person"].get("id") or "", []).append(visit)
    return sent


def findings(visit: Visit) -> dict[str, float | str | None]:
    """What was found, and what was measured."""
    every = [each for organ in visit["organs"].values() for each in organ["findings"]]
    return {each["name"]: each["value"] if each["probability"] is None else each["probability"] for each in every}


def problems(visit: Visit) -> list[tuple[str, str]]:
    return sorted({(each["code"], each["severity"]) for posted in visit["inputs"] for each in posted["problems"]})


@pytest.mark.parametrize("way", [*POSTED, *SENT])
@pytest.mark.parametrize("kind", [*FILMS, *WAVEFORMS], ids=lambda kind: f"{NUMBERS[kind.name]} {kind.name}")
def test_a_strange_file_is_read_as_the_plain_one_by_every_way(sent: Sent, kind: Kind, way: str) -> None:
    visit = sent.of(kind, way)
    (posted,) = visit["inputs"]
    assert posted["accepted"] == (kind.refused is None)
    usual = problems(sent.by_id[sent.plain[id(kind.plain)]]) if kind.plain else []
    expected = [(kind.reserve, "warn")] if kind.reserve else [(kind.refused, "reject")] if kind.refused else []
    assert [each for each in problems(visit) if each not in usual] == expected
    if kind.plain is not None:
        plain = findings(sent.by_id[sent.plain[id(kind.plain)]])
        assert plain
        assert findings(visit) == (pytest.approx(plain, abs=kind.within) if kind.within else plain)
    else:
        assert findings(visit) == {}
    if way in SENT:
        assert {name: visit["person"].get(name) for name in kind.person} == kind.person


@pytest.mark.parametrize("way", [*POSTED, *SENT])
@pytest.mark.parametrize(
    "kind", [kind for kind in (*FILMS, *WAVEFORMS) if kind.identifiers], ids=lambda kind: str(NUMBERS[kind.name])
)
def test_an_identifier_is_named_as_it_came_and_its_fault_is_said(sent: Sent, kind: Kind, way: str) -> None:
    visit = sent.of(kind, way)
    ((keyword, (uid, wrong)),) = kind.identifiers.items()
    said = [each["message"] for each in visit["inputs"][0]["problems"] if each["code"] == "identifier_malformed"]
    assert len(said) == 1
    assert keyword in said[0]
    assert wrong in said[0]
    assert not uid or uid.strip(" \0") not in said[0]
    reported = sent.ways.report(visit["id"])
    if reported["inputs"][0]["dicom"] is None:
        assert (way, kind in WAVEFORMS) == ("zip", True), "a zip of recordings is one input, and no DICOM object"
        return
    assert reported["inputs"][0]["dicom"][keyword] == (uid or "").strip(" \0")
    if keyword == "StudyInstanceUID" and uid:
        assert reported["study_instance_uid"] == uid.strip(" \0")


# ---------------------------------------------------------------- recordings of several files, orders, units, bodies
def posted_as(ways: Ways, way: str, files: Files) -> str:
    id_: str = getattr(ways, way)(files, "ecg")
    return id_


@pytest.mark.parametrize("way", ["form", "form_with_zip", "zip", "upload"])
def test_a_strange_recording_is_read_as_the_plain_one_by_every_way(sent: Sent, way: str) -> None:
    before = len(sent.ways.visits(0))
    ids = {name: posted_as(sent.ways, way, files) for name, files in {"plain": in_wfdb(), **WFDB}.items()}
    visits = {visit["id"]: visit for visit in sent.ways.visits(before + len(ids))}
    found = {name: (findings(visits[id_]), problems(visits[id_])) for name, id_ in ids.items()}
    assert "heart_rate" in found["plain"][0]
    assert found == dict.fromkeys(found, found["plain"])


def test_a_strange_order_is_taken_and_joined_to_the_film_by_every_way(sent: Sent) -> None:
    ways, before = sent.ways, len(sent.ways.visits(0))
    made = {name: message(f"A{number}") for number, (name, (message, _, _)) in enumerate(ORDERS.items())}
    assert {name: ways.mllp(message) for name, message in made.items()} == dict.fromkeys(ORDERS, "AA")
    stored = []
    for number in range(len(ORDERS)):
        stored.append(_ordered_film(number, "C-STORE"))
        context = {"order": {"accession_number": f"A{number}"}}
        ways.form({"film.dcm": _ordered_film(number, "form")}, "image", context)
    assert set(ways.c_store(stored)) == {0}
    assert ways.stow([_ordered_film(number, "STOW-RS") for number in range(len(ORDERS))]) == 200
    visits = [each for each in ways.visits(before + 3 * len(ORDERS)) if each["id"] not in sent.by_id]
    reports: dict[str, list[Any]] = {}
    for visit in visits:
        report = ways.report(visit["id"])
        reports.setdefault((report["order"] or {}).get("accession_number"), []).append(report)
    for number, (name, (_, born, reason)) in enumerate(ORDERS.items()):
        assert len(reports[f"A{number}"]) == 3, name
        for report in reports[f"A{number}"]:
            assert (report["person"]["birth_date"], report["order"]["reason"]) == (born, reason), name
            assert report["referrer"]["id"] == "D-7"


def _ordered_film(number: int, way: str) -> bytes:
    return film(AccessionNumber=f"A{number}", PatientBirthDate="", PatientName="", StudyDescription=way)("VN-0042")


def test_a_unit_in_other_letters_is_the_same_unit(sent: Sent) -> None:
    ways, before = sent.ways, len(sent.ways.visits(0))
    person = {"age_years": 60, "sex": "female"}

    def posted(name: str, value: float, unit: str) -> str:
        labs = [{"name": "creatinine", "value": 1.2, "unit": "mg/dL"}] if name != "creatinine" else []
        return ways.form({}, "image", {"person": person, "labs": [*labs, {"name": name, "value": value, "unit": unit}]})

    ids = {(row[0], row[2], unit): posted(row[0], row[1], unit) for row in UNITS for unit in (row[2], *row[3])}
    visits = {visit["id"]: visit for visit in ways.visits(before + len(ids))}
    for (name, plain, unit), id_ in ids.items():
        found = findings(visits[id_])
        assert "egfr" in found
        assert found == findings(visits[ids[name, plain, plain]]), unit


BODIES: dict[str, Callable[[bytes], bytes]] = {
    "text before the first delimiter": lambda body: b"This is a message with several parts.\r\n" + body,
    "blanks behind delimiters": lambda body: body.replace(b"--b\r\n", b"--b  \t\r\n").replace(b"--b--", b"--b--  "),
    "both": lambda body: b"\r\n\r\n" + body.replace(b"--b\r\n", b"--b \r\n"),
}


@pytest.mark.parametrize("name", BODIES)
def test_what_stands_around_the_parts_of_a_body_is_left_out(sent: Sent, name: str) -> None:
    ways, before = sent.ways, len(sent.ways.visits(0))
    assert ways.stow([], BODIES[name](related(PLAIN(f"body {name}")))) == 200
    form = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="film.dcm"\r\n'
        b"Content-Type: application/dicom\r\n\r\n" + PLAIN(f"form {name}") + b"\r\n--b--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Prefer": "respond-async"}
    answer = ways.client.post("/v1/visits", content=BODIES[name](form), headers=headers)
    assert answer.status_code in (201, 202), answer.text
    new = [visit for visit in ways.visits(before + 2) if visit["id"] not in sent.by_id]
    mine = [each for each in new if each["id"] == answer.json()["id"] or each["person"].get("id") == f"body {name}"]
    plain = findings(sent.by_id[sent.plain[id(PLAIN)]])
    assert [findings(each) for each in mine] == [plain, plain]
