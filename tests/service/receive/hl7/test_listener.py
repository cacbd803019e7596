"""The HL7 v2 listener over real sockets and databases, with the hl7 library's client as the sender."""

from __future__ import annotations

import asyncio
import contextlib
import random
from types import SimpleNamespace

import pytest
from sqlalchemy import func, select

from service.protocols import mllp
from service.receive.hl7 import listener as hl7_listener
from service.receive.orders import find_order
from service.report.hl7 import message as hl7
from service.storage.database import Database
from service.storage.migrate import migrate
from service.storage.tables import OrderMessageRow, OrderRow
from tests.service.hl7_judges import hl7_library, validated
from tests.service.orthanc import free_port
from tests.service.receive.hl7.made import MSH, ORDER, SITE, order
from tests.service.report_fixture import report
from tests.service.serving import settings_for


@pytest.fixture(scope="module")
def database(tmp_path_factory, new_database):
    settings = settings_for(tmp_path_factory.mktemp("orders"), database_url=new_database())
    made = Database(settings.database)
    migrate(settings, made)
    yield made
    made.close()


@pytest.fixture
async def listening(database, tmp_path):
    """A listener that has no orders yet, with its port and its database."""
    settings = settings_for(tmp_path, hl7_port=free_port(), hl7_peers=f"10.0.0.1=far, 127.0.0.1={SITE}")

    def empty(session):
        session.query(OrderRow).delete()
        session.query(OrderMessageRow).delete()

    await database.write(empty)
    listener = await hl7_listener.start(SimpleNamespace(database=database), settings)
    yield SimpleNamespace(port=settings.hl7_port, database=database, listener=listener)
    await listener.aclose()


async def sent(listening, *messages):
    """Send messages over one connection of the hl7 library's client; their answers as :func:`said` gives them."""
    from hl7.client import MLLPClient

    def send_all():
        with MLLPClient("127.0.0.1", listening.port) as client:
            client.socket.settimeout(20)
            return [client.send_message(each) for each in messages]

    return [said(each) for each in await asyncio.to_thread(send_all)]


def said(answer, *, valid=True):
    """The acknowledgement in a frame: (code, control id, error, location)."""
    assert answer[:1] == b"\x0b"
    assert answer[-2:] == b"\x1c\r"
    parsed = hl7_library.parse(answer[1:-2].decode("utf-8"))
    msa = parsed.segment("MSA")
    about = str(msa[2]) if len(msa) > 2 else ""
    if about and valid:  # the standard has no answer to a message without an id
        validated(answer[1:-2])
    error = parsed.segments("ERR")[0] if "\rERR" in answer.decode() else None
    code = int(str(error[3][0][0])) if error else None
    return str(msa[1]), about, code, str(error[2]) if error else None


async def stored(listening):
    def rows(session):
        return {row.accession_number: row.context for row in session.scalars(select(OrderRow)).all()}

    return await listening.database.read(rows)


async def raw(port, data, *, half_close=False, answers=1):
    """Send bytes as they are; what the listener sends until it has given so many answers, or closes."""
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


# ---------------------------------------------------------------- orders
async def test_an_order_is_stored_under_its_site(listening):
    assert await sent(listening, order()) == [("AA", "1", None, None)]
    found = await listening.database.read(lambda session: find_order(session, SITE, "ACC-1"))
    assert found.person.name == "Bà Người Được Khám Thử Nghiệm"
    assert await listening.database.read(lambda session: find_order(session, "far", "ACC-1")) is None


async def test_an_order_is_committed_before_it_is_acknowledged(listening, monkeypatch):
    """Another connection finds the order in the table before the acknowledgement is written."""
    seen = []
    acknowledge = hl7_listener.acknowledgement

    def looking(*args):
        with listening.database.transaction() as session:
            seen.append(session.scalar(select(func.count()).select_from(OrderRow)))
        return acknowledge(*args)

    monkeypatch.setattr(hl7_listener, "acknowledgement", looking)
    assert await sent(listening, order()) == [("AA", "1", None, None)]
    assert seen == [1]


async def test_an_order_is_replaced_cancelled_and_repeated(listening):
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


async def test_a_repeated_message_is_known_after_a_restart_and_only_from_its_sender(listening, tmp_path):
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


async def test_a_message_that_is_no_order_is_refused_and_changes_nothing(listening):
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


async def test_the_same_order_over_many_connections_at_once_is_stored_once(listening):
    got = await asyncio.gather(*(raw(listening.port, mllp.framed(order())) for _ in range(12)))
    assert {said(each)[0] for each in got} == {"AA"}
    assert set(await stored(listening)) == {"ACC-1"}


async def test_our_own_sender_is_answered(listening):
    answer = await mllp.send("127.0.0.1", listening.port, hl7.render(report(1), "vi"), timeout_s=5)
    assert (answer.code, answer.error) == ("AR", "200")
    answer = await mllp.send("127.0.0.1", listening.port, order(), timeout_s=5)
    assert answer == mllp.Acknowledgement("AA", "1")


# ---------------------------------------------------------------- connections
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
async def test_bytes_without_a_frame_end_the_connection_and_change_nothing(listening, data):
    assert await raw(listening.port, data, half_close=True) == b""
    assert await stored(listening) == {}


async def test_a_message_that_is_cut_off_changes_nothing_and_the_next_peer_is_served(listening):
    whole = mllp.framed(order())
    for cut in range(1, len(whole) - 1, 29):
        _, writer = await asyncio.open_connection("127.0.0.1", listening.port)
        writer.write(whole[:cut])
        await writer.drain()
        writer.transport.abort()
    assert await stored(listening) == {}
    assert await sent(listening, order()) == [("AA", "1", None, None)]


async def test_flipped_bits_are_answered_or_end_the_connection(listening):
    chance = random.Random(11)
    whole = mllp.framed(order())
    for _ in range(150):
        flipped = bytearray(whole)
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
        got = await raw(listening.port, bytes(flipped), half_close=True)
        if got:
            assert said(got, valid=False)[0] in {"AA", "AE", "AR"}
    (last,) = await sent(listening, order("last", accession="LAST"))
    assert last == ("AA", "last", None, None)


async def test_a_silent_peer_is_disconnected(listening, monkeypatch):
    monkeypatch.setattr(hl7_listener, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(hl7_listener, "FRAME_SECONDS", 0.1)
    for begun in (b"", b"\x0bMSH|"):
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.port)
        writer.write(begun)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
    assert await stored(listening) == {}


async def test_the_number_of_connections_is_bounded(listening, monkeypatch):
    monkeypatch.setattr(hl7_listener, "MAX_CONNECTIONS", 3)
    held = [await asyncio.open_connection("127.0.0.1", listening.port) for _ in range(3)]
    await asyncio.sleep(0.1)
    assert await raw(listening.port, mllp.framed(order())) == b""
    for _, writer in held:
        writer.close()
        await writer.wait_closed()
    async with asyncio.timeout(5):
        while not (got := await raw(listening.port, mllp.framed(order()))):
            pass
    assert said(got) == ("AA", "1", None, None)


async def test_a_peer_that_is_not_listed_is_refused(database, tmp_path):
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


async def test_a_drain_finishes_the_message_that_is_worked_on_and_closes_the_other_connections(listening, monkeypatch):
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


async def test_a_message_is_rejected_while_the_database_fails_and_can_be_sent_again(listening, monkeypatch, capfd):
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


async def test_the_listener_is_off_by_default_and_needs_peers(tmp_path):
    assert await hl7_listener.start(None, settings_for(tmp_path)) is None
    with pytest.raises(ValueError, match="say who may call"):
        settings_for(tmp_path, hl7_port=2575)
