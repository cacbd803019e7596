"""The manifests: valid by Kubernetes' own schemas, and what the service, its unit and its image say elsewhere."""

from __future__ import annotations

import re

import kubernetes_validate
import pytest
import yaml

from service.api.operations import PROBE_S
from service.metrics import Metrics
from service.settings import PREFIX, Settings, read_settings
from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
VERSION = "1.30"
OBJECTS = list(yaml.safe_load_all((FOLDER / "sangloc.yaml").read_text("utf-8")))
(JOB,) = yaml.safe_load_all((FOLDER / "upgrade.yaml").read_text("utf-8"))


def of_kind(kind):
    (found,) = (each for each in OBJECTS if each["kind"] == kind)
    return found


POD = of_kind("Deployment")["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


@pytest.mark.parametrize("manifest", [*OBJECTS, JOB], ids=lambda each: each["kind"])
@pytest.mark.parametrize("version", [VERSION, kubernetes_validate.latest_version()])
def test_kubernetes_knows_every_line(manifest, version):
    kubernetes_validate.validate(manifest, version, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**manifest, "noSuchLine": "yes"}, version, strict=True)


def test_the_parts_mean_each_other():
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert of_kind(kind)["spec"]["selector"]["matchLabels"] == labels
    assert of_kind("Service")["spec"]["selector"] == labels
    assert POD["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"] == labels
    assert {each["metadata"].get("namespace") for each in (*OBJECTS, JOB) if each["kind"] != "Namespace"} == {
        of_kind("Namespace")["metadata"]["name"]
    }
    scaled = of_kind("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", of_kind("Deployment")["metadata"]["name"])
    assert CONTAINER["envFrom"] == [
        {f"{kind[0].lower()}{kind[1:]}Ref": {"name": of_kind(kind)["metadata"]["name"]}}
        for kind in ("ConfigMap", "Secret")
    ]
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {volume["name"] for volume in POD["volumes"]}
    (port,) = CONTAINER["ports"]
    assert of_kind("Service")["spec"]["ports"][0]["targetPort"] == port["name"]
    assert of_kind("NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"] == port["name"]
    assert all(CONTAINER[probe]["httpGet"]["port"] == port["name"] for probe in CONTAINER if probe.endswith("Probe"))
    assert (
        of_kind("HorizontalPodAutoscaler")["spec"]["minReplicas"]
        > of_kind("PodDisruptionBudget")["spec"]["minAvailable"]
    )


def test_the_settings_can_be_used(monkeypatch):
    given = {**of_kind("ConfigMap")["data"], **of_kind("Secret")["stringData"]}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = read_settings()
    assert settings.store.startswith("s3://")
    assert settings.database.startswith("postgresql+psycopg://")
    assert settings.port == CONTAINER["ports"][0]["containerPort"]
    # with service links, Kubernetes would set this one to 'tcp://…', for a Service named sangloc
    assert f"{of_kind('Service')['metadata']['name'].upper()}_" == PREFIX
    assert POD["enableServiceLinks"] is False


def test_the_times_fit_the_service_and_its_unit():
    unit = dict(re.findall(r"^(\w+)=(.+)$", (ROOT / "deploy/sangloc.service").read_text("utf-8"), re.MULTILINE))
    before_stop = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["terminationGracePeriodSeconds"] - before_stop >= int(unit["TimeoutStopSec"])
    assert int(unit["TimeoutStopSec"]) > 2 * Settings().drain_seconds

    def lasts(probe):
        return CONTAINER[probe]["periodSeconds"] * CONTAINER[probe]["failureThreshold"]

    assert lasts("startupProbe") == int(unit["TimeoutStartSec"])
    assert lasts("livenessProbe") == int(unit["WatchdogSec"])
    assert CONTAINER["livenessProbe"]["httpGet"]["path"] == "/healthz", "a database that is away would end the process"
    assert CONTAINER["readinessProbe"]["timeoutSeconds"] > PROBE_S


def test_the_pod_may_as_little_as_the_image_needs():
    image = (ROOT / "deploy/Containerfile").read_text("utf-8")
    user, group = map(int, re.search(r"^USER (\d+):(\d+)$", image, re.MULTILINE).groups())
    context = POD["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (user, group, group)
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["automountServiceAccountToken"] is False
    folders = {each["mountPath"] for each in CONTAINER["volumeMounts"]}
    assert re.search(rf"^ +{PREFIX}DATA_DIR=(\S+)$", image, re.MULTILINE)[1] in folders


def test_what_scales_and_what_is_scraped_are_what_the_service_tells():
    told = Metrics().exposition().decode()
    queue = of_kind("HorizontalPodAutoscaler")["spec"]["metrics"][0]["external"]["metric"]["name"]
    assert re.search(rf"^{queue} ", told, re.MULTILINE)
    (rule,) = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text("utf-8"))["rules"]["external"]
    namespace = of_kind("Namespace")["metadata"]["name"]
    assert rule["seriesQuery"] == f'{queue}{{namespace="{namespace}"}}'
    scraped = of_kind("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert scraped == {
        "prometheus.io/scrape": "true",
        "prometheus.io/path": "/metrics",
        "prometheus.io/port": str(CONTAINER["ports"][0]["containerPort"]),
    }


def test_only_the_ingress_and_prometheus_come_in():
    policy = of_kind("NetworkPolicy")["spec"]
    assert (policy["podSelector"], set(policy["policyTypes"])) == ({}, {"Ingress", "Egress"})
    (incoming,) = policy["ingress"]
    assert all(set(each) == {"namespaceSelector"} for each in incoming["from"])
    assert all(rule.get("to") and rule.get("ports") for rule in policy["egress"]), "a rule without them lets all out"


def test_the_job_upgrades_what_the_pods_serve():
    pod = JOB["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"] == ["python", "-m", "service.upgrade", "run"]
    assert " ".join(container["args"]) in (ROOT / "docs/how-to/upgrade.md").read_text("utf-8")
    assert "command" not in container, "it would replace the first process of the image"
    for name in ("image", "envFrom", "securityContext", "volumeMounts"):
        assert container[name] == CONTAINER[name], name
    for name in ("securityContext", "enableServiceLinks", "automountServiceAccountToken"):
        assert pod[name] == POD[name], name
    assert JOB["spec"]["template"]["metadata"]["labels"] != of_kind("Service")["spec"]["selector"]
    assert (pod["restartPolicy"], JOB["spec"]["backoffLimit"]) == ("Never", 0)
