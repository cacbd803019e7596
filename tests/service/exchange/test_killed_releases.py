"""Both ends are killed while a release comes down; the next visit of the node carries the new version."""

from __future__ import annotations

import random

import pytest

from benchmarks.chaos.thin_link import ThinLink
from inference.bundles.registry import read_log, read_registry
from models.registry import promote
from service.release.incoming import INCOMING, PARTS
from service.release.kept import last_release
from tests.conftest import ROOT
from tests.models.versions import shipped, version
from tests.service.exchange.conftest import NODE_SITE
from tests.service.release.conftest import signer  # noqa: F401  a fixture
from tests.service.release.test_release import SIGNED_BY
from tests.service.serving import real_server, until

NOISE = 2_000_000


@pytest.fixture
def folders(tmp_path):
    """All bundles as 1.0.0 at both ends; at the centre a ``kidney`` 1.1.0 with two megabytes more."""
    offered, here = tmp_path / "offered", tmp_path / "here"
    for folder in (offered, here):
        folder.mkdir()
        shipped(folder)
    grown = version(offered, "kidney", "1.1.0")
    (grown / "docs" / "noise.bin").write_bytes(random.Random(1).randbytes(NOISE))
    promote(offered, "kidney", "1.1.0", override="a test", **SIGNED_BY)
    return offered, here


def test_both_ends_are_killed_and_the_next_visit_has_the_new_version(tmp_path, new_process, folders, signer):  # noqa: F811
    offered, here = folders
    centre = new_process(tmp_path / "centre", SANGLOC_BUNDLES=str(offered)).start()
    link = ThinLink(centre.served.port, bytes_per_s=200_000)
    node = real_server(
        tmp_path / "node",
        SANGLOC_BUNDLES=str(here),
        SANGLOC_UPSTREAM=link.address,
        SANGLOC_UPSTREAM_KEY=centre.served.key("node", NODE_SITE),
        SANGLOC_UPSTREAM_ASK_SECONDS="0.3",
        SANGLOC_UPSTREAM_SIGNER=signer.public,
        SANGLOC_UPSTREAM_HOURS="0-24",
        SANGLOC_DEVICE="cpu",
    )
    (tmp_path / "node").mkdir()
    node.start(seconds=240)
    site = node.served.key("site", NODE_SITE)

    def kidney_of_a_visit():
        context = (ROOT / "samples" / "context.json").read_text("utf-8")
        with node.served.client(site) as client:
            made = client.post("/v1/visits", headers={"Prefer": "wait=30"}, files=[("context", (None, context))])
            assert made.status_code == 201, made.text
            return made.json()["id"], {each["name"]: each["version"] for each in made.json()["models"]}["kidney"]

    def come():
        parts = [*(here / INCOMING / PARTS).glob("*")] if (here / INCOMING).exists() else []
        return max((part.stat().st_size for part in parts), default=0)

    try:
        first, number = kidney_of_a_visit()
        assert number == "1.0.0"
        signer.sign(offered)
        until(lambda: come() > NOISE / 4, 120)
        node.kill()
        kept = come()
        node.start(seconds=240)
        until(lambda: come() > NOISE / 2, 120)
        assert kept >= NOISE / 4, "what had come is there"
        centre.kill()
        centre.start()
        link.target = centre.served.port
        until(lambda: last_release(here) is not None, 240)
        until(lambda: kidney_of_a_visit()[1] == "1.1.0", 60)
        with node.served.client() as client:
            before = client.get(f"/v1/visits/{first}").json()
        assert {each["name"]: each["version"] for each in before["models"]}["kidney"] == "1.0.0"
        noise = "kidney-1.1.0/docs/noise.bin"
        assert (here / noise).read_bytes() == (offered / noise).read_bytes()
        node.kill()
        node.start(seconds=240)
        assert kidney_of_a_visit()[1] == "1.1.0"
        promotions = [line for line in read_log(here)[0] if line.name == "kidney"]
        assert [(line.from_version, line.to_version) for line in promotions] == [("1.0.0", "1.1.0")]
        assert read_registry(here).in_service("kidney") == "1.1.0"
    finally:
        link.close()
        if node.process is not None and node.process.poll() is None:
            node.stop()
