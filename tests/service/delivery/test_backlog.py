"""What waits, since when, and what was given up, as operators see it; and work that another process has taken over."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from service.delivery.queue import DELIVERIES
from service.storage.database import database_now
from service.storage.tables import VISITS, ArrivalRow
from tests.service.delivery.sinks import Sink
from tests.service.delivery.test_delivery import QUICK, destination, post, sign
from tests.service.serving import serving, settings_for, told, until, visit_files

AWAY = "http://127.0.0.1:1/"
HOUR_S = 3600.0


@pytest.fixture
def either(tmp_path, new_database):
    slow = {**QUICK, "delivery_retry_seconds": 60, "delivery_retry_max_seconds": 60}
    with serving(settings_for(tmp_path, database_url=new_database(), **slow)) as served:
        yield served


def test_what_waits_and_since_when_by_kind(either):
    assert told(either)["sangloc_deliveries_waiting", "webhook"] == 0
    assert told(either)["sangloc_deliveries_oldest_seconds", "webhook"] == 0
    destination(either, AWAY)
    visits = [post(either) for _ in range(3)]
    with either.app.state.service.database.transaction(write=True) as session:
        before = database_now(session) - timedelta(seconds=HOUR_S)
        session.execute(update(VISITS).where(VISITS.c.id == visits[0]).values(completed_at=before))
    found = told(either)
    assert found["sangloc_deliveries_waiting", "webhook"] == 3
    assert HOUR_S <= found["sangloc_deliveries_oldest_seconds", "webhook"] < HOUR_S + 60
    assert found["sangloc_deliveries_waiting", "stow"] == 0


def test_a_later_version_is_as_old_as_its_opinion(either):
    visit = post(either)
    destination(either, AWAY)
    with either.app.state.service.database.transaction(write=True) as session:
        before = database_now(session) - timedelta(seconds=HOUR_S)
        session.execute(update(VISITS).where(VISITS.c.id == visit).values(completed_at=before))
    sign(either, visit)
    found = told(either)
    assert found["sangloc_deliveries_waiting", "webhook"] == 1
    assert found["sangloc_deliveries_oldest_seconds", "webhook"] < 60


def taken_over(served, table):
    with served.app.state.service.database.transaction(write=True) as session:
        session.execute(update(table).values(owner="another", attempts=table.c.attempts + 1))


def test_a_visit_that_another_process_has_taken_over_is_counted(either):
    with either.client(Prefer="respond-async") as client:
        client.post("/v1/visits", files=visit_files(b"SLOW 1"))
        taken_over(either, VISITS)
        until(lambda: told(either).get(("sangloc_leases_lost_total", "visit")) == 1, 10)


def test_a_delivery_that_another_process_has_taken_over_is_counted(either):
    with Sink(lambda _: taken_over(either, DELIVERIES) or 200) as sink:
        destination(either, f"{sink.address}/in")
        post(either)
        until(lambda: told(either).get(("sangloc_leases_lost_total", "delivery")) == 1, 10)


def test_what_was_given_up_counts_until_it_is_sent_again_or_its_destination_ends(either):
    assert told(either)["sangloc_deliveries_given_up", "webhook"] == 0
    answers = iter([400])
    with Sink(lambda _: next(answers, 204)) as sink, either.client() as client:
        refusing = destination(either, f"{sink.address}/in")["id"]
        post(either)
        until(lambda: told(either)["sangloc_deliveries_given_up", "webhook"] == 1, 10)
        assert told(either)["sangloc_deliveries_waiting", "webhook"] == 0
        client.post("/v1/deliveries/retry", json={"destination": refusing})
        until(lambda: len(sink.received) == 2, 10)
        until(lambda: told(either)["sangloc_deliveries_waiting", "webhook"] == 0, 10)
        assert told(either)["sangloc_deliveries_given_up", "webhook"] == 0
        away = destination(either, AWAY)["id"]
        post(either)
        client.delete(f"/v1/destinations/{away}")
        until(lambda: told(either)["sangloc_deliveries_waiting", "webhook"] == 0, 10)
        assert told(either)["sangloc_deliveries_given_up", "webhook"] == 0, "nobody can ask for what has ended"


def test_how_long_the_oldest_visit_and_the_oldest_object_wait(either):
    assert told(either)["sangloc_visits_oldest_seconds",] == 0
    assert told(either)["sangloc_arrivals_oldest_seconds",] == 0
    with either.client(Prefer="respond-async") as client:
        client.post("/v1/visits", files=visit_files(b"SLOW 2"))
    with either.app.state.service.database.transaction(write=True) as session:
        now, hour = database_now(session), timedelta(seconds=HOUR_S)
        session.execute(update(VISITS).values(received_at=now - hour))
        for n, at in enumerate((now - hour, now + hour)):  # a study is not due before its last object has come
            of = {"site": "xa", "study_uid": "1.2", "sop_uid": f"1.2.{n}", "sha256": "0" * 64, "source": "CLINIC"}
            session.add(ArrivalRow(**of, field="image", n_bytes=1, dicom="{}", received_at=at))
    found = told(either)
    assert HOUR_S <= found["sangloc_visits_oldest_seconds",] < HOUR_S + 60
    assert HOUR_S <= found["sangloc_arrivals_oldest_seconds",] < HOUR_S + 60
    until(lambda: told(either)["sangloc_visits_oldest_seconds",] == 0, 10)
