"""Each version of a report to each destination, once: real sinks, real processes that are killed, both databases."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import itertools
import json
import re
import socket
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

import httpx
import pytest
from sqlalchemy import event, select, update

from data_specs.visit.opinion import Author, Opinion
from data_specs.visit.report import identifier
from service.delivery.message import NotDelivered
from service.delivery.queue import DELIVERIES, Deliveries, deliveries_of, enqueue
from service.delivery.senders.webhook import signature
from service.delivery.worker import SLOTS
from service.storage.database import Database, database_now, insert_rows
from service.storage.migrate import migrate
from service.storage.owner import Owner
from service.storage.tables import DestinationRow, OpinionRow, VisitRow
from tests.conftest import ROOT
from tests.service.delivery.sinks import Sink
from tests.service.serving import serving, settings_for, until, visit_files

QUICK = {"delivery_retry_seconds": 0.1, "delivery_retry_max_seconds": 0.2, "delivery_timeout_seconds": 5}
QUICK_PROCESS = {f"SANGLOC_{name.upper()}": str(value) for name, value in QUICK.items()}
LINK = {"content": "link"}


@pytest.fixture
def quick(tmp_path):
    """A server that waits little between attempts."""
    with serving(settings_for(tmp_path, **QUICK)) as served:
        yield served


@pytest.fixture
def either(tmp_path, new_database):
    """The same over either database."""
    with serving(settings_for(tmp_path, database_url=new_database(), **QUICK)) as served:
        yield served


def destination(served, address, key=None, **more):
    with served.client(key) if key else served.client() as client:
        asked = {"kind": "webhook", "address": address, **more}
        made = client.post("/v1/destinations", json=asked)
    assert made.status_code == 201, made.text
    return made.json()


def post(served, key=None, **context):
    with served.client(key) if key else served.client() as client:
        posted = client.post("/v1/visits", files=visit_files(**context))
    assert posted.status_code == 201, posted.text
    return posted.json()["id"]


def deliveries(served, **which):
    with served.client() as client:
        return client.get("/v1/deliveries", params={"limit": 200, **which}).json()["items"]


def states(served, **which):
    return Counter(each["state"] for each in deliveries(served, **which))


def sign(served, visit_id):
    """The next version of a visit's report, as a signed opinion makes it."""

    def write(session):
        row, now = session.get(VisitRow, visit_id), database_now(session)
        number = row.version
        author = Author(id="D-1", name="BS. Thử Nghiệm", facility="x", role="referrer")
        opinion = Opinion(number=number, author=author, signed_at=now)
        insert_rows(
            session,
            OpinionRow(
                visit_id=visit_id,
                number=number,
                key_id="k",
                role="referrer",
                signed_at=now,
                opinion=opinion.model_dump_json(),
            ),
        )
        row.version += 1
        session.flush()
        enqueue(session, visit_id, row.site, row.version, now)

    with served.app.state.service.database.transaction(write=True) as session:
        write(session)


# ---------------------------------------------------------------- what arrives
def receivers_check():
    """The function that ``docs/reference/delivery.md`` gives to receivers."""
    (shown,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/reference/delivery.md").read_text("utf-8"), re.DOTALL)
    names = {"hmac": hmac, "hashlib": hashlib, "time": time}
    exec(shown, names)
    return names["is_ours"]


def test_a_webhook_is_signed_and_sent_once(quick):
    with Sink() as sink:
        made = destination(quick, f"{sink.address}/in?token=1")
        visit = post(quick, person={"id": "P-1"})
        until(lambda: states(quick) == {"delivered": 1}, 10)
        time.sleep(0.7)
        (got,) = sink.received
        assert (got.method, got.path) == ("POST", "/in?token=1")
        is_ours, secret, signed = receivers_check(), made["secret"], got.headers["sangloc-signature"]
        assert is_ours(secret, signed, got.body)
        assert not is_ours(secret, signed, got.body + b" ")
        assert not is_ours("another secret", signed, got.body)
        assert not is_ours(secret, signature(secret, got.body, int(time.time()) - 600), got.body)
        assert got.key == str(identifier(visit, 1, "delivery", made["id"]))
        assert got.headers["sangloc-version"] == "1"
        event = json.loads(got.body)
        assert (event["id"], event["visit"], event["version"], event["status"], event["priority"]) == (
            got.key,
            visit,
            1,
            "preliminary",
            "urgent",
        )
        with quick.client() as client:
            assert event["report"] == client.get(event["href"]).json()
            metrics = client.get("/metrics").text
        assert 'sangloc_deliveries_total{kind="webhook",outcome="delivered"} 1.0' in metrics
        with quick.app.state.service.database.transaction() as session:
            (state,) = deliveries_of(session, visit)
        assert (state.version, state.kind, state.state, state.attempts) == (1, "webhook", "delivered", 1)


def test_a_destination_without_names_gets_a_link(quick):
    with Sink() as sink:
        destination(quick, sink.address, options=LINK)
        visit = post(quick, person={"id": "SECRET-1", "name": "SECRET-2"})
        until(lambda: sink.received, 10)
        event = json.loads(sink.received[0].body)
        assert event["href"] == f"/v1/visits/{visit}/report.json?version=1"
        assert "report" not in event
        assert b"SECRET" not in sink.received[0].body


def test_versions_arrive_in_their_order(either):
    failures = itertools.count()
    with Sink(lambda got: 500 if got.headers["sangloc-version"] == "1" and next(failures) < 2 else 200) as sink:
        destination(either, sink.address, options=LINK)
        visit = post(either)
        sign(either, visit)
        sign(either, visit)
        until(lambda: states(either) == {"delivered": 3}, 10)
        assert [got.headers["sangloc-version"] for got in sink.received] == ["1", "1", "1", "2", "3"]
        statuses = [json.loads(got.body)["status"] for got in sink.received[2:]]
        assert statuses == ["preliminary", "final", "amended"]
        assert len({got.key for got in sink.received}) == 3


def test_a_site_gets_deliveries_of_its_own_visits_only(quick):
    north, south = quick.key("site", "north"), quick.key("site", "south")
    with Sink() as own, Sink() as other, Sink() as every:
        destination(quick, own.address, site="north", options=LINK)
        destination(quick, other.address, site="south", options=LINK)
        destination(quick, every.address, options=LINK)
        visits = [post(quick, key=north), post(quick, key=south)]
        until(lambda: states(quick) == {"delivered": 4}, 10)
        assert [json.loads(got.body)["visit"] for got in own.received] == visits[:1]
        assert [json.loads(got.body)["visit"] for got in other.received] == visits[1:]
        assert {json.loads(got.body)["visit"] for got in every.received} == set(visits)


# ---------------------------------------------------------------- what does not arrive
def test_after_a_final_refusal_a_delivery_is_dead_until_somebody_retries_it(either):
    answers = iter([400, 200])
    with Sink(lambda _: next(answers)) as sink:
        made = destination(either, sink.address, options=LINK)
        visit = post(either)
        until(lambda: states(either) == {"dead": 1}, 10)
        (dead,) = deliveries(either, state="dead", destination=made["id"], visit=visit)
        assert (dead["problem"], dead["attempts"], dead["version"]) == ("http_400", 1, 1)
        time.sleep(0.7)
        assert len(sink.received) == 1
        with either.client() as client:
            which = {"visit": visit, "version": 1, "destination": made["id"]}
            assert client.post("/v1/deliveries/retry", json={**which, "version": 2}).status_code == 404
            assert client.post("/v1/deliveries/retry", json={"destination": "x"}).status_code == 404
            assert client.post("/v1/deliveries/retry", json={**which, "version": None}).status_code == 422
            assert client.post("/v1/deliveries/retry", json=which).json() == {"retried": 1}
            until(lambda: states(either) == {"delivered": 1}, 10)
            assert client.post("/v1/deliveries/retry", json=which).status_code == 404
            assert client.post("/v1/deliveries/retry", json={"destination": made["id"]}).json() == {"retried": 0}
        assert sink.received[0].key == sink.received[1].key


def test_a_temporary_failure_is_tried_again(tmp_path):
    def failing_twice(status):
        answers = iter([status, status, 200])
        return Sink(lambda _: (next(answers), {"Retry-After": "nonsense"}))

    with serving(settings_for(tmp_path, **QUICK)) as served, contextlib.ExitStack() as stack:
        sinks = [stack.enter_context(failing_twice(status)) for status in (401, 403, 408, 425, 429, 500, 503)]
        for sink in sinks:
            destination(served, sink.address, options=LINK)
        post(served)
        until(lambda: states(served) == {"delivered": 7}, 15)
        assert {each["attempts"] for each in deliveries(served)} == {3}
        assert all(len({got.key for got in sink.received}) == 1 for sink in sinks)


def test_after_the_last_attempt_a_delivery_is_dead(tmp_path):
    with serving(settings_for(tmp_path, **QUICK, delivery_attempts=3)) as served, Sink(lambda _: 500) as sink:
        destination(served, sink.address, options=LINK)
        post(served)
        until(lambda: states(served) == {"dead": 1}, 10)
        assert len(sink.received) == 3


def test_retry_after_holds_for_all_deliveries_to_the_destination(tmp_path):
    first = threading.Event()

    def answer(_):
        if first.is_set():
            return 200
        first.set()
        return 429, {"Retry-After": "2"}

    with serving(settings_for(tmp_path, **QUICK)) as served, Sink(answer) as sink:
        destination(served, sink.address, options=LINK)
        post(served)
        until(lambda: sink.answered, 10)
        post(served)
        until(lambda: states(served) == {"delivered": 2}, 10)
        assert sink.received[1].at - sink.received[0].at >= 1.9


def test_a_redirect_is_not_followed(quick):
    with Sink() as inside, Sink(lambda _: (307, {"Location": f"{inside.address}/admin"})) as sink:
        destination(quick, sink.address, options=LINK)
        post(quick)
        until(lambda: len(sink.received) >= 2, 10)
        assert inside.received == []
        assert deliveries(quick)[0]["problem"] == "http_307"


def test_a_destination_that_hangs_delays_no_other(quick):
    released = threading.Event()

    def hang(_):
        released.wait(20)
        return 200

    with Sink(hang) as hanging, Sink() as sink:
        destination(quick, hanging.address, options=LINK)
        destination(quick, sink.address, options=LINK)
        started = time.monotonic()
        for _ in range(12):
            post(quick)
        until(lambda: len(sink.received) == 12, 4)
        assert time.monotonic() - started < 4
        assert len(hanging.received) == 4, "as many as a destination has slots"
        released.set()
        until(lambda: states(quick) == {"delivered": 24}, 10)


def test_a_destination_that_never_answers_ends_in_a_timeout(tmp_path):
    answers = iter([1.5, 0.0])

    def answer(_):
        time.sleep(next(answers))
        return 200

    with serving(settings_for(tmp_path, **QUICK | {"delivery_timeout_seconds": 0.5})) as served, Sink(answer) as sink:
        destination(served, sink.address, options=LINK)
        post(served)
        until(lambda: states(served) == {"delivered": 1}, 10)
        assert len(sink.received) == 2
        assert len({got.key for got in sink.received}) == 1


def test_deliveries_to_an_unreachable_destination_wait_together(tmp_path):
    away = threading.Event()
    away.set()
    settings = settings_for(tmp_path, **QUICK | {"delivery_retry_seconds": 2, "delivery_retry_max_seconds": 2})
    with serving(settings) as served, Sink(lambda _: 503 if away.is_set() else 200) as sink:
        made = destination(served, sink.address, options=LINK)
        for _ in range(20):
            post(served)
        until(lambda: {each["problem"] for each in deliveries(served)} == {"http_503"}, 15)
        assert len(sink.received) < 20, "each found out for itself"
        away.clear()
        with served.client() as client:  # to ask for one that was given up says that the destination is repaired
            assert client.post("/v1/deliveries/retry", json={"destination": made["id"]}).json() == {"retried": 0}
        until(lambda: states(served) == {"delivered": 20}, 15)
        assert set(sink.taken.values()) == {1}


def test_a_missing_server_and_a_failed_tls_are_named(quick):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        nobody.listen(0)
        port = nobody.getsockname()[1]
    with Sink() as plain:
        away = destination(quick, f"http://127.0.0.1:{port}", options=LINK)
        wrong = destination(quick, plain.address.replace("http", "https"), options=LINK)
        post(quick)
        until(lambda: all(each["problem"] for each in deliveries(quick)), 10)
        problems = {each["destination"]: each["problem"] for each in deliveries(quick)}
        assert problems == {away["id"]: "unreachable", wrong["id"]: "tls"}
        assert plain.received == []


# ---------------------------------------------------------------- once, whichever process stops
def post_until_killed(process):
    posted = []
    while process.process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            posted.append(post(process.served))
        time.sleep(0.05)
    return posted


def test_after_a_kill_a_repeated_delivery_has_the_same_key(new_process, new_database):
    process = new_process(database_url=new_database(), **QUICK_PROCESS)
    seen = itertools.count(1)
    started_again = threading.Event()

    def answer(_):
        n = next(seen)
        if n == 2:
            process.kill()  # it has been sent, and nobody hears the answer
        if n >= 8 and started_again.is_set():  # what waited is sent before a server says that it is ready
            started_again.clear()
            threading.Timer(0.001, process.kill).start()  # about when the answer is noted
        return 200

    with Sink(answer) as sink:
        process.start()
        made = destination(process.served, sink.address, options=LINK)
        posted = post_until_killed(process)
        process.start()
        started_again.set()
        posted += post_until_killed(process)
        process.start()

        def keys():
            return {str(identifier(each["visit"], 1, "delivery", made["id"])) for each in deliveries(process.served)}

        def all_arrived():
            """A visit whose answer was lost with the process is known to the sink alone, and may be finished late."""
            found = keys()
            return (
                set(states(process.served)) == {"delivered"} and len(found) >= len(posted) and set(sink.taken) == found
            )

        until(all_arrived, 30)
        assert {each["visit"] for each in deliveries(process.served)} >= set(posted)
        # what was on its way in the four slots when a process stopped may come twice, under the key that it had
        assert len(sink.received) - len(keys()) <= 8
        twice = [key for key, n in Counter(got.key for got in sink.received).items() if n > 1]
        assert twice, "nothing was on its backoff: this test tests nothing"
        for key in twice:
            assert len({got.body for got in sink.received if got.key == key}) == 1


def test_two_processes_share_the_deliveries_and_send_each_once(new_process, postgres, tmp_path):
    """The destination answers nothing before it has what both processes may send at a time: one alone sends half."""
    url = postgres()
    both = [
        new_process(
            tmp_path / name,
            database_url=url,
            **{**QUICK_PROCESS, "SANGLOC_DELIVERY_TIMEOUT_SECONDS": "120"},
            SANGLOC_LEASE_SECONDS="120",
            SANGLOC_STORE_URL=f"file://{tmp_path}/files",
        )
        for name in "ab"
    ]
    both[0].start(wait=False)
    both[1].start()
    until(both[0]._answers, 30)
    answers = threading.Event()
    with Sink(lambda _: answers.wait(110) and 200) as sink:
        destination(both[0].served, sink.address, options=LINK)
        for i in range(30):
            post(both[i % 2].served)
        until(lambda: len(sink.received) == 2 * SLOTS, 60)
        answers.set()
        until(lambda: states(both[0].served) == {"delivered": 30}, 60)
        assert len(sink.received) == 30
        assert set(sink.taken.values()) == {1}
    for each in both:
        each.stop()
    logs = [each.log.read_text().count('"event": "delivery_delivered"') for each in both]
    assert sum(logs) == 30
    assert min(logs) >= SLOTS


def test_a_stopping_process_finishes_its_deliveries_and_its_log_names_no_person(new_process):
    process = new_process(**QUICK_PROCESS)
    process.start()

    def slowly(_):
        time.sleep(1)
        return 200, {"X": "SECRET-1"}

    with Sink(slowly) as sink:
        destination(process.served, f"{sink.address}/SECRET-2?SECRET-3", secret="SECRET-4-of-webhooks")
        post(process.served, person={"id": "SECRET-5", "name": "SECRET-6"})
        until(lambda: sink.received, 10)
        assert process.stop() == 0
        log = process.log.read_text()
        process.start()
        assert states(process.served) == {"delivered": 1}
        assert len(sink.received) == 1
    assert "delivery_delivered" in log
    assert "SECRET" not in log


# ---------------------------------------------------------------- to servers of the other kinds
class FhirServer(Sink):
    """Keeps bundles by id, or, where it takes no ids of others, by the identifier that they are not to have twice."""

    def __init__(self, takes_ids=True):
        self.bundles, self.takes_ids, self.lose = {}, takes_ids, 0
        super().__init__(self.serve)

    def serve(self, got):
        if got.method == "GET":
            return 200 if got.path.rsplit("/", 1)[1] in self.bundles else 404
        if got.method == "PUT" and not self.takes_ids:
            return 405
        bundle = json.loads(got.body)
        name = got.path.rsplit("/", 1)[1] if got.method == "PUT" else got.headers["if-none-exist"]
        status = 200 if name in self.bundles else 201
        self.bundles.setdefault(name, bundle)
        if self.lose:  # it has it, and its answer is lost
            self.lose -= 1
            return 504
        return status


def test_a_fhir_server_gets_each_document_once(quick):
    with FhirServer() as server:
        server.lose = 1
        destination(quick, f"{server.address}/fhir/", kind="fhir", secret="a-token", language="vi")
        visit = post(quick)
        until(lambda: states(quick) == {"delivered": 1}, 15)
        ((name, bundle),) = server.bundles.items()
        assert (bundle["resourceType"], bundle["type"], bundle["id"]) == ("Bundle", "document", name)
        assert [got.method for got in server.received] == ["PUT", "GET"], "put again though it was there"
        first = server.received[0]
        assert first.path == f"/fhir/Bundle/{name}"
        assert first.headers["authorization"] == "Bearer a-token"
        assert first.headers["content-type"] == "application/fhir+json"
        sign(quick, visit)
        until(lambda: states(quick) == {"delivered": 2}, 15)
        assert len(server.bundles) == 2


def test_a_fhir_server_that_refuses_our_ids_is_asked_by_identifier(quick):
    with FhirServer(takes_ids=False) as server:
        server.lose = 1
        destination(quick, f"{server.address}/fhir", kind="fhir")
        destination(quick, f"{server.address}/second", kind="fhir", options={"create": "post"})
        post(quick)
        until(lambda: states(quick) == {"delivered": 2}, 15)
        ((name, bundle),) = server.bundles.items()
        assert unquote(name) == f"identifier={bundle['identifier']['system']}|{bundle['identifier']['value']}"
        assert {got.path for got in server.received if got.method == "POST"} == {"/fhir/Bundle", "/second/Bundle"}
        assert not any(got.method == "PUT" for got in server.received if got.path.startswith("/second"))


class Mllp(threading.Thread):
    """Acknowledges HL7 v2 messages, each with the next of ``codes``; the last one stays."""

    def __init__(self, *codes):
        super().__init__(daemon=True)
        self.codes, self.messages = list(codes), []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self.listener.accept()
                with peer:
                    frame = b""
                    while not frame.endswith(b"\x1c\r"):
                        frame += peer.recv(65_536)
                    message = frame[1:-2].decode()
                    self.messages.append(message)
                    control_id = message.split("\r")[0].split("|")[9]
                    code = self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]
                    answer = f"MSH|^~\\&|HIS|H|SL|S|20261122||ACK|1|P|2.5.1\rMSA|{code}|{control_id}\r"
                    peer.sendall(b"\x0b" + answer.encode() + b"\x1c\r")


def test_an_hl7_receiver_gets_the_same_message_until_it_accepts_it(quick):
    receiver = Mllp("AE", "AA")
    receiver.start()
    destination(quick, receiver.address, kind="hl7", language="vi")
    post(quick, person={"id": "P-1", "name": "Người Được Khám Thử Nghiệm"})
    until(lambda: states(quick) == {"delivered": 1}, 15)
    first, again = receiver.messages
    assert first == again
    assert "ORU^R01" in first
    receiver.listener.close()


def test_an_archive_gets_objects_with_the_same_uids_again(quick):
    """C-STORE to a real association; the first one is aborted after it has stored an object."""
    pynetdicom = pytest.importorskip("pynetdicom")
    stored = []

    def store(event):
        stored.append(event.dataset.SOPInstanceUID)
        return 0xA700 if len(stored) == 1 else 0x0000

    entity = pynetdicom.AE("PACS")
    for context in pynetdicom.AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, pynetdicom.ALL_TRANSFER_SYNTAXES)
    archive = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(pynetdicom.evt.EVT_C_STORE, store)])
    try:
        destination(quick, f"PACS@127.0.0.1:{archive.server_address[1]}", kind="dicom")
        with quick.client() as client:
            client.post("/v1/visits", files={"context": (None, "{}")})
        until(lambda: states(quick) == {"delivered": 1}, 15)
        assert deliveries(quick)[0]["attempts"] == 2
        assert len(stored) == 2
        assert len(set(stored)) == 1
    finally:
        archive.shutdown()


# ---------------------------------------------------------------- the queue itself
@pytest.fixture
def database(tmp_path, new_database):
    settings = settings_for(tmp_path, database_url=new_database())
    database = Database(settings.database)
    migrate(settings, database)
    yield database
    database.close()


@pytest.fixture
def two(database, tmp_path):
    """Two processes' deliveries, leased for no time at all: each is free for the other at once."""
    owners = Owner(tmp_path / "o"), Owner(tmp_path / "o")
    yield [Deliveries(database, owner, 0.0) for owner in owners]
    for owner in owners:
        owner.close()


NOW = datetime(2026, 11, 22, tzinfo=UTC)


def fill(database, *versions, destinations=("d",), ended=()):
    with database.transaction(write=True) as session:
        row = VisitRow(id="v", site="s", key_id="k", context="{}", status="complete", priority="urgent", version=1)
        row.received_at, row.body_hash, row.attempts, row.faults = NOW, "", 1, 0
        session.add(row)
        for each in destinations:
            gone = NOW if each in ended else None
            session.add(
                DestinationRow(
                    id=each,
                    kind="webhook",
                    address="https://x",
                    site=None,
                    language="en",
                    options="{}",
                    created_at=NOW,
                    ended_at=gone,
                )
            )
        session.flush()
        for version in versions:
            enqueue(session, "v", "s", version, NOW)


def test_enqueueing_is_one_statement_and_no_row_without_destinations(database):
    fill(database)
    statements = []
    event.listen(database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    with database.transaction(write=True) as session:
        enqueue(session, "v", "s", 1, NOW)
    assert len([each for each in statements if "deliveries" in each]) == len(
        [each for each in statements if each.startswith(("INSERT", "SELECT", "UPDATE"))]
    )
    assert sum(each.startswith("INSERT") for each in statements) == 1
    with database.transaction() as session:
        assert [each.version for each in deliveries_of(session, "v")] == [1]


async def test_a_process_that_comes_back_late_changes_nothing(database, two):
    first, second = two
    fill(database, 1)
    (late,) = await first.take({"d": 4}, [])
    (current,) = await second.take({"d": 4}, [])
    assert (late.attempt, late.delivery.repeated) == (1, False)
    assert (current.attempt, current.delivery.repeated) == (2, True)
    assert not await first.delivered(late)
    assert not await first.put_back(late, NotDelivered("x"), 0)
    assert not await first.give_up(late, NotDelivered("x"))
    (again,) = await second.take({"d": 4}, [])
    assert not await second.delivered(current), "an earlier attempt of the same process is late too"
    assert await second.delivered(again)
    assert not await second.give_up(again, NotDelivered("x"))
    assert await second.due() == []


async def test_a_later_version_waits_for_the_one_before(database, two):
    first, second = two
    fill(database, 1, 2)
    (one,) = await first.take({"d": 4}, [])
    assert one.delivery.version == 1
    assert [each.delivery.version for each in await second.take({"d": 4}, [])] == [1], "taken over, and still the first"
    assert await second.take({"d": 4}, [one.identity]) == []
    (one,) = await first.take({"d": 4}, [])
    assert await first.put_back(one, NotDelivered("http_500"), 3600)
    assert await first.due() == []
    assert await first.take({"d": 4}, []) == []
    with database.transaction(write=True) as session:
        session.execute(update(DELIVERIES).values(due_at=NOW))
    assert await first.due() == ["d"]
    (one,) = await first.take({"d": 4}, [])
    assert await first.give_up(one, NotDelivered("http_400"))
    (two_,) = await first.take({"d": 4}, [])
    assert two_.delivery.version == 2


async def test_what_may_have_arrived_is_known_wherever_a_process_stops(database, two):
    def may_have_arrived():
        with database.transaction() as session:
            return session.scalar(select(DELIVERIES.c.may_have_arrived))

    first, second = two
    fill(database, 1)
    assert may_have_arrived() is False
    (sent,) = await first.take({"d": 4}, [])
    assert may_have_arrived() is True, "a process that stops now writes nothing more"
    assert await first.put_back(sent, NotDelivered("unreachable"), 0)
    assert may_have_arrived() is False
    await first.take({"d": 4}, [])  # and stops
    (again,) = await second.take({"d": 4}, [])
    assert await second.give_up(again, NotDelivered("http_400", permanent=True))
    assert may_have_arrived() is True


async def test_slots_are_by_destination(database, two):
    first, _ = two
    fill(database, 1, destinations=("a", "b", "c"), ended=("c",))
    assert sorted(await first.due()) == ["a", "b"], "nothing was written for one that had ended"
    taken = await first.take({"a": 1, "c": 1}, [])
    assert [each.delivery.destination_id for each in taken] == ["a"]


async def test_deliveries_to_an_ended_destination_are_dead(database, two):
    first, _ = two
    fill(database, 1)
    with database.transaction(write=True) as session:
        session.execute(update(DestinationRow).values(ended_at=NOW))
    assert await first.take({"d": 4}, []) == []
    with database.transaction() as session:
        (state,) = deliveries_of(session, "v")
    assert (state.state, state.problem) == ("dead", "destination_ended")


async def test_waiting_together_counts_as_an_attempt_of_each_and_ends(database, two):
    first, _ = two
    fill(database, 1, 2)
    (_held,) = await first.take({"d": 1}, [])
    for _ in range(2):
        await first.back_off("d", "http_503", 3600, most_attempts=3)
    with database.transaction(write=True) as session:
        rows = deliveries_of(session, "v")
        assert [each.attempts for each in rows] == [2, 1], "what is not due any more is not put off again"
        now = database_now(session)
        assert all(each.due_at > now + timedelta(minutes=59) for each in rows)
        session.execute(update(DELIVERIES).values(due_at=NOW))
    await first.back_off("d", "http_503", 3600, most_attempts=3)
    with database.transaction() as session:
        assert [each.state for each in deliveries_of(session, "v")] == ["dead", "waiting"]


async def test_leases_of_stopped_processes_are_free_at_once(database, tmp_path):
    fill(database, 1)
    stopped, running = Owner(tmp_path / "o"), Owner(tmp_path / "o")
    assert await Deliveries(database, stopped, 600).take({"d": 1}, [])
    heir = Deliveries(database, running, 600)
    await heir.end_leases_of_stopped_owners()
    assert await heir.take({"d": 1}, []) == []
    stopped.close()
    await heir.end_leases_of_stopped_owners()
    (taken,) = await heir.take({"d": 1}, [])
    assert taken.delivery.repeated
    await heir.extend([taken.identity])
    await heir.give_all_back()
    assert await heir.due() == ["d"]


def test_the_schedule_ends_after_about_a_day(tmp_path):
    settings = settings_for(tmp_path)
    first, longest = settings.delivery_retry_seconds, settings.delivery_retry_max_seconds
    waits = [min(longest, first * 2.0**n) / 2 for n in range(settings.delivery_attempts - 1)]
    assert 23 * 3600 < sum(waits) < 25 * 3600


# ---------------------------------------------------------------- the routes
@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"kind": "webhook", "address": "http://hospital.example/x"}, "body.address"),
        ({"kind": "webhook", "address": "https://user:pass@hospital.example/x"}, "body.address"),
        ({"kind": "webhook", "address": "ftp://hospital.example/x"}, "body.address"),
        ({"kind": "webhook", "address": "https:///x"}, "body.address"),
        ({"kind": "webhook", "address": "https://x:99999/"}, "body.address"),
        ({"kind": "webhook", "address": "https://[::1/"}, "body.address"),
        ({"kind": "webhook", "address": "https://x/#a"}, "body.address"),
        ({"kind": "webhook", "address": "https://x/\n"}, "body.address"),
        ({"kind": "webhook", "address": "https://x/é"}, "body.address"),
        ({"kind": "webhook", "address": "http://127.0.0.1.example/"}, "body.address"),
        ({"kind": "fhir", "address": "https://x/fhir?a=b"}, "body.address"),
        ({"kind": "dicom", "address": "PACS@host"}, "body.address"),
        ({"kind": "dicom", "address": "https://host"}, "body.address"),
        ({"kind": "hl7", "address": "host:0"}, "body.address"),
        ({"kind": "hl7", "address": "host"}, "body.address"),
        ({"kind": "dicom", "address": "PACS@host:104", "secret": "x"}, "body.secret"),
        ({"kind": "webhook", "address": "https://x/", "secret": "short"}, "body.secret"),
        ({"kind": "webhook", "address": "https://x/", "options": {"a": 1}}, "body.options.a"),
        ({"kind": "pigeon", "address": "https://x/"}, "body.kind"),
    ],
)
def test_addresses_that_cannot_be_used(client, asked, field):
    answer = client.post("/v1/destinations", json=asked)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field


@pytest.mark.parametrize(
    "asked",
    [
        {"kind": "webhook", "address": "http://[::1]:8080/x"},
        {"kind": "fhir", "address": "http://10.0.0.7/fhir", "options": {"allow_http": True}, "secret": "token"},
        {"kind": "stow", "address": "https://pacs.example/dicom-web"},
        {"kind": "dicom", "address": "MY PACS@[::1]:104"},
        {"kind": "hl7", "address": "[::1]:2575", "language": "vi", "site": "admin"},
    ],
)
def test_addresses_that_can_be_used(client, asked):
    made = client.post("/v1/destinations", json=asked)
    assert made.status_code == 201, made.text
    assert (made.json()["secret"] is not None) == (asked["kind"] == "webhook")
    listed = {each["id"]: each for each in client.get("/v1/destinations").json()["items"]}[made.json()["id"]]
    assert "secret" not in listed
    assert listed["address"] == asked["address"]
    assert client.delete(f"/v1/destinations/{listed['id']}").status_code == 204
    assert client.delete(f"/v1/destinations/{listed['id']}").status_code == 404


def test_a_site_subscribes_for_itself_alone(served):
    own, other = served.key("site", "subscribing"), served.key("site", "elsewhere")
    made = destination(served, "https://hospital.invalid/x", key=own)
    assert made["site"] == "subscribing"
    with served.client(own) as client:
        for asked, status in (
            ({"kind": "webhook", "address": "https://x/", "site": "elsewhere"}, 403),
            ({"kind": "fhir", "address": "https://x/"}, 403),
            ({"kind": "webhook", "address": "http://10.0.0.1/", "options": {"allow_http": True}}, 403),
            ({"kind": "webhook", "address": "http://127.0.0.1/"}, 422),
        ):
            assert client.post("/v1/destinations", json=asked).status_code == status
        assert [each["id"] for each in client.get("/v1/destinations").json()["items"]] == [made["id"]]
        for _ in range(19):
            assert client.post("/v1/destinations", json={"kind": "webhook", "address": "https://x/"}).status_code == 201
        assert client.post("/v1/destinations", json={"kind": "webhook", "address": "https://x/"}).status_code == 422
    with served.client(other) as client:
        assert client.get("/v1/destinations").json() == {"items": []}
        assert client.delete(f"/v1/destinations/{made['id']}").status_code == 404
        assert client.post("/v1/deliveries/retry", json={"destination": made["id"]}).status_code == 404
    with served.client(served.key("doctor", "subscribing", doctor_id="D")) as client:
        assert client.get("/v1/destinations").status_code == 403
        assert client.get("/v1/deliveries").status_code == 403
    with served.client() as client:
        for each in client.get("/v1/destinations").json()["items"]:
            client.delete(f"/v1/destinations/{each['id']}")


def test_ending_a_destination_ends_its_waiting_deliveries(either):
    with Sink(lambda _: 500) as sink:
        made = destination(either, sink.address, options=LINK)
        posted = sorted(post(either) for _ in range(3))
        until(lambda: len(sink.received) >= 3, 10)
        with either.client() as client:
            assert client.delete(f"/v1/destinations/{made['id']}").status_code == 204
            until(lambda: states(either) == {"dead": 3}, 10)
            assert client.post("/v1/deliveries/retry", json={"destination": made["id"]}).status_code == 404
            first = client.get("/v1/deliveries", params={"limit": 2}).json()
            second = client.get("/v1/deliveries", params={"limit": 2, "cursor": first["next"]}).json()
            assert [each["visit"] for each in first["items"] + second["items"]] == posted
            assert second["next"] is None
            for wrong in ("x", "ÿ", "W10", "WyJ4IiwxLCJ5Il0"):
                assert client.get("/v1/deliveries", params={"cursor": wrong}).status_code == 422
        before = len(sink.received)
        post(either)
        time.sleep(0.7)
        assert len(sink.received) == before
