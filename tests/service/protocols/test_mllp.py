"""HL7 v2 messages sent over MLLP to receivers of every kind."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from service.protocols import mllp
from service.report.hl7 import message as hl7
from tests.service.hl7_judges import hl7_library
from tests.service.orthanc import free_port
from tests.service.report_fixture import NAME, report


@contextlib.asynccontextmanager
async def receiver(answer):
    """A receiver that answers each message with ``answer(message)``; gives its port and the messages that came."""
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
    """The acknowledgement that the hl7 library makes."""
    answer = str(hl7_library.parse(message.decode().rstrip("\r")).create_ack(code)) + "\r"
    return mllp.framed((answer + error).encode())


async def test_a_result_is_sent_and_acknowledged():
    message = hl7.render(report(3), "vi")
    async with receiver(acknowledged) as (port, got):
        answer = await mllp.send("127.0.0.1", port, message, timeout_s=5)
    assert answer == mllp.Acknowledgement("AA", hl7.control_id(report(3), "vi"))
    assert answer.accepted
    assert got == [message]
    assert NAME in got[0].decode("utf-8")


@pytest.mark.parametrize("code", ["AE", "AR", "CA", "CE", "CR"])
async def test_every_acknowledgement_is_understood(code):
    error = "ERR||PID^1^5|101^Người Được Khám^HL70357|E\r" if code != "CA" else ""
    async with receiver(lambda message: acknowledged(message, code, error)) as (port, _):
        answer = await mllp.send("127.0.0.1", port, hl7.render(report(1), "en"), timeout_s=5)
    assert (answer.code, answer.error, answer.accepted) == (code, "101" if error else "", code == "CA")


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
async def test_an_unusable_answer_is_a_failure(reply, code):
    async with receiver(reply) as (port, _):
        with pytest.raises(mllp.SendFailed) as failed:
            await mllp.send("127.0.0.1", port, hl7.render(report(1), "en"), timeout_s=0.5)
    assert failed.value.code == code


async def test_an_address_without_a_receiver_and_a_message_that_cannot_be_sent():
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


async def test_a_receiver_that_reads_nothing_ends_in_a_timeout():
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        large = hl7.render(report(1), "en") + b"NTE|1||" + b"A" * 20_000_000 + b"\r"
        began = asyncio.get_running_loop().time()
        with pytest.raises(mllp.SendFailed) as failed:
            await mllp.send("127.0.0.1", deaf.getsockname()[1], large, timeout_s=0.3)
        assert failed.value.code == "timeout"
        assert asyncio.get_running_loop().time() - began < 3
