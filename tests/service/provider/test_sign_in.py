"""Signing in by an OpenID provider, over the wire on both sides: what opens a session, and everything that must not."""

from __future__ import annotations

import json
import re
import time
from datetime import timedelta
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from joserfc.jwk import RSAKey
from structlog.testing import capture_logs

from data_specs.problems import message
from data_specs.vocabulary import LANGUAGES
from service.provider import answers, sign_in
from service.provider.persons import hash_of_person
from service.wrong_keys import WRONG_AT_ONCE
from tests.service.openid_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    openid_provider,
    send_megabytes,
    send_slowly,
)
from tests.service.serving import serving, settings_for, told, visit_files

ROLES = """
claim = "groups"
identifier = "employee_id"
name = "name"
scopes = ["openid", "profile", "groups"]

[[role]]
value = "xray-admins"
role = "admin"
site = "province"

[[role]]
value = "xray-doctors-xa"
role = "doctor"
site = "xa"

[[role]]
value = "xray-specialists"
role = "specialist"
site = "central"
"""
DOCTOR = {"sub": "u-1", "employee_id": "D-1", "name": "BS. Thử Nghiệm", "groups": ["staff", "xray-doctors-xa"]}
CALLBACK = "/login/provider/callback"
HERE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def new_database():
    """SQLite only: what a sign-in asks of a database is tried on both in ``test_persons`` and ``test_sessions``."""
    return lambda: ""


@pytest.fixture(scope="module")
def at(tmp_path_factory, new_database):
    """A service that knows a provider."""
    folder = tmp_path_factory.mktemp("provider")
    (folder / "roles.toml").write_text(ROLES, "utf-8")
    (folder / "secret").write_text(f"{CLIENT_SECRET}\n", "utf-8")
    with openid_provider() as provider:
        settings = settings_for(
            folder / "data",
            database_url=new_database(),
            oidc_issuer=provider.issuer,
            oidc_client_id=CLIENT_ID,
            oidc_client_secret_file=folder / "secret",
            oidc_roles=folder / "roles.toml",
        )
        with serving(settings) as served:
            served.provider = provider
            provider.redirects.add(f"{served.address}{CALLBACK}")
            yield served


@pytest.fixture
def provider(at):
    """The provider, with rules kept again, and asked as if for the first time."""
    at.provider.reset()
    at.provider.person = dict(DOCTOR)
    forget(at)
    return at.provider


def forget(at):
    """Nothing of the provider is known, and no wrong key was counted, as after a start."""
    known = at.app.state.service.provider
    for kept in (known._description, known._keys):
        kept.value, kept._fetched_at, kept._failed_at = None, float("-inf"), float("-inf")
    at.app.state.service.keys.wrong._forgiven_at.clear()


@pytest.fixture
def browser(at, provider):
    with new_browser(at) as it:
        yield it


def new_browser(at):
    return httpx.Client(verify=False, base_url=at.address, timeout=30, headers={"Accept": "text/html"})


def to_provider(browser, **query):
    """The address at the provider that the login leads to."""
    begun = browser.get("/login/provider", params=query)
    assert begun.status_code == 303, begun.text
    return begun.headers["location"]


def back_from(address):
    """The callback that the provider sends a browser to."""
    back = httpx.get(address)
    assert back.status_code == 303, back.text
    return back.headers["location"]


def signed_in(browser, **query):
    return browser.get(back_from(to_provider(browser, **query)))


def not_signed_in(browser, answer, reason, status=403):
    assert answer.status_code == status, answer.text
    assert message(f"sign_in_refused_{reason}" if status == 403 else reason, "en")[:40] in answer.text
    assert "session" not in browser.cookies
    assert browser.get("/worklist").headers["location"].startswith("/login")


# ---------------------------------------------------------------------- what opens a session
def test_a_doctor_signs_in_sees_their_visits_and_signs_with_their_name(at, browser):
    with at.client(at.key("site", "xa")) as site:
        files = visit_files(b"of the doctor", referrer={"id": "D-1"})
        visit = site.post("/v1/visits", files=files, headers={"Prefer": "wait=20"}).json()["id"]
    answer = signed_in(browser, next=f"/visits/{visit}")
    assert answer.status_code == 200
    assert f'<meta http-equiv="refresh" content="0; url=/visits/{visit}">' in answer.text
    (cookie,) = (each for each in answer.headers.get_list("set-cookie") if each.startswith("session="))
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "sign_in" not in browser.cookies, "what was begun is used once"
    assert browser.get(f"/visits/{visit}").status_code == 200
    signed = browser.post(f"/v1/visits/{visit}/opinions", json={"version": 1}, headers=HERE)
    assert signed.status_code == 201
    author = signed.json()["author"]
    assert (author["id"], author["name"], author["role"]) == ("D-1", "BS. Thử Nghiệm", "referrer")


def test_what_is_asked_of_the_provider(at, browser, provider):
    address = urlsplit(to_provider(browser, next="/worklist"))
    asked = dict(parse_qsl(address.query))
    assert f"{address.scheme}://{address.netloc}{address.path}" == f"{provider.issuer}/authorize"
    assert (asked["response_type"], asked["client_id"]) == ("code", CLIENT_ID)
    assert asked["scope"] == "openid profile groups"
    assert asked["redirect_uri"] == f"{at.address}{CALLBACK}"
    assert asked["code_challenge_method"] == "S256"
    assert len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) >= 43
    again = dict(parse_qsl(urlsplit(to_provider(browser)).query))
    assert not {asked[name] for name in ("state", "nonce")} & {again[name] for name in ("state", "nonce")}


def test_a_provider_that_takes_single_claims_is_asked_for_those_of_the_table(at, browser, provider):
    assert "claims" not in dict(parse_qsl(urlsplit(to_provider(browser)).query))
    forget(at)
    provider.described = {"claims_parameter_supported": True}
    asked = dict(parse_qsl(urlsplit(to_provider(browser)).query))
    assert json.loads(asked["claims"]) == {"id_token": {"groups": None, "employee_id": None, "name": None}}


def test_the_cookie_of_what_was_begun_is_lax_short_and_of_this_host_alone(at, browser):
    kept = browser.get("/login/provider").headers["set-cookie"]
    assert kept.startswith("sign_in=")
    assert "SameSite=lax" in kept
    assert "HttpOnly" in kept
    assert "Max-Age=600" in kept
    secure = browser.get("/login/provider", headers={"X-Forwarded-Proto": "https"}).headers["set-cookie"]
    assert secure.startswith("__Host-sign_in=")
    assert "Secure" in secure
    assert "Path=/;" in f"{secure};"
    assert "Domain" not in secure


def test_the_role_is_read_anew_at_each_sign_in_and_the_person_stays_one(at, browser, provider):
    signed_in(browser)
    assert browser.get("/keys").status_code == 404
    provider.person = {**DOCTOR, "name": "BS. Tên Mới", "groups": ["xray-admins"]}
    with new_browser(at) as other:
        signed_in(other)
        assert other.get("/keys").status_code == 200
    with at.client() as admin:
        (row,) = (each for each in admin.get("/v1/keys").json()["items"] if each["by_provider"])
    assert (row["role"], row["site"], row["label"], row["doctor_id"]) == ("admin", "province", "BS. Tên Mới", None)
    assert browser.get("/keys").status_code == 200, "the sessions of before are the same person's"
    provider.person = dict(DOCTOR)
    signed_in(browser)


def test_a_person_without_a_role_any_more_loses_their_sessions(browser, provider, at):
    signed_in(browser)
    assert browser.get("/worklist").status_code == 200
    provider.person = {**DOCTOR, "groups": ["staff"]}
    with new_browser(at) as other:
        not_signed_in(other, signed_in(other), "no_role")
    assert browser.get("/worklist").status_code == 303


def test_a_secret_in_the_form_where_the_provider_takes_no_header(browser, provider):
    provider.described = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert signed_in(browser).status_code == 200
    assert browser.get("/worklist").status_code == 200


def test_a_new_key_of_the_provider_is_fetched_once(browser, provider, monkeypatch):
    signed_in(browser)
    old = provider.key
    provider.key = RSAKey.generate_key(2048, {"kid": "second"}, private=True)
    provider.header = {"kid": "second"}
    provider.asked.clear()
    try:
        not_signed_in_yet = signed_in(browser)
        assert not_signed_in_yet.status_code == 403, "the set of keys is younger than a minute"
        assert "/jwks" not in provider.asked
        monkeypatch.setattr(answers, "ANEW_S", 0.0)
        assert signed_in(browser).status_code == 200
        assert provider.asked.count("/jwks") == 1
        assert "/.well-known/openid-configuration" not in provider.asked
    finally:
        provider.key = old


# ---------------------------------------------------------------------- a token that is not for us, or not theirs
def at_time(claim):
    """A time is written in the list as the distance from now: the names of tests are the same in every process."""
    return int(time.time() + claim.total_seconds()) if isinstance(claim, timedelta) else claim


@pytest.mark.parametrize(
    "wrong",
    [
        {"sign": "signed_by_another"},
        {"sign": "unsigned"},
        {"sign": "signed_with_the_public_key"},
        {"sign": "changed_after_signing"},
        {"claims": {"aud": "another client"}},
        {"claims": {"aud": [CLIENT_ID, "another client"]}},
        {"claims": {"aud": [CLIENT_ID, "another client"], "azp": "another client"}},
        {"claims": {"aud": CLIENT_ID, "azp": "another client"}},
        {"claims": {"aud": []}},
        {"claims": {"aud": None}},
        {"claims": {"iss": "https://other.example"}},
        {"claims": {"iss": None}},
        {"claims": {"nonce": "of another sign-in"}},
        {"claims": {"nonce": None}},
        {"claims": {"nonce": ["x"]}},
        {"claims": {"exp": timedelta(seconds=-120)}},
        {"claims": {"exp": None}},
        {"claims": {"exp": "tomorrow"}},
        {"claims": {"iat": timedelta(seconds=3600)}},
        {"claims": {"iat": None}},
        {"claims": {"nbf": timedelta(seconds=3600)}},
        {"claims": {"sub": None}},
        {"claims": {"sub": ""}},
        {"claims": {"sub": 7}},
        {"claims": {"sub": "x" * 256}},
        {"claims": {"sub": "ü"}},
        {"header": {"kid": "no such key"}},
        {"sign": "another_algorithm_named"},
        {"sign": "with_a_critical_extension"},
    ],
    ids=str,
)
def test_an_id_token_that_is_wrong_in_one_thing_signs_nobody_in(at, browser, provider, wrong):
    provider.claims = {name: at_time(value) for name, value in wrong.get("claims", {}).items()}
    provider.header = wrong.get("header", {})
    provider.sign = getattr(provider, wrong.get("sign", "signed"))
    with capture_logs() as logged:
        not_signed_in(browser, signed_in(browser), "not_verified")
    assert "sign_in" not in browser.cookies
    assert [each["event"] for each in logged].count("provider_answer_not_verified") == 1
    assert "Thử Nghiệm" not in str(logged)
    assert "D-1" not in str(logged)


@pytest.mark.parametrize("token", ["", "x", "a.b", "a.b.c", "a.b.c.d.e", 7, None, "é.é.é", "." * 5000])
def test_what_is_no_token_is_refused(browser, provider, token):
    provider.sign = lambda _: token
    not_signed_in(browser, signed_in(browser), "not_verified")


def test_several_audiences_with_us_as_the_authorized_party_are_right(browser, provider):
    provider.claims = {"aud": [CLIENT_ID, "another client"], "azp": CLIENT_ID}
    assert signed_in(browser).status_code == 200


# ---------------------------------------------------------------------- what the provider says of a person
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "groups", [["staff"], [], None, "xray-doctors-xa2", {"xray-doctors-xa": True}, [["xray-doctors-xa"]], 5]
)
def test_a_person_without_a_role_is_told_so(browser, provider, groups, language):
    provider.claims = {"groups": groups}
    browser.headers["Accept-Language"] = language
    answer = signed_in(browser)
    assert answer.status_code == 403
    assert message("sign_in_refused_no_role", language).replace("'", "&#39;") in answer.text
    assert "session" not in browser.cookies


@pytest.mark.parametrize("name", ["employee_id", "name"])
@pytest.mark.parametrize("value", [None, "", "  ", 12, ["D-1"], "x" * 201, "a\x00b", "a\u202eb"])
def test_a_claim_that_is_missing_is_named(browser, provider, name, value):
    provider.claims = {name: value}
    answer = signed_in(browser)
    assert answer.status_code == 403
    assert message("sign_in_refused_claim_missing", "en", expected=name) in answer.text


def test_an_admin_needs_no_identifier(browser, provider):
    provider.person = {"sub": "u-2", "name": "Quản trị", "groups": "xray-admins"}
    assert signed_in(browser).status_code == 200
    assert browser.get("/keys").status_code == 200


def test_the_first_row_of_the_table_that_fits_decides(at, browser, provider):
    provider.person = {"sub": "u-3", "name": "Hai vai", "employee_id": "S-3"}
    provider.claims = {"groups": ["xray-specialists", "xray-doctors-xa"]}
    signed_in(browser)
    with at.client() as admin:
        (row,) = (each for each in admin.get("/v1/keys").json()["items"] if each["label"] == "Hai vai")
    assert (row["role"], row["site"]) == ("doctor", "xa")


# ---------------------------------------------------------------------- the browser's part
def test_a_callback_that_this_browser_did_not_begin_signs_nobody_in(at, browser, provider):
    """Somebody makes another's browser bring an answer of their own: the other would work under a false name."""
    with new_browser(at) as attacker:
        forged = back_from(to_provider(attacker))
    provider.asked.clear()
    not_signed_in(browser, browser.get(forged), "not_begun")
    to_provider(browser)
    not_signed_in(browser, browser.get(forged), "not_begun")
    assert "sign_in" in browser.cookies, "a forged answer does not end what was begun"
    assert "/token" not in provider.asked


@pytest.mark.parametrize("query", ["", "state=", "code=x", "state=%00&code=x", "state=é", "error=access_denied"])
def test_a_callback_without_what_was_begun_asks_the_provider_nothing(browser, provider, query):
    to_provider(browser)
    provider.asked.clear()
    not_signed_in(browser, browser.get(f"{CALLBACK}?{query}"), "not_begun")
    assert provider.asked == []


@pytest.mark.parametrize("cookie", ["x", "a.b.c", "...", "a.b.c.", ".b.c./"])
def test_a_cookie_that_was_not_written_here_begins_nothing(browser, cookie):
    browser.cookies.set("sign_in", cookie)
    not_signed_in(browser, browser.get(f"{CALLBACK}?state={cookie[:1]}&code=x"), "not_begun")


def test_an_answer_is_used_once(browser, provider):
    begun = to_provider(browser)
    kept = browser.cookies["sign_in"]
    callback = back_from(begun)
    assert browser.get(callback).status_code == 200
    browser.cookies.clear()
    not_signed_in(browser, browser.get(callback), "not_begun")
    browser.cookies.set("sign_in", kept)  # the code was used too
    not_signed_in(browser, browser.get(callback), "not_verified")


def test_a_code_of_another_sign_in_fails_its_proof(at, browser, provider):
    """A stolen code, brought into a sign-in that was begun here: the verifier of PKCE is another."""
    with new_browser(at) as victim:
        stolen = dict(parse_qsl(urlsplit(back_from(to_provider(victim))).query))["code"]
    state = dict(parse_qsl(urlsplit(to_provider(browser)).query))["state"]
    not_signed_in(browser, browser.get(f"{CALLBACK}?{urlencode({'state': state, 'code': stolen})}"), "not_verified")


def test_a_person_who_is_not_signed_in_there_is_told_so(browser, provider):
    provider.person = None
    not_signed_in(browser, signed_in(browser), "denied")


def test_an_answer_that_names_another_provider_is_refused(browser, provider):
    provider.described = {"authorization_response_iss_parameter_supported": True}
    callback = back_from(to_provider(browser))
    not_signed_in(browser, browser.get(callback), "not_verified")
    right = back_from(to_provider(browser))
    assert browser.get(f"{right}&{urlencode({'iss': provider.issuer})}").status_code == 200


@pytest.mark.parametrize(
    "onward",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "/\tx",
        "/\n/evil.example",
        "x",
        "/" + "x" * 3000,
        "",
    ],
)
def test_the_way_on_stays_in_this_service(browser, onward):
    answer = signed_in(browser, next=onward)
    assert answer.status_code == 200
    assert re.findall(r'http-equiv="refresh" content="0; url=([^"]*)"', answer.text) == ["/"]
    assert "evil" not in answer.text


def test_the_way_on_is_checked_again_when_the_cookie_comes_back(browser):
    state = dict(parse_qsl(urlsplit(begun := to_provider(browser)).query))["state"]
    kept = browser.cookies["sign_in"].rsplit(".", 1)[0]
    callback = back_from(begun)
    browser.cookies.clear()
    browser.cookies.set("sign_in", f"{kept}.%2F%2Fevil%2Eexample")
    answer = browser.get(callback)
    assert state in callback
    assert answer.status_code == 200
    assert "evil" not in answer.text


def test_without_https_nobody_is_sent_to_the_provider(at, browser):
    """Not even where the provider has registered the address: the code would be read on the way."""
    for path in ("/login/provider", CALLBACK):
        answer = browser.get(path, headers={"Host": "xray.hospital.example"})
        assert answer.status_code == 403
    assert (
        message("sign_in_refused_needs_https", "en")
        in browser.get("/login/provider", headers={"Host": "xray.hospital.example"}).text
    )
    behind = {"Host": "xray.hospital.example", "X-Forwarded-Proto": "https"}
    location = browser.get("/login/provider", headers=behind).headers["location"]
    asked = dict(parse_qsl(urlsplit(location).query))
    assert asked["redirect_uri"] == f"https://xray.hospital.example{CALLBACK}"
    assert httpx.get(location).status_code == 400, "the provider refuses an address that it does not know"


# ---------------------------------------------------------------------- a provider that is away
AWAY = {
    "an error": lambda handler: handler.say(500, {}),
    "no JSON": lambda handler: handler.send(200, b"<html>", content_type="text/html"),
    "a list": lambda handler: handler.send(200, b"[]", content_type="application/json"),
    "deep": lambda handler: handler.send(200, b"[" * 200_000, content_type="application/json"),
    "megabytes": send_megabytes,
    "slow": send_slowly,
    "compressed": lambda handler: handler.send(200, b"x", content_encoding="gzip"),
    "elsewhere": lambda handler: handler.send(302, b"", location="http://127.0.0.1:1/"),
    "nothing": lambda handler: handler.send(200, b""),
}


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/jwks"])
@pytest.mark.parametrize("how", AWAY)
def test_a_provider_that_does_not_answer_touches_nobody_else(at, browser, provider, path, how, monkeypatch):
    monkeypatch.setattr(answers, "ANSWER_S", 0.7)
    with new_browser(at) as colleague:
        assert signed_in(colleague).status_code == 200
        forget(at)
        begun = None if path.startswith("/.well") else to_provider(browser)
        provider.answers = {path: AWAY[how]}
        before = time.monotonic()
        answer = browser.get("/login/provider" if begun is None else back_from(begun))
        assert time.monotonic() - before < 3
        not_signed_in(browser, answer, "provider_unavailable", 503)
        assert int(answer.headers["retry-after"]) > 0
        assert colleague.get("/worklist").status_code == 200
        with at.client() as admin:
            assert admin.get("/v1/keys").status_code == 200
        assert browser.get("/login").status_code == 200


def test_a_provider_that_failed_is_left_alone_for_a_moment(at, browser, provider):
    provider.answers = {"/.well-known/openid-configuration": lambda handler: handler.say(500, {})}
    for _ in range(10):
        assert browser.get("/login/provider").status_code == 503
    assert provider.asked.count("/.well-known/openid-configuration") == 1


def test_a_provider_that_is_gone(at, browser, provider):
    known = at.app.state.service.provider
    issuer, known.issuer = known.issuer, "http://127.0.0.1:1"
    try:
        assert browser.get("/login/provider").status_code == 503
    finally:
        known.issuer = issuer


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "https://other.example"},
        {"issuer": None},
        {"token_endpoint": "http://provider.example/token"},
        {"jwks_uri": "ftp://127.0.0.1/"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": None},
        {"token_endpoint": 7},
        {"end_session_endpoint": "http://provider.example/"},
        {"code_challenge_methods_supported": ["plain"]},
        {"token_endpoint_auth_methods_supported": ["private_key_jwt"]},
        {"token_endpoint_auth_methods_supported": 7},
    ],
    ids=str,
)
def test_a_description_that_cannot_be_trusted_is_not_used(browser, provider, wrong):
    provider.described = wrong
    assert browser.get("/login/provider").status_code == 503


@pytest.mark.parametrize(
    "keys", [{}, {"keys": []}, {"keys": 5}, {"keys": [{"kty": "RSA"}]}, {"keys": [{"kty": "oct", "k": "AA"}]}]
)
def test_keys_that_cannot_be_used_verify_nothing(browser, provider, keys):
    provider.answers = {"/jwks": lambda handler: handler.say(200, keys)}
    not_signed_in(browser, signed_in(browser), "provider_unavailable", 503)


def test_a_key_that_cannot_be_used_does_not_spoil_the_others(browser, provider):
    odd = [5, {"kty": "new"}, {"kty": "RSA", "n": "!", "e": "AQAB"}, {"kty": "EC", "crv": "P-1", "x": "AA", "y": "AA"}]
    right = provider.key.as_dict(private=False)
    provider.answers = {"/jwks": lambda handler: handler.say(200, {"keys": [*odd, right]})}
    assert signed_in(browser).status_code == 200


def test_a_wrong_client_secret_is_the_operators_matter(at, browser, provider, monkeypatch):
    monkeypatch.setattr(at.app.state.service.provider, "_client_secret", "wrong")
    with capture_logs() as logged:
        assert signed_in(browser).status_code == 503
    assert [each["cause"] for each in logged if each["event"] == "provider_unavailable"] == ["invalid_client"]


def test_one_network_has_at_most_half_of_the_exchanges(at, browser, provider, monkeypatch):
    monkeypatch.setattr(sign_in, "EXCHANGE_WAIT_S", 0.05)
    exchanges = at.app.state.service.provider._exchanges
    callback = back_from(to_provider(browser))
    for _ in range(sign_in.EXCHANGES_AT_ONCE // 2):
        exchanges._shares.take("127.0.0.1")
    try:
        assert browser.get(callback).status_code == 503
    finally:
        for _ in range(sign_in.EXCHANGES_AT_ONCE // 2):
            exchanges.give("127.0.0.1")
    assert browser.get(callback).status_code == 200, "what was begun is still there"


def test_too_many_refused_sign_ins_are_told_so_and_a_right_one_is_not(at, browser, provider, hardly_forgiven):
    before = told(at)
    for _ in range(WRONG_AT_ONCE):
        assert browser.get(CALLBACK).status_code == 403
    limited = browser.get(CALLBACK)
    assert (limited.status_code, int(limited.headers["retry-after"]) > 0) == (429, True)
    assert signed_in(browser).status_code == 200
    after = told(at)
    assert after["sangloc_wrong_keys_total", "limited"] >= before.get(("sangloc_wrong_keys_total", "limited"), 0) + 1
    refused = ("sangloc_sign_ins_total", "not_begun", "provider")
    assert after[refused] - before.get(refused, 0) == WRONG_AT_ONCE + 1
    assert after["sangloc_sign_ins_total", "opened", "provider"] > 0


# ---------------------------------------------------------------------- persons of the provider among the keys
def test_an_admin_sees_such_a_person_revokes_and_readmits_them(at, browser, provider):
    provider.person = {**DOCTOR, "sub": "u-9", "name": "BS. Thu Hồi"}
    signed_in(browser)
    with at.client(**{"Accept-Language": "en"}) as admin:
        (row,) = (each for each in admin.get("/v1/keys").json()["items"] if each["label"] == "BS. Thu Hồi")
        page = admin.get("/keys").text
        assert "signs in by the provider" in page
        assert f"/keys/{row['id']}/revoke" in page
        assert f"/keys/{row['id']}/rotate" not in page
        assert f"/keys/{row['id']}/name" not in page
        for path in (f"/v1/keys/{row['id']}/rotate", f"/keys/{row['id']}/rotate"):
            assert admin.post(path).status_code == 409
        assert admin.post(f"/keys/{row['id']}/name", data={"label": "x"}).status_code == 409
        assert admin.delete(f"/v1/keys/{row['id']}").status_code == 204
        assert browser.get("/worklist").status_code == 303
        browser.cookies.clear()
        not_signed_in(browser, signed_in(browser), "revoked")
        assert f"/keys/{row['id']}/readmit" in admin.get("/keys").text
        assert admin.post(f"/keys/{row['id']}/readmit").status_code == 303
        assert admin.post(f"/v1/keys/{row['id']}/readmit").status_code == 404
    assert signed_in(browser).status_code == 200
    assert browser.get("/worklist").status_code == 200


def test_a_revoked_secret_is_not_readmitted(at, provider):
    with at.client() as admin:
        made = admin.post("/v1/keys", json={"role": "site", "site": "xa"}).json()
        assert admin.delete(f"/v1/keys/{made['id']}").status_code == 204
        assert admin.post(f"/v1/keys/{made['id']}/readmit").status_code == 404
        assert admin.get("/v1/visits", headers={"Authorization": f"Bearer {made['key']}"}).status_code == 401


def test_what_stands_for_the_secret_of_a_person_opens_nothing(at, browser):
    signed_in(browser)
    stored = hash_of_person(at.provider.issuer, "u-1")
    for secret in (stored, stored.removeprefix("provider:"), f"{at.provider.issuer}\nu-1".replace("\n", " ")):
        with at.client(secret) as thief:
            assert thief.get("/v1/visits").status_code == 401


# ---------------------------------------------------------------------- the login and the way out
def test_the_login_offers_both_and_the_way_out_ends_both(at, browser, provider):
    login = browser.get("/login?next=%2Fquestions").text
    assert 'href="/login/provider?next=/questions"' in login
    assert 'name="key"' in login
    signed_in(browser)
    out = browser.post("/logout", headers=HERE)
    assert out.headers["location"] == "/login?ended=provider"
    shown = browser.get("/login?ended=provider").text
    ending = re.search(rf'href="({re.escape(provider.issuer)}/end\?client_id=[^"]+)"', shown)
    assert httpx.get(ending[1]).status_code == 200
    with at.client(at.key("site", "xa")) as client:
        key = at.key("site", "xa")
        del client.headers["Authorization"]
        client.post("/login", data={"key": key}, headers=HERE)
        assert client.post("/logout", headers=HERE).headers["location"] == "/login"


def test_a_service_without_a_provider_has_no_such_login(served):
    with served.client(**{"Accept": "text/html"}) as client:
        del client.headers["Authorization"]
        assert "provider" not in client.get("/login").text
        assert client.get("/login/provider").status_code == 404
        assert client.get(CALLBACK).status_code == 404


def test_no_log_names_the_person_or_a_secret(at, browser, provider):
    provider.person = {**DOCTOR, "sub": "SUBJECT-77", "name": "NAME-77", "employee_id": "ID-77"}
    with capture_logs() as logged:
        callback = back_from(to_provider(browser, next="/visits/NEXT-77"))
        browser.get(callback)
        provider.claims = {"groups": ["GROUP-77"]}
        signed_in(browser)
    said = str(logged)
    assert "sign_in_refused" in said
    assert "-77" not in said
    query = dict(parse_qsl(urlsplit(callback).query))
    assert query["code"] not in said
    assert query["state"] not in said
    assert CLIENT_SECRET not in said
