"""compose.yaml: valid by the specification's own models, and what proxy, image and service say elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
import yaml
from compose_spec.models import ComposeSpecification

from service.run import FILES, MAX_CONNECTIONS
from service.settings import PREFIX, read_settings
from tests.conftest import ROOT

FILE = ROOT / "deploy" / "compose.yaml"
TEXT = FILE.read_text("utf-8")
CONTENT = yaml.safe_load(TEXT)
SERVICES = CONTENT["services"]
NODES = ("node1", "node2")
ASKED = set(re.findall(r"\$\{(\w+):?", TEXT))
"""Variables that the file leaves to the operator."""
GIVEN = {"SANGLOC_TIME_ZONE": "Asia/Ho_Chi_Minh", "SANGLOC_LANGUAGE": "vi", "SITE": "sangloc.example"}
FILLED = {name: GIVEN.get(name, "x" * 24) for name in ASKED}


def filled(text):
    return re.sub(r"\$\{(\w+)[^}]*\}", lambda found: FILLED[found[1]], str(text))


def test_the_compose_specification_knows_it():
    content = {name: value for name, value in CONTENT.items() if not name.startswith("x-")}
    ComposeSpecification.model_validate(content)
    wrong = {**content, "services": {**SERVICES, "node1": {**SERVICES["node1"], "restart": ["always"]}}}
    with pytest.raises(ValueError, match="restart"):
        ComposeSpecification.model_validate(wrong)


def test_names_of_images_and_passwords_are_asked_for_and_have_no_default():
    text = (ROOT / "deploy/compose.env").read_text("utf-8")
    named = set(re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE))
    with_default = set(re.findall(r"\$\{(\w+):-", TEXT))
    assert named <= ASKED
    assert ASKED - named <= with_default
    assert not re.search(r"^[A-Z_]+=.+", text, re.MULTILINE), "a password or an image that ships would be used"
    for service in SERVICES.values():
        assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:\?\}", service["image"])
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|KEY$|SECRET|DATABASE_URL", name) and name != "AWS_ACCESS_KEY_ID":
                assert re.search(r"\$\{\w+:\?\}", value), name


def test_the_settings_can_be_used(monkeypatch):
    environment = SERVICES["node1"]["environment"]
    assert all(SERVICES[each]["environment"] == environment for each in (*NODES, "bucket"))
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
    caddyfile = (ROOT / "deploy/Caddyfile").read_text("utf-8")
    assert set(proxy["environment"]) <= set(re.findall(r"\{\$(\w+)", caddyfile))
    assert SERVICES["node1"]["environment"][f"{PREFIX}CONNECTIONS_PER_ADDRESS"] in caddyfile
    for name, service in SERVICES.items():
        for source in re.findall(r"'(\./[^:]+):", str(service.get("volumes", ()))):
            assert (FILE.parent / source).exists(), (name, source)


def test_the_proxy_is_all_that_is_reached_and_nobody_but_the_service_reaches_the_data():
    assert {name for name, each in SERVICES.items() if "ports" in each} == {"proxy"}
    behind = {name for name, each in SERVICES.items() if "back" in each["networks"]}
    assert behind == {*NODES, "bucket", "postgres", "minio"}
    assert {name for name in behind if "front" in SERVICES[name]["networks"]} == set(NODES)
    assert CONTENT["networks"]["back"]["internal"] is True


@pytest.mark.parametrize("name", SERVICES)
def test_each_may_as_little_as_it_needs_and_says_whether_it_lives(name):
    service = SERVICES[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "proxy" else [])
    assert service["pids_limit"]
    assert service["ulimits"]["nofile"] > MAX_CONNECTIONS + FILES
    if name != "bucket":
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["restart"] == "always"


def test_the_nodes_have_their_folder_and_time_to_end():
    image = (ROOT / "deploy/Containerfile").read_text("utf-8")
    folder = re.search(rf"{PREFIX}DATA_DIR=(\S+)", image)[1]
    unit = dict(re.findall(r"^(\w+)=(.+)$", (ROOT / "deploy/sangloc.service").read_text("utf-8"), re.MULTILINE))
    for node in NODES:
        assert SERVICES[node]["volumes"] == [f"{node}:{folder}"]
        assert SERVICES[node]["stop_grace_period"] == f"{unit['TimeoutStopSec']}s"
        assert SERVICES[node]["healthcheck"]["start_period"] == f"{unit['TimeoutStartSec']}s"


def test_the_health_of_a_node_is_what_it_answers(new_process):
    process = new_process().start()
    _, _, *program = SERVICES["node1"]["healthcheck"]["test"]
    at = program[-1].replace("127.0.0.1:8080", process.served.address.removeprefix("http://"))
    assert at != program[-1]

    def asked():
        return subprocess.run([sys.executable, *program[:-1], at], stderr=subprocess.DEVNULL, check=False).returncode

    assert asked() == 0
    process.stop()
    assert asked() != 0


def test_the_bucket_is_made_once(monkeypatch, s3):
    program = SERVICES["bucket"]["command"]
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, *program[1:-1], program[-1].replace("visits", "others")],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_prometheus_reads_the_folder_that_it_is_given():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("prometheus is not installed: its configuration is not read here")
    (folder,) = (each.split(":")[0] for each in SERVICES["prometheus"]["volumes"] if "/etc/prometheus" in each)
    done = subprocess.run(
        [promtool, "check", "config", FILE.parent / folder / "prometheus.yml"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout
