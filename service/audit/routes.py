"""What each route is for the audit log: the one place where a route says it. A route that is not here fails a test.

A look is recorded by the outermost layer (``service.api.edge``), before anything is shown. A change is recorded in the
transaction that makes it, so its route says :data:`CHANGES` only. A form's route that shows the visit's page again is a
look as well.
"""

from __future__ import annotations

from collections.abc import Mapping

CHANGES = "changes"
"""What it changes is noted where it is changed."""
NOTHING = "nothing"
"""It shows nothing of a person and changes nothing that stays: states, models, the login, the interface's description,
bytes of an upload that no visit has yet, tensors that belong to no visit, the reader's own sessions."""

ROUTES: Mapping[str, str] = {
    # ---------------------------------------------------------------- visits
    "POST /v1/visits": CHANGES,
    "POST /v1/visits/bulk": CHANGES,
    "GET /v1/visits": "list_read",
    "GET /v1/visits/{visit_id}": "visit_read",
    "GET /v1/visits/{visit_id}/history": "visit_read",
    "GET /v1/visits/{visit_id}/comparison": "visit_read",
}
