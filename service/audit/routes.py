"""What each route is for the audit log: the one place where a route says it. A route that is not here fails a test.

A look is recorded by the outermost layer (``service.api.edge``) before anything is shown. A change is recorded in the
transaction that makes it, so its route says :data:`CHANGES` only. A form that shows the page of its visit again, with
the reason of a refusal, is a look as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

CHANGES = "changes"
"""What it changes is noted where it is changed; it shows nothing that is not the answer to it."""
NOTHING = "nothing"
"""It shows nothing of a person and changes nothing that stays: states, models, the login, the description of the
interface, bytes of an upload that no visit has yet, tensors that belong to no visit, releases, own sessions, which
packages were exported."""

ROUTES: Mapping[str, str] = {
    # ---------------------------------------------------------------- visits and their files
    "POST /v1/visits": CHANGES,
    "POST /v1/visits/bulk": CHANGES,
    "GET /v1/visits": "list_read",
    "GET /v1/visits/{visit_id}": "visit_read",
    "GET /v1/visits/{visit_id}/inputs/{index}": "file_read",
    "GET /v1/visits/{visit_id}/inputs/{index}/film.png": "file_read",
    "GET /v1/visits/{visit_id}/inputs/{index}/film.jpg": "file_read",
    "GET /v1/visits/{visit_id}/inputs/{index}/film.json": "file_read",
    "GET /v1/visits/{visit_id}/inputs/{index}/trace.svg": "file_read",
    "GET /v1/visits/{visit_id}/inputs/{index}/beats.svg": "file_read",
    "GET /v1/visits/{visit_id}/evidence/{finding}/{index}.png": "file_read",
    "GET /v1/visits/{visit_id}/evidence/{finding}/{index}.svg": "file_read",
    "GET /v1/visits/{visit_id}/report.{suffix}": "report_read",
    "GET /v1/visits/{visit_id}/report/{uid}.dcm": "report_read",
    "GET /v1/visits/{visit_id}/history": "visit_read",
    "GET /v1/visits/{visit_id}/comparison": "visit_read",
    "POST /v1/visits/{visit_id}/opinions": CHANGES,
    "POST /v1/visits/{visit_id}/referrals": CHANGES,
    "DELETE /v1/visits/{visit_id}/referrals/{referral_id}": CHANGES,
    "POST /v1/visits/{visit_id}/outcomes": CHANGES,
    "POST /v1/visits/{visit_id}/incidents": CHANGES,
    "GET /v1/referrals": "list_read",
    "GET /v1/specialists": NOTHING,
    "GET /v1/statistics": "list_read",
    "GET /v1/statistics/{table}.csv": "list_exported",
    "GET /v1/incidents": "list_read",
    "POST /v1/incidents/{incident_id}/close": CHANGES,
    # ---------------------------------------------------------------- DICOMweb
    "POST /dicomweb/studies": CHANGES,
    "POST /dicomweb/studies/{study}": CHANGES,
    "GET /dicomweb/studies": "list_read",
    "GET /dicomweb/series": "list_read",
    "GET /dicomweb/instances": "list_read",
    "GET /dicomweb/studies/{study}/series": "list_read",
    "GET /dicomweb/studies/{study}/instances": "list_read",
    "GET /dicomweb/studies/{study}/series/{series}/instances": "list_read",
    "GET /dicomweb/studies/{study}": "report_read",
    "GET /dicomweb/studies/{study}/metadata": "report_read",
    "GET /dicomweb/studies/{study}/series/{series}": "report_read",
    "GET /dicomweb/studies/{study}/series/{series}/metadata": "report_read",
    "GET /dicomweb/studies/{study}/series/{series}/instances/{instance}": "report_read",
    "GET /dicomweb/studies/{study}/series/{series}/instances/{instance}/metadata": "report_read",
    "GET /dicomweb/studies/{study}/series/{series}/instances/{instance}/rendered": "report_read",
    # ---------------------------------------------------------------- uploads
    "OPTIONS /v1/uploads": NOTHING,
    "POST /v1/uploads": NOTHING,
    "GET /v1/uploads/{upload_id}": NOTHING,
    "PATCH /v1/uploads/{upload_id}": NOTHING,
    "POST /v1/uploads/{upload_id}": NOTHING,
    "DELETE /v1/uploads/{upload_id}": NOTHING,
    "POST /v1/uploads/visit": CHANGES,
    # ---------------------------------------------------------------- nodes
    "GET /v1/node/news": "list_read",
    "PUT /v1/node/visits/{visit_id}": CHANGES,
    "PUT /v1/node/visits/{visit_id}/inputs/{index}": CHANGES,
    "PUT /v1/node/visits/{visit_id}/inputs/{index}/preview": CHANGES,
    "GET /v1/node/release": NOTHING,
    "GET /v1/node/release/files/{sha256}": NOTHING,
    # ---------------------------------------------------------------- admins
    "POST /v1/keys": CHANGES,
    "GET /v1/keys": "keys_read",
    "POST /v1/keys/{key_id}/rotate": CHANGES,
    "DELETE /v1/keys/{key_id}": CHANGES,
    "POST /v1/keys/{key_id}/readmit": CHANGES,
    "GET /v1/sessions": NOTHING,
    "DELETE /v1/sessions": CHANGES,
    "DELETE /v1/sessions/{session_id}": CHANGES,
    "POST /v1/destinations": CHANGES,
    "GET /v1/destinations": NOTHING,
    "DELETE /v1/destinations/{destination_id}": CHANGES,
    "GET /v1/deliveries": "list_read",
    "GET /v1/deliveries/due": "list_read",
    "POST /v1/deliveries/retry": CHANGES,
    "GET /v1/audit": "log_read",
    "GET /v1/drift/devices": NOTHING,
    "GET /v1/drift/device": NOTHING,
    "GET /v1/drift/alarms": NOTHING,
    "POST /v1/drift/alarms/{alarm_id}/silence": CHANGES,
    "POST /v1/drift/references": CHANGES,
    # ---------------------------------------------------------------- learning
    "POST /v1/learning/next": CHANGES,
    "GET /v1/learning/readings/{reading_id}": "visit_read",
    "POST /v1/learning/readings/{reading_id}": CHANGES,
    "GET /v1/learning/figures": "list_read",
    "GET /v1/learning/certificate.pdf": "list_exported",
    "GET /v1/learning/readers": "list_read",
    "GET /v1/learning/cases": "list_read",
    # ---------------------------------------------------------------- states and models
    "GET /healthz": NOTHING,
    "GET /readyz": NOTHING,
    "GET /metrics": NOTHING,
    "GET /openapi.json": NOTHING,
    "GET /v1/models": NOTHING,
    "GET /v2": NOTHING,
    "GET /v2/health/live": NOTHING,
    "GET /v2/health/ready": NOTHING,
    "POST /v2/repository/index": NOTHING,
    "GET /v2/models/{name}": NOTHING,
    "GET /v2/models/{name}/versions/{version}": NOTHING,
    "GET /v2/models/{name}/ready": NOTHING,
    "GET /v2/models/{name}/versions/{version}/ready": NOTHING,
    "POST /v2/models/{name}/infer": NOTHING,
    "POST /v2/models/{name}/versions/{version}/infer": NOTHING,
    # ---------------------------------------------------------------- pages
    "GET /": NOTHING,
    "GET /docs": NOTHING,
    "GET /login": NOTHING,
    "POST /login": CHANGES,
    "POST /logout": CHANGES,
    "GET /login/provider": NOTHING,
    "GET /login/provider/callback": CHANGES,
    "GET /post": NOTHING,
    "POST /post": CHANGES,
    "GET /worklist": "list_read",
    "GET /worklist.csv": "list_exported",
    "GET /worklist/events": "list_read",
    "GET /questions": "list_read",
    "GET /statistics": "list_read",
    "GET /planning": NOTHING,
    "GET /planning.csv": NOTHING,
    "GET /health-book": "list_read",
    "POST /health-book/retry": CHANGES,
    "GET /incidents": "list_read",
    "GET /drift": NOTHING,
    "POST /drift/alarms/{alarm_id}/silence": CHANGES,
    "POST /drift/references": CHANGES,
    "POST /incidents/{incident_id}/close": CHANGES,
    "GET /visits/{visit_id}": "visit_read",
    "GET /visits/{visit_id}/report": "report_read",
    "POST /visits/{visit_id}/sign": "visit_read",
    "POST /visits/{visit_id}/sign-in": "visit_read",
    "POST /visits/{visit_id}/ask": "visit_read",
    "POST /visits/{visit_id}/withdraw/{referral_id}": "visit_read",
    "POST /visits/{visit_id}/outcome": "visit_read",
    "POST /visits/{visit_id}/incident": "visit_read",
    "GET /normals": "list_read",
    "POST /normals": "list_read",
    "GET /learning": "list_read",
    "POST /learning/next": CHANGES,
    "GET /learning/readings/{reading_id}": "visit_read",
    "POST /learning/readings/{reading_id}": "visit_read",
    "GET /learning/cases/{visit_id}": "visit_read",
    "GET /learning/readers/{reader}": "list_read",
    "GET /exchange": "list_read",
    "GET /audit": "log_read",
    "GET /export": NOTHING,
    "POST /export": CHANGES,
    "POST /export/answers": CHANGES,
    "GET /sessions": NOTHING,
    "POST /sessions/end": CHANGES,
    "POST /sessions/{session_id}/end": CHANGES,
    "POST /sessions/of/{key_id}/end": CHANGES,
    "GET /keys": "keys_read",
    "POST /keys": CHANGES,
    "POST /keys/{key_id}/rotate": CHANGES,
    "POST /keys/{key_id}/name": CHANGES,
    "POST /keys/{key_id}/revoke": CHANGES,
    "POST /keys/{key_id}/readmit": CHANGES,
}
"""By method and path; a HEAD is its GET. The value is an action of :mod:`service.audit.actions` that is a look, or
:data:`CHANGES`, or :data:`NOTHING`."""

SHOWN = frozenset({200, 203, 206, 304, 400, 403, 409, 422})
"""Answers that show something, or refuse a known key what it asked for."""


def look_of(method: str, path: str, status: int) -> str | None:
    """The action that is recorded of an answer; ``None`` where there is nothing to record."""
    action = ROUTES.get(f"{method} {path}", NOTHING)
    return None if action in (CHANGES, NOTHING) or status not in SHOWN else action


def shows(scope: MutableMapping[str, Any], visits: Iterable[str]) -> None:
    """Say which visits an answer shows, where its address does not name them."""
    scope[_SHOWN_VISITS] = tuple(sorted(set(visits)))


def shown_visits(scope: Mapping[str, Any]) -> Sequence[str]:
    """The visits that an answer shows: those that were said, else the one of the address."""
    named = str(scope.get("path_params", {}).get("visit_id", ""))
    return scope.get(_SHOWN_VISITS) or ((named,) if _ID.fullmatch(named) else ())


_SHOWN_VISITS = "sangloc.shown_visits"
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
