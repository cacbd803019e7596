"""HL7 v2 order messages: what is read, what is refused, and with which code and location."""

from __future__ import annotations

import contextlib
import random
from datetime import date

import pytest

from data_specs.visit.context import Context, Order, Person, Referrer
from service.protocols import mllp
from service.protocols.er7 import NotUsable
from service.receive.hl7.order_messages import read_orders
from tests.service.receive.hl7.made import MSH, order

TODAY = date(2026, 11, 22)


def test_an_order_is_read_with_every_diacritic():
    read = read_orders(order(), TODAY)
    (one,) = read.instructions
    assert (one.control, one.accession_number) == ("store", "ACC-1")
    assert one.context == Context(
        person=Person(
            id="VN-0042",
            name="Bà Người Được Khám Thử Nghiệm",
            birth_date=date(1961, 5, 30),
            age_years=65.47,
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
        ("PID|1||7||Mai^Lan||19610000|F", Person(id="7", name="Mai Lan", sex="female")),
        ("PID|1||7||Mai^Lan||19610500|", Person(id="7", name="Mai Lan")),
        ("PID|1||7||Mai^Lan||00000000|", Person(id="7", name="Mai Lan")),
        ("PID|1||7||Mai^Lan||00010101|", Person(id="7", name="Mai Lan")),
        ('PID|1||7||""||""|""', Person(id="7")),
        ("PID|1||001061000123^^^X^NI~7^^^BV^MR||Mai^Lan", Person(id="7", national_id="001061000123", name="Mai Lan")),
        ("PID|1||7^^^BV^MR~001061000123^^^X^NNVNM||Mai", Person(id="7", national_id="001061000123", name="Mai")),
        ("PID|1||7^^^BV^MR~9^^^X^NNN||Mai", Person(id="7", name="Mai")),
        ("PID|1||1^^^X^SS~7^^^BV^MR||~Mai^Lan^^^^^^^^^G||196105301200|A", None),
        ("PID|1||7||Mai&van^Lan\\X20\\B||20261121|u", None),
    ],
)
def test_what_a_message_does_not_say_of_a_person_stays_unknown(pid, expected):
    person = read_orders(order(PID=pid), TODAY).instructions[0].context.person
    if expected:
        assert person == expected
    elif "SS" in pid:
        assert person == Person(id="7", name="Lan Mai", birth_date=date(1961, 5, 30), age_years=65.47, sex="other")
    else:
        assert person == Person(id="7", name="Mai Lan B", birth_date=date(2026, 11, 21), age_years=0, sex="unknown")


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
def test_an_unusable_message_is_refused_with_code_and_location(changed, code, location, rejected):
    with pytest.raises(NotUsable) as refused:
        read_orders(order(**changed), TODAY)
    assert (refused.value.code, refused.value.location, refused.value.rejected) == (code, location, rejected)


def test_declared_character_sets_are_read_and_undeclared_bytes_are_not():
    latin = order(
        MSH=MSH.replace("UNICODE UTF-8", "8859/1"), PID="PID|1||7||Désiré^Noëlle", OBR="OBR|1||9", ORC="ORC|NW", PV1=""
    )
    read = read_orders(latin.decode().encode("latin-1"), TODAY)
    assert read.instructions[0].context.person.name == "Désiré Noëlle"
    plain = order(MSH=MSH.replace("UNICODE UTF-8", ""), PID="PID|1||7||Mai^Lan", OBR="OBR|1||9", ORC="ORC|NW", PV1="")
    assert read_orders(plain, TODAY).instructions[0].context.person.name == "Mai Lan"
    with pytest.raises(NotUsable) as refused:
        read_orders(order()[:-3] + b"\xff\r", TODAY)
    assert refused.value.location == "MSH^1^18"


def test_other_separators_and_omg_messages_are_read():
    message = order().decode().replace("ORM^O01^ORM_O01", "OMG^O19^OMG_O19").translate(str.maketrans("|^~&", "#:;!"))
    read = read_orders(message.encode(), TODAY)
    assert read.instructions[0].context == read_orders(order(), TODAY).instructions[0].context.model_copy(
        update={"order": Order(placer="ORD-1", accession_number="ACC-1", reason="Khám sức khỏe ! ho")}
    )


def test_any_bytes_are_read_or_refused():
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
