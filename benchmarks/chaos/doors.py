"""The doors of the service: what a client may send to each, around files that are damaged already or good."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.chaos.asking import Answer
from benchmarks.chaos.readers import Input, Inputs
from benchmarks.files import BOUNDARY
from inference.cxr.reading import read_film
from inference.ecg.reading import read_recordings

RAW_KINDS = ("image/png", "image/jpeg", "image/tiff", "application/dicom", "application/zip")
FORM = f"multipart/form-data; boundary={BOUNDARY}"
RELATED = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
JSON = "application/json"
TUS = {"Tus-Resumable": "1.0.0"}
PREFER = {"Prefer": "wait=10"}
CONTEXT = {
    "person": {"id": "P-1", "age_years": 54, "sex": "female"},
    "referrer": {"id": "D-1", "name": "Bác sĩ", "facility": "Trạm"},
    "visited_on": "2026-11-21",
    "labs": [{"name": "creatinine", "value": 88, "unit": "umol/L"}, {"name": "hba1c", "value": "7,1", "unit": "%"}],
    "vitals": {"systolic_mmHg": 140, "diastolic_mmHg": 90},
    "conditions": ["diabetes", "hypertension"],
    "ecg_unit": "mV",
}
FHIR = {
    "resourceType": "Bundle",
    "type": "collection",
    "entry": [
        {
            "fullUrl": "urn:uuid:1",
            "resource": {
                "resourceType": "ServiceRequest",
                "status": "active",
                "intent": "order",
                "subject": {"reference": "urn:uuid:2"},
                "reasonCode": [{"text": "Ho"}],
                "occurrenceDateTime": "2026-11-21",
            },
        },
        {
            "fullUrl": "urn:uuid:2",
            "resource": {"resourceType": "Patient", "gender": "female", "birthDate": "1970-02-01"},
        },
        {
            "fullUrl": "urn:uuid:3",
            "resource": {
                "resourceType": "Observation",
                "status": "final",
                "code": {"coding": [{"system": "http://loinc.org", "code": "14682-9"}]},
                "subject": {"reference": "urn:uuid:2"},
                "valueQuantity": {"value": 88, "system": "http://unitsofmeasure.org", "code": "umol/L"},
            },
        },
    ],
}
MODELS = {"lung": ("UINT8", [1, 1, 224, 224]), "cardiac": ("FP32", [1, 12, 1000]), "kidney": ("FP32", [1, 8])}
FOLLOW_UP = {
    "opinions": {
        "version": 1,
        "judgements": [{"finding": "pneumonia", "verdict": "agree"}],
        "text": "x",
        "advice": "ask",
    },
    "referrals": {"question": "?", "to_site": None, "blind": False},
    "outcomes": {"finding": "pneumonia", "outcome": "confirmed", "source": "CT"},
}


@dataclass(frozen=True)
class Request:
    """One request of a client."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Send = Callable[[Request], Answer | None]
"""Sends a request, perhaps damaged; ``None`` where no answer came."""


@dataclass
class Doors:
    """Makes requests.

    Parameters
    ----------
    cookie
        Of a session, for the page.
    origin
        The address of the server as a browser names it.
    visits
        Ids of visits that were accepted, for what is said about a visit later.
    """

    inputs: Inputs
    cookie: str
    origin: str
    visits: list[str] = field(default_factory=list)

    def knock(self, chance: random.Random, number: int, send: Send) -> None:
        """Post something at one of the doors."""
        doors, weights = zip(*_DOORS, strict=True)
        chance.choices(doors, weights)[0](self, chance, self.inputs[number], send)

    # ------------------------------------------------------------ visits
    def visit(self, chance: random.Random, given: Input, send: Send) -> None:
        """A form with files and a context."""
        parts = [(_field(given, chance), name, content) for name, content in _files(given)]
        context = chance.choice((None, CONTEXT, {"person": {"age_years": 54}}))
        send(Request("POST", "/v1/visits", {"Content-Type": FORM, **PREFER}, form(parts, context)))

    def context(self, chance: random.Random, given: Input, send: Send) -> None:
        """A context alone, of the contract's form or FHIR's."""
        document = chance.choice((CONTEXT, FHIR))
        send(Request("POST", "/v1/visits", {"Content-Type": FORM, **PREFER}, form([], document)))

    def raw(self, chance: random.Random, given: Input, send: Send) -> None:
        """One file as the whole body."""
        headers = {"Content-Type": chance.choice(RAW_KINDS), **PREFER}
        if chance.random() < 0.5:
            headers["Sangloc-Context"] = base64.b64encode(json.dumps(CONTEXT).encode()).decode()
        send(Request("POST", "/v1/visits", headers, given.contents[0]))

    def stow(self, chance: random.Random, given: Input, send: Send) -> None:
        """DICOM objects from an archive."""
        parts = b"".join(
            b"--%b\r\nContent-Type: application/dicom\r\n\r\n%b\r\n" % (BOUNDARY.encode(), content)
            for content in given.contents
        )
        path = chance.choice(("/dicomweb/studies", "/dicomweb/studies", "/dicomweb/studies/1.2.3"))
        send(Request("POST", path, {"Content-Type": RELATED}, parts + f"--{BOUNDARY}--\r\n".encode()))

    def upload(self, chance: random.Random, given: Input, send: Send) -> None:
        """A file in pieces, and the visit that is made of it."""
        content = given.contents[0]
        name = base64.b64encode(given.names[0].encode()).decode()
        created = send(
            Request(
                "POST", "/v1/uploads",
                {**TUS, "Upload-Length": str(len(content)), "Upload-Metadata": f"filename {name}"},
            )
        )  # fmt: skip
        if created is None or created.status != 201:
            return
        where = created.headers["location"]
        half = len(content) // 2
        piece = {**TUS, "Content-Type": "application/offset+octet-stream"}
        send(Request("PATCH", where, {**piece, "Upload-Offset": "0"}, content[:half]))
        send(Request("PATCH", where, {**piece, "Upload-Offset": str(half)}, content[half:]))
        asked = json.dumps({"uploads": [where.rpartition("/")[2]], "context": CONTEXT}).encode()
        send(Request("POST", "/v1/uploads/visit", {"Content-Type": JSON, **PREFER}, asked))
        send(Request("DELETE", where, TUS))

    def page(self, chance: random.Random, given: Input, send: Send) -> None:
        """The form of the page, as a browser posts it."""
        fields = {
            **{"person_id": "P-1", "age": "54", "sex": "female", "visited_on": "2026-11-21", "conditions": "diabetes"},
            **{"creatinine": "88", "creatinine_unit": "umol/L", "token": str(chance.random())[2:]},
        }
        parts = [(_field(given, chance), name, content) for name, content in _files(given)]
        headers = {"Content-Type": FORM, "Cookie": self.cookie, "Origin": self.origin}
        send(Request("POST", "/post", headers, form(parts, None, fields)))

    # ------------------------------------------------------------ others
    def tensors(self, chance: random.Random, given: Input, send: Send) -> None:
        """Rows for a model, as JSON or binary."""
        model = chance.choice(list(MODELS))
        datatype, shape = MODELS[model]
        n_bytes = (1 if datatype == "UINT8" else 4) * shape[1] * (shape[2] if len(shape) > 2 else 1)
        n_bytes *= shape[3] if len(shape) > 3 else 1
        path, head = f"/v2/models/{model}/infer", {"name": "input", "datatype": datatype, "shape": shape}
        if chance.random() < 0.5:
            asked = json.dumps({"inputs": [{**head, "parameters": {"binary_data_size": n_bytes}}]}).encode()
            headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(asked))}
            send(Request("POST", path, headers, asked + bytes(n_bytes)))
        else:
            values = [0] * (n_bytes // (1 if datatype == "UINT8" else 4))
            send(
                Request(
                    "POST", path, {"Content-Type": JSON}, json.dumps({"inputs": [{**head, "data": values}]}).encode()
                )
            )

    def follow_up(self, chance: random.Random, given: Input, send: Send) -> None:
        """What a doctor says of a visit, and what a picture of it is asked for."""
        id_ = chance.choice(self.visits[-50:]) if self.visits else "0"
        name = chance.choice(list(FOLLOW_UP))
        body = json.dumps(FOLLOW_UP[name]).encode()
        send(Request("POST", f"/v1/visits/{id_}/{name}", {"Content-Type": JSON}, body))
        look = chance.choice(
            ("inputs/0/film.png", "inputs/0/trace.svg", "report.pdf", "report.fhir.json", "comparison")
        )
        send(Request("GET", f"/v1/visits/{id_}/{look}"))


_DOORS: tuple[tuple[Callable[[Doors, random.Random, Input, Send], None], int], ...] = (
    *((Doors.visit, 6), (Doors.context, 3), (Doors.raw, 4), (Doors.stow, 4), (Doors.upload, 2), (Doors.page, 3)),
    *((Doors.tensors, 2), (Doors.follow_up, 1)),
)
"""Each door, and how often it is chosen."""


def form(parts: list[tuple[str, str, bytes]], context: object, fields: Mapping[str, str] | None = None) -> bytes:
    """A multipart body of files ``(field, filename, content)``, a context, and plain fields."""
    mark = f"--{BOUNDARY}\r\nContent-Disposition: form-data; ".encode()
    pieces = [
        mark + f'name="{name}"; filename="{file}"\r\n\r\n'.encode() + content + b"\r\n" for name, file, content in parts
    ]
    if context is not None:
        pieces.append(mark + b'name="context"\r\n\r\n' + json.dumps(context).encode() + b"\r\n")
    pieces += [mark + f'name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in (fields or {}).items()]
    return b"".join(pieces) + f"--{BOUNDARY}--\r\n".encode()


def _files(given: Input) -> list[tuple[str, bytes]]:
    return list(zip(given.names, given.contents, strict=True))


def _field(given: Input, chance: random.Random) -> str:
    right = (
        "image"
        if given.job is read_film
        else "ecg"
        if given.job is read_recordings
        else chance.choice(("image", "ecg"))
    )
    return right if chance.random() < 0.9 else chance.choice(("image", "ecg"))
