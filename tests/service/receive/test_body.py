"""Visits posted as one file: stored with the same limits, and with the same findings, as a posted form."""

from __future__ import annotations

import base64
import io
import json
import socket
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_specs.dicom.reference import is_waveform
from data_specs.ecg.posted import MAX_ZIP_MEMBERS
from service.receive.body import KINDS
from service.receive.posted import ACCEPTED
from tests.conftest import ROOT
from tests.service.serving import ADMIN, visit_files

SAMPLES = ROOT / "samples"
CONTEXT = {"person": {"id": "P-1", "age_years": 54}, "labs": [{"name": "creatinine", "value": 88, "unit": "umol/L"}]}


def packed(context, *, url_safe=False):
    encode = base64.urlsafe_b64encode if url_safe else base64.b64encode
    return encode(json.dumps(context, ensure_ascii=False).encode()).decode()


def zipped(files, **options):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return made.getvalue()


def png():
    made = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(made, "PNG")
    return made.getvalue()


PNG = png()
ECG = [(name, (SAMPLES / name).read_bytes()) for name in ("E07517.hea", "E07517.mat")]
WAVEFORM = (SAMPLES / "recording.dcm").read_bytes()


def post(client, content, kind, **headers):
    return client.post("/v1/visits", content=content, headers={"Content-Type": kind, **headers})


def inputs(response):
    assert response.status_code == 201, response.text
    return [(each["field"], each["filename"]) for each in response.json()["inputs"]]


# ---------------------------------------------------------------- intake
def test_a_refusal_names_all_accepted_content_types(client):
    assert {"multipart/form-data", *KINDS} == set(ACCEPTED.split(", "))
    described = client.get("/openapi.json").json()["paths"]["/v1/visits"]["post"]["requestBody"]["content"]
    assert set(described) == {"multipart/form-data", *KINDS}
    refused = post(client, b"x", "application/pdf")
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")
    assert "image/png" in refused.json()["detail"]
    assert post(client, b"x", "image/png", **{"Content-Encoding": "gzip"}).status_code == 415


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_body_is_stored_byte_for_byte(client, kind):
    content = np.random.default_rng(0).bytes(700_000)  # more than one piece
    response = post(client, content, f"{kind}; x=y")
    field = "ecg" if kind == "application/zip" else "image"
    assert inputs(response) == [(field, f"{field}-0")]
    assert client.get(f"{response.headers['location']}/inputs/0").content == content
    assert inputs(post(client, b"", kind)) == [(field, f"{field}-0")]


def test_a_dicom_file_with_waveforms_is_a_recording(client):
    assert is_waveform(WAVEFORM[:1024])
    assert inputs(post(client, WAVEFORM, "application/dicom")) == [("ecg", "ecg-0")]


@pytest.mark.parametrize("url_safe", [False, True])
def test_context_in_a_header(client, url_safe):
    context = {**CONTEXT, "referrer": {"id": "D-1", "name": "Bác sĩ Nguyễn ÿ>?"}}
    response = post(client, PNG, "image/png", **{"Sangloc-Context": packed(context, url_safe=url_safe).rstrip("=")})
    assert inputs(response) == [("image", "image-0")]
    assert response.json()["person"]["age_years"] == 54


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("", "Sangloc-Context"),
        ("é", "Sangloc-Context"),
        ("{}", "Sangloc-Context"),
        ("a b", "Sangloc-Context"),
        ("A", "Sangloc-Context"),
        (base64.b64encode(b"{").decode(), "context"),
        (base64.b64encode(b"\xff").decode(), "context"),
        (packed({"person": {"age_years": 500}}), "context.person.age_years"),
    ],
)
def test_a_context_that_cannot_be_used(client, given, field):
    response = post(client, PNG, "image/png", **{"Sangloc-Context": given.encode("latin-1")})
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["field"] == field


def test_the_header_may_come_with_a_form_but_not_with_a_second_context(client):
    header = {"Sangloc-Context": packed(CONTEXT)}
    response = client.post("/v1/visits", files=visit_files(), headers=header)
    assert response.json()["person"]["id"] == "P-1"
    response = client.post("/v1/visits", files=visit_files(**CONTEXT), headers=header)
    assert (response.status_code, response.json()["errors"][0]["code"]) == (422, "field_repeated")


def test_idempotency_and_prefer(client):
    header = {"Idempotency-Key": "raw-1", "Sangloc-Context": packed(CONTEXT)}
    first = post(client, PNG, "image/png", **header)
    assert post(client, PNG, "image/png", **header).json() == first.json()
    assert post(client, PNG + b"x", "image/png", **header).status_code == 409
    other = {**header, "Sangloc-Context": packed({})}
    assert post(client, PNG, "image/png", **other).status_code == 409
    later = post(client, b"SLOW 0.3", "image/png", Prefer="respond-async")
    assert (later.status_code, later.headers["preference-applied"]) == (202, "respond-async")


def test_too_large_a_body_and_an_unknown_key_leave_no_draft(served, client):
    assert post(client, b"x" * 2_000_001, "image/png").status_code == 413
    head = f"POST /v1/visits HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\nContent-Type: image/png\r\n"
    chunk = b"%x\r\n" % 100_000 + b"x" * 100_000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=15) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 25)
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")
    with served.client(key="nonsense") as stranger:
        assert post(stranger, PNG, "image/png").status_code == 401
    assert list(served.app.state.service.store.drafts.iterdir()) == []


# ---------------------------------------------------------------- zip
def test_a_zip_of_recordings_is_one_input_as_in_multipart(client):
    assert inputs(post(client, zipped(ECG), "application/zip")) == [("ecg", "ecg-0")]


def test_a_zip_with_films_is_unpacked(client):
    files = [("films/a.png", PNG), ("__MACOSX/films/a.png", b"x"), ("films/", b""), ("b.dcm", WAVEFORM), *ECG]
    files += [("README.md", b"# \x00 none of them"), ("report.pdf", b"%PDF-1.7")]
    response = post(client, zipped(files), "application/zip")
    named = [("image", "a.png"), ("ecg", "b.dcm"), ("ecg", "E07517.hea"), ("ecg", "E07517.mat")]
    assert inputs(response) == named
    assert client.get(f"{response.headers['location']}/inputs/3").content == ECG[1][1]


@pytest.mark.parametrize(
    ("files", "field", "code"),
    [
        ([(f"{i}.png", PNG) for i in range(9)], "image", "field_too_many"),
        ([("a.png", PNG), *((f"{i}.hea", ECG[0][1]) for i in range(17))], "ecg", "field_too_many"),
        ([("a.png", PNG), ("x/E.hea", ECG[0][1]), ("y/e.HEA", ECG[0][1])], "ecg", "field_repeated"),
    ],
)
def test_a_zip_may_hold_no_more_files_than_a_visit(client, files, field, code):
    response = post(client, zipped(files), "application/zip")
    assert response.status_code == 422, response.text
    assert (response.json()["errors"][0]["field"], response.json()["errors"][0]["code"]) == (field, code)


def test_a_zip_out_of_bounds_is_kept_as_it_came(client):
    many = zipped([(f"{i}.png", PNG) for i in range(MAX_ZIP_MEMBERS + 1)])
    bomb = zipped([("a.png", PNG), ("b.png", b"\0" * (20 << 20))])
    for content in (many, bomb, zipped([("a.png", PNG)])[:-30], b"PK\x03\x04"):
        assert inputs(post(client, content, "application/zip")) == [("ecg", "ecg-0")]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_damaged_zip_is_answered_below_500(served, data):
    content = bytearray(zipped([("a.png", PNG), *ECG[:1]]))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with served.client(Prefer="respond-async") as client:
        response = post(client, bytes(content[: data.draw(st.integers(0, len(content)))]), "application/zip")
    assert response.status_code in (202, 422), response.text


# ---------------------------------------------------------------- the same findings
def test_a_posted_file_and_a_form_give_the_same_findings(real):
    """The real server with the bundles that ship: a film, an ECG in DICOM, a zip of a recording, a zip of both."""
    film = (SAMPLES / "film-abnormal.jpg").read_bytes()
    both = [("film-abnormal.jpg", film), *ECG]
    cases = [
        ("image/jpeg", film, [("image", ("f", film))]),
        ("application/dicom", WAVEFORM, [("ecg", ("f", WAVEFORM))]),
        ("application/zip", zipped(ECG), [("ecg", ("f", zipped(ECG)))]),
        ("application/zip", zipped(both), [("image", both[0]), *(("ecg", each) for each in both[1:])]),
    ]
    with real.client(Prefer="wait=100") as client:
        client.timeout = 110
        for kind, content, files in cases:  # the recordings state age and sex themselves
            context = {"person": {"age_years": 54, "sex": "female"}} if kind == "image/jpeg" else {}
            raw = post(client, content, kind, **{"Sangloc-Context": packed(context)})
            multipart = client.post("/v1/visits", files=[*files, ("context", (None, json.dumps(context)))])
            assert (raw.status_code, multipart.status_code) == (201, 201), raw.text
            found, expected = (without_places(each.json()) for each in (raw, multipart))
            assert found["organs"] == expected["organs"]
            assert found["priority"] == expected["priority"]
            assert any(each["findings"] for each in found["organs"].values()), (kind, found)
            assert [each["sha256"] for each in found["inputs"]] == [each["sha256"] for each in expected["inputs"]]
            assert all(each["accepted"] for each in found["inputs"])


def without_places(visit):
    """The visit without its id, which the addresses of its evidence hold."""
    return json.loads(json.dumps(visit).replace(visit["id"], "ID"))
