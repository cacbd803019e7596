"""A real Orthanc for the tests: started in a folder of its own, gone when the test is over.

::

    with orthanc(tmp_path / "orthanc", modalities={"sangloc": ("SANGLOC", port)}) as peer:
        instance = peer.add(film)                       # POST /instances
        peer.store("sangloc", instance)                 # C-STORE to us; raises where we answer with a failure
        peer.stow(f"http://127.0.0.1:{port}/dicomweb/", "Bearer …", instance)
        peer.find("Instance", SOPClassUID="1.2.840…")   # what it holds by now, as DICOM tags by keyword
        peer.file(instance)                             # its bytes
        peer.dicomweb                                   # address of its own DICOMweb; peer.auth for its user

Orthanc listens on every interface, whatever it is told. It therefore answers HTTP from this machine alone
(``RemoteAccessAllowed``) and to a password that is new each time, and DICOM to the AE titles of ``modalities`` from
127.0.0.1 alone; the ports are taken at random.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from benchmarks.serving import free_port

AE_TITLE = "ORTHANC"
PLUGINS = Path("/usr/share/orthanc/plugins")
EXECUTABLE = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
START_S = 30


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def orthanc(folder, *, modalities=None, dicomweb_servers=None, worklists=None, **options):
    """Start one, give an :class:`Orthanc`, end it.

    Parameters
    ----------
    modalities
        DICOM peers on 127.0.0.1 by a name of the test's own: ``{name: (ae_title, port)}``. A peer that only calls has
        any port. They may echo, store, find, move and get; everybody else is refused.
    dicomweb_servers
        Servers that it can send to: ``{name: (address, {"Authorization": "Bearer …"})}``.
    worklists
        Folder of ``.wl`` files that are answered as modality worklist.
    options
        Further members of its configuration.
    """
    if EXECUTABLE is None:
        pytest.skip("Orthanc is not installed: nothing is exchanged with it in this run")
    plugins = [PLUGINS / "libOrthancDicomWeb.so"]
    if worklists is not None:
        plugins.append(PLUGINS / "libModalityWorklists.so")
    if missing := [plugin.name for plugin in plugins if not plugin.exists()]:
        pytest.skip(f"Orthanc is installed without {missing[0]}: nothing is exchanged with it in this run")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    password = secrets.token_urlsafe(16)
    http_port, dicom_port = free_port(), free_port()
    allowed = {
        f"Allow{what}": True
        for what in ("Echo", "Find", "FindWorklist", "Get", "Move", "Store", "StorageCommitment", "Transcoding")
    }
    configuration = {
        "Name": "Orthanc of the tests",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(plugin) for plugin in plugins],
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {"tests": password},
        "SslEnabled": False,
        "HttpServerEnabled": True,
        "DicomServerEnabled": True,
        "DicomAet": AE_TITLE,
        "DicomPort": dicom_port,
        "DicomCheckCalledAet": True,
        "DicomCheckModalityHost": True,
        **{f"DicomAlwaysAllow{what}": False for what in ("Echo", "Store", "Find", "FindWorklist", "Get", "Move")},
        "DicomModalities": {
            name: {"AET": ae_title, "Host": "127.0.0.1", "Port": port, **allowed}
            for name, (ae_title, port) in (modalities or {}).items()
        },
        "DicomWeb": {
            "Enable": True,
            "Root": "/dicom-web/",
            "Ssl": False,
            "Servers": {
                name: {"Url": address, "HttpHeaders": headers}
                for name, (address, headers) in (dicomweb_servers or {}).items()
            },
        },
        "Worklists": {"Enable": worklists is not None, "Database": str(worklists or folder), "FilterIssuerAet": False},
        "DicomScuTimeout": 30,
        "HttpTimeout": 30,
        "StableAge": 1,
        "OverwriteInstances": False,
        **options,
    }
    file = folder / "orthanc.json"
    file.write_text(json.dumps(configuration))
    log = folder / "orthanc.log"
    with log.open("wb") as out:
        process = subprocess.Popen([EXECUTABLE, file], stdout=out, stderr=out, cwd=folder)
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{http_port}", auth=("tests", password), verify=False, trust_env=False, timeout=60
    )
    try:
        with client:
            _wait(client, process, log)
            yield Orthanc(client, http_port, dicom_port, password, log)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(15)


def _wait(client, process, log):
    end = time.monotonic() + START_S
    while True:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        with contextlib.suppress(httpx.TransportError):
            if client.get("/system").status_code == 200:
                return
        assert time.monotonic() < end, log.read_text(errors="replace")[-2000:]
        time.sleep(0.05)


class Orthanc:
    """A running one.

    Parameters
    ----------
    http
        A client of its REST interface.
    """

    ae_title = AE_TITLE

    def __init__(self, http, http_port, dicom_port, password, log):
        self.http = http
        self.http_port = http_port
        self.dicom_port = dicom_port
        self.auth = ("tests", password)
        self.dicomweb = f"http://127.0.0.1:{http_port}/dicom-web/"
        self._log = log

    def add(self, content):
        """Give it a DICOM file; its own id of the instance."""
        return _ok(self.http.post("/instances", content=content)).json()["ID"]

    def store(self, modality, *instances):
        """C-STORE to a peer of ``modalities``; its answer, or an AssertionError where the peer did not take it."""
        return _ok(self.http.post(f"/modalities/{modality}/store", json=list(instances))).json()

    def echo(self, modality):
        return self.http.post(f"/modalities/{modality}/echo", json={}).status_code == 200

    def stow(self, server, *instances):
        """STOW-RS to a server of ``dicomweb_servers``."""
        body = {"Resources": list(instances), "Synchronous": True}
        return _ok(self.http.post(f"/dicom-web/servers/{server}/stow", json=body)).json()

    def find(self, level="Instance", **query):
        """What it holds: one dictionary of main DICOM tags each, with ``ID``; ``level``: Patient … Instance."""
        body = {"Level": level, "Query": query, "Expand": True}
        found = _ok(self.http.post("/tools/find", json=body)).json()
        return [
            {**each.get("PatientMainDicomTags", {}), **each["MainDicomTags"], "ID": each["ID"], "orthanc": each}
            for each in found
        ]

    def tags(self, instance):
        return _ok(self.http.get(f"/instances/{instance}/simplified-tags")).json()

    def file(self, instance):
        return _ok(self.http.get(f"/instances/{instance}/file")).content

    def log(self):
        return self._log.read_text(errors="replace")


def _ok(answer):
    assert answer.status_code == 200, (answer.status_code, answer.text[:500])
    return answer
