"""Resumable uploads: an independent client, broken connections, killed servers, and the visit made of uploads."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import threading
import time
import zipfile
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import select, update

from service.receive import uploaded_visit, uploads
from service.storage.tables import UploadRow
from tests.service.page_fixture import made_film, made_recording
from tests.service.serving import ADMIN, serving, settings_for, until

TUS = {"Tus-Resumable": "1.0.0"}
PIECE = {**TUS, "Content-Type": "application/offset+octet-stream"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(settings_for(tmp_path_factory.mktemp("uploads"), max_upload_mb=2, idle_seconds=1)) as it:
        yield it


def begun(client, n_bytes, filename="film.png", **more):
    metadata = ",".join(
        f"{name} {b64encode(value.encode()).decode()}" for name, value in {"filename": filename, **more}.items()
    )
    answer = client.post("/v1/uploads", headers={**TUS, "Upload-Length": str(n_bytes), "Upload-Metadata": metadata})
    assert answer.status_code == 201, answer.text
    assert answer.headers["tus-resumable"] == "1.0.0"
    return answer.headers["location"]


def sent(client, content, filename="film.png", **more):
    """The id of a finished upload."""
    where = begun(client, len(content), filename, **more)
    answer = client.patch(where, headers={**PIECE, "Upload-Offset": "0"}, content=content)
    assert answer.status_code == 204, answer.text
    return where.rpartition("/")[2]


def offset(client, where):
    return int(client.head(where, headers=TUS).headers["upload-offset"])


def refused(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert answer.json()["code"] == code
    return answer


# ------------------------------------------------------------------ the protocol
def test_options_state_version_and_extensions(served):
    answer = httpx.options(f"{served.address}/v1/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-extension"] == "creation,expiration,termination"
    assert answer.headers["tus-max-size"] == "2000000"


def test_an_upload_in_two_pieces(served, client):
    where = begun(client, 10, "ngực.dcm", field="image")
    first = client.patch(where, headers={**PIECE, "Upload-Offset": "0"}, content=b"01234")
    assert (first.status_code, first.headers["upload-offset"], first.content) == (204, "5", b"")
    state = client.head(where, headers=TUS)
    assert state.status_code == 200
    assert (state.headers["upload-offset"], state.headers["upload-length"]) == ("5", "10")
    assert state.headers["cache-control"] == "no-store"
    assert state.headers["upload-metadata"] == f"filename {b64encode('ngực.dcm'.encode()).decode()},field aW1hZ2U="
    expires = datetime.strptime(state.headers["upload-expires"], "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    assert timedelta(hours=23) < expires - datetime.now(UTC) <= timedelta(hours=24)
    last = client.patch(where, headers={**PIECE, "Upload-Offset": "5"}, content=iter([b"56", b"789"]))
    assert (last.status_code, last.headers["upload-offset"]) == (204, "10")
    assert client.delete(where, headers=TUS).status_code == 204
    refused(client.head(where, headers=TUS) and client.get(where, headers=TUS), 404, "not_found")


def test_a_method_may_be_named_in_a_header(client):
    where = begun(client, 3)
    said = {**PIECE, "X-HTTP-Method-Override": "PATCH", "Upload-Offset": "0"}
    assert client.post(where, headers=said, content=b"abc").headers["upload-offset"] == "3"
    assert client.post(where, headers={**TUS, "X-HTTP-Method-Override": "DELETE"}).status_code == 204
    brew = client.post(where, headers={**TUS, "X-HTTP-Method-Override": "BREW"})
    refused(brew, 405, "method_not_allowed")
    assert brew.headers["allow"] == "DELETE, GET, HEAD, PATCH, POST"


@pytest.mark.parametrize(
    ("headers", "content", "status", "code"),
    [
        ({"Tus-Resumable": "0.2.2"}, b"x", 412, "tus_version"),
        ({"Upload-Offset": "4"}, b"x", 409, "upload_offset"),
        ({"Upload-Offset": "-1"}, b"x", 422, "invalid_request"),
        ({"Upload-Offset": "²"}, b"x", 422, "invalid_request"),
        ({"Upload-Offset": "9" * 40}, b"x", 422, "invalid_request"),
        ({"Content-Type": "application/octet-stream"}, b"x", 415, "unsupported_media_type"),
        ({}, b"x" * 11, 413, "body_too_large"),
        ({}, iter([b"x" * 6, b"x" * 6]), 413, "body_too_large"),
    ],
)
def test_a_refused_piece_changes_nothing(client, headers, content, status, code):
    where = begun(client, 10)
    given = {name: value.encode() for name, value in {**PIECE, "Upload-Offset": "0", **headers}.items()}
    answer = refused(client.patch(where, headers=given, content=content), status, code)
    assert (answer.headers.get("tus-version") == "1.0.0") == (status == 412)
    assert offset(client, where) == 0


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 422, "invalid_request"),
        ({"Upload-Length": "1.5"}, 422, "invalid_request"),
        ({"Upload-Defer-Length": "1"}, 422, "invalid_request"),
        ({"Upload-Length": "2000001"}, 413, "body_too_large"),
        ({"Upload-Length": "1", "Upload-Metadata": "filename !"}, 422, "invalid_request"),
        ({"Upload-Length": "1", "Upload-Metadata": "filename //79"}, 422, "invalid_request"),
        ({"Upload-Length": "1", "Upload-Metadata": "field aGVhcnQ="}, 422, "invalid_request"),
        ({"Upload-Length": "1", "Upload-Metadata": "x" * 5000}, 422, "invalid_request"),
    ],
)
def test_uploads_that_cannot_begin(client, headers, status, code):
    refused(client.post("/v1/uploads", headers={**TUS, **headers}), status, code)


def test_an_upload_is_seen_by_its_own_key_only(served, client):
    where = begun(client, 3)
    with served.client(served.key("site", "uploads-north")) as north:
        for answer in (
            north.get(where, headers=TUS),
            north.patch(where, headers={**PIECE, "Upload-Offset": "0"}, content=b"abc"),
            north.delete(where, headers=TUS),
        ):
            refused(answer, 404, "not_found")
        assert north.post("/v1/uploads/visit", json={"uploads": [where.rpartition("/")[2]]}).status_code == 404
    with served.client(served.key("doctor", "uploads-north", doctor_id="D")) as doctor:
        refused(doctor.post("/v1/uploads", headers={**TUS, "Upload-Length": "1"}), 403, "forbidden")
        assert doctor.post("/v1/uploads/visit", json={"uploads": []}).status_code == 403
    refused(httpx.post(f"{served.address}/v1/uploads", headers={**TUS, "Upload-Length": "1"}), 401, "unauthorised")
    for name in ("nonsense", "..%2f..%2fsangloc.db", "0" * 36):
        assert client.get(f"/v1/uploads/{name}", headers=TUS).status_code == 404


def test_the_number_of_open_uploads_of_a_key_is_limited(served, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_OPEN", 3)
    with served.client(served.key("site", "uploads-many")) as many:
        opened = [begun(many, 1) for _ in range(3)]
        answer = refused(many.post("/v1/uploads", headers={**TUS, "Upload-Length": "1"}), 429, "too_many_uploads")
        assert int(answer.headers["retry-after"]) >= 1
        many.delete(opened[0], headers=TUS)
        begun(many, 1)


def test_abandoned_uploads_are_removed(served, client):
    service = served.app.state.service
    where = begun(client, 3)
    upload_id = where.rpartition("/")[2]
    path = service.settings.data_dir / "uploads" / upload_id
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    with service.database.transaction(write=True) as session:
        session.execute(update(UploadRow).where(UploadRow.id == upload_id).values(expires_at=long_ago))
    refused(client.get(where, headers=TUS), 410, "upload_gone")
    os.utime(path, (time.time() - 25 * 3600,) * 2)
    begun(client, 1)
    assert not path.exists()
    with service.database.transaction() as session:
        assert session.scalars(select(UploadRow).where(UploadRow.id == upload_id)).first() is None


def test_an_upload_without_its_file_is_gone(served, client):
    where = begun(client, 3)
    (served.app.state.service.settings.data_dir / "uploads" / where.rpartition("/")[2]).unlink()
    refused(client.get(where, headers=TUS), 410, "upload_gone")
    refused(client.patch(where, headers={**PIECE, "Upload-Offset": "0"}, content=b"abc"), 410, "upload_gone")


# ------------------------------------------------------------------ bad links
def piece_on_the_wire(served, where, at, declared, content):
    """A PATCH whose connection ends, or falls silent, after ``content``."""
    wire = socket.create_connection(("127.0.0.1", served.port))
    head = {**PIECE, "Host": "x", "Authorization": f"Bearer {ADMIN}", "Upload-Offset": at, "Content-Length": declared}
    lines = [f"PATCH {where} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
    wire.sendall("\r\n".join(lines).encode() + content)
    return wire


def test_what_has_arrived_stays_when_the_connection_breaks(served, client):
    content = os.urandom(300_000)
    where = begun(client, len(content))
    with piece_on_the_wire(served, where, 0, len(content), content[:123_456]):
        pass
    until(lambda: offset(client, where) == 123_456, 5)
    answer = client.patch(where, headers={**PIECE, "Upload-Offset": "123456"}, content=content[123_456:])
    assert answer.headers["upload-offset"] == "300000"
    stored = served.app.state.service.settings.data_dir / "uploads" / where.rpartition("/")[2]
    assert stored.read_bytes() == content


def test_a_silent_connection_does_not_block_the_next_one(served, client):
    """The client comes back before the server has noticed: bytes of the two requests must not mix."""
    content = os.urandom(300_000)
    where = begun(client, len(content))
    with piece_on_the_wire(served, where, 0, len(content), content[:200_000]) as quiet:
        until(lambda: offset(client, where) > 200_000 - 65_536, 5)  # the rest is less than what is written at a time
        at = offset(client, where)
        answer = client.patch(where, headers={**PIECE, "Upload-Offset": str(at)}, content=content[at:])
        assert answer.headers["upload-offset"] == "300000"
        quiet.settimeout(10)
        assert quiet.recv(100).split()[1] in (b"409", b"408")
    stored = served.app.state.service.settings.data_dir / "uploads" / where.rpartition("/")[2]
    assert stored.read_bytes() == content


def test_a_slow_piece_is_refused_and_what_arrived_is_kept(served, client):
    where = begun(client, 100)
    with piece_on_the_wire(served, where, 0, 100, b"x" * 40) as slow:
        slow.settimeout(10)
        assert slow.recv(100).split()[1] == b"408"
    assert offset(client, where) == 40


def test_an_upload_goes_on_after_the_server_was_killed(new_process):
    tusclient = pytest.importorskip("tusclient.client", reason="tuspy is not installed: no independent client is tried")
    content = os.urandom(300_000)
    process = new_process().start()
    sender = tusclient.TusClient(f"{process.served.address}/v1/uploads", headers={"Authorization": f"Bearer {ADMIN}"})
    upload = sender.uploader(file_stream=io.BytesIO(content), chunk_size=70_000, metadata={"filename": "phim.png"})
    upload.upload_chunk()
    upload.upload_chunk()
    address = upload.url.replace(process.served.address, "")
    cut = piece_on_the_wire(process.served, address, 140_000, 60_000, content[140_000:150_000])
    process.kill()
    cut.close()

    process.start()
    sender = tusclient.TusClient(f"{process.served.address}/v1/uploads", headers={"Authorization": f"Bearer {ADMIN}"})
    again = sender.uploader(
        file_stream=io.BytesIO(content), chunk_size=70_000, url=f"{process.served.address}{address}"
    )
    assert 140_000 <= again.offset <= 150_000
    again.upload()
    with process.served.client() as client:
        visit = client.post("/v1/uploads/visit", json={"uploads": [address.rpartition("/")[2]]})
        assert visit.status_code == 201, visit.text
        assert [each["filename"] for each in visit.json()["inputs"]] == ["phim.png"]
        assert client.get(f"/v1/visits/{visit.json()['id']}/inputs/0").content == content


def test_an_upload_goes_on_at_another_machine(new_process, postgres, s3, tmp_path):
    """Two machines share a database and an object store, and nothing else; the first is killed while it receives."""
    shared = {"SANGLOC_STORE_URL": "s3://visits/two-machines", **s3.environment}
    url, content = postgres(), os.urandom(900_000)
    first, second = (new_process(tmp_path / name, database_url=url, **shared).start() for name in ("one", "two"))
    with first.served.client() as client:
        where = begun(client, len(content))
        answer = client.patch(where, headers={**PIECE, "Upload-Offset": "0"}, content=content[:300_000])
        assert answer.headers["upload-offset"] == "300000"
    with piece_on_the_wire(first.served, where, 300_000, 500_000, content[300_000:700_000]):
        with second.served.client() as client:
            until(lambda: offset(client, where) > 300_000, 10)
        first.kill()
    with second.served.client() as client:
        at = offset(client, where)
        assert 300_000 < at <= 700_000
        answer = client.patch(where, headers={**PIECE, "Upload-Offset": str(at)}, content=content[at:])
        assert answer.headers["upload-offset"] == "900000"
        upload_id = where.rpartition("/")[2]
        assert s3.names(f"two-machines/uploads/{upload_id}/")
        visit = client.post("/v1/uploads/visit", json={"uploads": [upload_id]})
        assert visit.status_code == 201, visit.text
        assert client.get(f"/v1/visits/{visit.json()['id']}/inputs/0").content == content
        assert s3.names(f"two-machines/uploads/{upload_id}/") == []


# ------------------------------------------------------------------ the visit
def zipped(*files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
    return out.getvalue()


def test_uploads_become_a_visit(served, client):
    head, signal = made_recording("nhịp")
    ids = [
        sent(client, made_film(), "ngực.png"),
        sent(client, head.content, head.filename, field="ecg"),
        sent(client, signal.content, signal.filename),
        sent(client, zipped(("a.png", made_film(64)), ("b.hea", b"b 12 500 1\n")), "both.zip"),
        sent(client, zipped(("c.hea", b"c 12 500 1\n")), "ecg.zip"),
    ]
    asked = {"uploads": ids, "context": {"person": {"id": "BN-7", "age_years": 61}}}
    headers = {"Idempotency-Key": "uploads-1"}
    first = client.post("/v1/uploads/visit", json=asked, headers=headers)
    assert first.status_code == 201, first.text
    visit = first.json()
    assert first.headers["location"] == f"/v1/visits/{visit['id']}"
    assert visit["person"]["age_years"] == 61
    assert [(each["field"], each["filename"]) for each in visit["inputs"]] == [
        ("image", "ngực.png"),
        ("ecg", "nhịp.hea"),
        ("ecg", "nhịp.dat"),
        ("image", "a.png"),
        ("ecg", "b.hea"),
        ("ecg", "ecg.zip"),
    ]
    assert client.get(f"/v1/visits/{visit['id']}/inputs/2").content == signal.content
    folder = served.app.state.service.settings.data_dir / "uploads"
    assert not any((folder / upload_id).exists() for upload_id in ids)

    assert client.post("/v1/uploads/visit", json=asked, headers=headers).json()["id"] == visit["id"]
    other = client.post("/v1/uploads/visit", json={"uploads": ids}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert client.post("/v1/uploads/visit", json=asked).status_code == 404  # the uploads are deleted


def test_the_answer_may_come_before_the_findings(client):
    made = client.post(
        "/v1/uploads/visit", json={"uploads": [sent(client, b"SLOW 0.5")]}, headers={"Prefer": "respond-async"}
    )
    assert (made.status_code, made.json()["status"]) == (202, "accepted")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "invalid_request"),
        (b"[" * 50_000, 422, "invalid_request"),
        (b"\xff", 422, "invalid_request"),
        (b"[]", 422, "invalid_request"),
        (b'{"uploads": "x"}', 422, "invalid_request"),
        (b'{"uploads": [1]}', 422, "invalid_request"),
        (b'{"uploads": [], "uploads": []}', 422, "invalid_request"),
        (b'{"uploads": [], "contexts": {}}', 422, "invalid_request"),
        (b'{"uploads": [], "context": []}', 422, "invalid_request"),
        (b'{"uploads": [], "context": ""}', 422, "invalid_request"),
        (b'{"uploads": [], "context": {"person": {"age_years": NaN}}}', 422, "invalid_request"),
        (b'{"uploads": [], "context": {"person": {"age_years": 200}}}', 422, "invalid_request"),
        (b'{"uploads": ["' + b"a" * 300_000 + b'"]}', 413, "body_too_large"),
        (json.dumps({"uploads": ["00000000-0000-0000-0000-000000000000"] * 25}).encode(), 422, "invalid_request"),
        (json.dumps({"uploads": ["00000000-0000-0000-0000-000000000000"] * 2}).encode(), 422, "invalid_request"),
        (json.dumps({"uploads": ["00000000-0000-0000-0000-000000000000"]}).encode(), 404, "not_found"),
    ],
)
def test_requests_that_make_no_visit(client, body, status, code):
    answer = client.post("/v1/uploads/visit", content=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_an_unfinished_upload_makes_no_visit_and_stays(client):
    where = begun(client, 10)
    client.patch(where, headers={**PIECE, "Upload-Offset": "0"}, content=b"1234")
    answer = client.post("/v1/uploads/visit", json={"uploads": [where.rpartition("/")[2]]})
    assert (answer.status_code, answer.json()["code"]) == (409, "upload_unfinished")
    assert offset(client, where) == 4


def test_a_visit_of_uploads_has_the_limits_of_any_visit(client):
    large = [sent(client, bytes(1_500_000), f"{n}.png") for n in range(2)]
    answer = client.post("/v1/uploads/visit", json={"uploads": large})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    films = [sent(client, b"\x89PNG\r\n\x1a\n", f"{n}.png") for n in range(9)]
    answer = client.post("/v1/uploads/visit", json={"uploads": films})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "field_too_many")


def test_several_requests_make_one_visit_of_an_upload(served, client):
    upload_id = sent(client, made_film(64))

    def post(_):
        with served.client() as another:
            return another.post("/v1/uploads/visit", json={"uploads": [upload_id]}).status_code

    with ThreadPoolExecutor(6) as pool:
        statuses = sorted(pool.map(post, range(6)))
    assert statuses[0] == 201
    assert set(statuses[1:]) <= {404, 410}


def test_repeated_requests_at_the_same_moment_get_the_visit_of_the_first(served, client, monkeypatch):
    """The uploads are deleted between the moment when a request looks for its first one and when it reads them."""
    upload_id = sent(client, made_film(64))
    both_have_looked, find = threading.Barrier(2), uploaded_visit.find_upload

    async def find_late(*arguments):
        await asyncio.to_thread(both_have_looked.wait, 10)
        if find_late.is_second:
            await asyncio.to_thread(made.wait, 10)
        find_late.is_second = True
        return await find(*arguments)

    find_late.is_second, made = False, threading.Event()
    monkeypatch.setattr(uploaded_visit, "find_upload", find_late)

    def post(_):
        with served.client() as another:
            answer = another.post(
                "/v1/uploads/visit", json={"uploads": [upload_id]}, headers={"Idempotency-Key": "twice at once"}
            )
        made.set()
        return answer

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(post, range(2)))
    assert [answer.status_code for answer in answers] == [201, 201], [answer.text for answer in answers]
    assert answers[0].json()["id"] == answers[1].json()["id"]


def test_names_and_ids_stay_out_of_the_log(new_process):
    process = new_process().start()
    with process.served.client() as client:
        upload_id = sent(client, made_film(64), "nguoi-duoc-kham.png")
        client.post("/v1/uploads/visit", json={"uploads": [upload_id], "context": {"person": {"id": "BN-SECRET"}}})
    process.stop()
    log = process.log.read_text("utf-8")
    assert "/v1/uploads/{upload_id}" in log
    assert not any(secret in log for secret in ("nguoi-duoc-kham", "BN-SECRET", upload_id))
