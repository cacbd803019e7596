"""How much room the disks have: new files are refused before a disk is full, so that what is accepted can be finished.

On a full disk no outcome can be written, so a reserve is left.

References
----------
POSIX, ``statvfs``: ``f_bavail`` are the free blocks for processes without privileges, of ``f_frsize`` bytes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path

from service.errors import StorageFull
from service.storage.outages import disk_outages, noted

LOOK_S = 1.0
"""A measurement is used for so long."""


class Room:
    """The room on the disks of some folders.

    Parameters
    ----------
    folders
        By the name under which their room is shown.
    min_free_bytes
        With less than this on one of the disks, nothing new is accepted.
    """

    def __init__(self, folders: Mapping[str, Path], min_free_bytes: int) -> None:
        self._folders = folders
        self._min_free_bytes = min_free_bytes
        self._measured: tuple[float, Mapping[str, int]] = (float("-inf"), {})

    def free_bytes(self) -> Mapping[str, int]:
        """Free bytes by name of the folder, at most :data:`LOOK_S` old. It may block: call it in a thread.

        Raises
        ------
        StorageUnavailable
            A disk does not say.
        """
        if not self._is_fresh():
            self._measured = time.monotonic(), {name: _free_bytes(folder) for name, folder in self._folders.items()}
        return self._measured[1]

    def check(self) -> None:
        """Check that there is room for something new. It may block: call it in a thread.

        Raises
        ------
        StorageFull
            There is less than the reserve.
        StorageUnavailable
        """
        if min(self.free_bytes().values()) < self._min_free_bytes:
            raise noted(StorageFull("reserve"))

    async def wait_for_check(self) -> None:
        """:meth:`check`, in a thread where the disks have to be asked."""
        if self._is_fresh():
            self.check()
        else:
            await asyncio.to_thread(self.check)

    def _is_fresh(self) -> bool:
        return time.monotonic() < self._measured[0] + LOOK_S


@disk_outages()
def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
