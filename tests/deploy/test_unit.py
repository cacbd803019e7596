"""The unit of systemd: each line is known to it, fits the service, and is what the documents say."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from inference.readers.fence import CALLS
from service.run import FILES, MAX_CONNECTIONS
from service.settings import PREFIX, Settings, read_settings
from service.storage.database import BUSY_TIMEOUT_MS
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(
    ANALYZE is None, reason="systemd-analyze is not installed: systemd reads no unit here"
)
STARTED = ("prctl", "memfd_create", "setpriority", "socketpair", "clone", "clone3", "vfork", "execve", "wait4", "kill")
"""What the service itself calls to start readers, share memory with them and end them."""


def lines(name):
    """The assignments of a unit, in their order."""
    text = (DEPLOY / name).read_text("utf-8")
    return [tuple(line.split("=", 1)) for line in text.splitlines() if "=" in line and line[0] not in "#["]


@pytest.fixture
def unit():
    return dict(lines("sangloc.service"))


def run(*arguments):
    done = subprocess.run([ANALYZE, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def installed(tmp_path):
    """The unit with the GPU's lines, its paths set to this checkout."""
    unit = tmp_path / "sangloc.service"
    text = (DEPLOY / "sangloc.service").read_text("utf-8")
    python = "/opt/sangloc/.venv/bin/python"
    assert text.count(python) == 1
    unit.write_text(text.replace(python, shutil.which("env")).replace("/opt/sangloc", str(ROOT)), "utf-8")
    more = tmp_path / "sangloc.service.d"
    more.mkdir()
    shutil.copy(DEPLOY / "gpu.conf", more)
    return unit


@needs_systemd
def test_systemd_knows_every_line(installed):
    code, out, said = run("verify", installed)
    assert (code, out + said) == (0, "")
    with installed.open("a", encoding="utf-8") as file:
        file.write("\n[Service]\nNoSuchLine=yes\n")
    assert "NoSuchLine" in run("verify", installed)[2], "systemd-analyze says nothing of lines that it does not know"


@needs_systemd
def test_little_is_left_exposed(installed):
    shutil.rmtree(f"{installed}.d")
    code, out, _ = run("security", "--offline=true", "--threshold=20", "--no-pager", installed)
    if "Unknown" in out or not out:
        pytest.skip("this systemd-analyze does not look at files")
    assert code == 0, out


@needs_systemd
def test_what_the_service_and_its_readers_call_is_allowed(unit):
    assert unit["SystemCallFilter"] == "@system-service"
    sets = {}
    for line in run("syscall-filter", "--no-pager")[1].splitlines():
        if line.startswith("@"):
            members = sets.setdefault(line.strip(), [])
        elif line.startswith(" ") and not line.strip().startswith("#"):
            members.append(line.strip())

    def flat(name):
        return {call for each in sets[name] for call in (flat(each) if each.startswith("@") else {each})}

    assert {*CALLS, *STARTED} - flat("@system-service") == set()


def test_the_unit_fits_the_service(unit):
    assert (unit["Type"], unit["Restart"], unit["KillMode"]) == ("notify", "always", "mixed")
    assert int(unit["WatchdogSec"]) / 4 > BUSY_TIMEOUT_MS / 1000, "a busy database would be taken for a silent one"
    assert int(unit["TimeoutStopSec"]) > 2 * Settings().drain_seconds
    assert int(unit["LimitNOFILE"]) > MAX_CONNECTIONS + FILES
    assert (int(unit["LimitCORE"]), int(unit["UMask"], 8)) == (0, 0o077)
    assert ("Environment", f"{PREFIX}DATA_DIR=/var/lib/{unit['StateDirectory']}") in lines("sangloc.service")
    assert set(unit["RestrictAddressFamilies"].split()) == {"AF_UNIX", "AF_INET", "AF_INET6"}


def test_the_unit_is_what_the_document_says(unit):
    document = (ROOT / "docs/how-to/run-a-server.md").read_text("utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", document, re.MULTILINE))
    assert len(told) > 8
    assert told == {name: unit[name] for name in told}
    document += (ROOT / "docs/how-to/deploy.md").read_text("utf-8")
    for file in DEPLOY.iterdir():
        assert file.name == "__pycache__" or f"deploy/{file.name}" in document


def test_the_settings_file_has_settings_that_can_be_used(monkeypatch):
    text = (DEPLOY / "sangloc.env").read_text("utf-8")
    given = dict(re.findall(rf"^#?({PREFIX}\w+)=(.+)$", text, re.MULTILINE))
    assert len(given) > 5
    for name, value in {**given, "SANGLOC_UPSTREAM_KEY": "the-key-of-this-node"}.items():
        monkeypatch.setenv(name, value)
    assert read_settings().language == "vi"
    for name, value in lines("gpu.conf"):
        if name == "Environment":
            monkeypatch.setenv(*value.split("="))
    assert read_settings().device == "cuda"
