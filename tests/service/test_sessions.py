"""Open sessions: who sees and ends which, and what is kept of them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import select, update

from data_specs.vocabulary import LANGUAGES
from service import sessions as sessions_module
from service.keys import hash_secret
from service.sessions import browser_family
from service.storage.tables import SessionRow
from tests.service.serving import ADMIN

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0"
HERE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def browser(served):
    """Opens browsers that are signed in with a key."""
    opened = []

    def sign_in(key, agent=FIREFOX, **headers):
        made = httpx.Client(
            verify=False, base_url=served.address, timeout=30, headers={"User-Agent": agent, **HERE, **headers}
        )
        opened.append(made)
        assert made.post("/login", data={"key": key}).status_code == 303
        return made

    yield sign_in
    for each in opened:
        each.close()


@pytest.fixture
def doctor(served):
    return served.key("doctor", "xa", doctor_id="D-1", label="BS. Thử Nghiệm")


def listed(client):
    answer = client.get("/v1/sessions")
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def test_a_person_sees_and_ends_their_own_sessions_only(served, browser, doctor):
    one, two = browser(doctor), browser(doctor, "curl/8")
    other = browser(served.key("doctor", "xa", doctor_id="D-2", label="BS. Khác"))
    found = listed(one)
    assert [(each["browser"], each["own"]) for each in found] == [("", False), ("Firefox", True)]
    assert {(each["label"], each["role"], each["site"], each["doctor_id"]) for each in found} == {
        ("BS. Thử Nghiệm", "doctor", "xa", "D-1")
    }
    (of_other,) = listed(other)
    assert one.delete(f"/v1/sessions/{of_other['id']}").status_code == 404
    assert other.get("/worklist").status_code == 200
    assert one.delete(f"/v1/sessions/{found[0]['id']}").status_code == 204
    assert two.get("/worklist").status_code == 303
    assert one.delete(f"/v1/sessions/{found[0]['id']}").status_code == 404
    assert one.get("/worklist").status_code == 200
    assert one.delete("/v1/sessions").json() == {"ended": 1}
    assert one.get("/worklist").status_code == 303
    assert other.get("/worklist").status_code == 200


def test_a_key_lists_the_sessions_that_were_opened_with_it(served, browser, doctor):
    browser(doctor)
    with served.client(doctor) as program:
        assert [each["own"] for each in listed(program)] == [False]
        assert program.delete("/v1/sessions").json() == {"ended": 1}


def test_an_admin_sees_and_ends_all(served, browser, doctor):
    one, own = browser(doctor), browser(ADMIN)
    found = listed(own)
    assert {"BS. Thử Nghiệm", "from the settings"} <= {each["label"] for each in found}
    (his,) = (each for each in found if each["label"] == "BS. Thử Nghiệm")
    assert own.delete(f"/v1/sessions/{his['id']}").status_code == 204
    assert one.get("/worklist").status_code == 303
    again = browser(doctor)
    assert own.post(f"/sessions/of/{his['key_id']}/end").status_code == 303
    assert again.get("/worklist").status_code == 303
    assert own.get("/worklist").status_code == 200
    browser(doctor)
    assert own.delete("/v1/sessions").json()["ended"] >= 2
    assert own.get("/worklist").status_code == 303
    with served.client() as program:
        assert listed(program) == []


def test_what_is_kept_of_a_session(served, browser, doctor):
    signed_in = browser(doctor, **{"X-Forwarded-For": "2001:db8:1:2:3::4"})
    (found,) = listed(signed_in)
    cookie = signed_in.cookies["session"]
    assert found["network"] == "2001:db8:1::/48"
    assert found["used_at"].endswith(":00Z")
    opened, ends = (datetime.fromisoformat(found[name]) for name in ("opened_at", "expires_at"))
    assert abs(datetime.now(UTC) - opened) < timedelta(minutes=1)
    assert ends - opened == timedelta(hours=12)
    assert cookie not in str(found)
    assert hash_secret(cookie) not in str(found)
    with served.client() as opened_by_id:
        del opened_by_id.headers["Authorization"]
        assert opened_by_id.get("/v1/visits", headers={"Cookie": f"session={found['id']}"}).status_code == 401
    again = browser(doctor, **{"X-Forwarded-For": "198.51.100.77"})
    assert listed(again)[0]["network"] == "198.51.100.0/24"


def row_of(served, cookie):
    with served.app.state.service.database.transaction() as session:
        return session.scalars(select(SessionRow).where(SessionRow.hash == hash_secret(cookie))).one_or_none()


def change(served, cookie, **values):
    with served.app.state.service.database.transaction(write=True) as session:
        session.execute(update(SessionRow).where(SessionRow.hash == hash_secret(cookie)).values(**values))


def test_the_last_use_is_noted_once_a_minute(served, browser, doctor):
    signed_in = browser(doctor)
    cookie = signed_in.cookies["session"]
    earlier = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    change(served, cookie, used_at=earlier)
    assert signed_in.get("/worklist").status_code == 200
    used = row_of(served, cookie).used_at
    assert timedelta(0) <= datetime.now(UTC) - used < timedelta(minutes=2)
    assert (used.second, used.microsecond) == (0, 0)


def test_pages_are_read_while_no_use_can_be_noted(served, browser, doctor, monkeypatch):
    from service.errors import StorageFull

    signed_in = browser(doctor)
    change(served, signed_in.cookies["session"], used_at=datetime(2026, 1, 2, tzinfo=UTC))

    async def full(_work):
        raise StorageFull

    monkeypatch.setattr(served.app.state.service.database, "write", full)
    assert signed_in.get("/worklist").status_code == 200


def test_an_expired_session_is_neither_listed_nor_used(served, browser, doctor):
    signed_in = browser(doctor)
    change(served, signed_in.cookies["session"], expires_at=datetime(2026, 1, 1, tzinfo=UTC))
    with served.client(doctor) as program:
        assert listed(program) == []
    assert signed_in.get("/worklist").status_code == 303
    browser(doctor)
    assert row_of(served, signed_in.cookies["session"]) is None, "the next sign-in removes it"


def test_the_sessions_of_a_revoked_key_are_gone(served, browser, doctor):
    signed_in = browser(doctor)
    (found,) = listed(signed_in)
    with served.client() as admin:
        assert admin.delete(f"/v1/keys/{found['key_id']}").status_code == 204
        assert found["id"] not in {each["id"] for each in listed(admin)}
    assert row_of(served, signed_in.cookies["session"]) is None


def test_a_key_has_a_bounded_number_of_sessions(browser, doctor, monkeypatch):
    monkeypatch.setattr(sessions_module, "MOST_OF_ONE_KEY", 3)
    made = [browser(doctor) for _ in range(5)]
    assert len(listed(made[-1])) == 3
    assert made[-1].get("/worklist").status_code == 200


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_lists_and_ends_without_script(served, browser, doctor, language):
    one = browser(doctor, **{"Accept-Language": language})
    two = browser(doctor)
    page = one.get("/sessions")
    assert page.status_code == 200
    actions = re.findall(r'action="(/sessions/[^"]+)"', page.text)
    assert len(actions) == 3, "each of the two, and both"
    (of_two,) = (each["id"] for each in listed(one) if not each["own"])
    assert one.post(f"/sessions/{of_two}/end").headers["location"] == "/sessions"
    assert two.get("/sessions").headers["location"] == "/login?next=%2Fsessions"
    assert one.post(f"/sessions/{of_two}/end").status_code == 303, "it ended before"
    assert one.post("/sessions/end").status_code == 303
    assert one.get("/sessions").status_code == 303
    assert 'href="/sessions"' in browser(doctor).get("/worklist").text


def test_a_form_of_another_site_ends_nothing(browser, doctor):
    signed_in = browser(doctor)
    (own,) = listed(signed_in)
    for path in ("/sessions/end", f"/sessions/{own['id']}/end", f"/sessions/of/{own['key_id']}/end"):
        assert signed_in.post(path, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert signed_in.get("/worklist").status_code == 200


def test_a_person_does_not_end_the_sessions_of_another_by_the_page(served, browser, doctor):
    one, other = browser(doctor), browser(served.key("doctor", "xa", doctor_id="D-2", label="BS. Khác"))
    (theirs,) = listed(other)
    for path in (f"/sessions/{theirs['id']}/end", f"/sessions/of/{theirs['key_id']}/end", "/sessions/of/bootstrap/end"):
        assert one.post(path).status_code == 303
    assert other.get("/worklist").status_code == 200


@pytest.mark.parametrize(
    ("agent", "family"),
    [
        (FIREFOX, "Firefox"),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0 Safari/537.36",
            "Chrome",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0 Safari/537.36 Edg/141.0",
            "Edge",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605 Version/18.0 Safari/604.1",
            "Safari",
        ),
        ("Mozilla/5.0 (iPhone) AppleWebKit/605 (KHTML, like Gecko) CriOS/141.0 Safari/604.1", "Chrome"),
        (
            "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 SamsungBrowser/28.0 Chrome/130.0 Mobile Safari/537.36",
            "Samsung Internet",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 coc_coc_browser/140.0 Chrome/134.0 Safari/537.36",
            "Cốc Cốc",
        ),
        ("curl/8.5.0", ""),
        ("", ""),
        ("<script>alert(1)</script>", ""),
        ("x" * 100_000 + "Firefox/1", ""),
    ],
)
def test_the_family_of_a_browser(agent, family):
    assert browser_family(agent) == family
