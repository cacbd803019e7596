"""HL7 v2: results out and orders in, over real sockets, with the hl7 library as a peer and hl7apy as the judge."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from datetime import date
from types import SimpleNamespace

import pytest
from sqlalchemy import func, select

from data_specs.visit.context import Context, Order, Person, Referrer
from data_specs.visit.report import ReportFinding, ReportOrgan
from service.protocols import mllp
from service.protocols.er7 import CHARSETS, MAX_SEGMENTS, Message, NotUsable, encoded, escaped
from service.receive.hl7 import listener as hl7_listener
from service.receive.hl7.order_messages import read_orders
from service.receive.orders import find_order, merge_order
from service.report import hl7
from service.report.words import colon
from service.storage.database import Database
from service.storage.migrate import migrate
from service.storage.tables import OrderMessageRow, OrderRow
from tests.service.report_fixture import DOCTOR, NAME, SPECIALIST, STUDY, VISIT, code, judged, measured, report
from tests.service.serving import settings_for

hl7_library = pytest.importorskip("hl7", reason="the hl7 library is not installed: no foreign peer in this run")
hl7apy_parser = pytest.importorskip("hl7apy.parser", reason="hl7apy is not installed: no structure is validated")
from hl7.client import MLLPClient  # noqa: E402

TODAY = date(2026, 11, 22)
SITE = "lao-cai"
PERSON = "Người^Nghiệm^Được Khám Thử^^Bà"
ORDER = (
    "MSH|^~\\&|HIS|BV|SANGLOC|SL|20261121081500+0700||ORM^O01^ORM_O01|{control}|P|2.5.1||||||UNICODE UTF-8",
    f"PID|1||VN-0042^^^BV^PI||{PERSON}^^L||19610530|F",
    "PV1|1|O||||||D-9^Khác^Bác sĩ",
    "ORC|{order}|ORD-1^HIS|||||||20261121080000|||D-7^Thử Nghiệm^Tuyến Dưới^^^BS.|||||||||Trạm y tế thử nghiệm",
    "OBR|1|ORD-1^HIS|F-1|36643-5^XR^LN||||||||||||||{accession}|||||||||||||^Khám sức khỏe \\T\\ ho",
)


def order(control="1", order="NW", accession="ACC-1", **changed):
    """An order message; ``changed`` replaces segments by name."""
    filled = [each.format(control=control, order=order, accession=accession) for each in ORDER]
    segments = [changed.get(each[:3], each) for each in filled]
    return encoded([each for each in segments if each])


# ---------------------------------------------------------------- results
def read_back(message):
    """What a receiver understands of a result, with nobody's code but the hl7 library's."""
    parsed = hl7_library.parse(message.decode("utf-8").rstrip("\r"))
    findings, conclusions, authors, version = {}, [], [], None
    for obx in parsed.segments("OBX"):
        name, system = str(obx[3][0][0]), str(obx[3][0][2])
        value = obx[5][0]
        if name == "conclusion":
            conclusions.append((str(value[0]), str(value[2])))
        elif name == "report_version":
            version = int(str(value))
        elif name == "opinion":
            authors.append(parsed.unescape(str(obx[16][0][1])))
        elif not str(obx[4]) and str(obx[2]) in {"NM", "CWE", "ST"} and name != "priority":
            number = str(obx[2]) == "NM"
            said = float(str(value)) if number else str(value[8]) if str(obx[2]) == "CWE" else str(value)
            flag, normal = str(obx[8]), str(obx[7])
            positive = None if not flag else (flag == "A") != normal.startswith(">=")
            findings[name, system] = (said, str(obx[6][0][0]) if str(obx[6]) else None, positive)
    status = {"P": "preliminary", "F": "final", "C": "amended"}[str(parsed.segment("OBR")[25])]
    person = parsed.unescape(str(parsed.segment("PID")[5][0][0]))
    return SimpleNamespace(
        findings=findings, conclusions=conclusions, authors=authors, version=version, status=status, person=person
    )


SYSTEMS = {"http://snomed.info/sct": "SCT", "http://loinc.org": "LN", "urn:sangloc:term": "99SANGLOC"}


def validated(message, level=None):
    """The message as hl7apy has it, its structure, fields and data types valid."""
    from hl7apy.consts import VALIDATION_LEVEL

    level = VALIDATION_LEVEL.TOLERANT if level is None else level
    parsed = hl7apy_parser.parse_message(message.decode(), validation_level=level, find_groups=True)
    assert parsed.validate()
    return parsed


@pytest.mark.parametrize("language", ["vi", "fr", "en"])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_result_is_valid_and_says_what_the_report_says(version, language):
    facts = report(version)
    message = hl7.render(facts, language)
    parsed = validated(message)
    assert parsed.name == "ORU_R01"
    assert [each.name for each in parsed.children] == ["MSH", "ORU_R01_PATIENT_RESULT"]
    said = read_back(message)
    assert said.findings == {
        (each.code.code, SYSTEMS[each.code.system]): (
            each.probability if each.value is None else each.value,
            "1" if each.value is None else each.unit,
            each.positive,
        )
        for each in facts.findings
    }
    assert said.conclusions == [(code(name).code, SYSTEMS[code(name).system]) for name in facts.conclusions]
    assert (said.version, said.status, said.person) == (facts.version, facts.status, NAME)
    assert said.authors == [DOCTOR, SPECIALIST][: version - 1]
    text = message.decode("utf-8")
    assert f"^{STUDY}^ISO" in text
    assert VISIT in text
    assert "nghieng.png" not in text  # a file's name may hold a person's
    assert text.split("\r")[0].split("|")[17] == "UNICODE UTF-8"


def test_result_is_strictly_valid_where_no_text_is_longer_than_the_judge_takes():
    from hl7apy.consts import VALIDATION_LEVEL

    validated(hl7.render(report(1), "en"), VALIDATION_LEVEL.STRICT)


def test_result_is_the_same_bytes_each_time_and_its_control_id_is_its_own():
    once, again = hl7.render(report(2), "vi"), hl7.render(report(2), "vi")
    assert once == again
    ids = {hl7.control_id(report(version), language) for version in (1, 2, 3) for language in ("vi", "fr", "en")}
    assert len(ids) == 9
    assert all(len(each) == 20 and each.isalnum() for each in ids)


def test_result_carries_order_referrer_and_who_signed():
    parsed = validated(hl7.render(report(3), "vi"))
    result = parsed.oru_r01_patient_result
    request = result.oru_r01_order_observation.obr
    assert request.obr_2.to_er7() == "ORD-1"
    assert request.obr_3.to_er7() == "ACC-1"
    assert request.obr_16.to_er7() == f"D-7^{DOCTOR}"
    assert request.obr_32.to_er7() == f"S-1&{SPECIALIST}"
    assert request.obr_33.to_er7() == f"D-7&{DOCTOR}"
    assert request.obr_22.to_er7() == "20261121133000+0000"
    pid = result.oru_r01_patient.pid
    assert (pid.pid_3.to_er7(), pid.pid_7.to_er7(), pid.pid_8.to_er7()) == ("VN-0042^^^lao-cai^PI", "19610530", "F")


def test_what_was_not_assessed_is_said_to_be_not_obtained():
    message = hl7_library.parse(hl7.render(report(1), "en").decode().rstrip("\r"))
    unassessed = [each for each in message.segments("OBX") if str(each[3][0][0]) == "not_assessed"]
    assert [(str(each[4]), str(each[11])) for each in unassessed] == [("kidney", "X")]
    assert "blood creatinine" in str(unassessed[0][5])


def test_result_of_nearly_nothing_is_valid():
    """No person, no order, nothing assessed, nothing signed."""
    bare = report(1).model_copy(
        update={
            "person": Person(age_years=70),
            "referrer": None,
            "order": None,
            "visited_on": None,
            "organs": {},
            "inputs": (),
            "models": (),
            "next_steps": (),
        }
    )
    message = hl7.render(bare, "fr")
    validated(message)
    assert f"PID|1||{VISIT}^^^SANGLOC^VN||~^^^^^^U\r" in message.decode()
    assert f"NTE|1|L|Âge (années){colon('fr')} 70\r" in message.decode()


def test_marks_controls_and_line_ends_in_what_people_write_do_not_break_the_message():
    nasty = "a|b^c~d\\e&f\x0b\x1c\r\ng\x00\x7fẵ"
    facts = report(2)
    opinion = facts.opinions[0].model_copy(update={"text": nasty})
    person = facts.person.model_copy(update={"name": nasty, "id": nasty})
    message = hl7.render(facts.model_copy(update={"opinions": (opinion,), "person": person}), "vi")
    validated(message)
    mllp.framed(message)
    said = Message(message)
    pid = next(each for each in said.segments if each.name == "PID")
    assert pid.text(5) == "a|b^c~d\\e&f g ẵ"
    written = next(each for each in said.segments if each.name == "OBX" and each.text(3) == "opinion").text(5)
    assert "a|b^c~d\\e&f  \ng  ẵ" in written
    assert read_back(message).person == "a|b^c~d\\e&f g ẵ"


def test_words_healthy_findings_and_undecided_ones_keep_their_meaning():
    normal = judged("normal_ecg", "cardiac", 0.9, 0.5)
    not_normal = judged("normal_ecg", "cardiac", 0.2, 0.5)
    undecided = ReportFinding(
        name="mass", organ="lung", code=code("mass"), probability=0.4, calibrated=False, positive=None
    )
    risk, stage = measured("kdigo_risk", "kidney", "very high"), measured("kdigo_g", "kidney", "G3a")
    for healthy in (normal, not_normal):
        organs = {
            "lung": ReportOrgan(status="assessed", code=code("lung"), findings=(undecided,)),
            "cardiac": ReportOrgan(status="assessed", code=code("cardiac"), findings=(healthy,)),
            "kidney": ReportOrgan(status="assessed", code=code("kidney"), findings=(risk, stage)),
        }
        message = hl7.render(report(1).model_copy(update={"organs": organs}), "en")
        validated(message)
        said = read_back(message).findings
        assert said["164854000", "SCT"] == (healthy.probability, "1", healthy.positive)
        assert said["309529002", "SCT"] == (0.4, "1", None)
        assert said["kdigo_risk", "99SANGLOC"] == ("very high", None, None)
        assert said["kdigo_g", "99SANGLOC"] == ("G3a", None, None)
        assert "not calibrated" in message.decode()
        flag = "N" if healthy.positive else "A"
        assert f"|1^^UCUM|>=0.5|{flag}|" in message.decode()


# ---------------------------------------------------------------- orders, read
def test_order_is_read_with_every_diacritic():
    read = read_orders(order(), TODAY)
    (one,) = read.instructions
    assert (one.control, one.accession_number) == ("store", "ACC-1")
    assert one.context == Context(
        person=Person(
            id="VN-0042",
            name="Bà Người Được Khám Thử Nghiệm",
            birth_date=date(1961, 5, 30),
            age_years=65,
            sex="female",
        ),
        referrer=Referrer(id="D-7", name="BS. Thử Nghiệm Tuyến Dưới", facility="Trạm y tế thử nghiệm"),
        order=Order(placer="ORD-1", accession_number="ACC-1", reason="Khám sức khỏe & ho"),
    )


@pytest.mark.parametrize(
    ("pid", "expected"),
    [
        ("PID|1||7||Mai^Lan||1961|F", Person(id="7", name="Mai Lan", sex="female")),
        ("PID|1||7||Mai^Lan||196105|", Person(id="7", name="Mai Lan")),
        ('PID|1||7||""||""|""', Person(id="7")),
        ("PID|1||1^^^X^SS~7^^^BV^MR||~Mai^Lan^^^^^^^^^G||196105301200|A", None),
        ("PID|1||7||Mai&van^Lan\\X20\\B||20261121|u", None),
    ],
)
def test_what_a_person_is_not_said_to_be_is_not_guessed(pid, expected):
    person = read_orders(order(PID=pid), TODAY).instructions[0].context.person
    if expected:
        assert person == expected
    elif "SS" in pid:
        assert person == Person(id="7", name="Lan Mai", birth_date=date(1961, 5, 30), age_years=65, sex="other")
    else:
        assert person == Person(id="7", name="Mai Lan B", birth_date=date(2026, 11, 21), age_years=0, sex="unknown")


MSH = ORDER[0].format(control="1")


@pytest.mark.parametrize(
    ("changed", "code", "location", "rejected"),
    [
        ({"MSH": MSH.replace("ORM^O01^ORM_O01", "ADT^A01")}, 200, "MSH^1^9", True),
        ({"MSH": MSH.replace("ORM^O01^ORM_O01", "ORM^O02")}, 201, "MSH^1^9", True),
        ({"MSH": MSH.replace("|P|", "|T|")}, 202, "MSH^1^11", True),
        ({"MSH": MSH.replace("|2.5.1|", "|3.0|")}, 203, "MSH^1^12", True),
        ({"MSH": MSH.replace("UNICODE UTF-8", "TIS-620")}, 103, "MSH^1^18", True),
        ({"MSH": MSH.replace("UNICODE UTF-8", "UNICODE UTF-16")}, 103, "MSH^1^18", True),
        ({"MSH": MSH.replace("UNICODE UTF-8", "ASCII~ISO IR87")}, 103, "MSH^1^18", True),
        ({"MSH": MSH.replace("UNICODE UTF-8", "")}, 102, "MSH^1^18", True),
        ({"MSH": MSH.replace("^~\\&", "^^\\&")}, 100, "MSH^1^2", True),
        ({"MSH": MSH.replace("|1|P", "||P")}, 101, "MSH^1^10", False),
        ({"MSH": MSH.replace("|1|P", f"|{'1' * 200}|P")}, 102, "MSH^1^10", False),
        ({"PID": ""}, 101, "PID^1^3", False),
        ({"PID": "PID|1||||Mai"}, 101, "PID^1^3", False),
        ({"PID": "PID|1||7||Mai||19611330"}, 102, "PID^1^7", False),
        ({"PID": "PID|1||7||Mai||30/05/1961"}, 102, "PID^1^7", False),
        ({"PID": "PID|1||7||Mai||20991231"}, 102, "PID^1^7", False),
        ({"PID": "PID|1||7||Mai||19610530|X"}, 103, "PID^1^8", False),
        ({"PID": f"PID|1||7||{'a' * 201}"}, 102, "PID^1^5", False),
        ({"PID": f"PID|1||{'7' * 201}||a"}, 102, "PID^1^3", False),
        ({"PID": "PID|1||7||Mai\\C2842\\"}, 102, "PID^1^5", False),
        ({"PID": "PID|1||7||Mai\\X00\\"}, 102, "PID^1^5", False),
        ({"PID": "PID|1||7||Mai\\XFF\\"}, 102, "PID^1^5", False),
        ({"PID": "PID|1||7\rPID|2||8"}, 100, "", False),
        ({"ORC": ""}, 101, "ORC^1^1", False),
        ({"ORC": "ORC|SC|ORD-1"}, 103, "ORC^1^1", False),
        ({"ORC": "ORC||ORD-1"}, 101, "ORC^1^1", False),
        ({"ORC": "ORC|NW|ORD-2"}, 102, "OBR^1^2", False),
        ({"OBR": ""}, 101, "ORC^1^3", False),
        ({"OBR": "OBR|1|ORD-1"}, 101, "OBR^1^18", False),
        ({"OBR": f"OBR|1|ORD-1|{'9' * 65}"}, 102, "OBR^1^3", False),
        ({"OBR": f"OBR|1|ORD-1|9||||||||||{'r' * 1001}"}, 102, "OBR^1^31", False),
        ({"OBR": "OBR|1|ORD-1|9\rOBR|2|ORD-1|9"}, 100, "OBR^2^1", False),
    ],
)
def test_what_cannot_be_used_is_refused_by_code_and_place(changed, code, location, rejected):
    with pytest.raises(NotUsable) as refused:
        read_orders(order(**changed), TODAY)
    assert (refused.value.code, refused.value.location, refused.value.rejected) == (code, location, rejected)


def test_declared_character_sets_are_read_and_undeclared_bytes_are_not():
    latin = order(
        MSH=MSH.replace("UNICODE UTF-8", "8859/1"), PID="PID|1||7||Désiré^Noëlle", OBR="OBR|1||9", ORC="ORC|NW", PV1=""
    )
    read = read_orders(latin.decode().encode("latin-1"), TODAY)
    assert read.instructions[0].context.person.name == "Désiré Noëlle"
    assert set(CHARSETS.values()) >= {"ascii", "utf-8", "iso8859-1"}
    plain = order(MSH=MSH.replace("UNICODE UTF-8", ""), PID="PID|1||7||Mai^Lan", OBR="OBR|1||9", ORC="ORC|NW", PV1="")
    assert read_orders(plain, TODAY).instructions[0].context.person.name == "Mai Lan"
    with pytest.raises(NotUsable) as refused:
        read_orders(order()[:-3] + b"\xff\r", TODAY)
    assert refused.value.location == "MSH^1^18"


def test_other_separators_and_omg_are_read():
    message = order().decode().replace("ORM^O01^ORM_O01", "OMG^O19^OMG_O19").translate(str.maketrans("|^~&", "#:;!"))
    read = read_orders(message.encode(), TODAY)
    assert read.instructions[0].context == read_orders(order(), TODAY).instructions[0].context.model_copy(
        update={"order": Order(placer="ORD-1", accession_number="ACC-1", reason="Khám sức khỏe ! ho")}
    )


def test_any_bytes_whatsoever_are_read_or_refused():
    chance = random.Random(7)
    message = order()
    outcomes = set()
    for _ in range(4000):
        fuzzed = bytearray(message)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(fuzzed) or 1)
            kind = chance.randrange(4)
            if kind == 0 and fuzzed:
                fuzzed[at] ^= 1 << chance.randrange(8)
            elif kind == 1:
                del fuzzed[at : at + chance.randrange(1, 30)]
            elif kind == 2:
                fuzzed[at:at] = chance.choice([b"\\", b"|", b"^", b"~", b"&", b"\r", b"\x00", b"\\X", b'""'])
            else:
                fuzzed = fuzzed[:at] or bytearray(b"M")
        try:
            read_orders(bytes(fuzzed), TODAY)
            outcomes.add("read")
        except NotUsable as refused:
            outcomes.add(refused.code)
    assert outcomes >= {"read", 100, 101, 102, 103, 200}


def test_a_megabyte_of_separators_is_read_in_little_memory():
    import tracemalloc

    for mark in (b"|", b"^", b"~", b"&", b"\\", b"\r", b"A\r"):
        message = order() + b"PID|" + (mark * 1_000_000)[: mllp.MAX_MESSAGE_BYTES - 2000]
        tracemalloc.start()
        with contextlib.suppress(NotUsable):
            read_orders(message, TODAY)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 60_000_000, mark
    with pytest.raises(NotUsable):
        Message(b"MSH|^~\\&|" + b"\r" * (MAX_SEGMENTS + 1))


def test_escapes_go_out_and_come_back():
    for text in ("a|b^c~d\\e&f", "\\T\\", "Ẵ ư ế", "một\nhai"):
        message = encoded(["MSH|^~\\&||||||||||||||||UNICODE UTF-8", f"NTE|1||{escaped(text)}"])
        assert Message(message).segments[1].text(3) == text


# ---------------------------------------------------------------- orders, merged
def test_an_order_fills_in_what_the_visit_does_not_say():
    given = read_orders(order(), TODAY).instructions[0].context
    visit = Context(person=Person(id="VN-0042", age_years=64), referrer=Referrer(id="D-7"), ecg_unit="mV")
    merged = merge_order(visit, given)
    assert merged.person == given.person.model_copy(update={"age_years": 64})
    assert merged.referrer == given.referrer
    assert merged.order == given.order
    assert merged.ecg_unit == "mV"
    assert merge_order(Context(), given) == given
    assert merge_order(given, Context()) == given
    other = Referrer(id="D-1", name="Khác")
    assert merge_order(Context(referrer=other), given).referrer == other


@pytest.mark.parametrize(
    "visit",
    [
        Context(person=Person(id="VN-0043")),
        Context(person=Person(birth_date=date(1990, 1, 1))),
        Context(person=Person(sex="male")),
        Context(order=Order(accession_number="ACC-2")),
    ],
)
def test_an_order_of_another_person_or_number_is_not_merged(visit):
    given = read_orders(order(), TODAY).instructions[0].context
    assert merge_order(visit, given) == visit


# ---------------------------------------------------------------- the listener
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def database(tmp_path_factory, new_database):
    settings = settings_for(tmp_path_factory.mktemp("orders"), database_url=new_database())
    made = Database(settings.database)
    migrate(settings, made)
    yield made
    made.close()


@pytest.fixture
async def listening(database, tmp_path):
    """A listener over an empty table; its port."""
    settings = settings_for(tmp_path, hl7_port=free_port(), hl7_peers=f"10.0.0.1=far, 127.0.0.1={SITE}")

    def empty(session):
        session.query(OrderRow).delete()
        session.query(OrderMessageRow).delete()

    await database.write(empty)
    listener = await hl7_listener.start(SimpleNamespace(database=database), settings)
    yield SimpleNamespace(port=settings.hl7_port, database=database, listener=listener)
    await listener.aclose()


async def sent(listening, *messages):
    """Answers to messages that the hl7 library's client sends over one connection: (code, about, error, place)."""

    def converse():
        with MLLPClient("127.0.0.1", listening.port) as client:
            client.socket.settimeout(20)
            return [client.send_message(each) for each in messages]

    return [said(each) for each in await asyncio.to_thread(converse)]


def said(answer, *, judged=True):
    assert answer[:1] == b"\x0b"
    assert answer[-2:] == b"\x1c\r"
    parsed = hl7_library.parse(answer[1:-2].decode("utf-8"))
    msa = parsed.segment("MSA")
    about = str(msa[2]) if len(msa) > 2 else ""
    if about and judged:  # the standard has no answer to a message without an id
        validated(answer[1:-2])
    error = parsed.segments("ERR")[0] if "\rERR" in answer.decode() else None
    code = int(str(error[3][0][0])) if error else None
    return str(msa[1]), about, code, str(error[2]) if error else None


async def stored(listening):
    def rows(session):
        return {row.accession_number: row.context for row in session.scalars(select(OrderRow)).all()}

    return await listening.database.read(rows)


async def test_order_is_stored_before_it_is_acknowledged_and_found_again(listening):
    assert await sent(listening, order()) == [("AA", "1", None, None)]
    found = await listening.database.read(lambda session: find_order(session, SITE, "ACC-1"))
    assert found.person.name == "Bà Người Được Khám Thử Nghiệm"
    assert await listening.database.read(lambda session: find_order(session, "far", "ACC-1")) is None


async def test_acknowledgement_waits_for_the_commit(listening, monkeypatch):
    """The order is in the table, for another connection to see, when the AA leaves."""
    seen = []
    acknowledge = hl7_listener.acknowledgement

    def looking(*args):
        with listening.database.transaction() as session:
            seen.append(session.scalar(select(func.count()).select_from(OrderRow)))
        return acknowledge(*args)

    monkeypatch.setattr(hl7_listener, "acknowledgement", looking)
    assert await sent(listening, order()) == [("AA", "1", None, None)]
    assert seen == [1]


async def test_order_is_replaced_cancelled_and_repeated(listening):
    changed = {"PID": "PID|1||VN-0042||Khác"}
    assert await sent(
        listening,
        order("1"),
        order("2"),  # the same under another id
        order("3", **changed),
        order("4", "XO", **changed),
        order("1"),  # a late repetition must not bring the old one back
        order("1", **changed),  # an id that was used before, for something else
    ) == [
        ("AA", "1", None, None),
        ("AA", "2", None, None),
        ("AE", "3", 205, "OBR^1^18"),
        ("AA", "4", None, None),
        ("AA", "1", None, None),
        ("AE", "1", 205, "MSH^1^10"),
    ]
    assert '"name":"Khác"' in (await stored(listening))["ACC-1"]
    cancel = order("5", "CA", PID="")
    assert await sent(listening, cancel, cancel, order("6", "DC"), order("7", "XO")) == [
        ("AA", "5", None, None),
        ("AA", "5", None, None),
        ("AE", "6", 204, "OBR^1^18"),
        ("AE", "7", 204, "OBR^1^18"),
    ]
    assert await sent(listening, order("1")) == [("AA", "1", None, None)]
    assert await stored(listening) == {}


async def test_what_was_carried_out_is_known_after_a_restart_and_by_its_sender(listening, tmp_path):
    assert await sent(listening, order("1"), order("2", "CA")) == [("AA", "1", None, None), ("AA", "2", None, None)]
    await listening.listener.aclose()
    settings = settings_for(tmp_path, hl7_port=free_port(), hl7_peers=f"127.0.0.1={SITE}")
    again = await hl7_listener.start(SimpleNamespace(database=listening.database), settings)
    try:
        assert said(await raw(settings.hl7_port, mllp.framed(order("1")))) == ("AA", "1", None, None)
        assert await stored(listening) == {}
        elsewhere = order(MSH=MSH.replace("|HIS|", "|RIS|"))  # another system counts its own messages
        assert said(await raw(settings.hl7_port, mllp.framed(elsewhere))) == ("AA", "1", None, None)
        assert set(await stored(listening)) == {"ACC-1"}
    finally:
        await again.aclose()


async def test_a_message_of_several_orders_is_taken_whole_or_not_at_all(listening):
    second = "\r".join(ORDER[3:]).format(order="{order}", accession="ACC-2")
    both = order("1") + second.format(order="NW").replace("ORD-1", "ORD-2").encode() + b"\r"
    half = order("2", accession="ACC-3") + second.format(order="XX").encode() + b"\r"
    unknown = order("3", accession="ACC-3") + second.format(order="CA").replace("ACC-2", "ACC-9").encode() + b"\r"
    assert await sent(listening, both, half, unknown) == [
        ("AA", "1", None, None),
        ("AE", "2", 103, "ORC^2^1"),
        ("AE", "3", 204, "OBR^2^18"),
    ]
    assert set(await stored(listening)) == {"ACC-1", "ACC-2"}


async def test_what_is_no_order_is_answered_and_changes_nothing(listening):
    bad = [
        b"hello",
        b"MSH",
        b"MSH|^~\\&",
        order(MSH=MSH.replace("UNICODE UTF-8", "KLINGON")),
        order(MSH=MSH.replace("|1|P", "|\xc3\xa9|P")),
        order(PID="PID|1||7||x||not a day"),
    ]
    assert await sent(listening, *bad) == [
        ("AR", "", 100, "MSH^1^2"),
        ("AR", "", 100, "MSH^1^2"),
        ("AR", "", 100, "MSH^1^2"),
        ("AR", "1", 103, "MSH^1^18"),
        ("AE", "", 102, "MSH^1^10"),
        ("AE", "1", 102, "PID^1^7"),
    ]
    assert await stored(listening) == {}


async def raw(port, data, *, half_close=False, answers=1):
    """Bytes to the listener as they are; what comes back until it has answered so often, or closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        if half_close:
            writer.write_eof()
        got = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(20):
                while got.count(b"\x1c\r") < answers and (piece := await reader.read(65536)):
                    got += piece
        return got
    finally:
        writer.transport.abort()


async def test_pipelined_messages_are_answered_in_their_order(listening):
    many = [order(str(n), accession=f"ACC-{n}") for n in range(40)]
    got = await raw(listening.port, b"\r\n".join(map(mllp.framed, many)), answers=40)
    answers = [said(each + b"\x1c\r") for each in got.split(b"\x1c\r")[:-1]]
    assert answers == [("AA", str(n), None, None) for n in range(40)]
    assert len(await stored(listening)) == 40


@pytest.mark.parametrize(
    "data",
    [
        order(),  # no frame
        b"\x0b" + order(),  # no end
        b"\x0b" + order() + b"\x1c",  # no carriage return
        b"\x0b" + order() + b"\x1c\x1c",
        b"\x0b" + order()[:200] + mllp.framed(order()),  # cut off, and begun again
        b"\x0b" + b"A" * 1_100_000 + b"\x1c\r",  # larger than is read
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x0b",
        b"",
    ],
)
async def test_what_is_no_frame_ends_the_connection_and_changes_nothing(listening, data):
    assert await raw(listening.port, data, half_close=True) == b""
    assert await stored(listening) == {}


async def test_a_peer_that_goes_in_mid_message_leaves_nothing_and_the_next_is_served(listening):
    whole = mllp.framed(order())
    for cut in range(1, len(whole) - 1, 29):
        _, writer = await asyncio.open_connection("127.0.0.1", listening.port)
        writer.write(whole[:cut])
        await writer.drain()
        writer.transport.abort()
    assert await stored(listening) == {}
    assert await sent(listening, order()) == [("AA", "1", None, None)]


async def test_bit_flips_on_the_wire_are_answered_or_end_the_connection(listening):
    chance = random.Random(11)
    whole = mllp.framed(order())
    for _ in range(150):
        flipped = bytearray(whole)
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
        got = await raw(listening.port, bytes(flipped), half_close=True)
        if got:
            assert said(got, judged=False)[0] in {"AA", "AE", "AR"}
    (last,) = await sent(listening, order("last", accession="LAST"))
    assert last == ("AA", "last", None, None)


async def test_a_peer_that_says_nothing_or_stops_is_let_go(listening, monkeypatch):
    monkeypatch.setattr(hl7_listener, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(hl7_listener, "FRAME_SECONDS", 0.1)
    for begun in (b"", b"\x0bMSH|"):
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.port)
        writer.write(begun)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
    assert await stored(listening) == {}


async def test_connections_are_bounded(listening, monkeypatch):
    monkeypatch.setattr(hl7_listener, "MAX_CONNECTIONS", 3)
    held = [await asyncio.open_connection("127.0.0.1", listening.port) for _ in range(3)]
    await asyncio.sleep(0.1)
    assert await raw(listening.port, mllp.framed(order())) == b""
    for _, writer in held:
        writer.close()
        await writer.wait_closed()
    await asyncio.sleep(0.1)
    assert await sent(listening, order()) == [("AA", "1", None, None)]


async def test_who_is_not_listed_is_refused(database, tmp_path):
    settings = settings_for(tmp_path, hl7_port=free_port(), hl7_peers="192.0.2.1=far, [::1]=v6, 10.0.0.5=other")
    listener = await hl7_listener.start(SimpleNamespace(database=database), settings)
    try:
        assert await raw(settings.hl7_port, mllp.framed(order("refused", accession="REFUSED"))) == b""
        assert await database.read(lambda session: find_order(session, "far", "REFUSED")) is None
    finally:
        await listener.aclose()


async def test_a_peer_may_be_listed_by_name(database, tmp_path):
    settings = settings_for(tmp_path, hl7_port=free_port(), hl7_peers="no-such-host.invalid=far,localhost=named")
    listener = await hl7_listener.start(SimpleNamespace(database=database), settings)
    try:
        assert said(await raw(settings.hl7_port, mllp.framed(order("n", accession="NAMED"))))[0] == "AA"
        assert await database.read(lambda session: find_order(session, "named", "NAMED")) is not None
    finally:
        await listener.aclose()


async def test_drain_finishes_the_message_in_hand_and_lets_the_others_go(listening, monkeypatch):
    entered = asyncio.Event()
    write = listening.database.write

    async def slowly(work):
        entered.set()
        await asyncio.sleep(0.2)
        return await write(work)

    monkeypatch.setattr(listening.database, "write", slowly)
    idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", listening.port)
    busy = asyncio.create_task(raw(listening.port, mllp.framed(order()) + mllp.framed(order("2", accession="ACC-2"))))
    await entered.wait()
    await listening.listener.aclose()
    assert said(await busy) == ("AA", "1", None, None)
    assert await idle_reader.read() == b""
    idle_writer.close()
    assert set(await stored(listening)) == {"ACC-1"}
    with pytest.raises(OSError):  # noqa: PT011  whichever way a closed port refuses
        await asyncio.open_connection("127.0.0.1", listening.port)


async def test_a_database_that_fails_is_said_to_be_ours_and_the_message_can_come_again(listening, monkeypatch, capfd):
    write = listening.database.write

    async def failing(_work):
        raise RuntimeError("the database is away, and VN-0042 was asked for")

    monkeypatch.setattr(listening.database, "write", failing)
    assert await sent(listening, order()) == [("AR", "1", 207, "")]
    monkeypatch.setattr(listening.database, "write", write)
    assert await sent(listening, order()) == [("AA", "1", None, None)]
    logged = "".join(capfd.readouterr())
    assert "hl7_message_failed" in logged
    for secret in ("VN-0042", "Người", "ACC-1", "ORD-1", "D-7"):
        assert secret not in logged


async def test_the_same_order_over_many_connections_at_once_is_stored_once(listening):
    got = await asyncio.gather(*(raw(listening.port, mllp.framed(order())) for _ in range(12)))
    assert {said(each)[0] for each in got} == {"AA"}
    assert set(await stored(listening)) == {"ACC-1"}


async def test_off_by_default_and_not_without_peers(tmp_path):
    assert await hl7_listener.start(None, settings_for(tmp_path)) is None
    with pytest.raises(ValueError, match="say who may call"):
        settings_for(tmp_path, hl7_port=2575)


# ---------------------------------------------------------------- sending
@contextlib.asynccontextmanager
async def sink(answer):
    """A receiver that answers each message with ``answer(message)``; gives its port and what it got."""
    got, tasks = [], set()

    async def receive(reader, writer):
        tasks.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            frame = await reader.readuntil(b"\x1c\r")
            got.append(frame[1:-2])
            if (reply := answer(frame[1:-2])) is None:
                await reader.read()  # until the sender goes
            else:
                writer.write(reply)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(receive, "127.0.0.1", 0, limit=10_000_000)
    try:
        yield server.sockets[0].getsockname()[1], got
    finally:
        server.close()
        await asyncio.gather(*tasks)
        await server.wait_closed()


def acknowledged(message, code="AA", error=""):
    """What the hl7 library answers."""
    answer = str(hl7_library.parse(message.decode().rstrip("\r")).create_ack(code)) + "\r"
    return mllp.framed((answer + error).encode())


async def test_a_result_goes_out_and_its_acknowledgement_comes_back():
    message = hl7.render(report(3), "vi")
    async with sink(acknowledged) as (port, got):
        answer = await mllp.send("127.0.0.1", port, message, timeout_s=5)
    assert answer == mllp.Acknowledgement("AA", hl7.control_id(report(3), "vi"))
    assert answer.accepted
    assert got == [message]
    assert NAME in got[0].decode("utf-8")


@pytest.mark.parametrize("code", ["AE", "AR", "CA", "CE", "CR"])
async def test_every_acknowledgement_is_understood(code):
    error = "ERR||PID^1^5|101^Người Được Khám^HL70357|E\r" if code != "CA" else ""
    async with sink(lambda message: acknowledged(message, code, error)) as (port, _):
        answer = await mllp.send("127.0.0.1", port, hl7.render(report(1), "en"), timeout_s=5)
    assert (answer.code, answer.error, answer.accepted) == (code, "101" if error else "", code == "CA")


async def test_our_listener_takes_what_we_send_and_says_that_it_is_no_order(listening):
    answer = await mllp.send("127.0.0.1", listening.port, hl7.render(report(1), "vi"), timeout_s=5)
    assert (answer.code, answer.error) == ("AR", "200")
    answer = await mllp.send("127.0.0.1", listening.port, order(), timeout_s=5)
    assert answer == mllp.Acknowledgement("AA", "1")


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (lambda message: None, "timeout"),
        (lambda message: b"", "closed"),
        (lambda message: b"\r\n", "closed"),
        (lambda message: b"HTTP/1.1 400 Bad Request\r\n\r\n", "malformed_answer"),
        (lambda message: b"\x0bMSH|^~\\&|", "malformed_answer"),
        (lambda message: mllp.framed(b"MSH|^~\\&|\r"), "malformed_answer"),
        (lambda message: mllp.framed(b"\xff\xfe"), "malformed_answer"),
        (lambda message: acknowledged(message, "ZZ"), "malformed_answer"),
        (lambda message: b"\x0b" + b"A" * 100_000 + b"\x1c\r", "malformed_answer"),
        (lambda message: mllp.framed(b"MSH|^~\\&|a|b|||||ACK|1|P|2.5.1\rMSA|AA|ANOTHER\r"), "other_answer"),
    ],
)
async def test_what_is_no_acknowledgement_is_not_taken_for_one(reply, code):
    async with sink(reply) as (port, _):
        with pytest.raises(mllp.SendFailed) as failed:
            await mllp.send("127.0.0.1", port, hl7.render(report(1), "en"), timeout_s=0.5)
    assert failed.value.code == code


async def test_nobody_there_and_nothing_to_send_are_said_plainly():
    message = hl7.render(report(1), "en")
    with pytest.raises(mllp.SendFailed) as failed:
        await mllp.send("127.0.0.1", free_port(), message, timeout_s=2)
    assert failed.value.code == "unreachable"
    with pytest.raises(mllp.SendFailed) as failed:
        await mllp.send("no-such-host.invalid", 2575, message, timeout_s=5)
    assert failed.value.code in {"unreachable", "timeout"}
    for unfit in (b"", b"MSH|^~\\&|", b"MSH|^~\\&|\x0b|||||||x", message[:40] + b"\x1c" + message[40:]):
        with pytest.raises(ValueError, match="message"):
            await mllp.send("127.0.0.1", 1, unfit, timeout_s=1)


async def test_a_receiver_that_takes_nothing_is_given_up_in_time():
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        large = hl7.render(report(1), "en") + b"NTE|1||" + b"A" * 20_000_000 + b"\r"
        began = asyncio.get_running_loop().time()
        with pytest.raises(mllp.SendFailed) as failed:
            await mllp.send("127.0.0.1", deaf.getsockname()[1], large, timeout_s=0.3)
        assert failed.value.code == "timeout"
        assert asyncio.get_running_loop().time() - began < 3
