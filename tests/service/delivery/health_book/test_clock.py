"""The clock of the health book, and whether a version is the first in it or replaces another: on the database alone."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime, timedelta

import pytest

from service.delivery.health_book.clock import count_late, list_due, standing
from service.delivery.health_book.table import EXAMPLE, Book
from service.delivery.message import HEALTH_BOOK, Delivery, Options
from service.storage.database import Database
from service.storage.migrate import migrate
from service.storage.tables import DeliveryRow, DestinationRow, OpinionRow, VisitRow
from tests.service.serving import settings_for

BOOK = Book.model_validate(tomllib.loads(EXAMPLE.read_text("utf-8").replace('"?"', '"x"')))
ADDRESS = "https://book.example"
OPINION = {"key_id": "k", "role": "referrer", "opinion": "{}"}


@pytest.fixture
def database(tmp_path, new_database):
    settings = settings_for(tmp_path, database_url=new_database())
    database = Database(settings.database)
    migrate(settings, database)
    yield database
    database.close()


def hours_ago(hours):
    return datetime.now(UTC) - timedelta(hours=hours)


def add_destination(session, name, address=ADDRESS, kind=HEALTH_BOOK, ended_at=None, created_at=None):
    created_at = created_at or hours_ago(1000)
    about = {"id": name, "kind": kind, "address": address, "language": "vi", "options": "{}"}
    session.add(DestinationRow(**about, site=None, created_at=created_at, ended_at=ended_at))
    session.flush()


def add_visit(session, name, received_at, version=1, signed=()):
    about = {"id": name, "site": "xa", "key_id": "k", "context": "{}", "status": "complete", "priority": "routine"}
    session.add(VisitRow(**about, version=version, received_at=received_at, body_hash="", attempts=1, faults=0))
    session.flush()
    for number, signed_at in enumerate(signed, 1):
        session.add(OpinionRow(visit_id=name, number=number, signed_at=signed_at, **OPINION))


def add_delivery(session, visit, version, to, state, *, may_have_arrived=False, problem=None):
    about = {"visit_id": visit, "version": version, "destination_id": to, "state": state, "last_problem": problem}
    session.add(DeliveryRow(**about, due_at=hours_ago(1), attempts=1, may_have_arrived=may_have_arrived))
    session.flush()


def asked(version, to="book", address=ADDRESS):
    return Delivery("v", version, to, HEALTH_BOOK, address, "vi", None, Options(), may_be_inside=True)


@pytest.mark.parametrize(
    ("state", "may_have_arrived", "expected"),
    [("delivered", False, "replaces"), ("dead", True, "replaces"), ("dead", False, "first")],
)
def test_a_version_replaces_what_is_there_or_may_be(database, state, may_have_arrived, expected):
    with database.transaction(write=True) as session:
        add_destination(session, "book")
        add_visit(session, "v", hours_ago(1), version=3)
        add_delivery(session, "v", 2, "book", state, may_have_arrived=may_have_arrived)
        add_delivery(session, "v", 3, "book", "waiting")
        assert standing(session, asked(3)) == expected


def test_what_has_been_replaced_is_not_sent_again(database):
    with database.transaction(write=True) as session:
        add_destination(session, "book")
        add_visit(session, "v", hours_ago(1), version=3)
        add_delivery(session, "v", 2, "book", "waiting")
        add_delivery(session, "v", 3, "book", "delivered")
        assert standing(session, asked(2)) == "superseded"


def test_a_destination_that_was_made_anew_is_the_same_gateway(database):
    with database.transaction(write=True) as session:
        add_destination(session, "before", ended_at=hours_ago(1))
        add_destination(session, "book")
        add_destination(session, "other", address="https://sandbox.example")
        add_destination(session, "hospital", kind="webhook")
        add_visit(session, "v", hours_ago(2), version=3)
        add_delivery(session, "v", 2, "hospital", "delivered")
        add_delivery(session, "v", 2, "before", "delivered")
        assert standing(session, asked(3)) == "replaces"
        assert standing(session, asked(3, "other", "https://sandbox.example")) == "first"


def test_a_check_up_is_late_a_day_after_it_was_received_and_a_correction_a_day_after_it_was_signed(database):
    old, new = hours_ago(30), hours_ago(2)
    with database.transaction(write=True) as session:
        add_destination(session, "book")
        add_visit(session, "unsigned", old)
        add_visit(session, "signed", old, version=2, signed=[new])
        add_visit(session, "corrected", old, version=3, signed=[old, new])
        add_visit(session, "young", new)
        add_visit(session, "there", old, version=2, signed=[old])
        for name, version, state in (("signed", 2, "dead"), ("corrected", 3, "waiting"), ("there", 2, "delivered")):
            add_delivery(session, name, version, "book", state, problem="http_500")
        due = {each.visit: each for each in list_due(session, BOOK, 100)}
        assert count_late(session, BOOK) == {"unsigned": 1, "given_up": 1}
    assert {name: each.late for name, each in due.items()} == {
        "unsigned": True,
        "signed": True,
        "corrected": False,
        "young": False,
    }
    assert due["unsigned"].deadline == old + timedelta(hours=24)
    assert due["corrected"].deadline == new + timedelta(hours=24)


def test_what_was_received_before_the_book_had_a_destination_or_too_long_ago_is_not_watched(database):
    with database.transaction(write=True) as session:
        add_destination(session, "book", created_at=hours_ago(24 * (BOOK.clock.watched_days + 2)))
        add_visit(session, "before", hours_ago(24 * (BOOK.clock.watched_days + 3)))
        add_visit(session, "long-ago", hours_ago(24 * (BOOK.clock.watched_days + 1)))
        add_visit(session, "watched", hours_ago(48))
        assert [each.visit for each in list_due(session, BOOK, 100)] == ["watched"]
