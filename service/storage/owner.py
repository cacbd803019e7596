"""How a process finds out that another one has stopped: a lock file, which the kernel releases.

Each process holds an exclusive lock on a file of its own while it runs. The kernel releases the lock when the process
stops, for whatever reason, so a process that can take the lock knows that the owner has stopped. Process ids would not
do: they are used again, and they differ between containers. Where processes do not share a data folder, the end of the
lease decides.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path


class Owner:
    """The name under which this process leases work, locked until :meth:`close` or the end of the process.

    Parameters
    ----------
    folder
        Where the lock files are. A folder serves one kind of work only: a process that forgets a stopped owner has
        freed the work of that kind, and no other.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.id = uuid.uuid4().hex
        self._folder = folder
        draft = folder / f"{self.id}.draft"
        self._file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        draft.rename(self._path(self.id))  # others see the file from now on, and it is locked already

    def stopped_owners(self) -> list[str]:
        """Names of the owners whose lock is free."""
        found = []
        for path in self._folder.glob("*.lock"):
            if path.stem == self.id:
                continue
            try:
                file = os.open(path, os.O_RDWR)
            except FileNotFoundError:  # another process has just forgotten this owner
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.append(path.stem)
            except BlockingIOError:
                pass  # the owner is running
            finally:
                os.close(file)
        return found

    def forget_owner(self, name: str) -> None:
        """Remove the lock file of a stopped owner, once its leases have been ended."""
        self._path(name).unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock. Another process then ends the leases that this owner may still have, and forgets it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"
