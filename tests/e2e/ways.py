"""Every way in of a running server: as a form, a body, a zip, an upload; by C-STORE, STOW-RS and MLLP."""

from __future__ import annotations

import base64
import io
import json
import socket
import time
import zipfile
from collections.abc import Iterable
from typing import Any

import httpx
from pydicom import dcmread

from data_specs.dicom.header import quiet_pydicom
from tests.service.api.test_dicomweb import RELATED, related
from tests.service.receive.dicom.made import AE_TITLE, PEER, associate, raw_store
from tests.service.serving import Served, until

SITE = "district-7"
LATER = {"Prefer": "respond-async"}
Files = dict[str, bytes]
"""The files of one visit, by name."""


def is_dicom(content: bytes) -> bool:
    return content[128:132] == b"DICM"


def data_set(content: bytes) -> bytes:
    """A DICOM file without preamble and file meta information (PS3.10, section 7.1), byte for byte."""
    return content[144 + int.from_bytes(content[140:144], "little") :]


def zipped(files: Files) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


class Ways:
    """One site's ways into a server; each that posts gives the id of its visit."""

    def __init__(self, served: Served, dicom_port: int, hl7_port: int) -> None:
        self.served, self.dicom_port, self.hl7_port = served, dicom_port, hl7_port
        self.client: httpx.Client = served.client(served.key("site", SITE), **{"Accept-Language": "en"})

    def form(self, files: Files, field: str, context: dict[str, Any] | None = None, **body: Any) -> str:
        """``multipart/form-data``; ``body`` replaces it."""
        parts: list[Any] = [(field, each) for each in files.items()]
        if context:
            parts.append(("context", (None, json.dumps(context), "application/json")))
        return self._visit(self.client.post("/v1/visits", **(body or {"files": parts}), headers=LATER))

    def form_with_zip(self, files: Files, field: str) -> str:
        return self.form({"files.zip": zipped(files)}, field)

    def body(self, files: Files, _field: str) -> str:
        (content,) = files.values()
        return self._raw(content, "application/dicom")

    def zip(self, files: Files, _field: str) -> str:
        return self._raw(zipped(files), "application/zip")

    def upload(self, files: Files, _field: str) -> str:
        """Resumable uploads (tus 1.0.0), then a visit of them."""
        tus, ids = {"Tus-Resumable": "1.0.0"}, []
        for name, content in files.items():
            metadata = f"filename {base64.b64encode(name.encode()).decode()}"
            begun = self.client.post(
                "/v1/uploads", headers={**tus, "Upload-Length": str(len(content)), "Upload-Metadata": metadata}
            )
            where = begun.headers["location"]
            piece = {**tus, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
            assert self.client.patch(where, content=content, headers=piece).status_code == 204
            ids.append(where.rpartition("/")[2])
        return self._visit(self.client.post("/v1/uploads/visit", json={"uploads": ids}, headers=LATER))

    def c_store(self, contents: Iterable[bytes]) -> list[int]:
        """The status of each object. Its bytes are sent as they are; in the request DCMTK cuts its identifier."""
        statuses = []
        associations: dict[tuple[str, str], Any] = {}
        for content in contents:
            with quiet_pydicom():
                dataset = dcmread(io.BytesIO(content), stop_before_pixels=True)
            context = (dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
            if context not in associations:
                associations[context] = associate(self.dicom_port, contexts=[context], calling=PEER, called=AE_TITLE)
            stated = dataset.get("SOPInstanceUID", "")[:64]
            answer = raw_store(associations[context], dataset, stated=stated, content=data_set(content))
            statuses.append(answer.Status)
        for association in associations.values():
            association.release()
        return statuses

    def stow(self, contents: Iterable[bytes], body: bytes | None = None) -> int:
        headers = {"Content-Type": RELATED, "Accept": "application/dicom+json"}
        return self.client.post("/dicomweb/studies", content=body or related(*contents), headers=headers).status_code

    def mllp(self, message: bytes) -> str:
        """The acknowledgement code (MSA-1) of a message, with the place of what is wrong (ERR-2)."""
        with socket.create_connection(("127.0.0.1", self.hl7_port), 10) as connection:
            connection.sendall(b"\x0b" + message + b"\x1c\r")
            answer = b""
            while not answer.endswith(b"\x1c\r"):
                answer += connection.recv(4096)
        segments = {line[:3]: line.split("|") for line in answer.decode().strip("\x0b\x1c\r").split("\r")}
        return " ".join((segments["MSA"][1], *segments.get("ERR", [])[2:3]))

    def visits(self, n: int) -> list[dict[str, Any]]:
        """All visits of the site, once there are ``n`` and each is finished."""
        found: list[dict[str, Any]] = []

        def are_there() -> bool:
            time.sleep(0.2)
            if self.client.get("/v1/visits", params={"limit": 1, "status": "accepted"}).json()["items"]:
                return False
            found[:] = self._listed()
            return len(found) >= n and not any(visit["status"] == "accepted" for visit in found)

        until(are_there, 120)
        return found

    def report(self, visit: str) -> dict[str, Any]:
        document: dict[str, Any] = self.client.get(f"/v1/visits/{visit}/report.json").json()
        return document

    def _listed(self) -> list[dict[str, Any]]:
        items, cursor = [], None
        while True:
            page = self.client.get("/v1/visits", params={"limit": 200, **({"cursor": cursor} if cursor else {})}).json()
            items += page["items"]
            if not (cursor := page.get("next")):
                return items

    def _raw(self, content: bytes, kind: str) -> str:
        return self._visit(self.client.post("/v1/visits", content=content, headers={**LATER, "Content-Type": kind}))

    @staticmethod
    def _visit(answer: httpx.Response) -> str:
        assert answer.status_code in (201, 202), answer.text
        id_: str = answer.json()["id"]
        return id_
