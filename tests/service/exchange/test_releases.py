"""A release comes from a centre to its node over HTTP, however the link is; what is wrong with it is refused."""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from benchmarks.chaos.thin_link import ThinLink
from data_specs.next_steps.table import SHIPPED_TABLE
from inference.bundles.registry import read_registry
from models.registry import promote, rollback
from service.language.zone import Hours
from service.release.in_force import DECIDED
from service.release.incoming import INCOMING, Incoming, working
from service.release.kept import file_of, last_release, write_durably
from tests.models.versions import version
from tests.service.exchange.conftest import NODE_SITE
from tests.service.exchange.test_exchange import small_visit
from tests.service.release.conftest import Signer, kidneys, signer  # noqa: F401  fixtures
from tests.service.release.test_release import SIGNED_BY, fetched, golden_differs, resigned, within
from tests.service.serving import serving, settings_for, told, until

ALWAYS = "0-24"


def never():
    """Hours in which a test does not run."""
    first = (datetime.now(UTC) + timedelta(hours=10)).hour
    return f"{first}-{first + 1}"


class Down:
    """A centre and its node, each with a folder of bundles, and the link between them."""

    def __init__(self, centre, node, link, folders):
        self.centre, self.node, self.link, (self.offered, self.here) = centre, node, link, folders

    def number(self):
        kept = last_release(self.here)
        return kept.release.number if kept else None

    def serves(self):
        return read_registry(self.here).in_service("kidney")

    def page(self, served, language="en", key=None):
        with served.client(*([key] if key else []), **{"Accept-Language": language}) as client:
            shown = client.get("/exchange")
            assert shown.status_code == 200
            return shown.text

    def as_node(self):
        return self.centre.client(self.centre.key("node", NODE_SITE))


@contextlib.contextmanager
def down(tmp_path, folders, signers, **more):
    settings = settings_for(tmp_path / "c", bundles=folders[0], min_free_mb=1)
    with serving(settings) as centre:
        key = centre.key("node", NODE_SITE, label="Bản Hồ")
        link = ThinLink(centre.port)
        given = {
            "bundles": folders[1], "upstream": link.address, "upstream_key": key, "upstream_ask_seconds": 0.2,
            "upstream_signer": signers, "upstream_hours": ALWAYS, "session": "onnxruntime:fp32", "device": "cpu",
            "min_free_mb": 1, "lease_seconds": 3, **more,
        }  # fmt: skip
        try:
            with serving(settings_for(tmp_path / "n", **given)) as node:
                yield Down(centre, node, link, folders)
        finally:
            link.close()


@pytest.fixture
def both(tmp_path, kidneys, signer):  # noqa: F811
    with down(tmp_path, kidneys, signer.public) as it:
        yield it


# ---------------------------------------------------------------- it comes
def test_a_release_comes_down_and_both_ends_say_so(both, signer, tmp_path):  # noqa: F811
    table = tmp_path / "table.toml"
    table.write_text(within(9))
    signer.sign(both.offered, "--next-steps", table, why="fewer recalls")
    until(lambda: both.number() == 1, 60)
    assert both.serves() == "1.1.0"
    assert both.node.app.state.service.next_steps.soon_within_days == 9, "without a restart"
    until(lambda: "Release 1" in both.page(both.node), 10)
    assert "fewer recalls" in both.page(both.node)
    until(lambda: "Release:</span> 1" in both.page(both.centre), 20)
    shown = both.page(both.centre)
    assert "Bản Hồ" in shown
    assert NODE_SITE in shown
    counted = told(both.node)
    assert (counted["sangloc_release_number",], counted["sangloc_releases_total", "in_force"]) == (1, 1)
    assert told(both.centre)["sangloc_release_number",] == 1


def test_it_comes_in_pieces_over_a_link_that_cuts_and_nothing_comes_twice(both, signer):  # noqa: F811
    grown = version(both.offered, "kidney", "1.2.0")
    noise = random.Random(1).randbytes(1_500_000)
    (grown / "docs" / "noise.bin").write_bytes(noise)
    promote(both.offered, "kidney", "1.2.0", override="a test", **SIGNED_BY)
    both.link.bytes_per_s = 300_000
    before = both.link.passed
    signer.sign(both.offered)
    for cut in range(1, 4):
        until(lambda cut=cut: both.link.passed > before + cut * 400_000, 60)
        both.link.cut()
        time.sleep(0.3)
        both.link.mend()
    until(lambda: both.number() == 1, 120)
    assert (both.here / "kidney-1.2.0/docs/noise.bin").read_bytes() == noise
    assert both.link.passed - before < 1_500_000 + 4 * 300_000, "what had come did not come again"


def test_a_release_that_another_one_replaces_while_it_comes_is_not_refused(both, signer):  # noqa: F811
    grown = version(both.offered, "kidney", "1.2.0")
    (grown / "docs" / "noise.bin").write_bytes(random.Random(1).randbytes(2_000_000))
    both.link.bytes_per_s = 300_000
    passed = both.link.passed
    signer.sign(both.offered)
    until(lambda: both.link.passed > passed + 500_000, 60)
    rollback(both.offered, "kidney", **SIGNED_BY)
    signer.sign(both.offered)
    until(lambda: both.number() == 2, 60)
    assert both.serves() == "1.1.0"
    assert ("sangloc_releases_total", "refused") not in told(both.node)
    assert sorted(path.name for path in (both.here / ".incoming").iterdir()) == ["lock", "parts"]


def test_visits_go_first(both, signer):  # noqa: F811
    grown = version(both.offered, "kidney", "1.2.0")
    (grown / "docs" / "noise.bin").write_bytes(random.Random(1).randbytes(3_000_000))
    promote(both.offered, "kidney", "1.2.0", override="a test", **SIGNED_BY)
    both.link.bytes_per_s = 400_000
    passed = both.link.passed
    signer.sign(both.offered)
    until(lambda: both.link.passed > passed + 600_000, 60)
    with both.node.client(both.node.key("site", NODE_SITE)) as client:
        made = client.post("/v1/visits", headers={"Prefer": "wait=20"}, files=small_visit())
        assert made.status_code == 201
    with both.centre.client() as client:
        until(lambda: client.get(f"/v1/visits/{made.json()['id']}").status_code == 200, 30)
    assert both.number() is None, "the rest of the release still comes"
    both.link.bytes_per_s = 0
    until(lambda: both.number() == 1, 60)


def test_it_comes_in_the_hours_of_the_setting_only(tmp_path, kidneys, signer):  # noqa: F811
    hours = never()
    with down(tmp_path, kidneys, signer.public, upstream_hours=hours, time_zone="UTC") as both:
        signer.sign(both.offered)
        until(lambda: f"between {hours} h" in both.page(both.node), 20)
        time.sleep(1)
        assert both.number() is None
        until(lambda: "Bản Hồ" in both.page(both.centre), 10)


def test_hours_are_those_of_a_zone_and_may_go_over_midnight():
    night = Hours.of("22-5")
    assert [hour for hour in range(24) if night.include(datetime(2026, 11, 30, hour, tzinfo=UTC))] == [
        0, 1, 2, 3, 4, 22, 23,
    ]  # fmt: skip
    assert Hours.of("0-24").include(datetime(2026, 11, 30, 23, 59, tzinfo=UTC))
    assert night.seconds_until(datetime(2026, 11, 30, 21, 30, tzinfo=UTC)) == 1800
    assert Hours.of("3-4").seconds_until(datetime(2026, 11, 30, 21, tzinfo=UTC)) == 6 * 3600
    for wrong in ("", "22", "22-22", "24-1", "1-25", "-1-3", "22-5 ", "a-b"):
        with pytest.raises(ValueError, match="hours"):
            Hours.of(wrong)


def test_a_start_finishes_what_was_decided(tmp_path, kidneys, signer):  # noqa: F811
    offered, here = kidneys
    signer.sign(offered)
    kept = last_release(offered)
    with working(here, wait=True):
        fetched(offered, Incoming(here, kept.release))
        write_durably(here / INCOMING / DECIDED, kept.signed.model_dump_json().encode())
    with serving(settings_for(tmp_path / "n", bundles=here)) as node:
        assert read_registry(here).in_service("kidney") == "1.1.0"
        assert told(node)["sangloc_release_number",] == 1


# ---------------------------------------------------------------- it is refused
def refused(both, code, words):
    """Wait until both ends say why a release is refused; what serves goes on serving."""
    counted = ("sangloc_releases_total", "refused")
    until(lambda: words in both.page(both.node), 60)
    assert "What was in use stays in use" in both.page(both.node)
    until(lambda: words in both.page(both.centre), 20)
    assert told(both.node)[counted] >= 1
    for language in ("vi", "fr"):
        assert both.page(both.node, language)
        assert both.page(both.centre, language)
    assert both.serves() == "1.0.0"
    assert both.number() is None


def test_a_wrong_key_is_refused_and_a_right_one_taken_later(tmp_path, kidneys, signer, capsys):  # noqa: F811
    other = Signer(tmp_path / "other.key", capsys)
    with down(tmp_path, kidneys, signer.public) as both:
        other.sign(both.offered)
        refused(both, "signature", "Nobody whom this server knows")
        signer.sign(both.offered)
        until(lambda: both.number() == 2, 60)


def test_without_a_public_key_nothing_is_taken(tmp_path, kidneys, signer):  # noqa: F811
    with down(tmp_path, kidneys, "") as both:
        signer.sign(both.offered)
        refused(both, "signer", "SANGLOC_UPSTREAM_SIGNER")


def test_a_failing_golden_case_is_refused(both, signer):  # noqa: F811
    from service.release.signed import ReleasedFile

    signer.sign(both.offered, "--number", "7")
    signed = file_of(both.offered, 7)
    kept, hidden = last_release(both.offered), signed.with_suffix(".hidden")
    signed.rename(hidden)
    golden_differs(both.offered / "kidney-1.1.0")
    (bundle,) = kept.release.bundles
    files = []
    for file in bundle.files:
        content = (both.offered / "kidney-1.1.0" / file.path).read_bytes()
        files.append(ReleasedFile(path=file.path, n_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()))
    hidden.rename(signed)
    resigned(both.offered, signer, number=8, bundles=(bundle.model_copy(update={"files": tuple(files)}),))
    refused(both, "bundle", "does not pass its checks")


def test_a_changed_byte_at_the_centre_is_refused(both, signer):  # noqa: F811
    model = both.offered / "kidney-1.1.0/docs/README.md"
    model.write_bytes(model.read_bytes() + b"one more line\n")
    signer.sign(both.offered)
    content = bytearray(model.read_bytes())
    content[100] ^= 1
    model.write_bytes(bytes(content))
    refused(both, "file_missing", "The centre does not have one of its files")


def test_an_older_number_and_a_bad_table_are_refused_and_the_newer_stays(both, signer):  # noqa: F811
    signer.sign(both.offered, "--number", "5", "--next-steps", SHIPPED_TABLE)
    until(lambda: both.number() == 5, 60)
    file_of(both.offered, 5).unlink()
    signer.sign(both.offered, "--number", "4")
    until(lambda: "not higher" in both.page(both.node), 60)
    rollback(both.offered, "kidney", **SIGNED_BY)
    signer.sign(both.offered, "--number", "6", "--next-steps", SHIPPED_TABLE)
    until(lambda: both.number() == 6, 60)
    assert both.serves() == "1.0.0", "a going back is a release with a higher number"
    file_of(both.offered, 7).write_bytes(b"not whole")
    resigned(both.offered, signer, number=8, tables={"next_steps": "[rule"})
    until(lambda: "A table in it cannot be used" in both.page(both.node), 60)
    assert both.number() == 6
    assert "A table" in both.page(both.node)


# ---------------------------------------------------------------- the routes
def test_only_nodes_may_ask(both, signer):  # noqa: F811
    signer.sign(both.offered)
    kept = last_release(both.offered)
    for key in (None, both.centre.key("site", "xa"), both.centre.key("doctor", "xa", doctor_id="D", label="x")):
        with both.centre.client(*([key] if key else [])) as client:
            assert client.get("/v1/node/release").status_code == 403
            assert client.get(f"/v1/node/release/files/{64 * '0'}").status_code == 403
    with httpx.Client(base_url=both.centre.address, verify=False) as nobody:
        assert nobody.get("/v1/node/release").status_code == 401
    with both.as_node() as node:
        answer = node.get("/v1/node/release")
        assert answer.json() == kept.signed.model_dump()
        assert answer.headers["content-encoding"] == "gzip"
        assert node.get("/v1/node/news").json()["release"] == 1
        for wrong in ("number=0", "number=x", "since=yesterday", "refused=A", "of=1", "since=2026-11-30T07:30:00"):
            assert node.get(f"/v1/node/release?{wrong}").status_code == 422, wrong
        assert node.get("/v1/node/release?number=3&since=0001-01-01T00:00:00%2B14:00").status_code == 200
        assert node.get("/v1/node/release/files/nonsense").status_code == 422
        assert node.get(f"/v1/node/release/files/{64 * '0'}").status_code == 404


def test_files_come_whole_or_in_pieces(both, signer):  # noqa: F811
    signer.sign(both.offered)
    files = {file.path: file for _, file in last_release(both.offered).release.files()}
    with both.as_node() as node:
        for name in ("screening.json", "golden.npz"):
            path = f"/v1/node/release/files/{files[name].sha256}"
            content = (both.offered / "kidney-1.1.0" / name).read_bytes()
            whole = node.get(path)
            assert (whole.status_code, whole.content) == (200, content)
            plain = {"Accept-Encoding": "identity"}
            for coding, packed in (("gzip;q=0", False), ("br, gzip;q=0.5", name == "screening.json"), ("*", False)):
                sent = node.get(path, headers={"Accept-Encoding": coding}).headers
                assert (sent.get("content-encoding") == "gzip") == packed, coding
            assert node.get(path, headers=plain).headers["etag"] == f'"{files[name].sha256}"'
            piece = node.get(path, headers={**plain, "Range": "bytes=10-19"})
            assert (piece.status_code, piece.content) == (206, content[10:20])
            assert piece.headers["content-range"] == f"bytes 10-19/{len(content)}"
            other = {**plain, "Range": "bytes=10-19", "If-Range": '"another"'}
            assert node.get(path, headers=other).status_code == 200
            for wrong in (
                "bytes=5",
                "bytes=-5",
                "lines=1-2",
                "bytes=1-2,5-6",
                "bytes=5-1",
                f"bytes={len(content)}-",
                "x",
            ):
                assert node.get(path, headers={**plain, "Range": wrong}).status_code == 422, wrong


def test_the_page_is_for_administrators_of_a_centre_and_for_everybody_at_a_node(both, signer):  # noqa: F811
    doctor = both.centre.key("doctor", "xa", doctor_id="D", label="x")
    with both.centre.client(doctor) as client:
        assert client.get("/exchange").status_code == 404
    assert "no release yet" in both.page(both.centre)
    assert "no release yet" in both.page(both.node, key=both.node.key("site", NODE_SITE))
    signer.sign(both.offered)
    until(lambda: "Release 1" in both.page(both.node), 60)
    shutil.rmtree(both.offered / "kidney-1.1.0")
    assert "Files are missing here: kidney-1.1.0" in both.page(both.centre)
