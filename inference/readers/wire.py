"""Messages between the service and its reader processes.

The service sends pickled calls: a reader trusts it. A reader has read strangers' bytes, so its answers are JSON of a
declared type and plain arrays in shared memory. They are checked, and nothing in them is executed.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
MAX_MESSAGE_BYTES = 16 << 20
MAX_FILES = 200
"""Linux passes at most 253 files with one message (``SCM_MAX_FD``)."""
ALIGNED_TO = 64
DTYPES = {name: np.dtype(name) for name in ("uint8", "float32", "float64")}


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


# ---------------------------------------------------------------- arrays in shared memory
def shared_file(n_bytes: int) -> int:
    """A file in memory of ``n_bytes``, whose size nobody can change: a reader that cut it would end the service."""
    made = os.memfd_create("read", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(made, n_bytes)
    fcntl.fcntl(made, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return made


def put_arrays(shared: int, n_bytes: int, arrays: Sequence[Array]) -> list[dict[str, Any]]:
    """Write ``arrays`` into the shared file one after the other; where each of them is.

    Raises
    ------
    MemoryError
        They are longer than the file.
    """
    places: list[dict[str, Any]] = []
    at = 0
    if not arrays:
        return places
    with mmap.mmap(shared, n_bytes) as memory:
        for array in arrays:
            if at + array.nbytes > n_bytes:
                raise MemoryError
            np.frombuffer(memory, array.dtype, array.size, at)[:] = array.reshape(-1)
            places.append({"dtype": array.dtype.name, "shape": list(array.shape), "at": at})
            at += -(-array.nbytes // ALIGNED_TO) * ALIGNED_TO
    return places


def arrays_at(shared: int, n_bytes: int, places: Sequence[Any]) -> tuple[Array, ...]:
    """The arrays that a reader has put into the shared file, viewed in place.

    Raises
    ------
    ValueError, TypeError, KeyError
        They do not lie in the file.
    """
    if not places:
        return ()
    memory = mmap.mmap(shared, n_bytes, prot=mmap.PROT_READ)
    found = []
    for place in places:
        dtype, shape = DTYPES[place["dtype"]], [int(size) for size in place["shape"]]
        if min([0, *shape]) < 0 or len(shape) > 4:
            raise ValueError("a shape that no reader gives")
        count = int(np.prod(shape, dtype=np.int64))
        if not 0 <= place["at"] <= place["at"] + count * dtype.itemsize <= n_bytes:
            raise ValueError("an array outside the shared memory")
        found.append(np.frombuffer(memory, dtype, count, place["at"]).reshape(shape))
    return tuple(found)
