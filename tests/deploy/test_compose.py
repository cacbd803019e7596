"""compose.yaml: valid by the specification's own models, and what proxy, image and service say elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

from service.settings import PREFIX, read_settings
from tests.conftest import ROOT
from tests.service.s3 import s3_server

FILE = ROOT / "deploy" / "compose.yaml"
SERVICES = yaml.safe_load(FILE.read_text("utf-8"))["services"]
NODES = ("node1", "node2")
ASKED = set(re.findall(r"\$\{(\w+):?", FILE.read_text("utf-8")))
"""Variables that the file leaves to the operator."""
FILLED = {
    name: "Asia/Ho_Chi_Minh" if name.endswith("ZONE") else "vi" if name.endswith("LANGUAGE") else "x" * 24
    for name in ASKED
}


def filled(text):
    return re.sub(r"\$\{(\w+)[^}]*\}", lambda found: FILLED[found[1]], str(text))


def test_the_file_of_variables_has_each_that_is_asked_for():
    text = (ROOT / "deploy/compose.env").read_text("utf-8")
    named = set(re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE))
    with_default = set(re.findall(r"\$\{(\w+):-", FILE.read_text("utf-8")))
    assert named <= ASKED
    assert ASKED - named <= with_default
    assert not re.search(r"^[A-Z_]+=.+", text, re.MULTILINE), "a password or an image that ships would be used"


def test_the_compose_specification_knows_it():
    models = pytest.importorskip("compose_spec", reason="compose-spec is not installed")
    content = yaml.safe_load(FILE.read_text("utf-8"))
    del content["x-node"]
    models.ComposeSpecification.model_validate(content)
    content["services"]["node1"]["restart"] = ["always"]
    with pytest.raises(ValueError, match="restart"):
        models.ComposeSpecification.model_validate(content)


def test_the_settings_can_be_used(monkeypatch):
    environment = SERVICES["node1"]["environment"]
    assert all(SERVICES[each]["environment"] == environment for each in NODES)
    for name, value in environment.items():
        monkeypatch.setenv(name, filled(value))
    settings = read_settings()
    assert (settings.store, settings.database[:21]) == ("s3://visits", "postgresql+psycopg://")


def test_proxy_nodes_and_prometheus_mean_each_other():
    proxy = SERVICES["proxy"]
    assert proxy["environment"]["UPSTREAMS"] == " ".join(f"{node}:8080" for node in NODES)
    told = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8"))
    assert told["scrape_configs"][0]["static_configs"][0]["targets"] == [f"{node}:8080" for node in NODES]
    for node in NODES:
        assert SERVICES[node]["environment"]["FORWARDED_ALLOW_IPS"] == proxy["networks"]["front"]["ipv4_address"]
    asked = set(re.findall(r"\{\$(\w+)", (ROOT / "deploy/Caddyfile").read_text("utf-8")))
    assert set(proxy["environment"]) <= asked


def test_the_service_may_as_little_as_it_needs_and_nobody_else_reaches_the_data():
    image = (ROOT / "deploy/Containerfile").read_text("utf-8")
    folder = re.search(rf"{PREFIX}DATA_DIR=(\S+)", image)[1]
    for node in NODES:
        made = SERVICES[node]
        assert (made["read_only"], made["cap_drop"], made["restart"]) == (True, ["ALL"], "always")
        assert made["security_opt"] == ["no-new-privileges:true"]
        assert made["volumes"] == [f"{node}:{folder}"]
        assert int(made["stop_grace_period"].rstrip("s")) >= 60
        assert "ports" not in made, "clients come by the proxy"
    assert {name for name, each in SERVICES.items() if "back" in each["networks"]} == {
        *NODES,
        "bucket",
        "postgres",
        "minio",
    }
    assert {name for name, each in SERVICES.items() if "ports" in each} == {"proxy", "prometheus"}
    assert SERVICES["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]


def test_the_bucket_is_made_once(monkeypatch):
    pytest.importorskip("s3fs", reason="the extra 's3' is not installed")
    program = SERVICES["bucket"]["command"]
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, *program[1:-1], program[-1].replace("visits", "others")],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
