"""Persons of the provider among the keys, over both databases."""

from __future__ import annotations

import asyncio

import pytest

from service.errors import SignInRefused
from service.parts import Parts
from service.provider.persons import admit, dismiss, hash_of_person
from service.provider.roles import Person
from service.storage.migrate import migrate
from tests.service.serving import settings_for

DOCTOR = Person("doctor", "xa", "D-1", "BS. Thử Nghiệm")


@pytest.fixture
def parts(tmp_path, new_database):
    made = Parts.open(settings_for(tmp_path, database_url=new_database()))
    migrate(made.settings, made.database)
    yield made
    made.database.close()


def test_a_person_is_known_by_issuer_and_subject_together():
    hashes = {hash_of_person(issuer, subject) for issuer in ("https://a", "https://b") for subject in ("1", "2")}
    assert len(hashes) == 4
    assert all(len(each) <= 64 and each.startswith("provider:") for each in hashes)


async def test_the_same_person_at_the_same_time_is_one_row(parts):
    await asyncio.gather(*(admit(parts.database, "provider:x", DOCTOR) for _ in range(8)))
    (row,) = await parts.keys.list()
    assert (row.role, row.site, row.doctor_id, row.label) == ("doctor", "xa", "D-1", "BS. Thử Nghiệm")
    await admit(parts.database, "provider:x", Person("specialist", "central", "S-1", "BS. Mới"))
    (now,) = await parts.keys.list()
    assert (now.id, now.role, now.site, now.doctor_id, now.label) == (row.id, "specialist", "central", "S-1", "BS. Mới")


async def test_a_revoked_person_is_refused_until_readmitted(parts):
    await admit(parts.database, "provider:x", DOCTOR)
    (row,) = await parts.keys.list()
    await parts.keys.revoke(row.id)
    with pytest.raises(SignInRefused) as refused:
        await admit(parts.database, "provider:x", DOCTOR)
    assert refused.value.found == "revoked"
    await parts.keys.readmit(row.id)
    await admit(parts.database, "provider:x", DOCTOR)
    assert [each.revoked_at for each in await parts.keys.list()] == [None]


async def test_who_is_dismissed_has_no_session_left(parts):
    await admit(parts.database, "provider:x", DOCTOR)
    cookies = [await parts.sessions.open(key_hash, "", "") for key_hash in ("provider:x", "provider:x", "provider:y")]
    assert (await parts.sessions.find(cookies[0], "")).doctor_id == "D-1"
    await dismiss(parts.database, "provider:x")
    assert [await parts.sessions.find(each, "") for each in cookies] == [None] * 3
