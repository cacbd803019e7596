"""Open files that are handed to readers."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open file. Whoever gets it closes its descriptor.

    Parameters
    ----------
    sha256
        Of the content that it has to have; ``None``: its content is not checked.
    n_bytes
        How much of its beginning is read; ``None``: all of it.
    """

    descriptor: int
    sha256: str | None = None
    n_bytes: int | None = None

    @classmethod
    def of(cls, content: bytes | memoryview) -> OpenFile:
        """A file in memory with this content."""
        made = os.memfd_create("posted", os.MFD_CLOEXEC)
        view = memoryview(content)
        while view:
            view = view[os.write(made, view) :]
        return cls(made)
