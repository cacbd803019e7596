"""Messages between the service and its reader processes.

The service sends pickled calls: a reader trusts it. A reader has read strangers' bytes, so its answers are JSON of a
declared type and plain arrays in shared memory. They are checked, and nothing in them is executed.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

MAX_MESSAGE_BYTES = 16 << 20
MAX_FILES = 200
"""Linux passes at most 253 files with one message (``SCM_MAX_FD``)."""


class Gone(Exception):
    """The other side has closed its end."""


def send(connection: socket.socket, message: bytes, files: Sequence[int] = ()) -> None:
    """Send one message, and open files with it."""
    start = struct.pack("<L", len(message))
    if files:
        socket.send_fds(connection, [start], files)
        connection.sendall(message)
    else:
        connection.sendall(start + message)


def receive(connection: socket.socket, *, with_files: bool = False) -> tuple[bytes, list[int]]:
    """The next message, and the files that came with it.

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
            start, files, _, _ = socket.recv_fds(connection, 4, MAX_FILES)
        else:
            start = connection.recv(4)
        start += _exactly(connection, 4 - len(start)) if start else b""
        if len(start) < 4:
            raise Gone
        (length,) = struct.unpack("<L", start)
        if length > MAX_MESSAGE_BYTES:
            raise Gone
        return _exactly(connection, length), files
    except ConnectionError:
        raise Gone from None


def _exactly(connection: socket.socket, n_bytes: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < n_bytes:
        piece = connection.recv(n_bytes - len(pieces))
        if not piece:
            raise Gone
        pieces += piece
    return bytes(pieces)
