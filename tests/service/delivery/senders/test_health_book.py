"""Signed visits to a double of the health book's gateway, over HTTP from end to end."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from html import unescape

import httpx
import pytest

pytest.importorskip("signxml", reason="signxml is not installed: nothing is sent to a health book in this run")

from sqlalchemy import update

from service.storage.tables import DeliveryRow, DestinationRow, VisitRow
from tests.service.delivery.health_book.gateway import BookGateway, new_pair, new_table, private
from tests.service.serving import ADMIN, Process, serving, settings_for, told, until, visit_files

QUICK = {"delivery_retry_seconds": 0.1, "delivery_retry_max_seconds": 0.2, "delivery_timeout_seconds": 3}
PERSON = {
    "id": "BN-1",
    "name": "Người Được Khám Thử Nghiệm",
    "birth_date": "1961-05-30",
    "national_id": "001061000123",
    "sex": "female",
    "residence": {"address": "Thôn Thử Nghiệm", "province": "01", "commune": "00004"},
}
LABS = [{"name": "creatinine", "value": 1.0, "unit": "mg/dL"}]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return new_pair(folder, "facility", passphrase="of the facility"), new_pair(folder, "doctor")


@pytest.fixture(scope="module")
def gateway(pairs):
    with BookGateway(*pairs) as it:
        yield it


@pytest.fixture(scope="module")
def table(tmp_path_factory, pairs):
    return new_table(tmp_path_factory.mktemp("table"), *pairs)


@pytest.fixture(scope="module")
def at(tmp_path_factory, new_database, table, gateway):
    """A server that sends the visits of one site to the double."""
    folder = tmp_path_factory.mktemp("book")
    with serving(settings_for(folder, database_url=new_database(), health_book=table, **QUICK)) as served:
        yield ready(served, gateway)


def ready(served, gateway):
    with served.client() as client:
        made = client.post(
            "/v1/destinations", json={"kind": "health_book", "address": gateway.address, "language": "vi"}
        )
        assert made.status_code == 201, made.text
    served.book = made.json()["id"]
    served.site = served.key("site", "xa")
    served.doctor = served.key("doctor", "xa", doctor_id="D-7", label="BS. Thử Nghiệm")
    return served


@pytest.fixture(autouse=True)
def fresh(gateway):
    gateway.forget()
    gateway.on_push = lambda push: None
    yield
    assert gateway.faults == [], "what arrived is of no form that the gateway reads"


def post(served, person=PERSON, *films, **context):
    about = {"person": person, "referrer": {"id": "D-7"}, "visited_on": "2026-11-21", "labs": LABS, **context}
    with served.client(served.site) as client:
        posted = client.post("/v1/visits", files=visit_files(*films, **about))
    assert posted.status_code == 201, posted.text
    return posted.json()["id"]


def sign(served, visit, version=1, **opinion):
    with served.client(served.doctor) as client:
        signed = client.post(f"/v1/visits/{visit}/opinions", json={"version": version, **opinion})
    assert signed.status_code == 201, signed.text


def of_book(served, visit):
    """The deliveries of a visit to the book, as its page and the API show them."""
    with served.client() as client:
        found = client.get(f"/v1/visits/{visit}/history").json()["deliveries"]
    return [each for each in found if each["kind"] == "health_book"]


def until_stage(served, visit, *stages, version=None):
    """The latest delivery to the book, when it has come to one of these stages."""

    def there():
        found = of_book(served, visit)
        return found and found[-1]["stage"] in stages and version in (None, found[-1]["version"])

    until(there, 30)
    return of_book(served, visit)[-1]


def page(served, path, key, language, status=200):
    """A page as somebody with this key reads it."""
    with httpx.Client(base_url=served.address, headers={"Accept-Language": language}, timeout=30) as browser:
        browser.post("/login", data={"key": key}, headers={"Origin": served.address})
        answer = browser.get(path)
    assert answer.status_code == status, answer.text
    return answer.text


# ---------------------------------------------------------------- what arrives
def test_a_signed_visit_arrives_is_verified_and_its_answer_is_kept(at, gateway):
    visit = post(at)
    time.sleep(0.7)
    (waits,) = of_book(at, visit)
    assert (waits["stage"], waits["version"], waits["state"], waits["late"]) == ("unsigned", 1, "waiting", False)
    assert gateway.pushes == [], "nothing leaves that no doctor has signed"
    sign(at, visit, judgements=[{"finding": "pneumonia", "verdict": "agree"}], text="Mờ thùy dưới phải.")
    arrived = until_stage(at, visit, "saved")
    assert arrived["codes"] == ["CM_SUCCESS", "PS_DS_VERIFY_SUCCESS", "PS_DS_SAVE_SUCCESS"]
    assert (arrived["version"], arrived["state"], arrived["deadline"]) == (2, "delivered", None)
    (push,) = gateway.pushes
    assert push.header == {"message_id": push.header["message_id"], "sender": "01234", "action": "NEW"}
    assert push.envelope.findtext("THONGTINDONVI/MACSKCB") == "01234"
    said = {
        name: push.text("XML1", name) for name in ("MA_LK", "HO_TEN", "NGAY_SINH", "GIOI_TINH", "SO_CCCD", "NHOM_TUOI")
    }
    assert said == {
        "MA_LK": visit,
        "HO_TEN": PERSON["name"],
        "NGAY_SINH": "19610530",
        "GIOI_TINH": "2",
        "SO_CCCD": "001061000123",
        "NHOM_TUOI": "3",
    }
    assert push.text("XML1", "DIA_CHI") == "Thôn Thử Nghiệm"
    assert push.rows("MA_DICH_VU") == ["XQ", "XN"]
    assert push.rows("GIA_TRI") == [None, "88.4"]
    assert push.rows("DON_VI_DO") == [None, "umol/L"]
    assert push.rows("MO_TA") == ["Mờ thùy dưới phải.", None]
    assert push.rows("KET_LUAN") == ["Ghi nhận: viêm phổi.", None]
    assert "0.8" not in push.body.decode(), "a probability of the machine is no result"


def test_a_corrected_opinion_replaces_what_is_there(at, gateway):
    visit = post(at)
    sign(at, visit, judgements=[{"finding": "pneumonia", "verdict": "agree"}])
    until_stage(at, visit, "saved")
    sign(at, visit, version=2, judgements=[{"finding": "pneumonia", "verdict": "disagree"}], text="Phim chụp nằm.")
    until_stage(at, visit, "saved", version=3)
    first, second = gateway.pushes
    assert (first.text("XML1", "MA_LK"), second.text("XML1", "MA_LK")) == (visit, visit)
    assert (first.header["action"], second.header["action"]) == ("NEW", "REPLACE")
    assert first.header["message_id"] != second.header["message_id"]
    assert second.rows("KET_LUAN")[0].startswith("Bác sĩ không ghi nhận dấu hiệu nào")
    assert list(gateway.records) == [visit], "one visit is one record"


def test_a_visit_without_an_identity_number_is_said_and_not_sent(at, gateway):
    person = {name: value for name, value in PERSON.items() if name not in ("national_id", "name")}
    visit = post(at, person=person)
    sign(at, visit)
    kept = until_stage(at, visit, "validation")
    reasons = [(each["code"], each["found"], each["expected"]) for each in kept["reasons"]]
    assert reasons == [
        ("book_field_missing", "HO_TEN", "person.name"),
        ("book_field_missing", "SO_CCCD", "person.national_id"),
    ]
    assert (kept["state"], kept["problem"], kept["attempts"]) == ("dead", "book_validation", 1)
    assert gateway.pushes == []
    with at.client() as client:
        page = client.get(f"/v1/deliveries?visit={visit}").json()["items"]
        assert [(each["stage"], each["reasons"]) for each in page] == [("validation", kept["reasons"])]


@pytest.mark.parametrize("number", ["01061000123", "0010610001234", "00106100012x", "００１０６１０００１２３"])
def test_an_identity_number_of_another_form_is_refused_before_it_leaves(at, gateway, number):
    visit = post(at, person={**PERSON, "national_id": number})
    sign(at, visit)
    (reason,) = until_stage(at, visit, "validation")["reasons"]
    assert (reason["code"], reason["found"], reason["expected"]) == ("book_field_invalid", "SO_CCCD", "12 × 0–9")
    assert gateway.pushes == []


def test_a_laboratory_value_without_a_code_is_not_left_out_in_silence(at, gateway):
    visit = post(at, labs=[*LABS, {"name": "potassium", "value": 4.1, "unit": "mmol/L"}])
    sign(at, visit)
    (reason,) = until_stage(at, visit, "validation")["reasons"]
    assert (reason["code"], reason["found"]) == ("book_code_missing", "potassium_mmol_per_l")
    assert gateway.pushes == []


# ---------------------------------------------------------------- what the gateway answers
def test_a_failing_code_in_a_200_is_a_failure(at, gateway):
    gateway.scripted.append(("codes", "CM_SUCCESS", "PS_DS_RSA_SIGNATURE_INVALID"))
    visit = post(at)
    sign(at, visit)
    kept = until_stage(at, visit, "signature")
    assert (kept["state"], kept["problem"]) == ("dead", "book_signature")
    assert kept["codes"] == ["CM_SUCCESS", "PS_DS_RSA_SIGNATURE_INVALID"]
    with at.client() as client:  # somebody has put it right
        assert client.post("/v1/deliveries/retry", json={"destination": at.book}).json()["retried"] >= 1
    until_stage(at, visit, "saved")


@pytest.mark.parametrize(
    ("codes", "stage", "problem"),
    [
        (("CM_SUCCESS", "PS_DS_VERIFY_SUCCESS", "PS_DS_VERIFY_FAIL"), "validation", "book_validation"),
        (("CM_INVALID_REQUEST",), "validation", "book_validation"),
        (("CM_SOMETHING_NEW",), "refused", "book_refused"),
        (("CM_SUCCESS", "PS_DS_CA_SIGNATURE_MISSING"), "signature", "book_signature"),
    ],
)
def test_codes_that_fail_for_good(at, gateway, codes, stage, problem):
    gateway.scripted.append(("codes", *codes))
    visit = post(at)
    sign(at, visit)
    kept = until_stage(at, visit, stage)
    assert (kept["state"], kept["problem"], kept["codes"]) == ("dead", problem, list(codes))


@pytest.mark.parametrize(
    "script",
    [
        [("status", 500)],
        [("status", 504), ("status", 500)],
        [("codes", "CM_SUCCESS", "PS_DS_VERIFY_SUCCESS", "PS_DS_SAVE_FAIL")],
        [("codes",)],
        [("slow", 4)],
    ],
)
def test_what_may_pass_is_tried_again(at, gateway, script):
    gateway.scripted.extend(script)
    visit = post(at)
    sign(at, visit)
    kept = until_stage(at, visit, "saved")
    assert kept["attempts"] == len(script) + 1


def test_an_answer_that_only_says_received_is_shown_as_sent(at, gateway):
    gateway.scripted.append(("codes", "CM_SUCCESS"))
    visit = post(at)
    sign(at, visit)
    kept = until_stage(at, visit, "sent")
    assert (kept["state"], kept["codes"]) == ("delivered", ["CM_SUCCESS"])


def test_a_push_whose_answer_is_lost_is_sent_again_as_the_same(at, gateway):
    gateway.scripted.append(("lost", 4))
    visit = post(at)
    sign(at, visit)
    until_stage(at, visit, "saved")
    first, second = gateway.pushes
    assert first.body == second.body
    assert list(gateway.records) == [visit]


def test_what_may_have_arrived_is_replaced_whatever_was_answered_later(at, gateway):
    gateway.scripted.extend([("lost", 4), ("codes", "CM_INVALID_REQUEST")])
    visit = post(at)
    sign(at, visit)
    assert until_stage(at, visit, "validation")["attempts"] == 2
    sign(at, visit, version=2, text="Phim chụp nằm.")
    until_stage(at, visit, "saved", version=3)
    assert gateway.pushes[-1].header["action"] == "REPLACE"
    assert list(gateway.records) == [visit]


def test_what_was_refused_is_not_replaced(at, gateway):
    gateway.scripted.append(("codes", "CM_SUCCESS", "PS_DS_VERIFY_FAIL"))
    visit = post(at)
    sign(at, visit)
    until_stage(at, visit, "validation")
    sign(at, visit, version=2)
    until_stage(at, visit, "saved", version=3)
    assert gateway.pushes[-1].header["action"] == "NEW"


def test_a_login_counts_for_many_and_a_token_that_has_ended_is_renewed(at, gateway):
    visits = [post(at) for _ in range(3)]
    for visit in visits:
        sign(at, visit)
        until_stage(at, visit, "saved")
    assert len(gateway.logins) <= 1
    gateway.end_tokens()
    visit = post(at)
    sign(at, visit)
    assert until_stage(at, visit, "saved")["attempts"] == 1
    assert gateway.logins == ["a-user"]


# ---------------------------------------------------------------- keys and secrets
@pytest.fixture
def other(tmp_path, gateway, pairs):
    """A server whose table and keys a test may change."""

    def started(path):
        context = serving(settings_for(tmp_path / "data", health_book=path, **QUICK))
        entered.append(context)
        return ready(context.__enter__(), gateway)

    entered = []
    yield started
    for context in entered:
        context.__exit__(None, None, None)


def test_a_wrong_password_is_a_login_that_failed_and_is_put_right_in_its_file(other, tmp_path, pairs, gateway):
    path = new_table(tmp_path, *pairs)
    private(tmp_path / "password", "wrong")
    served = other(path)
    visit = post(served)
    sign(served, visit)
    kept = until_stage(served, visit, "login")
    assert (kept["state"], kept["problem"], kept["codes"]) == ("waiting", "book_login", ["CM_LOGIN_FAILED"])
    private(tmp_path / "password", "a-password-of-the-gateway")
    until_stage(served, visit, "saved")


def test_a_key_that_others_may_read_signs_nothing(other, tmp_path, gateway):
    pairs = new_pair(tmp_path, "facility-2"), new_pair(tmp_path, "doctor-2")
    key = tmp_path / "facility-2.key"
    key.chmod(0o644)
    served = other(new_table(tmp_path, *pairs))
    visit = post(served)
    sign(served, visit)
    kept = until_stage(served, visit, "unsealed")
    assert (kept["state"], kept["problem"]) == ("waiting", "book_file_open_to_others")
    assert [each["code"] for each in kept["reasons"]] == ["book_key_unusable"]
    assert gateway.pushes == []
    key.chmod(0o600)
    until_stage(served, visit, "signature")  # the gateway knows another key: it is checked there, too
    assert gateway.pushes[-1].codes == ("PS_DS_RSA_SIGNATURE_INVALID",)


def test_a_doctor_without_keys_is_waited_for(other, tmp_path, pairs, gateway):
    path = new_table(tmp_path, *pairs)
    path.write_text(path.read_text().replace('id = "D-7"', 'id = "D-8"'))
    served = other(path)
    visit = post(served)
    sign(served, visit)
    kept = until_stage(served, visit, "unsigned")
    assert (kept["version"], kept["state"], kept["problem"]) == (2, "waiting", "book_doctor_missing")
    assert [each["code"] for each in kept["reasons"]] == ["book_doctor_missing"]
    assert gateway.pushes == []


def test_without_a_table_there_is_no_such_destination(served):
    with served.client() as client:
        asked = client.post("/v1/destinations", json={"kind": "health_book", "address": "https://book.example"})
    assert asked.status_code == 422
    assert asked.json()["errors"][0]["field"] == "body.kind"
    assert "SANGLOC_HEALTH_BOOK" in asked.text


# ---------------------------------------------------------------- the clock
def test_what_is_late_is_told_and_seen(at, gateway):
    visit = post(at)
    with at.app.state.service.database.transaction(write=True) as session:
        old = datetime.now(UTC) - timedelta(hours=25)
        session.execute(update(VisitRow).where(VisitRow.id == visit).values(received_at=old))
        session.execute(update(DestinationRow).values(created_at=old - timedelta(hours=1)))
    assert told(at)["sangloc_health_book_late", "unsigned"] == 1
    with at.client() as client:
        first = client.get("/v1/deliveries/due").json()["items"][0]
        assert (first["visit"], first["late"], first["stage"]) == (visit, True, "unsigned")
    with at.client(at.site) as client:
        assert client.get("/v1/deliveries/due").json()["items"][0]["visit"] == visit
    with at.client(at.key("site", "another")) as client:
        assert client.get("/v1/deliveries/due").json()["items"] == []
    (kept,) = of_book(at, visit)
    assert kept["late"] is True
    for language, words in (
        ("en", "waits for a doctor's signature"),
        ("fr", "attend la signature"),
        ("vi", "chờ bác sĩ ký"),
    ):
        for path in ("/health-book", f"/visits/{visit}"):
            assert words in unescape(page(at, path, ADMIN, language)), (path, language)
    assert page(at, "/health-book", at.doctor, "en", status=404)
    sign(at, visit)
    until_stage(at, visit, "saved")
    assert told(at)["sangloc_health_book_late", "unsigned"] == 0


# ---------------------------------------------------------------- whichever process stops
def test_killed_between_sending_and_noting_it_is_sent_again_as_the_same(tmp_path, gateway, table, new_database):
    process = Process(
        tmp_path,
        database_url=new_database(),
        SANGLOC_HEALTH_BOOK=str(table),
        SANGLOC_DELIVERY_RETRY_SECONDS="0.1",
        SANGLOC_DELIVERY_TIMEOUT_SECONDS="5",
    )
    process.start()
    try:
        served = ready(process.served, gateway)
        visit = post(served)
        gateway.on_push = lambda push: process.kill() if len(gateway.pushes) == 1 else None
        sign(served, visit)
        until(lambda: process.process.poll() is not None, 10)
        process.start()
        again = process.served
        kept = until_stage(again, visit, "saved")
        first, second = gateway.pushes
        assert first.body == second.body, "the same bytes"
        assert kept["attempts"] == 2
        assert list(gateway.records) == [visit]
        log = process.log.read_text()
        assert PERSON["national_id"] not in log
        assert PERSON["name"] not in log
        assert "a-password" not in log
        assert "PRIVATE KEY" not in log
    finally:
        process.kill()


def test_what_is_kept_of_an_answer_goes_with_the_visit(at, gateway):
    visit = post(at)
    sign(at, visit)
    until_stage(at, visit, "saved")
    with at.app.state.service.database.transaction() as session:
        row = session.get(DeliveryRow, (visit, 2, at.book))
        kept = json.loads(row.answer)
    assert kept["stage"] == "saved"
    assert "PS_DS_SAVE_SUCCESS" in kept["body"]
