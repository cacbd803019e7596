"""The worklist's page: filters in the address, persons' visits together, the line list, and news of urgent visits."""

from __future__ import annotations

import csv
import io
import json
import re
import threading
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from service.pages import events
from service.pages.chosen import Chosen
from tests.service.serving import serving, settings_for, until, visit_files

PERSON = {"id": "VN-1", "name": "Nguyễn Thị Đào", "age_years": 61, "sex": "female"}
FORMULA = {"id": "=1+1", "name": "@SUM(A1)", "sex": "male"}


@pytest.fixture(scope="module")
def keys(served):
    return {
        "site": served.key("site", "page"),
        "doctor": served.key("doctor", "page", doctor_id="D-P", label="BS. Thử"),
        "blind": served.key("specialist", "page-blind", doctor_id="S-P", label="BS. Thử"),
        "elsewhere": served.key("site", "page-elsewhere"),
    }


@pytest.fixture(scope="module")
def ids(served, keys):
    made = []
    with served.client(keys["site"]) as client:
        for person, day in ((PERSON, "2026-01-02"), (PERSON, "2026-02-03"), (FORMULA, None)):
            about = {"person": person, "referrer": {"id": "D-P"}, "visited_on": day}
            made.append(client.post("/v1/visits", files=visit_files(f"film {day}".encode(), **about)).json()["id"])
    with served.client(keys["doctor"]) as doctor:
        assert doctor.post(f"/v1/visits/{made[0]}/opinions", json={"version": 1, "advice": "refer"}).status_code == 201
        asked = {"to_site": "page-blind", "blind": True}
        assert doctor.post(f"/v1/visits/{made[0]}/referrals", json=asked).status_code == 201
    return made


def order(html):
    return re.findall(r'href="/visits/([0-9a-f-]{36})"', html)


# ------------------------------------------------------------------ the page
def test_a_persons_earlier_visits_are_folded_under_the_latest(served, keys, ids):
    with served.client(keys["site"]) as client:
        html = client.get("/worklist?q=dao").text
    assert order(html) == [ids[1], ids[0]]
    assert html.count('class="visit urgent"') == 1
    assert re.search(r"<summary>\+1<", html)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("signed=yes", {0}),
        ("signed=no", {1, 2}),
        ("asked=open", {0}),
        ("asked=answered", set()),
        ("q=NGUYEN+vn-1", {0, 1}),
        ("site=elsewhere", set()),
        ("status=complete&priority=urgent", {0, 1, 2}),
        ("to=2000-01-01", set()),
        ("from=2000-01-01&offset=420", {0, 1, 2}),
        ("from=0001-01-01&offset=840", {0, 1, 2}),
        ("to=9999-12-31&offset=-840", {0, 1, 2}),
        ("from=yesterday&to=&offset=x&signed=maybe&asked=me&order=age&site=", {0, 1, 2}),
        ("q=%00&site=%00", {0, 1, 2}),
    ],
)
def test_filters_are_in_the_address(served, keys, ids, query, expected):
    with served.client(keys["site"]) as client:
        answer = client.get(f"/worklist?{query}")
        lines = client.get(f"/worklist.csv?{query}")
    assert answer.status_code == lines.status_code == 200
    assert set(order(answer.text)) == {ids[n] for n in expected}
    rows = csv.DictReader(io.StringIO(lines.content.decode("utf-8-sig")))
    assert {row["visit"] for row in rows} == {ids[n] for n in expected}


def test_an_address_says_what_was_chosen():
    chosen = Chosen.of({"q": " dao ", "priority": "urgent", "from": "2026-01-02", "offset": "420", "signed": "no"})
    assert chosen.address() == "/worklist?q=dao&priority=urgent&from=2026-01-02&offset=420&signed=no"
    assert chosen.address(q=None, from_day=None, offset=None, cursor="c") == (
        "/worklist?priority=urgent&signed=no&cursor=c"
    )
    assert Chosen.of({"to": "2026-01-02", "offset": "420"}).filter(datetime.now(UTC)).before == datetime(
        2026, 1, 2, 17, tzinfo=UTC
    ), "the end of the day in Vietnam"
    now = datetime.now(UTC)
    assert Chosen().filter(now).since == now - timedelta(days=7)
    assert Chosen(q="x").filter(now).since is None, "a person is searched for among all visits"


# ------------------------------------------------------------------ line list
def test_the_line_list_holds_what_a_programme_needs(served, keys, ids):
    with served.client(keys["site"]) as client:
        answer = client.get("/worklist.csv")
    assert answer.content.startswith(b"\xef\xbb\xbf")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    rows = {row["visit"]: row for row in csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig")))}
    signed = rows[ids[0]]
    known = {"site": "page", "person_id": "VN-1", "name": PERSON["name"], "age_years": "61.0", "sex": "female"}
    known |= {"visited_on": "2026-01-02", "priority": "urgent", "status": "complete", "advice": "refer"}
    known |= {"lung": "high", "cardiac": "not_assessed", "flagged": "pneumonia", "signed_by": "BS. Thử"}
    assert {name: signed[name] for name in known} == known
    assert (rows[ids[1]]["signed_at"], rows[ids[1]]["advice"]) == ("", "")
    assert (rows[ids[2]]["person_id"], rows[ids[2]]["name"]) == ("'=1+1", "'@SUM(A1)")


def test_the_line_list_comes_in_pieces(served, keys, ids, monkeypatch):
    monkeypatch.setattr("service.followup.line_list.AT_ONCE", 1)
    with served.client(keys["site"]) as client:
        lines = client.get("/worklist.csv").content.decode("utf-8-sig").splitlines()
    assert [line.split(",")[0] for line in lines] == ["visit", *reversed(ids)]


def test_the_line_list_shows_a_blind_reader_no_name_and_no_findings(served, keys, ids):
    with served.client(keys["blind"]) as client:
        rows = csv.DictReader(io.StringIO(client.get("/worklist.csv").content.decode("utf-8-sig")))
        (row,) = (row for row in rows if row["visit"] == ids[0])
        page = client.get("/worklist?asked=open").text
    assert {name for name, cell in row.items() if cell} == {
        *("visit", "received_at", "visited_on", "site", "person_id", "age_years", "sex", "priority", "status")
    }
    assert order(page) == [ids[0]]
    assert PERSON["name"] not in page


def test_another_site_is_listed_nothing(served, keys, ids):
    with served.client(keys["elsewhere"]) as client:
        assert order(client.get("/worklist?q=dao").text) == []
        assert len(client.get("/worklist.csv").text.splitlines()) == 1
    with httpx.Client(base_url=served.address, timeout=30) as nobody:
        assert nobody.get("/worklist.csv").status_code == 303
        assert nobody.get("/worklist/events").status_code == 204


# ------------------------------------------------------------------ news
def listen(served, key, heard, ended=None):
    def run():
        with served.client(key, **{"Accept-Language": "fr"}) as client, client.stream("GET", "/worklist/events") as got:
            heard.append(got.headers.get("content-type", str(got.status_code)))
            heard.extend(line for line in got.iter_lines() if line)
        if ended is not None:
            ended.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_new_urgent_visits_are_told_to_who_may_see_them_until_the_process_drains(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "LOOK_EVERY_S", 0.1)
    heard, elsewhere, ended = [], [], []
    with serving(settings_for(tmp_path)) as served:
        site, other = served.key("site", "news"), served.key("site", "other")
        listeners = [listen(served, site, heard, ended), listen(served, other, elsewhere, ended)]
        until(lambda: len(heard) > 2 and len(elsewhere) > 2, 10)
        with served.client(site) as client:
            quiet = visit_files(person={"id": "VN-2"})
            client.post("/v1/visits", files=quiet[1:] or quiet)
            made = client.post("/v1/visits", files=visit_files(b"film", person={"id": "VN-3"})).json()["id"]
        until(lambda: any("VN-3" in line for line in heard), 10)
        began = time.monotonic()
        served.app.state.service.stop()
        for each in listeners:
            each.join(5)
        assert len(ended) == 2
        assert max(ended) - began < 2
        until(lambda: served.app.state.service.listeners.free == 200, 2)
    assert heard[0].startswith("text/event-stream")
    (data,) = (json.loads(line.removeprefix("data: ")) for line in heard if line.startswith("data: "))
    assert data == {"id": made, "text": "Nouvelle visite urgente\N{NO-BREAK SPACE}: VN-3"}
    assert not any("VN-" in line for line in elsewhere)


def test_a_key_that_is_revoked_hears_no_more_and_places_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "LOOK_EVERY_S", 0.1)
    heard, refused = [], []
    with serving(settings_for(tmp_path)) as served:
        site, poster = served.key("site", "news"), served.key("site", "news")
        served.app.state.service.listeners.__init__(2)
        thread = listen(served, site, heard)
        until(lambda: len(heard) > 1, 10)
        listen(served, site, refused).join(10)
        assert refused == ["204"], "one key has half of the places"
        with served.client() as admin:
            mine = next(each for each in admin.get("/v1/keys").json()["items"] if each["site"] == "news")
            assert admin.delete(f"/v1/keys/{mine['id']}").status_code == 204
        with served.client(poster) as client:
            client.post("/v1/visits", files=visit_files(b"film", person={"id": "VN-4"}))
        thread.join(10)
        assert not thread.is_alive()
        until(lambda: served.app.state.service.listeners.free == 2, 2)
    assert not any("VN-4" in line for line in heard)
