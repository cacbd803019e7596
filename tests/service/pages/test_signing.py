"""Signing without script: looked over, confirmed, and nothing that was typed is lost."""

from __future__ import annotations

import html
import io
import re

import httpx
import pytest
from jinja2 import ChoiceLoader, DictLoader
from pydicom import dcmread
from pypdf import PdfReader

from data_specs.vocabulary import LANGUAGES
from service.language.texts import text
from service.pages import frame
from tests.service.serving import visit_files

DOCTOR, SPECIALIST = "BS. Thử Nghiệm Tuyến Dưới", "BS. Thử Nghiệm Tuyến Trên"
WORDS = 'Ho khạc đờm 5 ngày.\nKhông sốt <38 độ> & "mệt".'
TYPED = {
    "verdict:pneumonia": "disagree",
    "add": ["atelectasis", "effusion"],
    "text": WORDS,
    "advice": "refer",
}


@pytest.fixture(scope="module")
def keys(served):
    return {
        "site": served.key("site", "commune"),
        "doctor": served.key("doctor", "commune", doctor_id="D-7", label=DOCTOR),
        "unnamed": served.key("doctor", "commune", doctor_id="D-7"),
        "specialist": served.key("specialist", "central", doctor_id="S-1", label=SPECIALIST),
    }


@pytest.fixture
def visit(served, keys):
    with served.client(keys["site"]) as client:
        return client.post("/v1/visits", files=visit_files(referrer={"id": "D-7"})).json()["id"]


@pytest.fixture
def browser(served, keys):
    """Gives browsers without script, signed in by the form."""
    opened = []

    def sign_in(role, language="en"):
        client = httpx.Client(
            base_url=served.address, timeout=30, headers={"Accept-Language": language}, follow_redirects=True
        )
        opened.append(client)
        answer = client.post("/login", data={"key": keys[role]}, headers={"Origin": served.address})
        assert answer.status_code == 200
        client.headers["Origin"] = served.address
        return client

    yield sign_in
    for each in opened:
        each.close()


def form_of(page):
    """The fields of the opinion's form as a browser would send them."""
    (form,) = re.findall(r'<form class="sign[^"]*" id="sign".*?</form>', page, re.DOTALL)
    fields = {}
    for tag in re.findall(r"<input[^>]*>", form):
        said = {name: html.unescape(value) for name, value in re.findall(r'([\w-]+)="([^"]*)"', tag)}
        if said.get("type") in ("radio", "checkbox") and " checked" not in tag:
            continue
        fields.setdefault(said["name"], []).append(said.get("value", ""))
    for words in re.findall(r"<textarea[^>]*>(.*?)</textarea>", form, re.DOTALL):
        fields["text"] = [html.unescape(words)]
    return {name: values for name, values in fields.items() if any(values)}


def as_typed(fields):
    return {name: sorted(values) for name, values in fields.items() if name not in ("version", "signer")}


EXPECTED = {name: sorted(value) if isinstance(value, list) else [value] for name, value in TYPED.items()}


@pytest.mark.parametrize("language", LANGUAGES)
def test_signing_shows_who_signs_and_what_and_lands_on_the_report(browser, visit, language):
    doctor = browser("doctor", language)
    looked_over = doctor.post(f"/visits/{visit}/sign", data={"version": "1", **TYPED})
    assert looked_over.status_code == 200
    (review,) = re.findall(r'<form class="sign review".*?</form>', looked_over.text, re.DOTALL)
    for words in (text("signs_as", language), DOCTOR, html.escape(WORDS, quote=False).split("\n")[0]):
        assert words in review
    assert text("advice_refer", language) in review
    assert doctor.get(f"/v1/visits/{visit}").json()["version"] == 1, "nothing is signed yet"
    assert as_typed(form_of(looked_over.text)) == EXPECTED

    signed = doctor.post(f"/visits/{visit}/sign", data={**form_of(looked_over.text), "confirmed": "1"})
    assert signed.url.path == f"/visits/{visit}/report"
    assert text("signed_as", language, name=DOCTOR, version=2) in signed.text
    assert f'href="/visits/{visit}"' in signed.text
    assert 'data-version="2" data-status="final"' in signed.text
    assert "script" not in signed.headers["content-security-policy"]
    (opinion,) = doctor.get(f"/v1/visits/{visit}/history").json()["opinions"]
    assert (opinion["author"]["name"], opinion["author"]["role"]) == (DOCTOR, "referrer")
    assert {each["finding"]: each["verdict"] for each in opinion["judgements"]} == {
        "pneumonia": "disagree",
        "atelectasis": "add",
        "effusion": "add",
    }


def test_it_can_be_changed_before_it_is_signed(browser, visit):
    doctor = browser("doctor")
    changed = doctor.post(f"/visits/{visit}/sign", data={"version": "1", **TYPED, "change": "1"})
    assert 'class="sign review"' not in changed.text
    assert as_typed(form_of(changed.text)) == EXPECTED
    assert doctor.get(f"/v1/visits/{visit}").json()["version"] == 1


@pytest.mark.parametrize("confirmed", [{}, {"confirmed": "1"}])
def test_on_a_conflict_the_page_has_what_was_typed_and_what_changed(browser, served, keys, visit, confirmed):
    doctor = browser("doctor")
    with served.client(keys["doctor"]) as elsewhere:
        elsewhere.post(f"/v1/visits/{visit}/opinions", json={"version": 1, "text": "Đã ký ở nơi khác."})
    refused = doctor.post(f"/visits/{visit}/sign", data={"version": "1", **TYPED, **confirmed})
    assert refused.status_code == 409
    assert as_typed(form_of(refused.text)) == EXPECTED
    assert form_of(refused.text)["version"] == ["2"]
    (item,) = re.findall(r'<li data-number="1".*?</li>\s*</ol>', refused.text, re.DOTALL)
    assert "Đã ký ở nơi khác." in item
    assert re.search(r"data-since>\s*signed since you read", item)
    signed = doctor.post(f"/visits/{visit}/sign", data={**form_of(refused.text), "confirmed": "1"})
    assert signed.url.path == f"/visits/{visit}/report"


def test_the_same_opinion_sent_twice_is_signed_once(browser, visit):
    """The answer was lost on the way, or the button was pressed twice."""
    doctor = browser("doctor")
    for _ in range(2):
        signed = doctor.post(f"/visits/{visit}/sign", data={"version": "1", **TYPED, "confirmed": "1"})
        assert signed.url.path == f"/visits/{visit}/report"
        assert text("signed_as", "en", name=DOCTOR, version=2) in signed.text
    other = {"version": "1", **TYPED, "advice": "ask", "confirmed": "1"}
    assert doctor.post(f"/visits/{visit}/sign", data=other).status_code == 409
    assert len(doctor.get(f"/v1/visits/{visit}/history").json()["opinions"]) == 1


@pytest.mark.parametrize("wrong", [{"advice": "pray"}, {"add": "no such thing"}, {"text": "x" * 4001}])
def test_a_form_that_cannot_be_read_comes_back_as_typed(browser, visit, wrong):
    refused = browser("doctor").post(f"/visits/{visit}/sign", data={"version": "1", **TYPED, **wrong})
    assert refused.status_code == 422
    came_back = form_of(refused.text)
    assert came_back["text"] == [wrong.get("text", WORDS)]
    assert came_back["verdict:pneumonia"] == ["disagree"]


def test_after_the_sessions_end_the_login_carries_what_was_typed(browser, keys, visit):
    doctor = browser("doctor")
    doctor.cookies.clear()
    ended = doctor.post(f"/visits/{visit}/sign", data={"version": "1", **TYPED, "confirmed": "1"})
    assert ended.status_code == 401
    assert text("session_ended", "en") in ended.text
    carried = {}
    for name, value in re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', ended.text):
        carried.setdefault(html.unescape(name), []).append(html.unescape(value))
    wrong = doctor.post(f"/visits/{visit}/sign-in", data={**carried, "key": "wrong"})
    assert (wrong.status_code, text("key_not_known", "en") in wrong.text) == (401, True)
    again = doctor.post(f"/visits/{visit}/sign-in", data={**carried, "key": keys["doctor"]})
    assert again.status_code == 200
    assert as_typed(form_of(again.text)) == EXPECTED
    assert doctor.get(f"/v1/visits/{visit}").json()["version"] == 1, "signing in does not sign"
    form = form_of(again.text)
    assert doctor.post(f"/visits/{visit}/sign", data={**form, "confirmed": "1"}).url.path.endswith("/report")


def test_another_site_cannot_sign_a_person_in_with_a_carried_opinion(browser, keys, visit):
    doctor = browser("doctor")
    doctor.cookies.clear()
    foreign = doctor.post(
        f"/visits/{visit}/sign-in", data={"key": keys["doctor"]}, headers={"Origin": "https://elsewhere.example"}
    )
    assert foreign.status_code == 403
    assert "set-cookie" not in foreign.headers


def test_a_key_without_a_name_is_asked_for_one_and_the_wire_is_not(browser, served, keys, visit):
    doctor = browser("unnamed")
    assert 'id="signer" name="signer" required' in doctor.get(f"/visits/{visit}").text
    refused = doctor.post(f"/visits/{visit}/sign", data={"version": "1", "text": "x", "confirmed": "1"})
    assert refused.status_code == 422
    signed = doctor.post(
        f"/visits/{visit}/sign", data={"version": "1", "signer": " BS.  Thử  Nghiệm Ba ", "confirmed": "1"}
    )
    assert "BS. Thử Nghiệm Ba" in signed.text
    with served.client(keys["unnamed"]) as client:
        assert client.post(f"/v1/visits/{visit}/opinions", json={"version": 2}).json()["author"]["name"] == "D-7"
        names = [each["author"]["name"] for each in client.get(f"/v1/visits/{visit}/history").json()["opinions"]]
        assert names == ["BS. Thử Nghiệm Ba", "D-7"]
        for suffix in ("html", "fhir.json", "hl7", "json"):
            assert "BS. Thử Nghiệm Ba" in client.get(f"/v1/visits/{visit}/report.{suffix}").text
        pdf = PdfReader(io.BytesIO(client.get(f"/v1/visits/{visit}/report.pdf").content))
        assert "BS. Thử Nghiệm Ba" in " ".join(pdf.pages[0].extract_text().split())
        sr = dcmread(io.BytesIO(client.get(f"/v1/visits/{visit}/report/sr.dcm").content))
        assert str(sr.VerifyingObserverSequence[0].VerifyingObserverName) == "BS. Thử Nghiệm Ba"


def test_a_name_of_the_form_does_not_replace_the_keys(browser, visit):
    doctor = browser("doctor")
    signed = doctor.post(f"/visits/{visit}/sign", data={"version": "1", "signer": "Somebody Else", "confirmed": "1"})
    assert DOCTOR in signed.text
    assert "Somebody Else" not in signed.text


def test_a_blind_reader_sees_the_findings_on_the_report_that_they_signed(browser, served, keys, visit):
    with served.client(keys["doctor"]) as d:
        d.post(f"/v1/visits/{visit}/referrals", json={"to_site": "central", "blind": True})
    specialist = browser("specialist")
    assert specialist.get(f"/visits/{visit}/report").url.path == f"/visits/{visit}"
    looked_over = specialist.post(f"/visits/{visit}/sign", data={"version": "1"})
    assert "No finding marked." in looked_over.text
    assert "80%" not in looked_over.text
    signed = specialist.post(f"/visits/{visit}/sign", data={**form_of(looked_over.text), "confirmed": "1"})
    assert "80.0%" in signed.text
    assert "No finding marked." in signed.text
    assert text("blind_note", "en") not in specialist.get(f"/visits/{visit}").text


def test_ticks_of_a_blind_reading_become_words_on_the_machines_verdicts(browser, served, keys, visit):
    """Another specialist answered first, and the findings have come into view."""
    other = served.key("specialist", "central", doctor_id="S-9", label="BS. Thử Nghiệm Chín")
    with served.client(keys["doctor"]) as d, served.client(other) as o:
        d.post(f"/v1/visits/{visit}/referrals", json={"to_site": "central", "blind": True})
        o.post(f"/v1/visits/{visit}/opinions", json={"version": 1})
    typed = {"version": "1", "add": ["pneumonia", "atelectasis"], "text": "Thấy viêm phổi."}
    refused = browser("specialist").post(f"/visits/{visit}/sign", data=typed)
    assert refused.status_code == 409
    came_back = form_of(refused.text)
    assert (came_back["verdict:pneumonia"], came_back["add"]) == (["agree"], ["atelectasis"])


def test_who_may_not_sign_is_refused_on_the_page_too(browser, visit):
    assert browser("site").post(f"/visits/{visit}/sign", data={"version": "1"}).status_code == 403


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_latest_conclusion_and_the_open_question_fit_at_the_top_of_the_page(
    browser, served, keys, visit, language, monkeypatch
):
    """``followup.conclusion``, here in a page of its own that extends the visit's."""
    whole = frame._templates()
    top = (
        "{% extends 'real.html' %}{% import 'followup.html' as followup with context %}"
        "{% block content %}<main>{{ followup.conclusion(visit, sidebar.history) }}</main>{{ super() }}{% endblock %}"
    )
    source, *_ = whole.loader.get_source(whole, "visit.html")
    loader = ChoiceLoader([DictLoader({"visit.html": top, "real.html": source}), whole.loader])
    changed = whole.overlay(loader=loader)
    monkeypatch.setattr(frame, "_templates", lambda: changed)
    doctor = browser("doctor", language)

    def shown():
        return re.search(r"<main>(.*?)</main>", doctor.get(f"/visits/{visit}").text, re.DOTALL)[1]

    assert not shown().strip()
    with served.client(keys["doctor"]) as d:
        d.post(f"/v1/visits/{visit}/opinions", json={"version": 1, "text": "đầu tiên"})
        d.post(f"/v1/visits/{visit}/opinions", json={"version": 2, "text": "cuối " * 100, "advice": "ask"})
        d.post(f"/v1/visits/{visit}/referrals", json={"to_site": "central", "question": "Xẹp phổi?"})
    found = shown()
    for words in (DOCTOR, "cuối", "...", text("advice_ask", language), "Xẹp phổi?", 'href="#questions"'):
        assert words in found
    assert text("all_opinions", language, n=2) in found
    assert "đầu tiên" not in found
