"""Persons who sign in by the provider, as rows among the keys: role, site, identifier and name are read anew each time.

References
----------
OpenID Connect Core 1.0, section 5.7: issuer and ``sub`` together are the only name of a person that stays.
"""

from __future__ import annotations

import base64
import hashlib
import uuid

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.errors import SignInRefused
from service.keys import Key, insert_key
from service.provider.roles import Person
from service.storage.audit import note
from service.storage.database import Database, rowcount
from service.storage.tables import BY_PROVIDER, KeyRow, SessionRow


def hash_of_person(issuer: str, subject: str) -> str:
    """What stands in the place of a secret's hash, and is the hash of none."""
    digest = hashlib.sha256(f"{issuer}\n{subject}".encode()).digest()
    return BY_PROVIDER + base64.urlsafe_b64encode(digest).decode().rstrip("=")


async def admit(database: Database, person_hash: str, person: Person) -> None:
    """Write down who signs in: a new person, or a known one with the role and the name of today.

    Raises
    ------
    SignInRefused
        ``revoked``
    """

    def write(session: Session) -> None:
        row = session.scalars(select(KeyRow).where(KeyRow.hash == person_hash).with_for_update()).one_or_none()
        if row is None:
            key = Key(str(uuid.uuid4()), person.role, person.site, person.doctor_id, person.label)
            insert_key(session, key, person_hash)
            note(session, "key_made", key=key.id, role=key.role, site=key.site, by="provider")
            return
        if row.revoked_at is not None:
            raise SignInRefused("revoked")
        if (row.role, row.site) != (person.role, person.site):
            note(session, "key_changed", key=row.id, role=person.role, site=person.site, by="provider")
        row.role, row.site, row.doctor_id, row.label = person.role, person.site, person.doctor_id, person.label

    try:
        await database.write(write)
    except IntegrityError:  # PostgreSQL: the same person's other first sign-in committed meanwhile
        await database.write(write)


async def dismiss(database: Database, person_hash: str) -> None:
    """End the sessions of a person to whom the provider no longer gives a role here."""
    gone = delete(SessionRow).where(SessionRow.key_hash == person_hash)

    def end(session: Session) -> None:
        if ended := rowcount(session.execute(gone)):
            note(session, "sessions_ended", ended=ended, by="provider")

    await database.write(end)
