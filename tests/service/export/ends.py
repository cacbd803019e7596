"""Two ends of an export: a clinic at home and a hospital abroad, each a real server with its own database and store."""

from __future__ import annotations

import json
import re

from sqlalchemy import select

from service.export.__main__ import main
from service.storage.tables import AuditRow, VisitRow
from tests.service.serving import until


class End:
    """A server and the commands beside it."""

    def __init__(self, served, settings, monkeypatch):
        self.served, self.settings, self._monkeypatch = served, settings, monkeypatch
        self.parts = served.app.state.service

    def command(self, *arguments):
        """``python -m service.export`` in this server's environment; returns its exit code."""
        self._monkeypatch.setenv("SANGLOC_DATA_DIR", str(self.settings.data_dir))
        self._monkeypatch.setenv("SANGLOC_DATABASE_URL", self.settings.database_url)
        return main(list(map(str, arguments)))

    def post(self, files, site="commune", **context):
        """The id of a visit that is assessed; ``files``: field, name and content."""
        parts = [(field, (name, content, "application/octet-stream")) for field, name, content in files]
        parts.append(("context", (None, json.dumps(context), "application/json")))
        with self.served.client(self.served.key("site", site)) as client:
            made = client.post("/v1/visits", files=parts, headers={"Prefer": "wait=30"})
        assert made.status_code in (201, 202), made.text
        visit = made.json()["id"]
        until(lambda: self._row(visit).status != "accepted", 60)
        assert self._row(visit).status == "complete"
        return visit

    def _row(self, visit):
        with self.parts.database.transaction() as session:
            return session.get(VisitRow, visit)

    def history(self, visit):
        with self.served.client() as client:
            return client.get(f"/v1/visits/{visit}/history").json()

    def log(self, *actions):
        """The entries of the audit log about these actions, the oldest first."""
        with self.parts.database.transaction() as session:
            query = select(AuditRow).where(AuditRow.action.in_(actions)).order_by(AuditRow.number)
            return session.scalars(query).all()

    def visits_at(self, site):
        """The rows of a site's visits."""
        with self.parts.database.transaction() as session:
            return session.scalars(select(VisitRow).where(VisitRow.site == site).order_by(VisitRow.id)).all()

    def wait_for(self, site, n_visits):
        """The rows of imported visits, as soon as all are assessed."""
        until(lambda: sum(each.status == "complete" for each in self.visits_at(site)) == n_visits, 60)
        return self.visits_at(site)


def digest_in(printed):
    """The digest of the manifest that a command printed."""
    return re.search(r"^manifest: ([0-9a-f]{64})$", printed, re.MULTILINE)[1]


def visits_in(folder):
    return [json.loads(path.read_text("utf-8")) for path in sorted((folder / "visits").iterdir())]


WRITE = ("--to", "Specialists abroad", "--legal-basis", "consent of each person, form 7", "--who", "the admin")
