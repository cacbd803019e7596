"""A package becomes teaching cases, two trainees read them, and nothing of it is clinical; over HTTP, on one server."""

from __future__ import annotations

import datetime
import hashlib
import html
import io
import math
import re

import pytest
from pypdf import PdfReader
from sqlalchemy import func, select, update

from data_specs.vocabulary import LANGUAGES
from service.export.__main__ import DONE
from service.language.texts import text
from service.learning.__main__ import main as learning
from service.storage.commands import REFUSED
from service.storage.tables import (
    DeliveryRow,
    ExchangeRow,
    FilmRow,
    NormalRow,
    OpinionRow,
    OutcomeRow,
    ReadingRow,
    ReportRow,
    ShadowRow,
)
from tests.service.delivery.sinks import Sink
from tests.service.export.ends import WRITE, End, visits_in
from tests.service.export.planted import Planted, film_values, planted_film
from tests.service.serving import serving, settings_for, until

SITE = "teaching: films"
WITH_IT, WITHOUT = 6, 6
"""Visits whose pneumonia was confirmed, and refuted."""
NAME = "BS. Học Viên Thử Nghiệm"


class Class:
    """A server with a clinic and a teaching site, and what the clinic looked like before anybody learnt."""

    def __init__(self, served, settings, patch, folder, n_with=WITH_IT, n_without=WITHOUT):
        self.served, self.settings, self.patch, self.folder = served, settings, patch, folder
        self.end = End(served, settings, patch)
        self.database = self.end.parts.database
        self.specialist = served.key("specialist", "central", doctor_id="S-1", label="BS. Tuyến Trên")
        self.doctor = served.key("doctor", "commune", doctor_id="D-1", label="BS. Tuyến Dưới")
        self.n_with = n_with
        self.visits = [self._visit(n) for n in range(n_with + n_without)]
        self.unknown = self._post(n_with + n_without)
        until(self._is_delivered, 60)
        self.clinic = self.looks()

    def _is_delivered(self):
        with self.database.transaction() as session:
            states = session.scalars(select(DeliveryRow.state)).all()
        return len(states) == len(self.visits) + 2 and set(states) == {"delivered"}

    def _post(self, n):
        film = [("image", "film.dcm", planted_film(Planted(), film_values(n)))]
        person = {"id": f"MRN-{n:04}", "age_years": 40 + n}
        return self.end.post(film, person=person, referrer={"id": "D-1"}, visited_on="2026-03-01")

    def _visit(self, n):
        made = self._post(n)
        outcome = {
            "finding": "pneumonia",
            "outcome": "confirmed" if n < self.n_with else "refuted",
            "source": "CT of Anna",
        }
        with self.served.client(self.doctor) as client:
            assert client.post(f"/v1/visits/{made}/outcomes", json=outcome).status_code == 201
            if n == 0:
                asked = {"question": "effusion?", "to_site": "central"}
                assert client.post(f"/v1/visits/{made}/referrals", json=asked).status_code == 201
        if n == 0:
            said = {"version": 1, "text": "Anna has fluid", "advice": "refer"}
            said["judgements"] = [{"finding": "effusion", "verdict": "add"}]
            with self.served.client(self.specialist) as client:
                assert client.post(f"/v1/visits/{made}/opinions", json=said).status_code == 201
        return made

    def take(self, folder, digest, site=SITE):
        self.patch.setenv("SANGLOC_DATA_DIR", str(self.settings.data_dir))
        self.patch.setenv("SANGLOC_DATABASE_URL", self.settings.database_url)
        return learning(["take", str(folder), "--manifest", digest, "--site", site, "--who", "a teacher"])

    def looks(self):
        """Everything clinical that an admin, the referring doctor and the specialist can list."""
        seen = {}
        addresses = ("/v1/visits?limit=200", "/v1/statistics", "/v1/referrals", "/v1/deliveries", "/dicomweb/studies")
        addresses += ("/v1/drift/devices", "/v1/drift/alarms")
        for name, key in (("admin", None), ("doctor", self.doctor), ("specialist", self.specialist)):
            with self.served.client(key) if key else self.served.client() as client:
                for address in addresses:
                    answer = client.get(address)
                    found = answer.json() if answer.content else None
                    if isinstance(found, dict):
                        found.pop("since", None)
                    seen[name, address] = answer.status_code, found
        with self.database.transaction() as session:
            for table in (OpinionRow, OutcomeRow, ReportRow, DeliveryRow, FilmRow, ShadowRow, NormalRow, ExchangeRow):
                seen[table.__tablename__] = session.execute(select(func.count()).select_from(table)).scalar_one()
        return seen

    def later(self, days):
        """Time passes: everything was given and signed so many days earlier."""
        with self.database.transaction(write=True) as session:
            for row in session.scalars(select(ReadingRow)):
                at = datetime.timedelta(days=days)
                moved = {"given_at": row.given_at - at, "signed_at": row.signed_at and row.signed_at - at}
                session.execute(update(ReadingRow).where(ReadingRow.id == row.id).values(**moved))


@pytest.fixture(scope="module")
def classroom(tmp_path_factory, new_database):
    folder = tmp_path_factory.mktemp("classroom")
    settings = settings_for(folder / "data", database_url=new_database(), max_upload_mb=16)
    with pytest.MonkeyPatch.context() as patch, Sink() as sink, serving(settings) as served:
        with served.client() as admin:
            to = {"kind": "webhook", "address": sink.address, "options": {"content": "link"}}
            assert admin.post("/v1/destinations", json=to).status_code == 201
        yield Class(served, settings, patch, folder)


@pytest.fixture(scope="module")
def cases(classroom):
    """The cases of the package, as an admin sees them, and its digest."""
    out = classroom.folder / "out"
    assert classroom.end.command("write", out, *WRITE, "--with-truth") == DONE
    digest = hashlib.sha256((out / "manifest.json").read_bytes()).hexdigest()
    assert classroom.take(out, digest) == DONE
    classroom.end.wait_for(SITE, WITH_IT + WITHOUT)
    with classroom.served.client() as admin:
        found = {each["visit"]: each for each in admin.get("/v1/learning/cases").json()["items"]}
    assert {each["package"] for each in found.values()} == {digest}
    return found, digest, out


@pytest.fixture(scope="module")
def trainees(classroom, cases):
    return [
        classroom.served.key("doctor", SITE, doctor_id=f"T-{n}", label=label) for n, label in enumerate((NAME, "Hai"))
    ]


def give(client, **wanted):
    return client.post("/v1/learning/next", json=wanted)


def read_all(client, found, said):
    """Read until nothing is left; the visits in the order in which they were given."""
    order = []
    while (given := give(client)).status_code == 200:
        reading = given.json()
        assert reading["result"] is None
        assert give(client).json() == reading, "asked again, the same case is given"
        order.append(reading["visit"])
        signed = client.post(f"/v1/learning/readings/{reading['id']}", json=said(found[reading["visit"]], order))
        assert signed.status_code == 200, signed.text
        assert signed.json()["result"]["signed_at"]
    assert (given.status_code, given.json()["code"]) == (409, "no_case_now")
    return order, given


def seen(*findings, **confidence):
    return {"judgements": [{"finding": each, "verdict": "add"} for each in findings], "confidence": confidence}


def wilson(n, of):
    """Wilson 1927 in closed form, with z of 95 %."""
    z, p = 1.959963984540054, n / of
    middle, half = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return [round((middle + sign * half) / (1 + z * z / of), 3) for sign in (-1, 1)]


# ---------------------------------------------------------------- what leaves, and what comes
def test_what_leaves_is_coded_and_names_nobody(classroom, cases):
    _, _, out = cases
    left = visits_in(out)
    assert len(left) == WITH_IT + WITHOUT, "the visit of which nothing is known stays at home"
    assert sorted(each["truth"]["outcomes"]["pneumonia"] for each in left) == [False] * WITHOUT + [True] * WITH_IT
    (said,) = (each["truth"]["specialists"][0] for each in left if each["truth"]["specialists"])
    assert said == {
        "says": {"abnormal": True, "pneumonia": True, "effusion": True},
        "advice": "refer",
        "blind": False,
    }
    whole = b"".join(path.read_bytes() for path in out.rglob("*.json"))
    assert b"Anna" not in whole
    assert b"CT of" not in whole


def test_without_being_asked_for_no_truth_leaves(classroom, cases):
    out = classroom.folder / "plain"
    assert classroom.end.command("write", out, *WRITE) == DONE
    left = visits_in(out)
    assert len(left) == WITH_IT + WITHOUT + 1, "and no case leaves as a visit"
    assert not any("truth" in each for each in left)
    digest = hashlib.sha256((out / "manifest.json").read_bytes()).hexdigest()
    assert classroom.take(out, digest, "teaching: other") == REFUSED
    assert classroom.end.visits_at("teaching: other") == []


def test_a_teaching_site_takes_cases_and_nothing_else(classroom, cases, capsys):
    _, digest, out = cases
    assert classroom.take(out, digest, "commune") == REFUSED
    assert "export_site_teaches" in capsys.readouterr().err
    into = ("import", out, "--manifest", digest, "--site", SITE, "--who", "an admin")
    assert classroom.end.command(*into) == REFUSED
    assert "export_site_teaches" in capsys.readouterr().err
    assert classroom.take(out, digest) == DONE
    assert "taken before" in capsys.readouterr().out
    with classroom.served.client() as admin:
        for role in ("site", "specialist", "admin", "node"):
            more = {"doctor_id": "X"} if role == "specialist" else {}
            refused = admin.post("/v1/keys", json={"role": role, "site": SITE, **more})
            assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request"), role
    assert classroom.end.command("answers", classroom.folder / "none", "--manifest", digest, *BASIS) == REFUSED


BASIS = ("--legal-basis", "none", "--who", "an admin")


# ---------------------------------------------------------------- reading
@pytest.fixture(scope="module")
def first(classroom, cases, trainees):
    """The first trainee reads all: two with pneumonia are missed, one without is called pneumonia."""
    found, _, _ = cases
    positive = sorted(visit for visit, each in found.items() if "pneumonia" in each["present"])
    negative = sorted(visit for visit, each in found.items() if "pneumonia" in each["absent"])
    erred = {*positive[:2], negative[0]}

    def said(case, order):
        there = ("pneumonia" in case["present"]) is not (case["visit"] in erred)
        return seen("pneumonia", pneumonia=5) if there else seen(pneumonia=1)

    with classroom.served.client(trainees[0]) as client:
        order, nothing = read_all(client, found, said)
        figures = client.get("/v1/learning/figures").json()
    return erred, order, nothing, figures


def test_every_case_is_given_once_and_then_none(cases, first):
    found, _, _ = cases
    _, order, nothing, _ = first
    assert sorted(order) == sorted(found)
    tomorrow = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)).strftime("%Y-%m-%d")
    assert tomorrow in nothing.json()["detail"]


def test_figures_are_what_can_be_counted_by_hand(first):
    _, _, _, figures = first
    assert (figures["name"], figures["cases"], figures["again"]) == (NAME, 12, 0)
    of = {each["finding"]: each for each in figures["figures"]}
    pneumonia = of["pneumonia"]
    assert (pneumonia["cases"], pneumonia["present"]) == (12, 6)
    assert pneumonia["sensitivity"] == dict(
        zip(("n", "of", "value", "low", "high"), (4, 6, 0.667, *wilson(4, 6)), strict=True)
    )
    assert pneumonia["specificity"] == dict(
        zip(("n", "of", "value", "low", "high"), (5, 6, 0.833, *wilson(5, 6)), strict=True)
    )
    # 4 + 5 of 12 agree; 6/12 * 5/12 + 6/12 * 7/12 = 1/2 would by chance
    assert pneumonia["kappa"]["value"] == 0.5
    assert pneumonia["kappa"]["low"] < 0.5 < pneumonia["kappa"]["high"] <= 1
    # nine right answers 0.1 away, three wrong ones 0.9 away
    assert pneumonia["brier"]["value"] == pytest.approx((9 * 0.01 + 3 * 0.81) / 12, abs=5e-4)
    assert [(each["confidence"], each["there"]["n"], each["there"]["of"]) for each in pneumonia["reliability"]] == [
        (1, 2, 7),
        (5, 4, 5),
    ]
    assert pneumonia["peers"] is None, "one peer is somebody"
    assert of["any"]["sensitivity"]["n"] == 4
    assert of["effusion"]["sensitivity"] == {"n": 0, "of": 1, "value": 0.0, "low": 0.0, "high": wilson(0, 1)[1]}
    (block,) = figures["blocks"]
    assert (block["first"], block["last"], block["figures"]) == (1, 12, figures["figures"])


def test_a_case_is_blind_until_it_is_signed(classroom, cases, trainees, first):
    """The second trainee reads on the pages, in each language one case."""
    unread = set(cases[0])
    found, _, _ = cases
    with classroom.served.client(trainees[1], **{"Sec-Fetch-Site": "same-origin"}) as client:
        for language in LANGUAGES:
            client.headers["Accept-Language"] = language
            home = client.get("/learning")
            assert (home.status_code, home.headers["content-language"]) == (200, language)
            went = client.post("/learning/next", data={"finding": "pneumonia"})
            assert went.status_code == 303
            address = went.headers["location"]
            page = html.unescape(client.get(address).text)
            assert text("learning_note_blind", language) in page
            assert text("learning_truth", language) not in page.partition("<main")[2].partition("<details")[0]
            visit = re.search(r"/v1/visits/([0-9a-f-]{36})/inputs/0/film", page)[1]
            assert "urgent" not in page.partition("<main")[2]
            pictures = f"/v1/visits/{visit}"
            for file in ("/film.jpg?max_px=64", ""):
                shown = client.get(f"{pictures}/inputs/0{file}")
                assert shown.status_code == 200, "the picture, and the file as it came"
            assert client.get(f"{pictures}/evidence/pneumonia/0.svg").status_code == 404
            unread.remove(visit)
            assert client.get(f"/v1/visits/{min(unread)}/inputs/0/film.jpg").status_code == 403, "not given yet"
            said = {"add": "pneumonia", "confidence:pneumonia": "4", "confidence:effusion": "2"}
            review = html.unescape(client.post(address, data=said).text)
            assert text("learning_sign_this", language) in review
            carried = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', review))
            assert carried["confidence:pneumonia"] == "4"
            assert client.post(address, data={**carried, "confirmed": "1"}).status_code == 303
            shown = html.unescape(client.get(address).text)
            assert text("learning_result", language) in shown
            word = "learning_right" if "pneumonia" in found[visit]["present"] else "learning_added"
            assert text(word, language) in shown
            assert f"/v1/visits/{visit}/evidence/pneumonia/0" in shown, "the outline of what the machine found"
            assert client.get(f"{pictures}/evidence/pneumonia/0.svg").status_code == 200


def test_what_was_signed_stays(classroom, trainees, first, cases):
    with classroom.served.client(trainees[1]) as client:
        reading = give(client).json()
        address = f"/v1/learning/readings/{reading['id']}"
        for wrong in (
            {"judgements": [{"finding": "pneumonia", "verdict": "disagree"}]},
            {"judgements": [{"finding": "a name", "verdict": "add"}]},
            {"confidence": {"pneumonia": 6}},
            {"referral": "x"},
        ):
            refused = client.post(address, json=wrong)
            assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request"), wrong
        answer = client.post(address, json=seen("effusion"))
        assert client.post(address, json=seen("effusion")).json() == answer.json(), "sent twice, signed once"
        changed = client.post(address, json=seen("pneumonia"))
        assert (changed.status_code, changed.json()["code"]) == (409, "case_was_read")
    with classroom.served.client(trainees[0]) as other:
        assert other.get(address).status_code == 404
        assert other.post(address, json=seen()).status_code == 404


def test_a_case_where_somebody_erred_comes_again_and_does_not_count(classroom, cases, trainees, first):
    found, _, _ = cases
    _, order, _, before = first
    erred = first[0] | {visit for visit, each in found.items() if "effusion" in each["present"]}  # nobody named it
    classroom.later(days=1.1)
    with classroom.served.client(trainees[0]) as client:
        given = give(client).json()
        assert given["visit"] in erred
        assert given["visit"] == next(each for each in order if each in erred), "what waits longest"
        assert given["number"] == 2
        page = html.unescape(client.get(f"/learning/readings/{given['id']}").text)
        assert text("learning_note_blind", "en") in page, "it is blind again"
        assert client.get(f"/v1/visits/{given['visit']}/evidence/pneumonia/0.svg").status_code == 404
        signed = client.post(f"/v1/learning/readings/{given['id']}", json=seen("pneumonia")).json()
        after = give(client).json()
        assert after["visit"] in erred - {given["visit"]}, "never the same twice in a row"
        figures = client.get("/v1/learning/figures").json()
    was_right = {each["verdict"] for each in signed["result"]["compared"]} == {"right"}
    assert signed["result"]["again_on"][:10] == in_days(2 if was_right else 1), "one box up, or back to the first"
    assert figures["again"] == 1
    assert (figures["cases"], figures["figures"]) == (before["cases"], before["figures"])


def in_days(days):
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)).strftime("%Y-%m-%d")


# ---------------------------------------------------------------- certificate, teachers, and the clinic
def test_a_certificate_says_the_same_in_every_language(classroom, cases, trainees, first):
    _, digest, _ = cases
    made = {}
    for language in LANGUAGES:
        with classroom.served.client(trainees[0], **{"Accept-Language": language}) as client:
            answer = client.get("/v1/learning/certificate.pdf")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/pdf")
        assert answer.headers["content-language"] == language
        pages = PdfReader(io.BytesIO(answer.content)).pages
        read = "\n".join(page.extract_text() for page in pages)
        flat = " ".join(read.split())
        assert len(pages) == 1
        assert NAME in flat
        assert digest in read
        for key in ("learning_certificate", "learning_teaching_only", "learning_brier"):
            assert text(key, language) in flat, (language, key)
        assert "SNOMED CT 233604007" in flat, "pneumonia"
        assert "4/6" in flat
        assert "5/6" in flat
        numbers = re.findall(r"\d[\d,.]*\d|\d", flat.replace("\u202f", ""))
        made[language] = [each.replace(",", ".").rstrip(".") for each in numbers]
    assert made["vi"] == made["fr"] == made["en"]
    with classroom.served.client() as admin:
        assert admin.get("/v1/learning/certificate.pdf").status_code == 404
        reader = admin.get("/v1/learning/readers").json()["items"][0]["reader"]
        assert admin.get(f"/v1/learning/certificate.pdf?reader={reader}").status_code == 200


@pytest.mark.parametrize("language", LANGUAGES)
def test_teachers_see_all_trainees_and_which_cases_are_hard(classroom, cases, trainees, first, language):
    erred, *_ = first
    with classroom.served.client(**{"Accept-Language": language}) as admin:
        page = html.unescape(admin.get("/learning").text)
        assert NAME in page
        hard = admin.get("/v1/learning/cases").json()["items"]
        values = [each["value"] for each in hard]
        assert values == sorted(values, reverse=True)
        assert all(each["wrong"] >= 1 for each in hard if each["visit"] in erred)
        assert admin.get(f"/learning/cases/{hard[0]['visit']}").status_code == 200
        reader = re.search(r"/learning/readers/([0-9a-f-]{36})", page)[1]
        assert text("learning_over_time", language) in html.unescape(admin.get(f"/learning/readers/{reader}").text)


def test_others_learn_nothing(classroom, cases, trainees, first):
    found, _, _ = cases
    case = next(iter(found))
    for key in (classroom.doctor, classroom.specialist, trainees[0]):
        with classroom.served.client(key) as client:
            for address in ("readers", "cases"):
                assert client.get(f"/v1/learning/{address}").status_code == 403
            assert client.get(f"/learning/cases/{case}").status_code == 404
    for key in (classroom.doctor, classroom.specialist):
        with classroom.served.client(key) as client:
            assert give(client).status_code == 403
            assert client.get("/v1/learning/figures").status_code == 403
            assert client.get("/learning").status_code == 404
            assert client.get(f"/v1/visits/{case}/inputs/0/film.jpg").status_code == 403


def test_nothing_of_it_is_clinical(classroom, cases, trainees, first):
    """After all that: every list, every statistic, every opinion and every delivery is what it was."""
    found, _, _ = cases
    now = classroom.looks()
    assert now == classroom.clinic
    with classroom.served.client() as admin:
        for case in list(found)[:2]:
            for address in ("", "/history", "/report.pdf"):
                assert admin.get(f"/v1/visits/{case}{address}").status_code == 403
            refused = admin.post(f"/v1/visits/{case}/outcomes", json={"finding": "pneumonia", "outcome": "refuted"})
            assert refused.status_code == 403
            assert admin.get(f"/visits/{case}").status_code == 404
    with classroom.served.client(trainees[0]) as client:
        case = next(iter(found))
        assert client.post(f"/v1/visits/{case}/opinions", json={"version": 1}).status_code == 403
        assert client.get("/v1/visits").json()["items"] == []
        assert client.get("/v1/statistics").json()["screening"] == []
