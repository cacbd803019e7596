"""MLLP, the frame around an HL7 v2 message on a socket: reading one, and sending one and reading its acknowledgement.

There is no TLS: outside a trusted network, use a tunnel (``docs/reference/hl7.md``).

References
----------
HL7 v2 Transport Specification: MLLP, Release 1, section 3: ``<SB>message<EB><CR>``.
HL7 v2.5.1, section 2.9.2 and table 0008 (acknowledgement codes).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, cast, get_args

from service.protocols.er7 import Message, NotUsable, header_of

START, END, CARRIAGE_RETURN = b"\x0b", b"\x1c", b"\r"
MAX_MESSAGE_BYTES = 1_000_000
MAX_ANSWER_BYTES = 64 * 1024
BETWEEN_FRAMES = b"\r\n"
"""Bytes without meaning that some senders write between two frames."""

Code = Literal["AA", "AE", "AR", "CA", "CE", "CR"]
Failure = Literal["unreachable", "timeout", "closed", "malformed_answer", "other_answer"]


class BadFrame(Exception):
    """The bytes are not a frame, or the frame is too large; where the next one begins is not known."""


class SendFailed(Exception):
    """No acknowledgement came. The message may have arrived or not; it has to be sent again unchanged.

    Parameters
    ----------
    code
        ``unreachable``, ``timeout``, ``closed`` (before an answer), ``malformed_answer``, or ``other_answer`` (an
        answer to another message).
    """

    def __init__(self, code: Failure) -> None:
        super().__init__(code)
        self.code: Failure = code


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The receiver's answer.

    Parameters
    ----------
    code
        ``AA`` or ``CA``: accepted. ``AE`` or ``CE``: an error in the message. ``AR`` or ``CR``: rejected.
    control_id
        MSH-10 of the message that is acknowledged.
    error
        Code of table 0357, ``""`` if there is none. The receiver's text is not kept: it may name a person.
    """

    code: Code
    control_id: str
    error: str = ""

    @property
    def accepted(self) -> bool:
        return self.code in {"AA", "CA"}


def framed(message: bytes) -> bytes:
    """``message`` in its frame.

    Raises
    ------
    ValueError
        It contains a byte that begins or ends a frame.
    """
    if START in message or END in message:
        raise ValueError("a message cannot contain the bytes of its frame")
    return START + message + END + CARRIAGE_RETURN


async def read_frame(
    reader: asyncio.StreamReader, *, idle_seconds: float | None, frame_seconds: float | None
) -> bytes | None:
    """The next message; ``None`` if the peer has closed the connection.

    Parameters
    ----------
    reader
        Its ``limit`` is the largest size of a frame.
    idle_seconds
        How long to wait for the first byte; ``None``: without limit.
    frame_seconds
        How long the rest may take; ``None``: without limit.

    Raises
    ------
    BadFrame
        Bytes outside a frame, a frame within another, or one that is cut off or too large.
    TimeoutError
        It did not come in time.
    """
    try:
        async with asyncio.timeout(idle_seconds):
            while (first := await reader.read(1)) and first in BETWEEN_FRAMES:
                pass
        if not first:
            return None
        if first != START:
            raise BadFrame
        async with asyncio.timeout(frame_seconds):
            message = (await reader.readuntil(END))[:-1]
            if await reader.readexactly(1) != CARRIAGE_RETURN or START in message:
                raise BadFrame
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise BadFrame from None
    return message


async def send(host: str, port: int, message: bytes, *, timeout_s: float) -> Acknowledgement:
    """Send one message over a connection of its own and wait for its acknowledgement.

    Parameters
    ----------
    timeout_s
        For the whole exchange, from the connection to the answer.

    Raises
    ------
    SendFailed
        No acknowledgement of this message came.
    ValueError
        The message has no control id (MSH-10).
    """
    header = header_of(message)
    control_id = header.text(10) if header else ""
    if not control_id:
        raise ValueError("a message without a control id cannot be acknowledged")
    frame = framed(message)
    try:
        async with asyncio.timeout(timeout_s):
            answer = await _exchange(host, port, frame)
    except TimeoutError:
        raise SendFailed("timeout") from None
    return _acknowledgement(answer, control_id)


async def _exchange(host: str, port: int, frame: bytes) -> bytes:
    try:
        reader, writer = await asyncio.open_connection(host, port, limit=MAX_ANSWER_BYTES)
    except (OSError, UnicodeError):  # UnicodeError: it cannot be a host's name
        raise SendFailed("unreachable") from None
    try:
        writer.write(frame)
        await writer.drain()
        answer = await read_frame(reader, idle_seconds=None, frame_seconds=None)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    except BadFrame:
        raise SendFailed("malformed_answer") from None
    except OSError:
        raise SendFailed("closed") from None
    finally:
        writer.transport.abort()  # a normal close would wait for a peer that does not read
    if answer is None:
        raise SendFailed("closed")
    return answer


def _acknowledgement(answer: bytes, control_id: str) -> Acknowledgement:
    """Read the answer to the message with ``control_id``.

    Raises
    ------
    SendFailed
    """
    try:
        # the receiver's text may be in any character set; codes and ids are ASCII in all of them
        first = {segment.name: segment for segment in reversed(Message(answer, "latin-1").segments)}
        msa, err = first.get("MSA"), first.get("ERR")
        code, about = (msa.text(1), msa.text(2)) if msa else ("", "")
        error = (err.text(3) or err.text(1, 4)) if err else ""
    except NotUsable:
        raise SendFailed("malformed_answer") from None
    if code not in get_args(Code):
        raise SendFailed("malformed_answer")
    if about != control_id:
        raise SendFailed("other_answer")
    return Acknowledgement(cast("Code", code), about, error if error.isascii() and error.isdigit() else "")
