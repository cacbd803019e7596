"""From arrivals to visits: each arrival is taken once, also where processes are killed or several of them run."""

from __future__ import annotations

import contextlib
import copy
import time
from collections import defaultdict

from pydicom.uid import generate_uid
from sqlalchemy import select

from data_specs.visit.context import Context, Order, Person, Referrer
from service.storage.database import Database, database_now
from service.storage.tables import ArrivalRow, OrderRow, VisitRow
from tests.data_specs.cxr_made import SC
from tests.service.orthanc import free_port, listens
from tests.service.receive.dicom.arriving import QUIET_S, arrive, context_in, rows, visits_of
from tests.service.receive.dicom.made import PEERS, SITE, film, parsed, recording, send
from tests.service.serving import serving, settings_for, until
from tests.service.standin import StandIn


def quiet():
    """Wait until all that arrived has become visits."""
    time.sleep(3 * QUIET_S + 0.6)


def test_a_late_object_makes_another_visit_of_the_whole_study(gathering):
    study = generate_uid()
    arrive(gathering, film(StudyInstanceUID=study))
    (first,) = visits_of(gathering, study)
    arrive(gathering, recording(StudyInstanceUID=study))
    again, second = visits_of(gathering, study, 2)
    assert again.id == first.id
    assert len(first.inputs) == len(again.inputs) == 1
    assert [each.field for each in second.inputs] == ["image", "ecg"]
    quiet()
    assert len(visits_of(gathering, study)) == 2


def test_more_objects_than_a_visit_may_hold_make_several_visits(gathering):
    study = generate_uid()
    films = [film(StudyInstanceUID=study) for _ in range(9)]
    arrive(gathering, *films, recording(StudyInstanceUID=study))
    visits = visits_of(gathering, study, 2)
    assert sorted(len(each.inputs) for each in visits) == [1, 9]
    arrive(gathering, film(StudyInstanceUID=study))
    visits = visits_of(gathering, study, 3)
    assert [each.field for each in visits[-1].inputs] == ["image", "image"], "the full visit is left as it is"


def test_two_persons_of_a_study_get_a_visit_each(gathering):
    study = generate_uid()
    mine = [film(StudyInstanceUID=study, PatientID="ONE", PatientSex="F") for _ in range(2)]
    arrive(gathering, mine[0], film(StudyInstanceUID=study, PatientID="TWO", PatientSex="M"), mine[1])
    one, two = sorted(visits_of(gathering, study, 2), key=lambda visit: visit.person_id)
    assert (one.person_id, len(one.inputs), context_in(one).person.sex) == ("ONE", 2, "female")
    assert (two.person_id, len(two.inputs), context_in(two).person.sex) == ("TWO", 1, "male")


def test_while_the_queue_is_full_studies_wait_and_objects_are_refused(tmp_path):
    settings = settings_for(tmp_path, dicom_gather_seconds=QUIET_S, max_queue=1)
    with serving(settings, StandIn(seconds=2)) as served:
        studies = [generate_uid() for _ in range(3)]
        assert arrive(served, *(film(StudyInstanceUID=study) for study in studies)) == [None] * 3
        until(lambda: served.app.state.service.queue_was_full, 10)
        (refusal,) = arrive(served, film())
        assert (refusal.code, refusal.status) == ("queue_full", 0xA700)
        for study in studies:
            assert len(visits_of(served, study)) == 1
        until(lambda: all(visit.status == "complete" for visit in rows(served, VisitRow)), 10)
        assert arrive(served, film()) == [None]


def test_an_order_that_was_sent_ahead_is_merged(gathering):
    order = Context(
        person=Person(id="P-17", birth_date="1970-01-02"),
        referrer=Referrer(id="dr-9"),
        order=Order(placer="PL-1", accession_number="A-77", reason="ho kéo dài"),
    )
    with gathering.app.state.service.database.transaction(write=True) as session:
        now = database_now(session)
        session.add(
            OrderRow(
                site=SITE, accession_number="A-77", context=order.model_dump_json(exclude_unset=True), received_at=now
            )
        )
    ordered, plain = generate_uid(), generate_uid()
    arrive(
        gathering,
        film(StudyInstanceUID=ordered, AccessionNumber="A-77", ReferringPhysicianName="", PatientBirthDate=""),
        film(StudyInstanceUID=plain, AccessionNumber="A-78"),
    )
    (visit,) = visits_of(gathering, ordered)
    assert (visit.referrer_id, visit.accession_number) == ("dr-9", "A-77")
    context = context_in(visit)
    assert (context.order.placer, context.order.reason) == ("PL-1", "ho kéo dài")
    assert context.person.age_years == 56.0
    (visit,) = visits_of(gathering, plain)
    assert (visit.referrer_id, visit.accession_number) == (None, "A-78")
    with gathering.client(gathering.key("doctor", SITE, doctor_id="dr-9")) as client:
        assert [each["id"] for each in client.get("/v1/visits").json()["items"]] == [
            visits_of(gathering, ordered)[0].id
        ]


# ---------------------------------------------------------------- several processes, and killed ones
@contextlib.contextmanager
def database_of(process):
    database = Database(process.environment["SANGLOC_DATABASE_URL"] or f"sqlite:///{process.folder}/sangloc.db")
    try:
        yield database
    finally:
        database.close()


def rows_in(database, table):
    with database.transaction() as session:
        return list(session.scalars(select(table)))


def test_killed_between_arrival_and_visit(new_process, new_database):
    port = free_port()
    process = new_process(
        database_url=new_database(),
        SANGLOC_DICOM_PORT=str(port),
        SANGLOC_DICOM_PEERS=PEERS,
        SANGLOC_DICOM_GATHER_SECONDS="5",
    ).start()
    until(lambda: listens(port), 10)
    study = generate_uid()
    assert send(port, film(StudyInstanceUID=study), recording(StudyInstanceUID=study)) == [0, 0]
    process.kill()
    with database_of(process) as database:
        assert len(rows_in(database, ArrivalRow)) == 2
        assert rows_in(database, VisitRow) == []
        process.start()
        until(lambda: [each.status for each in rows_in(database, VisitRow)] == ["complete"], 20)
        (visit,) = rows_in(database, VisitRow)
        assert len(visit.inputs) == 2
        assert {each.visit_id for each in rows_in(database, ArrivalRow)} == {visit.id}


def test_several_processes_make_each_visit_once(new_process, new_database):
    url, ports = new_database(), [free_port() for _ in range(3)]
    processes = [
        new_process(
            database_url=url,
            SANGLOC_DICOM_PORT=str(port),
            SANGLOC_DICOM_PEERS=PEERS,
            SANGLOC_DICOM_GATHER_SECONDS="1.5",
        ).start(wait=False)
        for port in ports
    ]
    until(lambda: all(map(listens, ports)), 30)
    for port in ports:  # an object that is not kept; the first one starts the readers, which takes a second
        assert send(port, film(SOPClassUID=SC, Modality="OT", Manufacturer="Sàng Lọc")) == [0]
    base, studies = parsed(film()), [generate_uid() for _ in range(12)]
    for port in ports:  # each process gets one film of each study
        films = []
        for study in studies:
            films.append(copy.deepcopy(base))
            films[-1].StudyInstanceUID = study
            films[-1].SOPInstanceUID = films[-1].file_meta.MediaStorageSOPInstanceUID = generate_uid()
        assert send(port, *films) == [0] * len(studies)
    with database_of(processes[0]) as database:
        until(lambda: all(each.visit_id for each in rows_in(database, ArrivalRow)), 60)
        visits = defaultdict(list)
        for each in rows_in(database, VisitRow):
            visits[each.study_uid].append(len(each.inputs))
    assert visits.keys() == set(studies)
    # One visit of three films. Where a busy machine sends too slowly, late films make further visits of the whole
    # study, each with more than those before; never two of the same films.
    for n_films in visits.values():
        assert max(n_films) == 3
        assert len(set(n_films)) == len(n_films)
