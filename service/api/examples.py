"""Examples in ``/openapi.json``: a visit, and a posted body, which has no model because it is read as a stream."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from data_specs.person import MAX_AGE_YEARS
from data_specs.visit.context import Context
from service.api.refusals import ProblemDocument, problem_document
from service.errors import FieldFault, InvalidRequest
from service.receive.accept import MAX_IDEMPOTENCY_KEY
from service.receive.bulk import MAX_NAME, MAX_VISITS

CONTEXT: dict[str, Any] = {
    "person": {"id": "P-0001", "age_years": 54, "sex": "female"},
    "referrer": {"id": "D-07"},
    "visited_on": "2026-11-21",
    "labs": [
        {"name": "creatinine", "value": 88, "unit": "umol/L"},
        {"name": "urine_acr", "value": 3.4, "unit": "mg/mmol"},
    ],
    "vitals": {"systolic_mmHg": 140},
    "conditions": ["diabetes", "hypertension"],
}

VISIT_ID = "5f0c3b1e-8a44-4c1d-9d53-0b8f2f6f1a77"

VISIT: dict[str, Any] = {
    "id": VISIT_ID,
    "status": "complete",
    "version": 1,
    "received_at": "2026-11-21T08:30:00.000000Z",
    "completed_at": "2026-11-21T08:30:01.200000Z",
    "person": {"id": "P-0001", "age_years": 54, "sex": "female"},
    "priority": "soon",
    "priority_reasons": [{"code": "category_intermediate", "message": "Result to be confirmed: Lung."}],
    "organs": {
        "lung": {
            "status": "assessed",
            "reasons": [],
            "risk": 0.83,
            "category": "intermediate",
            "findings": [
                {
                    "name": "pneumonia",
                    "code": {"system": "http://snomed.info/sct", "code": "233604007"},
                    "display": "Pneumonia",
                    "value": None,
                    "unit": None,
                    "probability": 0.83,
                    "positive": True,
                    "operating_point": {
                        "name": "screening",
                        "threshold": 0.31,
                        "sensitivity": 0.95,
                        "specificity": 0.74,
                        "cohort": "the bundle's validation part",
                    },
                    "evidence": [
                        {
                            "kind": "heatmap",
                            "input": 0,
                            "href": "/v1/visits/5f0c3b1e-8a44-4c1d-9d53-0b8f2f6f1a77/evidence/pneumonia/0.png",
                        }
                    ],
                }
            ],
        },
        "cardiac": {
            "status": "not_assessed",
            "reasons": [{"code": "no_ecg", "message": "No ECG was sent."}],
            "risk": None,
            "category": None,
            "findings": [],
        },
    },
    "inputs": [
        {
            "index": 0,
            "field": "image",
            "filename": "film.dcm",
            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "format": "dicom",
            "accepted": True,
            "problems": [],
        }
    ],
    "models": [
        {
            "name": "lung",
            "version": "1.0.0",
            "sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
        }
    ],
}


ACCEPTED = VISIT | {
    "id": "c2a9a5e4-43a1-4a34-8f0e-1f2f7a1d6a10",
    "status": "accepted",
    "completed_at": None,
    "priority": "unassessed",
    "priority_reasons": [],
    "organs": {},
    "inputs": [{**VISIT["inputs"][0], "format": None, "accepted": None}],
    "models": [],
}
"""A visit that is on disk and not assessed yet."""

BODIES: dict[str, dict[str, Any]] = {
    "post_opinion": {
        "version": 1,
        "judgements": [{"finding": "pneumonia", "verdict": "agree"}, {"finding": "effusion", "verdict": "disagree"}],
        "text": "Consolidation in the right lower lobe.",
        "advice": "manage",
    },
    "post_referral": {"question": "Is there an effusion as well?", "to_site": "provincial-hospital", "blind": True},
    "post_outcome": {"finding": "pneumonia", "outcome": "confirmed", "source": "CT"},
    "post_incident": {
        "kind": "missed_finding",
        "severity": "serious",
        "text": "An effusion on the left was not flagged; it was drained two days later.",
    },
    "post_closing": {"found": "The film was exposed too low; the reserve said so, and was not seen."},
    "post_next_case": {"finding": "effusion", "difficulty": "medium"},
    "post_reading": {
        "judgements": [{"finding": "effusion", "verdict": "add"}],
        "confidence": {"effusion": 4, "pneumothorax": 1},
    },
    "create_key": {"role": "doctor", "site": "district-clinic", "doctor_id": "D-07", "label": "Internal medicine"},
    "create_destination": {
        "kind": "fhir",
        "address": "https://fhir.example/r4",
        "site": "district-clinic",
        "language": "vi",
    },
    "retry_deliveries": {"destination": "0d7c7a52-3d1f-4c86-a9a5-0a0c4f1f2b11", "visit": VISIT_ID, "version": 2},
    "post_silence": {"reason": "Winter: more persons with pneumonia come.", "until": "2027-03-31T00:00:00Z"},
    "post_reference": {
        "site": "district-clinic",
        "device": "Example Corporation DR 1000",
        "reason": "The detector was replaced, and its films were looked at.",
    },
    "post_visit_of_uploads": {
        "uploads": ["9b3f6f2e-6d1c-4f0a-8f57-5d8f0a1c2b3d"],
        "context": {"person": {"age_years": 61, "sex": "male"}, "ecg_unit": "uV"},
    },
}
"""Example of the JSON body of an operation, by its ``operationId``."""


def header(name: str, description: str, example: str, *, required: bool = False, **schema: Any) -> dict[str, Any]:
    """A header that a route reads itself, as a parameter of OpenAPI; a text, unless ``schema`` says more."""
    about = {"description": description, "schema": {"type": "string", **schema}, "example": example}
    return {"name": name, "in": "header", "required": required, **about}


IDEMPOTENCY_KEY = header(
    "Idempotency-Key",
    "Same key and same body: the answer is the first visit. Another body: 409.",
    "visit-2026-11-21-17",
    minLength=1,
    maxLength=MAX_IDEMPOTENCY_KEY,
    pattern="^[ -~]+$",
)
PREFER = header("Prefer", "`wait=SECONDS` (default 30, at most 120) or `respond-async`", "wait=10")
ACCEPT_LANGUAGE = header("Accept-Language", "`vi`, `fr` or `en`", "vi")


def _files(most: int, description: str) -> dict[str, Any]:
    item = {"type": "string", "format": "binary"}
    return {"type": "array", "maxItems": most, "items": item, "description": description}


POSTED_VISIT: dict[str, Any] = {
    "parameters": [
        IDEMPOTENCY_KEY,
        PREFER,
        ACCEPT_LANGUAGE,
        header(
            "Sangloc-Context",
            "The `context` of a visit that is posted as one file: its JSON in base64 or base64url",
            b64encode(b'{"person": {"age_years": 54}}').decode(),
        ),
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "image": _files(8, "Chest X-ray as DICOM, PNG, JPEG or TIFF"),
                        "ecg": _files(
                            16,
                            "Recordings; files with one stem are one recording; a .zip may hold them",
                        ),
                        "context": {"$ref": "#/components/schemas/Context"},
                    },
                },
                "encoding": {"context": {"contentType": "application/json"}},
                "example": {"context": CONTEXT},
            },
            **{
                kind: {"schema": {"type": "string", "format": "binary", "description": description}}
                for kind, description in (
                    ("application/dicom", "One film or one ECG, by its SOP class"),
                    ("image/png", "One film"),
                    ("image/jpeg", "One film"),
                    ("image/tiff", "One film"),
                    ("application/zip", "Films and recordings, each as if it were posted by itself"),
                )
            },
        },
    },
}


REFUSED = problem_document(
    InvalidRequest(FieldFault("context.person.age_years", "field_invalid", f"≤ {MAX_AGE_YEARS}", "540")),
    "en",
    "/v1/visits/bulk",
).model_dump(mode="json")
"""A visit of a request with many that was refused."""

POSTED_VISITS: dict[str, Any] = {
    "parameters": [
        header(
            "Idempotency-Key",
            "Same key, same name and same parts: the answer is the first visit of that name. Other parts: its problem "
            "is `idempotency_conflict`.",
            "monday-2026-11-23",
            minLength=1,
            maxLength=MAX_IDEMPOTENCY_KEY - MAX_NAME - 1,
            pattern="^[ -~]+$",
        ),
        PREFER,
        ACCEPT_LANGUAGE,
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "description": "Parts named `NAME/context`, `NAME/image` or `NAME/ecg`: at most "
                    f"{MAX_VISITS} names of 1 to {MAX_NAME} characters without a slash, and of each as many parts as a "
                    "visit may have",
                    "patternProperties": {
                        "^[^/]+/(image|ecg)$": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "^[^/]+/context$": {"$ref": "#/components/schemas/Context"},
                    },
                    "additionalProperties": False,
                },
                "example": {"P-0001/context": CONTEXT},
            }
        },
    },
}


def schemas_beyond_the_routes() -> dict[str, Any]:
    """Schemas that no route's signature mentions: the context, and the problem document."""
    found: dict[str, Any] = {}
    for model in (Context, ProblemDocument):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        found.update(schema.pop("$defs", {}))
        found[model.__name__] = schema
    return found
