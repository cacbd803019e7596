"""Visits of a node come to its centre once and whole, and what is done at one end is at both, however the link is."""

from __future__ import annotations

import gzip
import io
import json
import random
import time

import pytest
from PIL import Image
from sqlalchemy import create_engine, select

from service.exchange.queue import SMALL, Exchanges, centre_of, refused_visits, waiting
from service.storage.tables import ExchangeRow, VisitRow
from tests.service.exchange.conftest import NODE_SITE
from tests.service.page_fixture import made_film, made_recording
from tests.service.serving import until

REFERRER = {"id": "BS-1", "name": "BS. Thử Nghiệm"}
PERSON = {"id": "BN-1", "name": "Nguyễn Thị Thử", "age_years": 61, "sex": "female"}


def visit_of(**person):
    head, signal = made_recording()
    context = {"person": {**PERSON, **person}, "referrer": REFERRER}
    return [
        ("image", ("film.png", made_film(300), "image/png")),
        ("ecg", (head.filename, head.content)),
        ("ecg", (signal.filename, signal.content)),
        ("context", (None, json.dumps(context), "application/json")),
    ]


def small_visit(**person):
    return [("context", (None, json.dumps({"person": {**PERSON, **person}, "referrer": REFERRER})))]


def same_history(pair, visit_id):
    here, there = (pair.history(served, visit_id) for served in (pair.node, pair.centre))
    return all(here[name] == there[name] for name in ("opinions", "referrals", "outcomes"))


def sign(served, key, visit_id, version, **opinion):
    with served.client(key) as client:
        said = client.post(f"/v1/visits/{visit_id}/opinions", json={"version": version, **opinion})
        assert said.status_code == 201, said.text
        return said.json()


def ask(pair, visit_id, **question):
    with pair.node.client(pair.doctor) as client:
        asked = client.post(f"/v1/visits/{visit_id}/referrals", json=question)
        assert asked.status_code == 201, asked.text
        return asked.json()["id"]


# ---------------------------------------------------------------- upwards
def test_a_visit_comes_to_the_centre_as_it_is(pair):
    visit = pair.post(files=visit_of())
    pair.wait(lambda: pair.is_at_centre(visit))
    pair.wait(lambda: pair.has_files(visit))
    here, there = (pair.at(served, visit).json() for served in (pair.node, pair.centre))
    assert here == there
    reports = [pair.at(served, visit, "/report.json").json() for served in (pair.node, pair.centre)]
    assert [report.pop("site") for report in reports] == [NODE_SITE, NODE_SITE]
    assert reports[0] == reports[1]
    assert pair.at(pair.centre, visit, "/inputs/0/film.png").status_code == 200
    with pair.node.app.state.service.database.transaction() as session:
        assert waiting(session) == []


def test_a_preview_is_there_before_the_film_and_the_recording(pair):
    pair.link.bytes_per_s = 60_000
    visit = pair.post(files=visit_of())
    pair.wait(lambda: pair.is_at_centre(visit))
    pair.wait(lambda: pair.at(pair.centre, visit, "/inputs/0/film.png").status_code == 200, 60)
    assert pair.at(pair.centre, visit, "/inputs/1").status_code == 200, "the recording came before the preview"
    assert pair.at(pair.centre, visit, "/inputs/0").status_code == 404, "the film itself has not come"
    shown = Image.open(io.BytesIO(pair.at(pair.centre, visit, "/inputs/0/film.png").content))
    assert shown.size == (300, 300)
    pair.wait(lambda: pair.has_files(visit), 60)


def test_what_was_found_comes_before_any_file_and_urgent_visits_first(pair):
    pair.link.cut()
    routine = [pair.post(files=small_visit(id=f"BN-{i}")) for i in range(3)]
    urgent = pair.post(files=visit_of(id="BN-9"))
    order = []
    pair.link.mend()
    pair.wait(lambda: pair.is_at_centre(urgent), 60)
    pair.wait(lambda: all(map(pair.is_at_centre, routine)), 60)
    with pair.centre.app.state.service.database.transaction() as session:
        rows = session.scalars(select(ExchangeRow).order_by(ExchangeRow.due_at)).all()
        order = [row.visit_id for row in rows]
    assert order.index(urgent) <= 1, "one of the others may have been on its way when the link came back"
    assert [each for each in order if each != urgent] == routine
    pair.wait(lambda: pair.has_files(urgent))


def test_something_urgent_goes_before_the_rest_of_a_film(pair):
    pair.link.bytes_per_s = 400_000
    large = random.Random(1).randbytes(3_000_000)
    film = pair.post(files=[("image", ("noise.png", large, "image/png"))])
    passed = pair.link.passed
    pair.wait(lambda: pair.link.passed > passed + 700_000, 60)
    later = pair.post(files=small_visit(id="BN-2"))
    pair.wait(lambda: pair.is_at_centre(later), 60)
    assert pair.at(pair.centre, film, "/inputs/0").status_code == 404, "the film is still on its way"
    pair.link.bytes_per_s = 0
    pair.wait(lambda: pair.has_files(film), 60)
    assert pair.link.passed - passed < 3_600_000, "the film went on where it was left"


# ---------------------------------------------------------------- downwards
def test_a_question_goes_up_and_its_answer_comes_down(pair):
    visit = pair.post(files=visit_of())
    pair.wait(lambda: _specialists(pair))
    referral = ask(pair, visit, to_site="central", question="Tràn dịch?")
    pair.wait(lambda: pair.history(pair.centre, visit).get("referrals"))
    answer = sign(pair.centre, pair.specialist, visit, 1, referral=referral, text="Không thấy.")
    pair.wait(lambda: pair.history(pair.node, visit)["opinions"])
    assert same_history(pair, visit)
    (closed,) = pair.history(pair.node, visit)["referrals"]
    assert (closed["answered_by"], answer["number"]) == (1, 1)
    assert pair.at(pair.node, visit, "/report.json").json()["opinions"][0]["text"] == "Không thấy."
    assert pair.at(pair.node, visit).json()["version"] == pair.at(pair.centre, visit).json()["version"] == 2


def _specialists(pair):
    with pair.node.client(pair.doctor) as client:
        return "central" in client.get("/v1/specialists").text


def test_both_sign_without_a_link_and_agree_afterwards(pair):
    visit = pair.post(files=visit_of())
    pair.wait(lambda: pair.is_at_centre(visit))
    pair.wait(lambda: _specialists(pair))
    asked = ask(pair, visit, to_site="central")
    pair.wait(lambda: pair.history(pair.centre, visit).get("referrals"))
    pair.link.cut()
    sign(pair.node, pair.doctor, visit, 1, text="ở xã")
    assert pair.at(pair.node, visit, "/report.json").json()["opinions"][0]["text"] == "ở xã"
    sign(pair.centre, pair.specialist, visit, 1, text="ở trung tâm", referral=asked)
    with pair.node.client(pair.site) as client:
        outcome = {"finding": "pneumonia", "outcome": "refuted", "source": "CT"}
        assert client.post(f"/v1/visits/{visit}/outcomes", json=outcome).status_code == 201
    pair.link.mend()
    pair.wait(lambda: len(pair.history(pair.node, visit)["opinions"]) == 2, 60)
    pair.wait(lambda: len(pair.history(pair.centre, visit)["opinions"]) == 2)
    pair.wait(lambda: same_history(pair, visit))
    said = pair.history(pair.node, visit)
    assert [(each["number"], each["text"]) for each in said["opinions"]] == [(1, "ở trung tâm"), (2, "ở xã")]
    assert [each["answered_by"] for each in said["referrals"]] == [1]
    assert len(said["outcomes"]) == 1
    reports = [pair.at(served, visit, "/report.json").json() for served in (pair.node, pair.centre)]
    assert reports[0] == reports[1]
    assert reports[0]["version"] == 3


def test_a_question_taken_back_and_answered_meanwhile_is_answered(pair):
    visit = pair.post(files=visit_of())
    pair.wait(lambda: _specialists(pair))
    asked = ask(pair, visit, to_site="central")
    pair.wait(lambda: pair.history(pair.centre, visit).get("referrals"))
    pair.link.cut()
    with pair.node.client(pair.doctor) as client:
        assert client.delete(f"/v1/visits/{visit}/referrals/{asked}").status_code == 204
    sign(pair.centre, pair.specialist, visit, 1, text="đã trả lời", referral=asked)
    pair.link.mend()
    pair.wait(lambda: pair.history(pair.node, visit)["opinions"], 60)
    pair.wait(lambda: same_history(pair, visit))
    assert pair.history(pair.node, visit)["referrals"][0]["answered_by"] == 1


# ---------------------------------------------------------------- what the centre refuses
def record(pair, visit):
    from service.exchange.ours import record_of

    with pair.node.app.state.service.database.transaction() as session:
        return json.loads(record_of(session, visit).model_dump_json())


@pytest.fixture
def sent(pair):
    visit = pair.post(files=visit_of())
    pair.wait(lambda: pair.has_files(visit))
    return visit


def test_a_record_may_come_again_and_nothing_changes(pair, sent):
    with pair.centre.client(pair.centre.key("node", NODE_SITE)) as node:
        first, second = (node.put(f"/v1/node/visits/{sent}", json=record(pair, sent)) for _ in range(2))
    assert (first.status_code, first.json()) == (200, second.json())
    assert first.json()["missing"] == []
    assert pair.at(pair.node, sent).json() == pair.at(pair.centre, sent).json()


def test_only_the_node_of_a_visit_may_exchange_it(pair, sent):
    changed = record(pair, sent)
    packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    with pair.centre.client() as admin:
        own = admin.post("/v1/visits", files=visit_of(id="BN-3"), headers={"Prefer": "wait=20"}).json()["id"]
        assert admin.put(f"/v1/node/visits/{sent}", json=changed).status_code == 403
    with pair.centre.client(pair.centre.key("node", "another-site")) as other:
        assert other.put(f"/v1/node/visits/{sent}", json=changed).json()["code"] == "forbidden"
        assert other.put(f"/v1/node/visits/{sent}/inputs/0/preview", content=b"x").status_code == 404
        assert other.get("/v1/node/news").json()["visits"] == []
        assert other.get(f"/v1/visits/{sent}").status_code == 403
        assert other.post("/v1/visits", files=visit_of()).status_code == 403
    with pair.centre.client(pair.centre.key("node", NODE_SITE)) as node:
        assert node.put(f"/v1/node/visits/{own}", json=changed).json()["code"] == "forbidden"
        other_content = {**changed, "assessment": changed["assessment"].replace("0.8", "0.7")}
        assert node.put(f"/v1/node/visits/{sent}", json=other_content).json()["code"] == "visit_differs"
        assert node.put(f"/v1/node/visits/{sent}", json={**changed, "of_a_newer_release": 1}).status_code == 200
        for body, headers, status in (
            (b"{}", {}, 422),
            (b"\xff", {}, 422),
            (json.dumps({**changed, "assessment": "{}"}).encode(), {}, 422),
            (b"no gzip", packed, 422),
            (gzip.compress(json.dumps(changed).encode())[:-20], packed, 422),
            (gzip.compress(bytes(30_000_000)), packed, 413),
            (b"x", {"Content-Encoding": "br"}, 422),
        ):
            answer = node.put(f"/v1/node/visits/{sent}", content=body, headers=headers)
            assert answer.status_code == status, answer.text
        assert node.put("/v1/node/visits/nonsense", json=changed).status_code == 422
    assert pair.at(pair.node, sent).json() == pair.at(pair.centre, sent).json()


def test_a_file_that_is_another_one_is_refused(pair):
    pair.link.cut()
    visit = pair.post(files=visit_of())
    tus = {"Tus-Resumable": "1.0.0"}
    with pair.centre.client(pair.centre.key("node", NODE_SITE)) as node:
        assert node.put(f"/v1/node/visits/{visit}", json=record(pair, visit)).json()["missing"] == [0, 1, 2]

        def upload(content, encoding="identity"):
            where = node.post("/v1/uploads", headers={**tus, "Upload-Length": str(len(content))}).headers["location"]
            piece = {**tus, "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
            assert node.patch(where, headers=piece, content=content).status_code == 204
            sent = {"upload": where.rpartition("/")[2], "encoding": encoding}
            return node.put(f"/v1/node/visits/{visit}/inputs/0", json=sent)

        film = pair.at(pair.node, visit, "/inputs/0").content
        for content, encoding in (
            (b"another file", "identity"),
            (film + b"x", "identity"),
            (film, "gzip"),
            (gzip.compress(film[:-1]), "gzip"),
            (gzip.compress(bytes(50_000_000)), "gzip"),
        ):
            assert upload(content, encoding).json()["code"] == "file_differs"
        assert pair.at(pair.centre, visit, "/inputs/0").status_code == 404
        assert upload(gzip.compress(film), "gzip").status_code == 204
        assert upload(b"late").status_code == 204, "a file that is here is kept"
        assert pair.at(pair.centre, visit, "/inputs/0").content == film
        nothing = {"upload": "00000000-0000-0000-0000-000000000000"}
        assert node.put(f"/v1/node/visits/{visit}/inputs/1", json=nothing).status_code == 404
        assert node.put(f"/v1/node/visits/{visit}/inputs/9", json=nothing).status_code == 404


def test_a_node_that_is_killed_after_the_centres_answer_sends_the_files_later(pair, monkeypatch):
    ends = []

    async def killed(_, turn, left):
        ends.append((turn.step, left))
        return False

    with monkeypatch.context() as before:
        before.setattr(Exchanges, "done", killed)
        visit = pair.post(files=visit_of())
        pair.wait(lambda: ends)
    assert ends == [(0, SMALL)]
    pair.wait(lambda: pair.has_files(visit))


def test_a_key_that_is_not_valid_any_more_refuses_no_visit(pair):
    with pair.centre.client() as admin:
        (key,) = (each for each in admin.get("/v1/keys").json()["items"] if each["role"] == "node")
        assert admin.delete(f"/v1/keys/{key['id']}").status_code == 204
    pair.post(files=visit_of())

    def known(query):
        with pair.node.app.state.service.database.transaction() as session:
            return query(session)

    pair.wait(lambda: known(centre_of).problem == "http_401" and known(waiting))
    time.sleep(2)
    assert known(lambda session: refused_visits(session, 10)) == []


# ---------------------------------------------------------------- weeks of broken links, in short
def test_each_visit_arrives_once_however_often_both_ends_are_killed(tmp_path, new_process, new_database):
    """The link is cut in the middle of what it carries; the node and the centre are killed in turns."""
    from benchmarks.chaos.thin_link import ThinLink

    url = new_database()
    centre = new_process(tmp_path / "centre", database_url=url).start()
    key = centre.served.key("node", NODE_SITE)
    link = ThinLink(centre.served.port, bytes_per_s=400_000, delay_s=0.005)
    upstream = {
        "SANGLOC_UPSTREAM": link.address, "SANGLOC_UPSTREAM_KEY": key, "SANGLOC_UPSTREAM_ASK_SECONDS": "0.3",
    }  # fmt: skip
    node = new_process(tmp_path / "node", **upstream).start()
    site, doctor = node.served.key("site", NODE_SITE), node.served.key("doctor", NODE_SITE, doctor_id="BS-1", label="x")
    chance, visits = random.Random(7), []

    def restarted(process):
        process.kill()
        process.start()
        link.target = centre.served.port
        return process

    try:
        for turn in range(6):
            with node.served.client(site) as client:
                for i in range(2):
                    files = visit_of(id=f"BN-{turn}-{i}")
                    made = client.post("/v1/visits", files=files, headers={"Prefer": "wait=20"})
                    assert made.status_code == 201, made.text
                    visits.append(made.json()["id"])
            with node.served.client(doctor) as client:
                asked = client.post(f"/v1/visits/{visits[-1]}/referrals", json={"question": "?"})
                assert asked.status_code == 201, asked.text
            time.sleep(chance.uniform(0.1, 0.8))
            if turn % 3 == 0:
                link.cut()
            restarted(node if turn % 2 else centre)
            link.mend()
        link.bytes_per_s, link.delay_s = 0, 0.0

        def all_there():
            with centre.served.client() as there, node.served.client() as here:
                for visit in visits:
                    found = there.get(f"/v1/visits/{visit}")
                    if found.status_code != 200 or found.json() != here.get(f"/v1/visits/{visit}").json():
                        return False
                    for each in found.json()["inputs"]:
                        path = f"/v1/visits/{visit}/inputs/{each['index']}"
                        if there.get(path).content != here.get(path).content:
                            return False
                return True

        until(all_there, 300)
        engine = create_engine(url or f"sqlite:///{centre.folder}/sangloc.db")
        with engine.connect() as connection:
            found = connection.execute(select(VisitRow.id)).scalars().all()
        engine.dispose()
        assert sorted(found) == sorted(visits), "each once, and nothing else"
        with centre.served.client() as there, node.served.client() as here:
            for visit in visits:
                histories = [each.get(f"/v1/visits/{visit}/history").json() for each in (here, there)]
                assert histories[0]["referrals"] == histories[1]["referrals"]
    finally:
        link.close()
