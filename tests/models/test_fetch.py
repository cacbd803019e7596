"""A file of weights comes whole, is the right one, and stays within its bounds, whatever its publisher does."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from models import fetch as module
from models.catalog import Source
from models.fetch import LOCK, CannotFetch, Limits, fetch
from tests.models.loopback import Publisher, published

WEIGHTS = bytes(range(256)) * 800
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


def source(**change: object) -> Source:
    entry: dict[str, object] = {
        "name": "some", "title": "some network", "bundle": "lung", "address_unknown": "Nobody knows.",
        "file": "weights.pt", "max_bytes": 300_000, "licence": "MIT", "trained_on": "x", "citation": "x",
        "confirmed": "x", "import": {"architecture": "resnet18"},
    }  # fmt: skip
    return Source.model_validate({**entry, **change})


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    with published({"/weights.pt": WEIGHTS}) as there:
        yield there


def got(there: Publisher, folder: Path, entry: Source | None = None, limits: Limits | None = None) -> tuple[Path, str]:
    return fetch(entry or source(), folder, origin=f"{there.address}/weights.pt", limits=limits)


def test_a_file_without_a_digest_is_pinned_and_every_later_one_has_to_be_the_same(
    publisher: Publisher, tmp_path: Path
) -> None:
    path, said = got(publisher, tmp_path)
    assert path.read_bytes() == WEIGHTS
    assert "pinned" in said
    pin = json.loads((tmp_path / LOCK).read_text())["some"]
    assert (pin["sha256"], pin["size"], pin["from"]) == (SHA256, len(WEIGHTS), f"{publisher.address}/weights.pt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["weights.lock", "weights.pt"]
    assert "as expected (pinned on" in got(publisher, tmp_path)[1]
    assert len(publisher.asked) == 1, "what is there and right is not fetched again"
    path.unlink()
    publisher.files["/weights.pt"] = WEIGHTS[::-1]
    with pytest.raises(CannotFetch, match=rf"expected {SHA256} \(pinned on .*--sha256"):
        got(publisher, tmp_path)
    assert not path.exists()
    other = hashlib.sha256(WEIGHTS[::-1]).hexdigest()
    assert got(publisher, tmp_path, limits=Limits(sha256=other))[1].endswith("as expected (given)")


def test_a_digest_of_the_catalog_is_held(publisher: Publisher, tmp_path: Path) -> None:
    said = got(publisher, tmp_path, source(sha256=SHA256, sha256_from="its publisher"))[1]
    assert said.endswith("as expected (its publisher)")
    assert not (tmp_path / LOCK).exists()
    with pytest.raises(CannotFetch, match="It is another file and is not used"):
        got(publisher, tmp_path, source(sha256="0" * 64))
    assert not (tmp_path / "weights.pt").exists()


def test_what_is_cut_off_goes_on_from_there(publisher: Publisher, tmp_path: Path) -> None:
    publisher.cut_after = [50_000, 70_000]
    assert got(publisher, tmp_path)[0].read_bytes() == WEIGHTS
    assert [asked for _, asked in publisher.asked] == [None, "bytes=50000-", "bytes=120000-"]


def test_what_is_cut_off_too_often_is_kept_for_the_next_command(publisher: Publisher, tmp_path: Path) -> None:
    publisher.cut_after = [10_000] * 5
    with pytest.raises(CannotFetch, match=r"after 50000 bytes\. They are kept"):
        got(publisher, tmp_path)
    assert not (tmp_path / "weights.pt").exists()
    assert got(publisher, tmp_path)[0].read_bytes() == WEIGHTS
    assert publisher.asked[-1][1] == "bytes=50000-"


def test_a_publisher_without_parts_begins_anew(publisher: Publisher, tmp_path: Path) -> None:
    publisher.cut_after, publisher.ranges = [50_000], False
    assert got(publisher, tmp_path)[0].read_bytes() == WEIGHTS


@pytest.mark.parametrize("etags", [True, False])
def test_parts_of_two_files_are_never_put_together(publisher: Publisher, tmp_path: Path, etags: bool) -> None:
    """A file that changed in between is told by its ETag; where there is none, it is begun anew."""
    publisher.cut_after, publisher.etags = [10_000] * 5, etags
    with pytest.raises(CannotFetch):
        got(publisher, tmp_path)
    publisher.files["/weights.pt"] = WEIGHTS[::-1]
    assert got(publisher, tmp_path)[0].read_bytes() == WEIGHTS[::-1]


def test_with_a_known_digest_a_part_is_used_and_a_mixture_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    publisher.cut_after, publisher.etags = [10_000], False
    assert got(publisher, tmp_path, source(sha256=SHA256))[0].read_bytes() == WEIGHTS
    assert publisher.asked[-1][1] == "bytes=10000-"
    publisher.cut_after = [10_000] * 5
    (tmp_path / "weights.pt").unlink()
    with pytest.raises(CannotFetch, match="They are kept"):
        got(publisher, tmp_path, source(sha256=SHA256))
    publisher.files["/weights.pt"] = WEIGHTS[::-1]
    with pytest.raises(CannotFetch, match="It is another file"):
        got(publisher, tmp_path, source(sha256=SHA256))
    assert not list(tmp_path.glob("weights.pt*"))


def test_a_part_that_is_whole_already_or_too_long(publisher: Publisher, tmp_path: Path) -> None:
    url = f"{publisher.address}/weights.pt"
    for content in (WEIGHTS, WEIGHTS + b"more"):
        (tmp_path / "weights.pt.part").write_bytes(content)
        mark = {"url": url, "validator": f'"{hashlib.md5(WEIGHTS).hexdigest()}"'}
        (tmp_path / "weights.pt.part.json").write_text(json.dumps(mark))
        path, _ = got(publisher, tmp_path)
        assert path.read_bytes() == WEIGHTS
        path.unlink()


def test_a_slow_publisher_has_so_much_time_and_what_came_is_kept(publisher: Publisher, tmp_path: Path) -> None:
    publisher.pause_s = 0.1
    with pytest.raises(CannotFetch, match=r"bytes in the time that it had \(--minutes\). They are kept"):
        got(publisher, tmp_path, limits=Limits(seconds=0.25))
    have = (tmp_path / "weights.pt.part").stat().st_size
    assert 0 < have < len(WEIGHTS)
    publisher.pause_s = 0.0
    assert got(publisher, tmp_path)[0].read_bytes() == WEIGHTS
    assert publisher.asked[-1][1] == f"bytes={have}-"


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_that_is_too_large_is_not_received(publisher: Publisher, tmp_path: Path, announced: bool) -> None:
    publisher.announced = announced
    with pytest.raises(CannotFetch, match="at most 100000 were expected"):
        got(publisher, tmp_path, source(max_bytes=100_000))
    assert not list(tmp_path.glob("weights.pt*")) or not (tmp_path / "weights.pt.part").exists()


def test_a_file_that_never_ends_is_not_received_to_its_end(publisher: Publisher, tmp_path: Path) -> None:
    publisher.announced, publisher.files["/weights.pt"] = False, bytes(60_000_000)
    with pytest.raises(CannotFetch, match="at most 300000 were expected"):
        got(publisher, tmp_path)
    assert publisher.sent < 30_000_000, "what the kernel keeps between the two is a few MB"


def test_a_file_of_another_size_is_another_file(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(CannotFetch, match="204800 bytes, 204799 were expected"):
        got(publisher, tmp_path, source(size=204_799))


def test_redirects_are_followed_where_they_may_lead(publisher: Publisher, tmp_path: Path) -> None:
    publisher.redirects = {"/latest": "/moved", "/moved": f"{publisher.address}/weights.pt", "/circle": "/circle"}
    publisher.redirects |= {"/files": "ftp://127.0.0.1/weights.pt", "/out": "http://192.0.2.1/weights.pt"}
    assert fetch(source(), tmp_path, origin=f"{publisher.address}/latest")[0].read_bytes() == WEIGHTS
    (tmp_path / "weights.pt").unlink()
    (tmp_path / LOCK).unlink()
    for path, why in (("circle", "more than 5"), ("files", "only https and http"), ("out", "give --sha256")):
        with pytest.raises(CannotFetch, match=why):
            fetch(source(), tmp_path, origin=f"{publisher.address}/{path}")


def test_https_never_leads_to_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = httpx.MockTransport(lambda _: httpx.Response(301, headers={"Location": "http://127.0.0.1/weights.pt"}))
    monkeypatch.setattr(module.httpx, "Client", functools.partial(httpx.Client, transport=there))
    with pytest.raises(CannotFetch, match="which is not https"):
        fetch(source(sha256=SHA256), tmp_path, origin="https://example.org/weights.pt")


def test_what_is_not_there_is_said(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(CannotFetch, match="answered 404"):
        fetch(source(), tmp_path, origin=f"{publisher.address}/other.pt")
    with pytest.raises(CannotFetch, match=r"Nobody knows\. Give the file or its address with --from"):
        fetch(source(), tmp_path)
    with pytest.raises(CannotFetch, match="no such file"):
        fetch(source(), tmp_path, origin=str(tmp_path / "none.pt"))


def test_a_file_at_hand_is_checked_and_left_where_it_is(tmp_path: Path) -> None:
    mine = tmp_path / "mine.pt"
    mine.write_bytes(WEIGHTS)
    assert fetch(source(), tmp_path / "downloads", origin=str(mine))[0] == mine
    with pytest.raises(CannotFetch, match="another file"):
        fetch(source(sha256="0" * 64), tmp_path / "downloads", origin=str(mine))
    assert mine.read_bytes() == WEIGHTS
    with pytest.raises(CannotFetch, match="at most 1000"):
        fetch(source(max_bytes=1000), tmp_path / "downloads", origin=str(mine))
    (tmp_path / "downloads" / LOCK).write_text("{")
    with pytest.raises(CannotFetch, match="cannot be read"):
        fetch(source(), tmp_path / "downloads", origin=str(mine))


def test_one_file_of_an_archive_is_taken_and_no_other(publisher: Publisher, tmp_path: Path) -> None:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/model.hdf5", WEIGHTS)
        archive.writestr("../escape.txt", b"x")
        archive.writestr("model/bomb.hdf5", bytes(1_000_000))
    publisher.files["/weights.pt"] = zipped.getvalue()
    path, _ = got(publisher, tmp_path / "d", source(member="model/model.hdf5"))
    assert path.read_bytes() == WEIGHTS
    assert path.parent == tmp_path / "d"
    assert not list(tmp_path.rglob("escape.txt"))
    for member, why in (("model/bomb.hdf5", "1000000 bytes"), ("model/none.hdf5", "there is no model/none.hdf5")):
        with pytest.raises(CannotFetch, match=why):
            got(publisher, tmp_path / "d", source(member=member))
    mine = tmp_path / "mine.pt"
    mine.write_bytes(WEIGHTS)
    with pytest.raises(CannotFetch, match="cannot be opened as a zip"):
        fetch(source(member="model/model.hdf5"), tmp_path / "other", origin=str(mine))
