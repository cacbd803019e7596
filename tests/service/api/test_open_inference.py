"""The Open Inference Protocol as its own client speaks it, against ``server.py`` and the bundles that ship."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import zlib

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.bundles.loading import load_bundles
from inference.bundles.registry import read_registry
from inference.runtime.session import Machine
from service.errors import QueueFull, ServiceError
from service.protocols.tensors import InputSpec, Tensors, read_request
from tests.conftest import ROOT
from tests.service.serving import ADMIN, real_server, serving, settings_for

triton = pytest.importorskip("tritonclient.http", reason="the extra 'test' is not installed: tritonclient is not tried")
from tritonclient.utils import InferenceServerException  # noqa: E402

IN_SERVICE = read_registry(ROOT / "models" / "bundles").in_service("lung")
KEY = {"Authorization": f"Bearer {ADMIN}"}
"""Copied for each call of the client, which adds headers of its own to what it is given."""
NAMES = ("cardiac", "cxr_gate", "kidney", "lung")
DATATYPE = {"uint8": "UINT8", "float32": "FP32"}


@pytest.fixture(scope="module")
def bundles():
    return load_bundles(ROOT / "models/bundles", Machine("cpu"))


@pytest.fixture(scope="module")
def client(real):
    with triton.InferenceServerClient(real.address.removeprefix("http://"), concurrency=4) as it:
        yield it


def golden(bundle, n=2):
    with np.load(bundle.folder / bundle.manifest.golden.path) as arrays:
        return np.resize(arrays["input"], (n, *arrays["input"].shape[1:]))


def tensor(rows, *, binary=True):
    made = triton.InferInput("input", list(rows.shape), DATATYPE[rows.dtype.name])
    made.set_data_from_numpy(rows, binary_data=binary)
    return made


def same(found, expected):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------- health and metadata
def test_health_and_metadata_need_no_key(client, bundles):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    index = client.get_model_repository_index()
    assert sorted((each["name"], each["state"]) for each in index) == [(name, "READY") for name in NAMES]
    for name in NAMES:
        bundle = bundles[name]
        version = bundle.manifest.version
        assert client.is_model_ready(name)
        assert client.is_model_ready(name, version)
        assert not client.is_model_ready(name, "9.9.9")
        metadata = client.get_model_metadata(name, version)
        assert (metadata["name"], metadata["versions"]) == (name, [version])
        rows = golden(bundle)
        expected = [{"name": "input", "datatype": DATATYPE[rows.dtype.name], "shape": [-1, *rows.shape[1:]]}]
        assert metadata["inputs"] == expected
        outputs = dict(zip(bundle.manifest.outputs, bundle.session.run(rows), strict=True))
        assert {each["name"]: each["shape"][1:] for each in metadata["outputs"]} == {
            output: list(values.shape[1:]) for output, values in outputs.items()
        }
    assert not client.is_model_ready("liver")


# ---------------------------------------------------------------- the numbers
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ways", ["binary", "json", "json in", "json out"])
def test_the_numbers_are_those_of_the_session(client, bundles, name, ways):
    bundle = bundles[name]
    rows = golden(bundle, 3)
    asked = [triton.InferRequestedOutput(each, binary_data="out" not in ways) for each in bundle.manifest.outputs]
    if ways == "json":
        asked = [triton.InferRequestedOutput(each, binary_data=False) for each in bundle.manifest.outputs]
    answer = client.infer(
        name,
        [tensor(rows, binary=ways in ("binary", "json out"))],
        outputs=None if ways == "binary" else asked,
        request_id="r-1",
        headers=dict(KEY),
    )
    head = answer.get_response()
    assert (head["model_name"], head["model_version"], head["id"]) == (name, bundle.manifest.version, "r-1")
    for output, expected in zip(bundle.manifest.outputs, bundle.session.run(rows), strict=True):
        same(answer.as_numpy(output), expected)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(client, bundles, algorithm):
    rows = golden(bundles["lung"])
    answer = client.infer("lung", [tensor(rows)], headers=dict(KEY), request_compression_algorithm=algorithm)
    same(answer.as_numpy("logits"), bundles["lung"].session.run(rows)[0])


def test_asynchronous_and_many_rows(client, bundles):
    rows = golden(bundles["cxr_gate"], 40)  # more than one piece
    expected = bundles["cxr_gate"].session.run(rows)
    waiting = [client.async_infer("cxr_gate", [tensor(rows)], headers=dict(KEY)) for _ in range(4)]
    for each in waiting:
        answer = each.get_result()
        for output, values in zip(bundles["cxr_gate"].manifest.outputs, expected, strict=True):
            same(answer.as_numpy(output), values)


def test_one_output_of_several(client, bundles):
    rows = golden(bundles["lung"])
    answer = client.infer("lung", [tensor(rows)], outputs=[triton.InferRequestedOutput("evidence")], headers=dict(KEY))
    assert [each["name"] for each in answer.get_response()["outputs"]] == ["evidence"]


def test_unknown_laboratory_values_are_nan_both_ways(client, bundles):
    rows = golden(bundles["kidney"], 4).copy()
    rows[1] = np.nan
    expected = bundles["kidney"].session.run(rows)[0]
    assert np.isnan(expected[1]).any()
    for binary in (True, False):
        outputs = [triton.InferRequestedOutput("values", binary_data=binary)]
        answer = client.infer("kidney", [tensor(rows, binary=binary)], outputs=outputs, headers=dict(KEY))
        same(answer.as_numpy("values"), expected)


# ---------------------------------------------------------------- who may
def test_a_site_may_infer_and_a_doctor_may_not(real, client, bundles):
    rows = golden(bundles["kidney"])
    site, doctor = real.key("site", "north"), real.key("doctor", "north", doctor_id="D-1")
    assert client.infer("kidney", [tensor(rows)], headers={"Authorization": f"Bearer {site}"}).as_numpy("values").any()
    for headers, status in (({}, "401"), ({"Authorization": f"Bearer {doctor}"}, "403")):
        with pytest.raises(InferenceServerException) as refused:
            client.infer("kidney", [tensor(rows)], headers=headers)
        assert refused.value.status() == status
        assert refused.value.message()


# ---------------------------------------------------------------- refusals
def body(**changed):
    one = {"name": "input", "datatype": "FP32", "shape": [1, 7], "data": [0.0] * 7}
    return json.dumps({"inputs": [{**one, **changed}]})


def refused(real, status, content, name="kidney", path="infer", **headers):
    answer = httpx.post(
        f"{real.address}/v2/models/{name}/{path}", content=content, headers={**KEY, **headers}, verify=False
    )
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"]
    return answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[]", "body"),
        (b"{}", "inputs"),
        (b'{"inputs": []}', "inputs"),
        (b'{"inputs": [1]}', "inputs.0"),
        (body(name="x"), "inputs.0.name"),
        (body(datatype="FP64"), "inputs.0.datatype"),
        (body(shape=[1, 8]), "inputs.0.shape"),
        (body(shape=[0, 7], data=[]), "inputs.0.shape"),
        (body(shape=[-1, 7]), "inputs.0.shape"),
        (body(shape=[True, 7]), "inputs.0.shape"),
        (body(shape=[10**18, 7]), "inputs.0.shape"),
        (body(shape="7"), "inputs.0.shape"),
        (body(data=[0.0] * 6), "inputs.0.data"),
        (body(data=["0"] * 7), "inputs.0.data"),
        (body(data=[None] * 7), "inputs.0.data"),
        (body(data=[[1, 2], [3]]), "inputs.0.data"),
        (body(data=[1e39] * 7), "inputs.0.data"),
        (body(data=[float("inf")] * 7), "inputs.0.data"),
        (body(data={}), "inputs.0.data"),
        (body(parameters={"binary_data_size": 28}), "binary_data_size"),
        (body(parameters={"shared_memory_region": "x"}), "shared_memory_region"),
        (body(parameters=[]), "inputs.0.parameters"),
        (b'{"id": 7, "inputs": []}', "id"),
        (b"[" * 100_000, "JSON"),
        (b"1" * 100_000, "JSON"),
    ],
)
def test_a_refusal_names_the_field(real, content, said):
    assert said in refused(real, 400, content)


def test_other_refusals(real):
    assert "128" in refused(real, 400, body(shape=[129, 7], data=[0] * 903))
    assert f"lung {IN_SERVICE}" in refused(real, 404, body(), name="liver")
    assert "9.9.9" in refused(real, 404, body(), path="versions/9.9.9/infer")
    refused(real, 404, b"", path="load")
    refused(real, 415, body(), **{"Content-Encoding": "br"})
    refused(real, 400, body(), **{"Content-Encoding": "gzip"})
    refused(real, 400, gzip.compress(body().encode())[:-9], **{"Content-Encoding": "gzip"})
    refused(real, 413, zlib.compress(b" " * 70_000_000), **{"Content-Encoding": "deflate"})
    refused(real, 413, b" " * 4_000_001)
    refused(real, 400, body(), **{"Inference-Header-Content-Length": "99999"})
    refused(real, 400, body(), **{"Inference-Header-Content-Length": "-1"})
    refused(real, 400, body() + "x", **{"Inference-Header-Content-Length": str(len(body()))})
    assert httpx.get(f"{real.address}/v2/models/kidney/infer", verify=False).json()["error"]
    for output in ({"name": "x"}, {"name": "values", "parameters": {"classification": 1}}, 1):
        refused(real, 400, json.dumps({**json.loads(body()), "outputs": [output]}))
    twice = [{"name": "values"}, {"name": "values"}]
    refused(real, 400, json.dumps({**json.loads(body()), "outputs": twice}))


def test_pixels_are_integers_from_0_to_255(real):
    shape = [1, 1, 64, 64]
    for value, said in ((256, "0 … 255"), (-1, "0 … 255"), (0.5, "uint8"), (True, "uint8")):
        data = [value] * 4096
        content = json.dumps({"inputs": [{"name": "input", "datatype": "UINT8", "shape": shape, "data": data}]})
        assert said in refused(real, 400, content, name="cxr_gate")


def test_a_body_that_declares_ten_gigabytes_is_refused_unread(real):
    head = f"POST /v2/models/lung/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\n"
    with socket.create_connection(("127.0.0.1", real.port), timeout=10) as connection:
        connection.sendall(f"{head}Content-Length: 10000000000\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


SPEC = InputSpec("input", "FP32", (2,))


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from(["input", "FP32", "x"]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["inputs", "outputs", "name", "shape", "datatype", "data", "parameters", "binary_data_size"]
                    ),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps(value).encode()),
        st.fixed_dictionaries(
            {
                "name": st.just("input"),
                "datatype": st.just("FP32"),
                "shape": st.lists(st.integers(-1, 5), max_size=3),
                "data": st.recursive(st.floats() | st.integers() | st.none(), st.lists, max_leaves=6),
            }
        ).map(lambda one: json.dumps({"inputs": [one]}).encode()),
    ),
    st.none() | st.integers(0, 300),
)
def test_any_bytes_are_read_or_refused(content, n_json):
    try:
        asked = read_request(memoryview(content), n_json, SPEC, ("logits",), 4)
    except ServiceError:
        return
    assert asked.rows.shape[1:] == (2,)
    assert np.isfinite(asked.rows).all()


# ---------------------------------------------------------------- overload
def test_the_number_of_requests_is_limited_and_each_place_is_freed():
    tensors = Tensors(max_rows=10, max_bytes=100)
    with tensors.hold_rows("a", 50), tensors.hold_bytes("a", 60):  # nothing was before it
        for hold, n in ((tensors.hold_rows, 1), (tensors.hold_bytes, 41)):
            for key in "ab":
                with pytest.raises(QueueFull), hold(key, n):
                    pass
        with tensors.hold_bytes("b", 40):
            pass
    assert (tensors.rows.free, tensors.n_bytes.free) == (10, 100)


def test_a_key_that_sends_slowly_leaves_bytes_for_the_others():
    tensors = Tensors(max_rows=10, max_bytes=100)
    with tensors.hold_bytes("a", 25), tensors.hold_bytes("a", 25):
        with pytest.raises(QueueFull), tensors.hold_bytes("a", 25):
            pass
        with tensors.hold_bytes("b", 25), tensors.hold_bytes("c", 25):
            pass


def test_overload_is_429_and_never_a_time_out(tmp_path, bundles):
    process = real_server(tmp_path, SANGLOC_MAX_QUEUE="32")
    rows = golden(bundles["lung"], 16)
    statuses = []

    def post():
        with triton.InferenceServerClient(process.served.address.removeprefix("http://")) as mine:
            try:
                mine.infer("lung", [tensor(rows)], headers=dict(KEY))
                statuses.append("200")
            except InferenceServerException as error:
                statuses.append(error.status())

    threads = [threading.Thread(target=post) for _ in range(12)]
    try:
        process.start(seconds=120)
        for each in threads:
            each.start()
        for each in threads:
            each.join(60)
        assert len(statuses) == 12
        assert set(statuses) == {"200", "429"}
        assert httpx.get(f"{process.served.address}/v2/health/ready", verify=False).status_code == 200
        metrics = httpx.get(f"{process.served.address}/metrics", verify=False).text
        assert 'route="/v2/models/{name}/infer",status="429"' in metrics
    finally:
        code = process.stop()
    assert code == 0


def test_a_starting_service_answers_in_the_form_of_the_protocol(tmp_path):
    with serving(settings_for(tmp_path)) as served, httpx.Client(base_url=served.address, verify=False) as asking:
        service = served.app.state.service
        engine, service.engine = service.engine, None
        answers = [asking.get(f"/v2/{path}") for path in ("health/ready", "models/lung", "models/lung/ready")]
        answers.append(asking.post("/v2/models/lung/infer", headers=dict(KEY), content=b"{}"))
        answers.append(asking.post("/v2/repository/index"))
        assert {each.status_code for each in answers} == {503}
        assert all(list(each.json()) == ["error"] for each in answers)
        assert asking.get("/v2/health/live").status_code == 200
        service.engine = engine


async def test_the_rows_of_a_client_that_left_are_not_computed():
    from service.api import open_inference

    class Left:
        async def receive(self):
            return {"type": "http.disconnect"}

    ended = asyncio.Event()

    async def long():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.set()
            raise

    with pytest.raises(open_inference.ClientDisconnect):
        await open_inference._unless_left(Left(), long())
    await asyncio.wait_for(ended.wait(), 5)
