"""How a process knows that another one on its machine is dead: a lock file that the kernel lets go of.

Each process holds an exclusive lock on a file named for it for as long as it lives. Whoever can take that lock knows
that its holder is gone, however it went. Process ids would not do: they are used again, and differ between containers.
Where processes do not share a data folder, the lease's end decides.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path


class Owner:
    """This process's name among those who lease work, locked until it closes or dies."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.id = uuid.uuid4().hex
        self._folder = folder
        draft = folder / f"{self.id}.draft"
        self._file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        draft.rename(self._path(self.id))  # only now can others see it, and it is locked

    def dead(self) -> list[str]:
        """Names of processes whose lock is free."""
        found = []
        for path in self._folder.glob("*.lock"):
            if path.stem == self.id:
                continue
            try:
                file = os.open(path, os.O_RDWR)
            except FileNotFoundError:  # it has just been buried by another process
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.append(path.stem)
            except BlockingIOError:
                pass  # alive
            finally:
                os.close(file)
        return found

    def bury(self, name: str) -> None:
        """Forget a dead process; call this when its leases are free."""
        self._path(name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the lock; whoever finds it buries the name, with what might still be leased to it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"
