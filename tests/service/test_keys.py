"""Look-ups of keys: wrong ones are slowed by address, and neither keep a right key out nor take up the database."""

from __future__ import annotations

import asyncio
import threading

import pytest

from service import keys as keys_module
from service.first_key import first_key
from service.parts import Parts
from service.storage.migrate import migrate
from service.wrong_keys import WRONG_AT_ONCE
from tests.service.serving import settings_for


@pytest.fixture
def parts(tmp_path):
    made = Parts.open(settings_for(tmp_path))
    migrate(made.settings, made.database)
    yield made
    made.database.close()


def many_wrong(client, n=WRONG_AT_ONCE + 1):
    answers = [client.get("/v1/visits", headers={"Authorization": f"Bearer wrong-{i}"}) for i in range(n)]
    return [answer.status_code for answer in answers], answers[-1]


# ---------------------------------------------------------------------- over the wire
def test_wrong_keys_are_slowed_and_a_right_key_from_the_same_address_is_not(served, hardly_forgiven):
    new = served.key("site", "xa")  # the service has not looked it up yet
    with served.client() as client:
        statuses, last = many_wrong(client)
        assert statuses == [401] * WRONG_AT_ONCE + [429]
        assert last.json()["code"] == "too_many_wrong_keys"
        assert 1 <= int(last.headers["retry-after"]) <= hardly_forgiven
        assert last.headers["content-language"] == "en"
        assert client.get("/v1/visits", headers={"Authorization": f"Bearer {new}"}).status_code == 200
        assert client.get("/v1/visits").status_code == 200
        del client.headers["Authorization"]
        assert client.get("/v1/visits").status_code == 401, "a request without a key is no wrong key"
        assert client.get("/login").status_code == 200

        form = {"key": "wrong", "next": "/worklist"}
        refused = client.post("/login", data=form, headers={"Accept-Language": "vi"})
        assert refused.headers["location"] == "/login?failed=often&next=%2Fworklist"
        shown = client.get(refused.headers["location"], headers={"Accept-Language": "vi"})
        assert (shown.status_code, shown.headers["retry-after"]) == (429, "3")
        assert "Có quá nhiều khóa sai" in shown.text
        assert client.post("/login", data={"key": new}).headers["location"] == "/"
        assert client.get("/worklist").status_code == 200


def test_behind_a_proxy_on_this_machine_wrong_keys_are_counted_by_the_address_that_it_names(served, hardly_forgiven):
    with served.client() as client:
        client.headers["X-Forwarded-For"] = "2001:db8::1"
        assert many_wrong(client)[0][-1] == 429
        client.headers["X-Forwarded-For"] = "2001:db8::ffff"  # another address of the same subscriber
        assert many_wrong(client, 1)[0] == [429]
        client.headers["X-Forwarded-For"] = "2001:db8:0:1::1"
        assert many_wrong(client, 1)[0] == [401]


def test_an_ended_session_is_no_wrong_key(served):
    with served.client() as client:
        del client.headers["Authorization"]
        for i in range(WRONG_AT_ONCE + 5):
            answer = client.get("/worklist", headers={"Cookie": f"session=ended-{i}"})
            assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Fworklist")


def test_a_revoked_key_that_was_right_before_is_refused(served):
    with served.client() as admin:
        made = admin.post("/v1/keys", json={"role": "site", "site": "xa"}).json()
        with served.client(made["key"]) as client:
            assert client.get("/v1/visits").status_code == 200
            assert admin.delete(f"/v1/keys/{made['id']}").status_code == 204
            assert client.get("/v1/visits").status_code in (401, 429)


# ---------------------------------------------------------------------- a new secret
def test_a_new_secret_takes_the_place_of_the_old_one_and_its_sessions(served):
    with served.client() as admin:
        asked = {"role": "doctor", "site": "xa", "doctor_id": "D-1", "label": "BS. Thử Nghiệm"}
        made = admin.post("/v1/keys", json=asked).json()
        with served.client(made["key"]) as old:
            session = old.post("/login", data={"key": made["key"]}).cookies["session"]
            renewed = admin.post(f"/v1/keys/{made['id']}/rotate").json()
            assert renewed["key"] != made["key"]
            assert {name: renewed[name] for name in ("id", *asked)} == {"id": made["id"], **asked}
            assert old.get("/v1/visits").status_code in (401, 429)
            del old.headers["Authorization"]
            assert old.get("/v1/visits", headers={"Cookie": f"session={session}"}).status_code == 401
        with served.client(renewed["key"]) as new:
            assert new.get("/v1/visits").status_code == 200
            assert new.post(f"/v1/keys/{made['id']}/rotate").status_code == 403
        assert admin.delete(f"/v1/keys/{made['id']}").status_code == 204
        gone = admin.post(f"/v1/keys/{made['id']}/rotate")
        assert (gone.status_code, gone.json()["code"]) == (404, "not_found")


async def test_the_key_file_of_the_first_start_does_not_bring_an_old_secret_back(tmp_path):
    parts = Parts.open(settings_for(tmp_path, bootstrap_key=None))
    migrate(parts.settings, parts.database)
    try:
        path = await first_key(parts.database, parts.settings)
        old = path.read_text().strip()
        (row,) = await parts.keys.list()
        _, new = await parts.keys.rotate(row.id)
        assert await first_key(parts.database, parts.settings) is None
        assert await parts.keys.find(old, "") is None
        assert (await parts.keys.find(new, "")).id == row.id
    finally:
        parts.database.close()


# ---------------------------------------------------------------------- the database
async def test_many_wrong_keys_leave_the_database_to_others(parts, monkeypatch):
    """Many look-ups that take long: never more than half of the threads, and a key that is known passes them."""
    _, secret = await parts.keys.create("site", "xa", None, "")
    assert await parts.keys.find(secret, "clinic") is not None
    go_on, begun, running, most = threading.Event(), threading.Semaphore(0), [], []
    by_hash = type(parts.keys).by_hash

    def slow(self, session, digest):
        if digest != keys_module.hash_secret(secret):
            running.append(digest)
            most.append(len(running))
            begun.release()
            go_on.wait(20)
            running.remove(digest)
        return by_hash(self, session, digest)

    monkeypatch.setattr(type(parts.keys), "by_hash", slow)
    wrong = [asyncio.create_task(parts.keys.find(f"wrong-{i}", "attacker")) for i in range(WRONG_AT_ONCE + 20)]
    try:
        for _ in range(keys_module.LOOK_UPS_AT_ONCE // 2):
            await asyncio.to_thread(begun.acquire)
        async with asyncio.timeout(10):
            assert await parts.keys.find(secret, "attacker") is not None, "from the same address"
            _, other = await parts.keys.create("site", "xb", None, "")
    finally:
        go_on.set()
    found = await asyncio.gather(*wrong, return_exceptions=True)
    assert max(most) <= keys_module.LOOK_UPS_AT_ONCE // 2, "one address alone gets half of these look-ups"
    assert sum(each is None for each in found) == WRONG_AT_ONCE
    assert await parts.keys.find(other, "attacker") is not None


async def test_a_look_up_waits_for_a_bounded_time(parts, monkeypatch):
    monkeypatch.setattr(keys_module, "LOOK_UP_WAIT_S", 0.01)
    for holder in "abcd":
        await parts.keys._look_ups.take(holder, 1)
    with pytest.raises(keys_module.Busy) as refused:
        await parts.keys.find("wrong", "e")
    assert refused.value.retry_after_s is not None


async def test_only_some_right_keys_are_remembered(parts, monkeypatch):
    monkeypatch.setattr(keys_module, "RIGHT_REMEMBERED", 2)
    for _ in range(4):
        _, secret = await parts.keys.create("site", "xa", None, "")
        assert await parts.keys.find(secret, "") is not None
    assert len(parts.keys._right) == 2
    assert keys_module.hash_secret(secret) in parts.keys._right
