"""``GET /metrics``: what the batchers have done, by the bundle in service; and the page that describes all metrics."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
from prometheus_client.parser import text_string_to_metric_families

from inference.engine import Engine
from inference.runtime.batcher import BatcherCounts
from inference.runtime.session import Machine
from models.registry import promote
from service.metrics import Metrics
from tests.conftest import ROOT
from tests.models.versions import shifted, shipped, version
from tests.readers import shared_readers
from tests.service.serving import serving, settings_for, until

SIGNED = {"who": "the screening lead", "why": "a test"}
FILM = ROOT / "samples" / "film-abnormal.jpg"
COUNTED = [f"sangloc_batcher_{field.name}_total" for field in fields(BatcherCounts)]


@pytest.fixture
def bundles(tmp_path):
    folder = tmp_path / "bundles"
    folder.mkdir()
    shipped(folder)
    promote(folder, "lung", "1.0.0", **SIGNED)
    version(folder, "lung", "1.1.0", shifted(-20.0))
    return folder


@pytest.fixture
def client(tmp_path, bundles):
    settings = settings_for(tmp_path / "data", bundles=bundles)
    with (
        serving(settings, Engine(bundles, Machine("cpu"), readers=shared_readers(), poll_s=0.05)) as server,
        server.client() as client,
    ):
        yield client


def post(client):
    answer = client.post("/v1/visits", files=[("image", (FILM.name, FILM.read_bytes()))])
    assert answer.status_code == 201, answer.text


def batchers(client):
    """``{(bundle, version): {metric: value}}``"""
    found = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name.startswith("sangloc_batcher_"):
                key = sample.labels["bundle"], sample.labels["version"]
                found.setdefault(key, {})[sample.name] = sample.value
    return found


def test_what_the_batchers_have_done_by_bundle_and_version(client, bundles):
    before = batchers(client)
    assert {name for name, _ in before} == {"lung", "cardiac", "kidney", "cxr_gate"}
    assert all(set(values) == {"sangloc_batcher_rows_waiting", *COUNTED} for values in before.values())
    post(client)
    lung = batchers(client)["lung", "1.0.0"]
    done = {name: lung[f"sangloc_batcher_{name}_total"] for name in ("requests", "batches", "rows", "failed", "left")}
    assert done == {"requests": 1, "batches": 1, "rows": 1, "failed": 0, "left": 0}
    assert lung["sangloc_batcher_run_seconds_total"] > 0
    assert lung["sangloc_batcher_queue_seconds_total"] > 0
    assert lung["sangloc_batcher_rows_waiting"] == 0

    promote(bundles, "lung", "1.1.0", **SIGNED, override="a test")
    until(lambda: ("lung", "1.1.0") in batchers(client), 10)
    assert ("lung", "1.0.0") not in batchers(client), "only what is in service has a batcher to count"
    post(client)
    assert batchers(client)["lung", "1.1.0"]["sangloc_batcher_rows_total"] == 1


def test_before_the_bundles_are_loaded_there_is_nothing_to_count():
    assert "sangloc_batcher_" not in Metrics().exposition().decode()


def test_how_often_readers_have_stopped():
    metrics = Metrics()
    metrics.add_readers(lambda: {"memory": 2, "crash": 1})
    told = metrics.exposition().decode()
    assert 'sangloc_reader_deaths_total{cause="memory"} 2.0' in told
    assert 'sangloc_reader_deaths_total{cause="crash"} 1.0' in told


def test_the_page_names_every_metric_and_no_other():
    page = (ROOT / "docs/reference/metrics.md").read_text("utf-8")
    described = set(re.findall(r"^\| `(sangloc_\w+)`", page, re.MULTILINE))
    families = text_string_to_metric_families(Metrics().exposition().decode())
    made = {f"{each.name}_total" if each.type == "counter" else each.name for each in families}
    assert described == made | {"sangloc_batcher_rows_waiting", "sangloc_reader_deaths_total", *COUNTED}
