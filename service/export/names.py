"""Pseudonyms, identifiers and days of an export, all of them by one secret key that never leaves.

They depend on the recipient too: two recipients cannot put their packages together by them. The key stays in the data
folder, so that the same person has the same pseudonym in the next export to the same recipient, and so that an answer
finds its visit without any table of names.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from data_specs.person import pseudonym
from service.backup.contents import EXPORT_KEY
from service.storage.commands import NotDone

KEY_BYTES = 32
LONGEST_SHIFT_DAYS = 364
"""Days of a person are moved into the past by 1 to this many days: whole weeks would keep the day of the week, and a
day to come would be refused as a mistake at the other end."""


@dataclass(frozen=True, slots=True)
class Names:
    """What persons, visits, sites and DICOM objects are called in a package for ``recipient``."""

    key: bytes
    recipient: str

    def _of(self, *parts: str) -> str:
        return pseudonym(self.key, "export", self.recipient, *parts)

    def person(self, site: str, person_id: str | None, visit_id: str) -> str:
        """Of a person whose identifier is not known, each visit is a person's of its own."""
        return self._of("person", site, person_id) if person_id else self._of("visit's person", visit_id)

    def visit(self, visit_id: str) -> str:
        return self._of("visit", visit_id)

    def site(self, site: str) -> str:
        return self._of("site", site)[:8]

    def uid(self, *parts: str) -> str:
        """A UID that is made of nothing but the pseudonym (PS3.5, section B.2 for the root ``2.25``)."""
        return f"2.25.{int(self._of('uid', *parts), 16)}"

    def moved(self, day: date, person: str) -> date:
        """A day of a person, by their pseudonym: the days between two visits of one person stay what they are."""
        return day - timedelta(days=1 + int(self._of("shift", person), 16) % LONGEST_SHIFT_DAYS)


def read_key(data_dir: Path) -> bytes:
    """The key of this installation; made at the first export, readable by nobody else.

    Raises
    ------
    NotDone
        The file is no key. It is not made anew, because answers to earlier exports would not find their visits.
    OSError
    """
    path = data_dir / EXPORT_KEY
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{secrets.token_hex(KEY_BYTES)}\n")
            file.flush()
            os.fsync(file.fileno())
    try:
        key = bytes.fromhex(path.read_text("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise NotDone(f"{path} is not the key of exports; put back the one of the last backup")
    return key
