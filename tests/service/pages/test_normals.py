"""Release of normals over HTTP: nothing without a certificate, a batch with one, the tenth held back, the stop."""

from __future__ import annotations

import contextlib
import html
import re

import pytest
from sqlalchemy import select

from data_specs.planning.normals import in_sample
from inference.bundles.registry import finding_key, read_registry
from models.registry import accept, read_manifest
from service.language.texts import text
from service.storage.tables import AuditRow, CertificateRow, NormalRow, SampleKeyRow, VisitRow
from tests.service.normals_made import CHILD, DOUBTFUL, FILM, FLAGGED, NORMAL, Scoring, bundles, certify, scores
from tests.service.serving import serving, settings_for, visit_files

HERE = {"Sec-Fetch-Site": "same-origin"}
DOCTOR = "BS. Thử Nghiệm Tuyến Dưới"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """One server for the module; each test has a site of its own on it."""
    folder = bundles(tmp_path_factory.mktemp("normals") / "bundles")
    with serving(settings_for(tmp_path_factory.mktemp("data"), bundles=folder), Scoring()) as served:
        yield served, folder


@pytest.fixture
def site(running, tmp_path, request):
    with contextlib.ExitStack() as clients:
        yield Site(*running, request.node.name, tmp_path, clients.enter_context)


class Site:
    def __init__(self, served, folder, name, tmp_path, opened):
        self.served, self.bundles, self.name, self.tmp_path = served, folder, name[:90], tmp_path
        self.database = served.app.state.service.database

        def client(role, **more):
            return opened(served.client(served.key(role, more.pop("site", self.name), **more), **HERE))

        self.doctor = client("doctor", doctor_id="D-7", label=DOCTOR)
        self.other = client("doctor", doctor_id="D-8", label="BS. Khác")
        self.specialist = client("specialist", site="far", doctor_id="S-1", label="BS. Xa")
        self.poster = client("site")
        self.admin = opened(served.client(**HERE))
        self.n = 0

    def post(self, probability=NORMAL, *, sex="female", **more):
        self.n += 1
        person = {**CHILD, "id": f"{probability} VN-{self.n}", "sex": sex}
        files = visit_files(FILM, person=person, referrer={"id": "D-7"}, **more)
        made = self.poster.post("/v1/visits", files=files, headers={"Prefer": "wait=20"})
        assert made.json()["status"] == "complete", made.text
        return made.json()["id"]

    def certify(self, *more, events=120):
        return certify(self.bundles, self.name, scores(self.tmp_path / "scores.csv", events=events), *more)

    def end(self):
        assert certify(self.bundles, self.name, self.tmp_path / "scores.csv", "--end") == 0

    def accept(self):
        """As ``python -m training accept`` logs it."""
        manifest = read_manifest(read_registry(self.bundles), "lung", "1.0.0")
        verdicts = {finding_key(each): "fit for triage" for each in manifest.findings}
        accept(self.bundles, "lung", "1.0.0", self.name, verdicts, who="the lead", why="a test")

    def page(self, client=None):
        answer = (client or self.doctor).get("/normals")
        assert answer.status_code == 200
        return html.unescape(answer.text)

    def offered(self, client=None):
        return re.findall(r'name="visit" value="([^"]+)"', self.page(client))

    def sign(self, visits, **form):
        return self.doctor.post("/normals", data={"visit": visits, **form})

    def read(self, visit, **opinion):
        signed = self.doctor.post(f"/v1/visits/{visit}/opinions", json={"version": 1, **opinion})
        assert signed.status_code == 201, signed.text
        return signed.json()

    def rows(self, query):
        with self.database.transaction() as session:
            return session.scalars(query).all()

    @property
    def called(self):
        of_site = VisitRow.site == self.name
        return self.rows(select(NormalRow).join(VisitRow, VisitRow.id == NormalRow.visit_id).where(of_site))

    @property
    def certificates(self):
        return self.rows(select(CertificateRow).where(CertificateRow.site == self.name))

    def row(self, visit):
        (found,) = [row for row in self.called if row.visit_id == visit]
        return found

    def held_back(self, n):
        """Post until so many are held back; their ids."""
        while len(found := [row.visit_id for row in self.called if row.held_back]) < n:
            self.post()
        return found


def test_too_few_events_certify_nothing_and_nothing_is_offered(site, capsys):
    assert site.certify(events=50) == 1
    assert "too few to certify: each group needs 72 persons with a finding; all has 50" in capsys.readouterr().err
    site.post()
    assert "no certificate" in site.page()
    assert site.offered() == []
    assert site.called == []
    assert 'href="/normals"' not in site.doctor.get("/worklist").text


def test_a_batch_is_offered_signed_and_reported_and_the_tenth_is_held_back(site):
    assert site.certify() == 0
    visits = [site.post() for _ in range(30)]
    (row,) = site.rows(select(SampleKeyRow))
    key = bytes.fromhex(row.key)
    expected = [each for each in visits if not in_sample(key, each)]
    offered = site.offered()
    assert offered == expected[:24]
    assert site.offered(site.other) == []  # it is another doctor's
    assert 'href="/normals"' in site.doctor.get("/worklist").text
    shown = site.page()
    assert "Of 1,000 films released so, at most" in shown
    assert shown.count("/film.jpg?max_px=") == len(offered)
    assert "checked" not in shown

    left, signed = offered[0], offered[1:]
    review = site.sign(offered, left=[left])
    assert review.status_code == 200
    assert DOCTOR in review.text
    assert re.findall(r'name="visit" value="([^"]+)"', review.text) == signed
    assert all(site.doctor.get(f"/v1/visits/{each}").json()["version"] == 1 for each in offered)

    done = site.sign(signed, confirmed="1", left=[left])
    assert done.status_code == 303
    assert done.headers["location"] == f"/normals?signed={len(signed)}&left=0"
    for each in signed:
        report = site.doctor.get(f"/v1/visits/{each}/report.json").json()
        (opinion,) = report["opinions"]
        assert opinion["author"]["name"] == DOCTOR
        assert f"batch of {len(signed)} films" in opinion["text"]
        assert opinion["advice"] == "manage"
    assert left in site.offered()
    batches = {row.batch for row in site.called if row.visit_id in signed}
    assert len(batches) == 1
    assert None not in batches
    # what is sent twice signs nothing twice
    again = site.sign(signed, confirmed="1")
    assert again.headers["location"] == f"/normals?signed=0&left={len(signed)}"


def test_what_is_not_called_normal_is_not_offered(site):
    assert site.certify(events=70) == 1  # 70 events of one sex: two groups need 72 each
    assert site.certify() == 0
    site.post(FLAGGED)
    site.post(0.61)  # below the events, and flagged
    site.post(DOUBTFUL, sex="male")  # a group that the sample does not have
    site.post(labs=[{"name": "glucose", "value": 2.4, "unit": "mmol/L"}])  # something else follows from this visit
    assert site.called == []


def test_whoever_reads_the_tenth_sees_nothing_that_the_machine_found(site):
    assert site.certify() == 0
    (held,) = site.held_back(1)[:1]
    visit = site.doctor.get(f"/v1/visits/{held}").json()
    assert visit["organs"] == {}
    assert visit["priority_reasons"] == []
    page = site.doctor.get(f"/visits/{held}").text
    assert text("blind_note", "en") in html.unescape(page)
    assert site.doctor.get(f"/v1/visits/{held}/report.json").status_code == 403
    assert site.sign([held], confirmed="1").headers["location"] == "/normals?signed=0&left=1"
    assert site.read(held)["blind"] is True
    assert site.doctor.get(f"/v1/visits/{held}").json()["organs"] != {}
    assert site.row(held).abnormal is False


def test_misses_in_the_tenth_stop_the_release(site):
    assert site.certify() == 0
    held = site.held_back(3)
    assert site.offered() != []
    for each in held:
        site.read(each, judgements=[{"finding": "pneumonia", "verdict": "add"}])
    (certificate,) = site.certificates
    assert certificate.stopped_at is not None
    assert certificate.n_read == certificate.n_abnormal
    assert site.offered() == []
    assert f"{certificate.n_abnormal} of {certificate.n_read} films read in full" in site.page()
    called = len(site.called)
    after = site.post()
    assert len(site.called) == called
    assert site.doctor.get(f"/v1/visits/{after}").json()["organs"] != {}
    stops = site.rows(select(AuditRow).where(AuditRow.action == "normals_stopped"))
    assert [site.name in row.detail for row in stops].count(True) == 1
    assert "Stopped" in site.page(site.admin)
    # a new certificate begins anew
    assert site.certify(events=130) == 0
    site.post()
    assert len(site.certificates) == 2


def test_an_outcome_counts(site):
    assert site.certify() == 0
    (held,) = site.held_back(1)[:1]
    site.read(held)
    confirmed = {"finding": "pneumonia", "outcome": "confirmed", "source": "CT"}
    assert site.doctor.post(f"/v1/visits/{held}/outcomes", json=confirmed).status_code == 201
    assert site.row(held).abnormal is True
    (certificate,) = site.certificates  # a finding in the first film that is read is beyond a bound of 4 in 1,000
    assert (certificate.stopped_at is not None, certificate.n_read, certificate.n_abnormal) == (True, 1, 1)


def test_the_end_of_a_certificate_and_an_acceptance_take_it_away(site):
    for take_away in (site.end, site.accept):
        assert site.certify() == 0
        visits = [site.post()]
        while all(site.row(each).held_back for each in visits):
            visits.append(site.post())
        assert set(visits) & set(site.offered())
        take_away()
        assert site.offered() == []
        assert "no certificate" in site.page()


def test_only_a_doctor_signs(site):
    assert site.certify() == 0
    for client in (site.poster, site.specialist):
        assert client.get("/normals").status_code == 404
        assert client.post("/normals", data={"visit": "x", "confirmed": "1"}).status_code == 404
    assert site.sign([]).status_code == 422
