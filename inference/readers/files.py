"""Open files that are handed to readers."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open file, and the SHA-256 of the content that it has to have; ``None``: its content is not checked.

    Whoever gets it closes its descriptor.
    """

    descriptor: int
    sha256: str | None = None

    @classmethod
    def of(cls, content: bytes | memoryview) -> OpenFile:
        """A file in memory with this content."""
        made = os.memfd_create("posted", os.MFD_CLOEXEC)
        view = memoryview(content)
        while view:
            view = view[os.write(made, view) :]
        return cls(made)
