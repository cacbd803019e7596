"""Which visits a list shows, in which order, and that every page leads back: over both databases, through the API."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from service.keys import Key
from service.visits import worklist as module
from service.visits.filters import Filter
from service.visits.worklist import Order, worklist
from tests.service.serving import visit_files

SITE = Key("k", "site", "lists")
SINCE = datetime.now(UTC) - timedelta(days=1)
PEOPLE = [
    ("P-3", "Nguyễn Thị Đào", "2026-03-01", b"film"),
    ("P-1", "Bùi Văn Ấn", "2026-01-01", b""),
    ("P-2", "Trần Văn An", None, b"film"),
    ("P-1", "Bùi Văn Ấn", "2026-02-01", b"film"),
    (None, None, None, b""),
    ("100%_x", "Lê Thị Đào", "2025-12-01", b""),
]


@pytest.fixture(scope="module")
def ids(served):
    """The visits of six days at one site; films make them urgent, and without one they are unassessed."""
    made = []
    with served.client(served.key("site", "lists")) as client:
        for n, (person, name, day, film) in enumerate(PEOPLE):
            about = {"person": {"id": person, "name": name}, "order": {"accession_number": f"ACC-{n}"}}
            about |= {"visited_on": day, "referrer": {"id": "D-L"}}
            files = visit_files(film, **about)
            made.append(client.post("/v1/visits", files=files if film else files[1:]).json()["id"])
    return made


def page(served, key=SITE, cursor=None, order: Order = "priority", **wanted):
    return asyncio.run(worklist(served.app.state.service, key, Filter(**wanted), order=order, cursor=cursor))


def shown(found):
    return [person.latest.id for person in found.persons]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("priority", [0, 2, 3, 4, 5]),
        ("arrival", [5, 4, 3, 2, 0]),
        ("visited", [0, 3, 5, 4, 2]),
        ("person", [4, 3, 5, 0, 2]),
    ],
)
def test_orders_and_both_ways_through_the_pages(served, ids, monkeypatch, order, expected):
    wanted = [ids[n] for n in expected]
    whole = page(served, order=order)
    assert shown(whole) == wanted
    assert (whole.previous, whole.next) == (None, None)
    monkeypatch.setattr(module, "PAGE", 2)
    pages = [page(served, order=order)]
    while pages[-1].next:
        pages.append(page(served, order=order, cursor=pages[-1].next))
    assert [shown(each) for each in pages] == [wanted[:2], wanted[2:4], wanted[4:]]
    assert pages[0].previous is None
    back = page(served, order=order, cursor=pages[-1].previous)
    assert (shown(back), shown(page(served, order=order, cursor=back.previous))) == (wanted[2:4], wanted[:2])
    assert shown(page(served, order=order, cursor=back.next)) == wanted[4:]


def test_a_person_with_many_visits_takes_one_place(served, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 1)
    monkeypatch.setattr(module, "FOLDED_VISITS", 2)
    key = Key("k", "site", "often")
    with served.client(served.key("site", "often")) as client:
        for person in (*["P-9"] * 7, "P-8"):
            files = visit_files(f"{person}".encode(), person={"id": person})
            assert client.post("/v1/visits", files=files).status_code == 201
    first = page(served, key)
    assert (first.persons[0].visits, len(first.persons[0].others)) == (7, 2)
    last = page(served, key, first.next)
    assert (len(last.persons), last.persons[0].visits, last.next) == (1, 1, None)
    assert shown(page(served, key, last.previous)) == shown(first)


def test_a_persons_visits_stand_together_with_the_latest_on_top(served, ids):
    (person,) = page(served, search="bui an").persons
    assert (person.latest.id, [each.id for each in person.others], person.visits) == (ids[3], [ids[1]], 2)
    assert person.others[0].priority == "unassessed"


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("ĐÀO", {0, 5}),
        ("dao nguyen", {0}),
        ("an", {1, 2, 3}),
        ("p-2", {2}),
        ("acc-5", {5}),
        ("100%_", {5}),
        ("%", {5}),
        ("_", {5}),
        ("nobody", set()),
        ("", {0, 1, 2, 3, 4, 5}),
    ],
)
def test_search_knows_no_case_no_diacritics_and_no_wildcards(served, ids, search, expected):
    with served.client(served.key("site", "lists")) as client:
        found = client.get("/v1/visits", params={"q": search}).json()["items"]
    assert {each["id"] for each in found} == {ids[n] for n in expected}


def test_signed_and_asked(served, ids):
    doctor = served.key("doctor", "lists", doctor_id="D-L", label="BS. Thử")
    specialist = served.key("specialist", "asked", doctor_id="S-L", label="BS. Thử")
    served.key("specialist", "others", doctor_id="S-O", label="BS. Thử")
    with served.client(doctor) as d, served.client(specialist) as s:

        def listed(client, **query):
            answer = client.get("/v1/visits", params=query)
            assert answer.status_code == 200, answer.text
            return {each["id"] for each in answer.json()["items"]}

        assert listed(d, signed="yes") == set()
        assert d.post(f"/v1/visits/{ids[0]}/opinions", json={"version": 1}).status_code == 201
        assert listed(d, signed="yes") == {ids[0]}
        assert listed(d, signed="no") == {*ids[1:]}
        for n, site in ((0, "asked"), (2, "asked"), (0, "others")):
            assert d.post(f"/v1/visits/{ids[n]}/referrals", json={"to_site": site}).status_code == 201
        assert listed(s, asked="open") == listed(d, asked="any") == {ids[0], ids[2]}
        assert s.post(f"/v1/visits/{ids[0]}/opinions", json={"version": 2}).status_code == 201
        assert listed(s, asked="open") == {ids[2]}
        assert listed(s, asked="answered") == listed(d, asked="answered") == {ids[0]}
        assert listed(d, asked="open") == {ids[0], ids[2]}, "the other hospital has not answered"
        assert listed(d, site="elsewhere") == set()
        assert listed(d, before="2020-01-01T00:00:00Z") == set()
        assert d.get("/v1/visits", params={"asked": "never"}).status_code == 422
        assert d.get("/v1/visits", params={"before": "0001-01-01T00:00:00+23:59"}).status_code == 422
        assert d.get("/v1/visits", params={"q": "x" * 101}).status_code == 422


def test_a_list_of_very_many_begins_with_the_latest(served, ids, monkeypatch):
    monkeypatch.setattr("service.visits.filters.SEARCHED", 3)
    found = page(served, order="arrival")
    assert shown(found) == [ids[n] for n in (5, 4, 3)]
    assert found.since is not None
    assert sum(found.counts.values()) == 3


def test_the_longest_names_in_any_script_are_accepted(served):
    """PostgreSQL limits what a row of an index may hold."""
    longest = "".join(chr(0x20000 + n) for n in range(200))
    with served.client(served.key("site", longest[:100])) as client:
        files = visit_files(b"film", person={"id": longest, "name": longest}, referrer={"id": longest})
        assert client.post("/v1/visits", files=files).status_code == 201
