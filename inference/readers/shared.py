"""Memory that the service and a reader share: the reader puts the arrays of a result there, the service views them.

An area is used again once nothing refers to the arrays in it. Its pages then stay mapped on both sides: to map new ones
for each result would take 0.3 ms, ten times as long as to write them.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable, Sequence
from typing import Any
from weakref import finalize

import numpy as np

from inference.readers.job import Array

ALIGNED_TO = 64
MAX_DIMENSIONS = 4
DTYPES = {name: np.dtype(name) for name in ("uint8", "float32", "float64")}


class Area:
    """Shared memory of a fixed size, as one of the two processes has mapped it.

    Parameters
    ----------
    number
        By which the other process knows it.
    descriptor
        Of its file in memory; it is closed by this object.
    """

    def __init__(self, number: int, descriptor: int, n_bytes: int, *, writable: bool) -> None:
        self.number, self.n_bytes = number, n_bytes
        self.descriptor = descriptor
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._memory = mmap.mmap(descriptor, n_bytes, prot=protection)

    @classmethod
    def made(cls, number: int, n_bytes: int) -> Area:
        """A new one. Nobody can change its size: a reader that cut it would end the service at its next look."""
        descriptor = os.memfd_create("read", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, n_bytes)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return cls(number, descriptor, n_bytes, writable=False)

    def close_descriptor(self) -> None:
        """The memory stays mapped."""
        os.close(self.descriptor)

    def put(self, arrays: Sequence[Array]) -> list[dict[str, Any]]:
        """Write ``arrays`` one after the other; where each of them is.

        Raises
        ------
        MemoryError
            They are longer than the area.
        """
        places: list[dict[str, Any]] = []
        at = 0
        for array in arrays:
            if at + array.nbytes > self.n_bytes:
                raise MemoryError
            np.frombuffer(self._memory, array.dtype, array.size, at)[:] = array.reshape(-1)
            places.append({"dtype": array.dtype.name, "shape": list(array.shape), "at": at})
            at += -(-array.nbytes // ALIGNED_TO) * ALIGNED_TO
        return places

    def views(self, places: Sequence[Any], released: Callable[[Area], object]) -> tuple[Array, ...]:
        """The arrays that the other process has put here, in place and read-only.

        Parameters
        ----------
        released
            Is called once nothing refers to them any more.

        Raises
        ------
        ValueError, TypeError, KeyError
            They do not lie in the area.
        """
        whole = np.frombuffer(self._memory, np.uint8)  # the base of every view, so that it lives as long as they do
        finalize(whole, released, self)
        found = []
        for place in places:
            dtype, at, shape = DTYPES[place["dtype"]], int(place["at"]), [int(size) for size in place["shape"]]
            if min([0, at, *shape]) < 0 or len(shape) > MAX_DIMENSIONS:
                raise ValueError("a shape that no reader gives")
            end = at + dtype.itemsize * int(np.prod(shape, dtype=np.float64))
            if end > self.n_bytes:
                raise ValueError("an array outside the shared memory")
            found.append(whole[at:end].view(dtype).reshape(shape))
        return tuple(found)
