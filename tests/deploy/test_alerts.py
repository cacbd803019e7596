"""Rules, dashboard, metrics and the page of alerts hold together; Prometheus itself judges and runs the rules."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections import defaultdict

import httpx
import pytest
import yaml

from benchmarks.serving import free_port
from service.api.refusals import STATUS
from service.audit.actions import ACTIONS
from service.delivery.health_book.clock import WHY
from tests.conftest import ROOT
from tests.service.serving import serving, settings_for, until

FOLDER = ROOT / "deploy" / "prometheus"
RULES = yaml.safe_load((FOLDER / "rules.yml").read_text("utf-8"))["groups"][0]["rules"]
TRIED = yaml.safe_load((ROOT / "tests/deploy/rules.test.yml").read_text("utf-8"))["tests"]
PANELS = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))["panels"]
PAGE = (ROOT / "docs/reference/alerts.md").read_text("utf-8")
FOREIGN = {"up", "probe_ssl_earliest_cert_expiry"}
"""Of Prometheus itself, and of its blackbox exporter."""


def tool(name):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} (Debian: prometheus) is not installed: nothing is tried with it in this run")
    return found


def ran(*command, cwd=ROOT):
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def metrics_in(expression):
    """Names of metrics; those of a histogram without the ending."""
    named = re.findall(r"\b(?:sangloc_\w+|probe_\w+|up(?=\{))", expression)
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in named}


def test_every_metric_that_is_asked_for_exists():
    described = re.findall(
        r"^\| `(sangloc_\w+)`", (ROOT / "docs/reference/metrics.md").read_text("utf-8"), re.MULTILINE
    )
    asked = [rule["expr"] for rule in RULES]
    asked += [target["expr"] for panel in PANELS for target in panel["targets"]]
    assert all(map(metrics_in, asked))
    assert set().union(*map(metrics_in, asked)) - FOREIGN <= set(described)


def test_the_dashboard_shows_all_that_alerts_are_about():
    shown = {name for panel in PANELS for target in panel["targets"] for name in metrics_in(target["expr"])}
    assert {name for rule in RULES for name in metrics_in(rule["expr"])} - FOREIGN <= shown
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in PANELS}
    assert len(places) == len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_each_alert_has_its_section_that_says_what_to_do():
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
    assert set(sections) == {rule["alert"] for rule in RULES}
    for name, section in sections.items():
        assert re.findall(r"^- \*\*([\w ]+)\*\*", section, re.MULTILINE) == [
            "Means",
            "A doctor notices",
            "Look at",
            "Do",
        ], name
    assert {rule["labels"]["severity"] for rule in RULES} == {"critical", "warning"}


def test_what_the_page_tells_to_look_for_is_written_by_the_service():
    """In its log, its refusals, its audit log, or a label of its metrics."""
    source = "".join(path.read_text("utf-8") for path in (ROOT / "service").rglob("*.py"))
    logged = set(re.findall(r"log\.\w+\(\s*\"(\w+)\"", source))
    named = {word for word in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", PAGE) if not word.startswith("sangloc_")}
    assert len(named) > 10
    assert named - logged - {error.code for error in STATUS} - {*ACTIONS, *WHY} == set()


def test_each_alert_is_tried_when_it_has_to_come_and_when_not():
    came = defaultdict(set)
    for case in TRIED:
        for each in case["alert_rule_test"]:
            came[each["alertname"]].add(bool(each["exp_alerts"]))
    assert came == {rule["alert"]: {True, False} for rule in RULES}


def test_the_alerts_come_when_they_have_to_and_not_otherwise():
    code, said = ran(tool("promtool"), "test", "rules", "tests/deploy/rules.test.yml")
    assert code == 0, said


def test_prometheus_reads_rules_settings_and_what_the_panels_ask_for(tmp_path):
    promtool = tool("promtool")
    code, said = ran(promtool, "check", "config", FOLDER / "prometheus.yml")
    assert code == 0, said
    assert f"{len(RULES)} rules found" in said
    asked = [{"record": f"panel:{panel['id']}", "expr": each["expr"]} for panel in PANELS for each in panel["targets"]]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": asked}]}), "utf-8")
    code, said = ran(promtool, "check", "rules", "--lint=none", tmp_path / "panels.yml")
    assert code == 0, said


# ---------------------------------------------------------------- a real Prometheus beside a real server
@contextlib.contextmanager
def prometheus(folder, targets):
    """A Prometheus with the rules that ship, which asks every second; gives its address."""
    executable, port = tool("prometheus"), free_port()
    told = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
    told["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    told["scrape_configs"][0]["static_configs"][0]["targets"] = targets
    folder.mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(told), "utf-8")
    shutil.copy(FOLDER / "rules.yml", folder)
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen([executable, *options, f"--web.listen-address=127.0.0.1:{port}"], stderr=log) as process,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            until(lambda: _answers(f"{address}/-/ready"), 60)
            yield address
        finally:
            process.terminate()


def _answers(address):
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(address, verify=False).status_code == 200
    return False


def test_a_real_prometheus_gets_the_metrics_and_sees_a_process_that_is_away(tmp_path):
    away = f"127.0.0.1:{free_port()}"
    with (
        serving(settings_for(tmp_path / "data")) as served,
        prometheus(tmp_path / "prometheus", [f"127.0.0.1:{served.port}", away]) as address,
    ):

        def value(query):
            answer = httpx.get(f"{address}/api/v1/query", params={"query": query}, verify=False).json()
            return {each["metric"].get("instance"): float(each["value"][1]) for each in answer["data"]["result"]}

        def alerts():
            return httpx.get(f"{address}/api/v1/alerts", verify=False).json()["data"]["alerts"]

        until(lambda: value("sangloc_ready") == {f"127.0.0.1:{served.port}": 1}, 30)
        assert value("sangloc_visits_oldest_seconds") == {f"127.0.0.1:{served.port}": 0}

        def seen():
            return {(each["labels"]["alertname"], each["labels"].get("instance"), each["state"]) for each in alerts()}

        until(lambda: seen() == {("SanglocDown", away, "pending")}, 30)
        (group,) = httpx.get(f"{address}/api/v1/rules", verify=False).json()["data"]["groups"]
        assert {(rule["name"], rule["health"]) for rule in group["rules"]} == {(rule["alert"], "ok") for rule in RULES}
