"""Messages between the service and its reader processes.

The service sends pickled calls: a reader trusts it. A reader has read strangers' bytes, so its answers are JSON of a
declared type and plain arrays in shared memory. They are checked, and nothing in them is executed.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

MAX_MESSAGE_BYTES = 16 << 20
PIECE_BYTES = 64 << 10
MAX_FILES = 200
"""Linux passes at most 253 files with one message (``SCM_MAX_FD``)."""


class Gone(Exception):
    """The other side has closed its end."""


def send(connection: socket.socket, message: bytes, files: Sequence[int] = ()) -> None:
    """Send one message, and open files with it.

    Raises
    ------
    Gone
        The other side has closed its end.
    TimeoutError
        It takes nothing in the connection's time.
    """
    whole = struct.pack("<L", len(message)) + message
    try:
        if files:
            whole = whole[socket.send_fds(connection, [whole], files) :]
        if whole:
            connection.sendall(whole)
    except BlockingIOError:
        raise TimeoutError from None
    except ConnectionError:
        raise Gone from None


def receive(connection: socket.socket, *, with_files: bool = False) -> tuple[bytes, list[int]]:
    """The next message, and the files that came with it. Only one message is ever on its way.

    Raises
    ------
    Gone
        The other side has closed its end, or its message is too long.
    TimeoutError
        The connection's time has passed.
    """
    files: list[int] = []
    try:
        if with_files:
            piece, files, _, _ = socket.recv_fds(connection, PIECE_BYTES, MAX_FILES)
        else:
            piece = connection.recv(PIECE_BYTES)
        received = bytearray(piece)
        while len(received) < 4 or len(received) < 4 + _length(received):
            if not piece:
                raise Gone
            piece = connection.recv(PIECE_BYTES)
            received += piece
    except BlockingIOError:
        raise TimeoutError from None
    except ConnectionError:
        raise Gone from None
    return bytes(received[4:]), files


def limit_time(connection: socket.socket, seconds: float) -> None:
    """How long messages may take. The kernel waits; Python's own timeout would take a second system call."""
    whole, part = divmod(max(0.001, seconds), 1)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", int(whole), int(part * 1e6)))


def _length(received: bytearray) -> int:
    (length,) = struct.unpack_from("<L", received)
    if length > MAX_MESSAGE_BYTES:
        raise Gone
    return int(length)
