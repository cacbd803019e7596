"""A centre and a node, with a link between them that can be cut."""

from __future__ import annotations

import contextlib

import pytest

from benchmarks.chaos.thin_link import ThinLink
from tests.service.serving import serving, settings_for, until

NODE_SITE = "ban-ho"


class Pair:
    """The two servers.

    Parameters
    ----------
    centre, node
        As :func:`tests.service.serving.serving` gives them.
    """

    def __init__(self, centre, node, link):
        self.centre, self.node, self.link = centre, node, link
        self.site = node.key("site", NODE_SITE)
        self.doctor = node.key("doctor", NODE_SITE, doctor_id="BS-1", label="BS. Thử Nghiệm")
        self.specialist = centre.key("specialist", "central", doctor_id="CK-1", label="BS. Chuyên Khoa")

    def post(self, **more):
        """The id of a visit that was posted and assessed at the node."""
        with self.node.client(self.site) as client:
            made = client.post("/v1/visits", headers={"Prefer": "wait=20"}, **more)
            assert made.status_code == 201, made.text
            return made.json()["id"]

    def at(self, served, visit_id, path="", key=None):
        with served.client(*([key] if key else [])) as client:
            return client.get(f"/v1/visits/{visit_id}{path}")

    def is_at_centre(self, visit_id):
        return self.at(self.centre, visit_id).status_code == 200

    def has_files(self, visit_id):
        """Whether every file of the visit is at the centre, as it is."""
        here = self.at(self.node, visit_id).json()["inputs"]
        both = [[self.at(x, visit_id, f"/inputs/{each['index']}") for x in (self.node, self.centre)] for each in here]
        return all(there.status_code == 200 and mine.content == there.content for mine, there in both)

    def history(self, served, visit_id):
        return self.at(served, visit_id, "/history").json()

    def wait(self, condition, seconds=60):
        until(condition, seconds)


@contextlib.contextmanager
def paired(folder, database_url="", **link):
    with serving(settings_for(folder / "centre", database_url=database_url)) as centre:
        key = centre.key("node", NODE_SITE)
        thin = ThinLink(centre.port, **link)
        settings = settings_for(
            folder / "node", upstream=thin.address, upstream_key=key, upstream_ask_seconds=0.2, lease_seconds=3
        )
        try:
            with serving(settings) as node:
                yield Pair(centre, node, thin)
        finally:
            thin.close()


@pytest.fixture
def pair(tmp_path, new_database):
    with paired(tmp_path, new_database()) as it:
        yield it
