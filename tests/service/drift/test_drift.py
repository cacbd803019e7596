"""A scanner whose films change, over HTTP: the alarm, the signed message, silence, the page, a new reference."""

from __future__ import annotations

import io
import json
import re
import time
from datetime import UTC, datetime, timedelta

import httpx
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select, update

from data_specs.visit.assessment import AssessedInput
from inference.cxr.traits import of_pixels
from service.delivery.senders.webhook import signature
from service.drift.compare import LEAST_NOW, LEAST_REFERENCE
from service.drift.weeks import monday_of
from service.storage.tables import AlarmRow, CheckRow, FilmRow, VisitRow, WeekRow
from tests.service.delivery.sinks import Sink
from tests.service.serving import serving, settings_for, told, until
from tests.service.standin import StandIn, content_of

SITE = "district"
SEEN_BY = "cxr_gate 1.2.0, lung 1.4.0"
WEEK_BEFORE = 12
PATIENCE_S = 180
"""On a machine that has more to do; on a quiet one each wait is of a second or two."""
RANDOM = np.random.default_rng(3)
HERE = {"Sec-Fetch-Site": "same-origin"}


def film(darker=1.0):
    """A made film, as PNG: the lungs darker than the rest, every one a little different."""
    rows, columns = np.mgrid[0:240, 0:240] / 240
    lungs = np.exp(-(((columns - 0.3) / 0.13) ** 2) - ((rows - 0.5) / 0.3) ** 2)
    lungs += np.exp(-(((columns - 0.7) / 0.13) ** 2) - ((rows - 0.5) / 0.3) ** 2)
    level = RANDOM.normal(180, 8)
    pixels = darker * (level - 100 * lungs + RANDOM.normal(0, 3, lungs.shape))
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


class Reads(StandIn):
    """Answers as the stand-in does, and tells of each film what the real reader tells of its pixels."""

    async def assess(self, inputs, context, site):
        found = await super().assess(inputs, context, site)
        seen = []
        for each in inputs:
            pixels = np.asarray(Image.open(io.BytesIO(content_of(each.open()))))
            seen.append(
                AssessedInput(index=each.index, format="png", accepted=True, seen_by=SEEN_BY, traits=of_pixels(pixels))
            )
        return found.model_copy(update={"inputs": seen})


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def watched(request, tmp_path_factory):
    """A server that compares every second, with a destination of alarms."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres")()
    settings = settings_for(
        tmp_path_factory.mktemp("drift"),
        database_url=url,
        drift_hours=1 / 3600,
        concurrent_visits=8,
        delivery_retry_seconds=0.1,
    )
    with Sink() as sink, serving(settings, Reads()) as served, served.client() as admin:
        served.site = served.client(served.key("site", SITE))
        made = admin.post("/v1/destinations", json={"kind": "alarm", "address": f"{sink.address}/alarms"})
        assert made.status_code == 201, made.text
        served.sink, served.admin, served.secret = sink, admin, made.json()["secret"]
        yield served
        served.site.close()


def post(served, films, first=0):
    """Post a visit for each film, of as many persons, and wait for the outcomes."""
    at_once = 25
    for start in range(0, len(films), at_once):
        parts = []
        for place, content in enumerate(films[start : start + at_once]):
            context = {"person": {"id": f"P-{first + start + place}", "age_years": 40}}
            parts.append((f"{place}/context", (None, json.dumps(context), "application/json")))
            parts.append((f"{place}/image", ("film.png", content, "image/png")))
        posted = served.site.post("/v1/visits/bulk", files=parts, headers={"Prefer": "wait=30"})
        assert posted.status_code in (200, 201, 202, 207), posted.text
    until(lambda: told(served)["sangloc_visits_unfinished",] == 0, PATIENCE_S)


def writing(served):
    return served.app.state.service.database.transaction(write=True)


def age(served, days):
    """As if all films and visits had come so many days earlier."""
    with writing(served) as session:
        for row in (*session.scalars(select(VisitRow)), *session.scalars(select(FilmRow))):
            row.received_at -= timedelta(days=days)


def add_week(served, days_ago):
    """A week of the device ``png`` like its last one, so many days before."""
    with writing(served) as session:
        latest = select(WeekRow).where(WeekRow.device == "png").order_by(WeekRow.week.desc())
        week = session.scalars(latest).first()
        monday = monday_of(datetime.now(UTC) - timedelta(days=days_ago))
        session.merge(WeekRow(site=SITE, device="png", week=monday, films=week.films, found=week.found))


def alarms(served, **which):
    found = served.admin.get("/v1/drift/alarms", params=which)
    assert found.status_code == 200, found.text
    return found.json()["items"]


def devices(served):
    return served.admin.get("/v1/drift/devices").json()["items"]


def checked(served):
    """Wait until every site was looked at after now."""
    now = datetime.now(UTC)

    def is_done():
        with served.app.state.service.database.transaction() as session:
            return all(each and each > now for each in session.scalars(select(CheckRow.checked_at)))

    until(is_done, PATIENCE_S)


def test_a_scanner_whose_films_change(watched):
    served = watched
    # ------------------------------------------------------------ what comes first is the reference
    post(served, [film() for _ in range(LEAST_REFERENCE + 10)])
    age(served, WEEK_BEFORE)
    post(served, [film() for _ in range(30)], first=1000)
    checked(served)
    checked(served)
    (device,) = devices(served)
    assert (device["site"], device["device"], device["seen_by"]) == (SITE, "png", SEEN_BY)
    assert device["reference_films"] == LEAST_REFERENCE + 10
    asked = {"site": SITE, "device": "png"}
    shown = served.admin.get("/v1/drift/device", params=asked).json()
    assert [week["films"] for week in shown["weeks"]][-1] >= 1
    assert shown["reference"]["counts"]["refused"] == [0, LEAST_REFERENCE + 10]
    assert 0.5 < shown["smallest_shift"] < 3
    assert served.admin.get("/v1/drift/device", params={**asked, "device": "none"}).status_code == 404
    assert alarms(served) == []
    assert told(served)["sangloc_drift_alarms_open",] == 0

    # ------------------------------------------------------------ the same films, exposed differently
    age(served, 8)
    post(served, [film(darker=0.8) for _ in range(30)], first=2000)
    until(lambda: any(each["name"] == "grey" for each in alarms(served)), PATIENCE_S)
    checked(served)
    checked(served)
    found = {each["name"]: each for each in alarms(served)}
    grey = found["grey"]
    assert (grey["site"], grey["device"], grey["about"]) == (SITE, "png", "comes_in")
    assert grey["now"] == pytest.approx(0.8 * grey["before"], rel=0.05)
    assert LEAST_NOW <= grey["films_now"] <= 30
    assert grey["p"] < 1e-9
    assert "short_side_px" not in found  # it has stayed the same
    assert told(served)["sangloc_drift_alarms_open",] == len(found)

    # ------------------------------------------------------------ the message is signed, and names nobody
    until(lambda: served.sink.received, PATIENCE_S)
    got = served.sink.received[0]
    event = json.loads(got.body)
    assert (event["type"], event["site"], event["device"]) == ("drift.alarm", SITE, "png")
    assert "grey" in {each["name"] for each in event["alarms"]}
    at = int(re.match(r"t=(\d+),", got.headers["sangloc-signature"])[1])
    assert abs(at - time.time()) < 60
    assert got.headers["sangloc-signature"] == signature(served.secret, got.body, at)
    assert got.headers["idempotency-key"] == event["id"]
    assert not any(word in got.body for word in (b"P-", b"visit"))
    assert served.admin.get("/v1/deliveries").json()["items"] == []  # reports are not for it

    # ------------------------------------------------------------ what is open is not raised or told again
    n_told = len(served.sink.received)
    checked(served)
    checked(served)
    assert {each["id"] for each in alarms(served)} == {each["id"] for each in found.values()}
    assert len(served.sink.received) == n_told


def test_silence_has_a_reason_and_an_end(watched):
    served = watched
    grey = next(each for each in alarms(served) if each["name"] == "grey")
    silence = f"/v1/drift/alarms/{grey['id']}/silence"
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    for wrong in (
        {"until": tomorrow},
        {"reason": " ", "until": tomorrow},
        {"reason": "x", "until": yesterday},
        {"reason": "x", "until": "2099-01-01T00:00:00Z"},
        {"reason": "x", "until": "soon"},
    ):
        assert served.admin.post(silence, json=wrong).status_code == 422, wrong
    unknown = silence.replace(grey["id"], "00000000-0000-4000-8000-000000000000")
    assert served.admin.post(unknown, json={"reason": "x", "until": tomorrow}).status_code == 404
    assert served.site.post(silence, json={"reason": "x", "until": tomorrow}).status_code == 403
    before = told(served)["sangloc_drift_alarms_open",]
    answer = served.admin.post(silence, json={"reason": "the new tube is known", "until": tomorrow})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["reason"], answer.json()["silenced_by"] is not None) == ("the new tube is known", True)
    assert told(served)["sangloc_drift_alarms_open",] == before - 1
    assert alarms(served)[-1]["id"] == grey["id"]  # those that nobody has silenced come first


def test_a_silenced_alarm_that_comes_back_is_silent(watched):
    served = watched
    grey = next(each for each in alarms(served) if each["name"] == "grey")
    n_told = len(served.sink.received)
    with writing(served) as session:
        session.get(AlarmRow, grey["id"]).ended_at = datetime.now(UTC)
    until(lambda: any(each["name"] == "grey" for each in alarms(served, open=True)), PATIENCE_S)
    again = next(each for each in alarms(served, open=True) if each["name"] == "grey")
    assert (again["id"] != grey["id"], again["reason"]) == (True, "the new tube is known")
    checked(served)
    assert len(served.sink.received) == n_told


def test_the_page_shows_it_in_each_language(watched):
    served = watched
    add_week(served, 21)
    with httpx.Client(base_url=served.address, verify=False) as browser:
        assert browser.get("/drift").status_code == 303  # to the login
        assert browser.post("/login", data={"key": "admin-key-for-the-tests"}, headers=HERE).status_code == 303
        for language, words in (("en", "Drift"), ("fr", "Dérive"), ("vi", "Theo dõi thay đổi")):
            shown = browser.get("/drift", params={"lang": language}, follow_redirects=True)
            assert shown.status_code == 200
            assert f"<h1>{words}</h1>" in shown.text
        browser.get("/drift", params={"lang": "en"}, follow_redirects=True)
        shown = browser.get("/drift", params={"site": SITE, "device": "png"})
        assert shown.text.count("<polyline") >= 6
        assert "the new tube is known" in shown.text
        contrast = next(each for each in alarms(served, open=True) if each["silenced_until"] is None)
        silence = f"/drift/alarms/{contrast['id']}/silence"
        refused = browser.post(silence, data={"reason": "", "until": "2026-13-01"}, headers=HERE)
        assert (refused.status_code, 'role="alert"' in refused.text) == (422, True)
        until_day = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()
        done = browser.post(silence, data={"reason": "seen", "until": until_day}, headers=HERE)
        assert (done.status_code, done.headers["location"]) == (303, "/drift")
        assert next(each for each in alarms(served) if each["id"] == contrast["id"])["reason"] == "seen"
    with httpx.Client(base_url=served.address, verify=False) as browser:
        browser.post("/login", data={"key": served.key("doctor", SITE, doctor_id="D-1", label="D")}, headers=HERE)
        assert browser.get("/drift").status_code == 404


def test_a_new_device_is_told(watched):
    served = watched
    add_week(served, 60)
    with writing(served) as session:
        of_last = select(VisitRow.id).where(VisitRow.person_id.like("P-20__")).order_by(VisitRow.id).limit(25)
        moved = update(FilmRow).where(FilmRow.visit_id.in_(session.scalars(of_last).all()))
        session.execute(moved.values(device="Maker DR 2"))
    until(lambda: any(each["name"] == "new_device" for each in alarms(served, open=True)), PATIENCE_S)
    (new,) = (each for each in alarms(served, open=True) if each["name"] == "new_device")
    assert (new["device"], new["films_now"]) == ("Maker DR 2", 25)


def test_a_new_reference_ends_the_alarms(watched):
    served = watched
    asked = {"site": SITE, "device": "png", "reason": "the tube was replaced, and its films were looked at"}
    assert served.admin.post("/v1/drift/references", json={**asked, "device": "none"}).status_code == 404
    assert served.admin.post("/v1/drift/references", json={**asked, "reason": ""}).status_code == 422
    assert served.admin.post("/v1/drift/references", json=asked).status_code == 204
    assert not [each for each in alarms(served, open=True) if each["device"] == "png"]
    checked(served)
    checked(served)
    assert not [each for each in alarms(served, open=True) if each["device"] == "png"]
    (png,) = (each for each in devices(served) if each["device"] == "png")
    assert png["reference_films"] == 0
    shown = served.admin.get("/v1/drift/device", params={"site": SITE, "device": "png"}).json()
    assert (shown["reason"], shown["begun_by"] is not None) == (asked["reason"], True)
