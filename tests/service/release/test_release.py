"""What is signed, what a node takes of it, and what a process that stops in between leaves."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import numpy as np
import pytest

from data_specs.next_steps.table import SHIPPED_TABLE, BadTable
from inference.bundles.registry import read_log, read_registry
from inference.runtime.session import ONE_THREAD
from models.registry import rollback
from service.release.__main__ import main
from service.release.in_force import DECIDED, finish_what_was_decided, put_in_force
from service.release.incoming import INCOMING, Incoming, check_offer, working
from service.release.kept import RELEASES, file_of, last_release, read_kept
from service.release.offered import missing_here, sent_file
from service.release.signed import NotTaken, SignedRelease, read_signed
from service.release.tables import Tables
from service.settings import Settings
from tests.conftest import ROOT
from tests.models.versions import version
from tests.service.release.conftest import Signer

SIGNED_BY = {"who": "the lead", "why": "a test"}


def public(*signers):
    from service.protocols.public_keys import read_public_keys

    return read_public_keys(",".join(each.public for each in signers))


def fetched(centre, incoming):
    """Bring every missing file, in two pieces, as the centre sends it."""
    n_bytes = 0
    for bundle, file in incoming.missing():
        sent = sent_file(centre, centre.parent / "packed", file.sha256, may_be_packed=True)
        content = sent.path.read_bytes()
        half = len(content) // 2
        incoming.add(file, sent.name, 0, content[:half])
        assert incoming.part_of(file) == (sent.name, half)
        incoming.add(file, sent.name, half, content[half:])
        incoming.finish(bundle, file)
        n_bytes += len(content)
    return n_bytes


def taken(centre, node, signer):
    """Take the release that is offered, without a network."""
    signed = last_release(centre).signed
    release = signed.verified(public(signer))
    if check_offer(node, signed, release):
        with working(node, wait=True):
            incoming = Incoming(node, release)
            fetched(centre, incoming)
            incoming.check(ONE_THREAD)
            put_in_force(node, signed)


def refused(*arguments):
    with pytest.raises(NotTaken) as refusal:
        taken(*arguments)
    return refusal.value.code


# ---------------------------------------------------------------- signing
def test_what_is_in_service_is_signed_with_every_file(kidneys, signer, capsys):
    centre, _ = kidneys
    signer.sign(centre, "--next-steps", SHIPPED_TABLE)
    said = capsys.readouterr().out
    assert "release 1, " in said
    assert "kidney 1.1.0: " in said
    release = last_release(centre).signed.verified(public(signer))
    (bundle,) = release.bundles
    assert (bundle.organ, bundle.name, bundle.version) == ("kidney", "kidney", "1.1.0")
    folder = centre / "kidney-1.1.0"
    assert {f.path for f in bundle.files} == {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    }
    assert release.tables == {"next_steps": SHIPPED_TABLE.read_text("utf-8")}
    assert (release.who, release.why) == ("the lead", "a test")
    assert main(["list", "--bundles", str(centre), "--signer", signer.public]) == 0
    assert "signature: right" in capsys.readouterr().out


def test_the_private_key_is_for_its_owner_and_never_written_over(signer, tmp_path):
    assert stat.S_IMODE(os.stat(signer.key).st_mode) == 0o600
    before = signer.key.read_bytes()
    assert main(["keys", str(signer.key)]) == 2
    assert signer.key.read_bytes() == before


def test_a_key_with_a_passphrase_signs_with_it_only(kidneys, tmp_path, capsys, monkeypatch):
    said = iter(["long enough", "long enough", "wrong", "long enough"])
    monkeypatch.setattr("getpass.getpass", lambda _: next(said))
    key = tmp_path / "encrypted.key"
    assert main(["keys", str(key), "--passphrase"]) == 0
    assert b"ENCRYPTED" in key.read_bytes()
    command = ["sign", "--key", str(key), "--bundles", str(kidneys[0]), "--who", "x", "--why", "y"]
    assert main(command) == 1
    assert "the passphrase is wrong" in capsys.readouterr().err
    assert main(command) == 0


def test_nothing_is_signed_that_a_server_would_refuse(kidneys, signer, tmp_path, capsys):
    centre, _ = kidneys
    bad = tmp_path / "bad.toml"
    bad.write_text("[rule]\nthen = 1\n")
    signer.sign(centre, "--next-steps", bad, code=1)
    assert "rule rule" in capsys.readouterr().err
    signer.sign(centre)
    signer.sign(centre, "--number", "1", code=1)
    assert "higher than 1" in capsys.readouterr().err
    golden_differs(centre / "kidney-1.1.0")
    signer.sign(centre, code=1)
    assert "golden" in capsys.readouterr().err
    assert [path.name for path in (centre / RELEASES).iterdir()] == ["1.json"]


def golden_differs(folder):
    """Make the golden cases expect something else, with a manifest that names the changed file rightly."""
    import hashlib

    golden = folder / "golden.npz"
    arrays = dict(np.load(golden))
    name = next(each for each in arrays if each != "input")
    arrays[name] = arrays[name] + 0.5
    np.savez(golden, **arrays)
    manifest = json.loads((folder / "screening.json").read_text())
    manifest["golden"]["sha256"] = hashlib.sha256(golden.read_bytes()).hexdigest()
    (folder / "screening.json").write_text(json.dumps(manifest))


# ---------------------------------------------------------------- taking
def test_a_release_comes_into_force_with_its_table_and_its_line_in_the_log(kidneys, signer):
    centre, node = kidneys
    signer.sign(centre, "--next-steps", SHIPPED_TABLE, why="fewer recalls")
    taken(centre, node, signer)
    registry = read_registry(node)
    assert registry.in_service("kidney") == "1.1.0"
    line = read_log(node)[0][-1]
    assert (line.action, line.from_version, line.who, line.why) == (
        "promote", "1.0.0", "the lead", "release 1: fewer recalls",
    )  # fmt: skip
    assert last_release(node).signed == last_release(centre).signed
    for path in (centre / "kidney-1.1.0").rglob("*"):
        if path.is_file():
            there = node / path.relative_to(centre)
            assert there.read_bytes() == path.read_bytes()
    assert [path.name for path in (node / INCOMING).rglob("*") if path.is_file()] == ["lock"]
    assert rollback(node, "kidney", **SIGNED_BY).to_version == "1.0.0"


def test_only_what_is_in_no_version_here_is_fetched(kidneys, signer):
    centre, node = kidneys
    signer.sign(centre)
    release = last_release(centre).release
    with working(node, wait=True):
        missing = [file.path for _, file in Incoming(node, release).missing()]
    assert missing == ["screening.json"], "weights, golden cases and the card are those of 1.0.0"


def test_going_back_is_a_new_release_with_a_higher_number(kidneys, signer):
    centre, node = kidneys
    signer.sign(centre)
    taken(centre, node, signer)
    rollback(centre, "kidney", **SIGNED_BY)
    signer.sign(centre)
    taken(centre, node, signer)
    assert read_registry(node).in_service("kidney") == "1.0.0"
    assert last_release(node).release.number == 2
    taken(centre, node, signer)
    assert len(read_log(node)[0]) == 2, "the same release changes nothing"


def test_a_decision_at_the_node_stays_until_the_next_release(kidneys, signer):
    centre, node = kidneys
    signer.sign(centre)
    taken(centre, node, signer)
    rollback(node, "kidney", **SIGNED_BY)
    taken(centre, node, signer)
    assert read_registry(node).in_service("kidney") == "1.0.0"
    signer.sign(centre)
    taken(centre, node, signer)
    assert read_registry(node).in_service("kidney") == "1.1.0"


def test_two_releases_are_kept_and_older_versions_removed(kidneys, signer):
    centre, node = kidneys
    for number in ("1.2.0", "1.3.0", "1.4.0"):
        signer.sign(centre)
        taken(centre, node, signer)
        version(centre, "kidney", number)
    assert sorted(path.name for path in (node / RELEASES).iterdir()) == ["2.json", "3.json"]
    assert sorted(path.name for path in node.glob("kidney-*")) == ["kidney-1.0.0", "kidney-1.2.0", "kidney-1.3.0"], (
        "1.0.0 came by no release"
    )


# ---------------------------------------------------------------- refusals
def changed_text(signed, before, after):
    assert before in signed.manifest
    return SignedRelease(manifest=signed.manifest.replace(before, after), signature=signed.signature)


def test_what_nobody_known_has_signed_is_refused(kidneys, signer, tmp_path, capsys):
    centre, node = kidneys
    other = Signer(tmp_path / "other.key", capsys)
    signer.sign(centre)
    signed = last_release(centre).signed
    for release, signers, code in (
        (signed, (), "signer"),
        (signed, (other,), "signature"),
        (changed_text(signed, '"number":1', '"number":9'), (signer,), "signature"),
        (SignedRelease(manifest=signed.manifest, signature=""), (signer,), "signature"),
        (SignedRelease(manifest=signed.manifest, signature="no base64"), (signer,), "signature"),
        (SignedRelease(manifest=signed.manifest, signature=signed.signature[:40]), (signer,), "signature"),
    ):
        with pytest.raises(NotTaken) as refusal:
            release.verified(public(*signers))
        assert refusal.value.code == code
    assert signed.verified(public(other, signer)).number == 1, "a person's successor may be known already"
    assert refused(centre, node, other) == "signature"
    assert not (node / RELEASES).exists()


def test_an_older_number_and_another_release_of_the_same_number_are_refused(kidneys, signer, tmp_path):
    centre, node = kidneys
    signer.sign(centre)
    first = file_of(centre, 1).read_bytes()
    signer.sign(centre)
    taken(centre, node, signer)
    file_of(centre, 2).unlink()
    assert refused(centre, node, signer) == "number"
    file_of(centre, 1).write_bytes(first)
    signer.sign(centre, "--number", "2")
    assert refused(centre, node, signer) == "number"
    assert read_registry(node).in_service("kidney") == "1.1.0"


def test_a_file_with_a_changed_byte_is_refused_and_fetched_anew(kidneys, signer):
    centre, node = kidneys
    signer.sign(centre)
    screening = centre / "kidney-1.1.0/screening.json"
    whole = screening.read_bytes()
    screening.write_bytes(whole.replace(b"incident_ckd", b"incident_ckx", 1))
    sha256 = next(file.sha256 for _, file in last_release(centre).release.files() if file.path == "screening.json")
    assert sent_file(centre, centre.parent / "packed", sha256, may_be_packed=True) is None, "the centre sees it"
    release = last_release(centre).release
    with working(node, wait=True):
        incoming = Incoming(node, release)
        ((bundle, file),) = incoming.missing()
        for content in (screening.read_bytes(), whole[:-1], whole + b" ", b"\x1f\x8b not gzip"):
            for name in (file.sha256, file.sha256 + ".gz"):
                incoming.add(file, name, 0, content)
                with pytest.raises(NotTaken) as refusal:
                    incoming.finish(bundle, file)
                assert refusal.value.code == "file_differs"
                assert incoming.part_of(file) == (file.sha256, 0)
    screening.write_bytes(whole)
    taken(centre, node, signer)
    assert read_registry(node).in_service("kidney") == "1.1.0"


def resigned(centre, signer, **changes):
    """The last release with other members, signed as the person who promotes would."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from service.release.signed import sign

    release = last_release(centre).release.model_copy(update=changes)
    key = load_pem_private_key(signer.key.read_bytes(), None)
    file_of(centre, release.number).write_text(sign(release, key).model_dump_json())


def test_a_bundle_whose_golden_case_fails_here_is_refused(kidneys, signer):
    """It was signed elsewhere: on another machine it may have passed."""
    from service.release.signed import ReleasedFile

    centre, node = kidneys
    signer.sign(centre)
    golden_differs(centre / "kidney-1.1.0")
    (bundle,) = last_release(centre).release.bundles
    import hashlib

    files = []
    for file in bundle.files:
        content = (centre / "kidney-1.1.0" / file.path).read_bytes()
        files.append(ReleasedFile(path=file.path, n_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()))
    resigned(centre, signer, bundles=(bundle.model_copy(update={"files": tuple(files)}),))
    assert refused(centre, node, signer) == "bundle"
    assert read_registry(node).versions == {"kidney": ("1.0.0",)}
    assert last_release(node) is None


def test_a_table_that_cannot_be_used_is_refused(kidneys, signer):
    centre, node = kidneys
    signer.sign(centre, "--next-steps", SHIPPED_TABLE)
    for tables in ({"next_steps": "[rule"}, {"next_steps": ""}, {"of_tomorrow": "x = 1"}):
        resigned(centre, signer, tables=tables)
        assert refused(centre, node, signer) == "table"
    assert last_release(node) is None


def test_a_version_that_is_here_with_other_files_is_refused(kidneys, signer):
    centre, node = kidneys
    signer.sign(centre)
    version(node, "kidney", "1.1.0", lambda manifest: manifest.update(purpose="another"))
    assert refused(centre, node, signer) == "version_differs"


def test_what_cannot_be_read_is_no_release(kidneys, signer):
    centre, _ = kidneys
    signer.sign(centre)
    file_of(centre, 2).write_bytes(file_of(centre, 1).read_bytes()[:-40])
    file_of(centre, 3).write_bytes(file_of(centre, 1).read_bytes())
    assert last_release(centre).release.number == 1, "one is not copied whole yet, one has another number in it"
    for content in (b"", b"\xff", b"[]", b"{}", bytes(5_000_000)):
        with pytest.raises(NotTaken):
            read_signed(content)
    evil = last_release(centre).signed.manifest.replace('"path":"screening.json"', '"path":"../screening.json"')
    with pytest.raises(NotTaken) as refusal:
        SignedRelease(manifest=evil, signature="").release()
    assert refusal.value.code == "format"


# ---------------------------------------------------------------- stopped in between
KILLED = """
import os, sys
from pathlib import Path
from service.release import in_force
from service.release.signed import read_signed

step, bundles, offered = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
signed = read_signed(offered.read_bytes())

def stop(*_):
    os.kill(os.getpid(), 9)

def then_stop(name):
    real = getattr(in_force, name)
    def run(*given):
        real(*given)
        stop()
    setattr(in_force, name, run)

if step == "decided": in_force._carry_out = stop
elif step == "moved": in_force._log_promotions = stop
elif step == "logged": then_stop("_log_promotions")
elif step == "in force": in_force._remove_older = stop
elif step == "removed": then_stop("_remove_older")
in_force.put_in_force(bundles, signed)
"""


@pytest.mark.parametrize("step", ["decided", "moved", "logged", "in force", "removed"])
def test_a_process_that_is_killed_leaves_the_old_or_the_next_start_makes_the_new(kidneys, signer, tmp_path, step):
    centre, node = kidneys
    signer.sign(centre, "--next-steps", SHIPPED_TABLE)
    kept = last_release(centre)
    with working(node, wait=True):
        incoming = Incoming(node, kept.release)
        fetched(centre, incoming)
        incoming.check(ONE_THREAD)
    assert read_registry(node).in_service("kidney") == "1.0.0", "nothing has changed before the decision"
    ended = subprocess.run([sys.executable, "-c", KILLED, step, node, file_of(centre, 1)], cwd=ROOT, check=False)
    assert ended.returncode == -9
    finish_what_was_decided(node)
    assert not (node / INCOMING / DECIDED).exists()
    assert last_release(node).signed == kept.signed
    assert read_registry(node).in_service("kidney") == "1.1.0"
    assert len(read_log(node)[0]) == 1, "said once"
    finish_what_was_decided(node)
    assert len(read_log(node)[0]) == 1


def test_what_came_of_another_release_is_forgotten(kidneys, signer):
    centre, node = kidneys
    signer.sign(centre)
    with working(node, wait=True):
        incoming = Incoming(node, last_release(centre).release)
        ((_, file),) = incoming.missing()
        incoming.add(file, file.sha256, 0, b"{")
        version(centre, "kidney", "1.2.0")
        signer.sign(centre)
        incoming = Incoming(node, last_release(centre).release)
        assert {path.name for path in (node / INCOMING).iterdir()} == {"lock", "parts"}
        assert list((node / INCOMING / "parts").iterdir()) == []


def test_one_process_works_at_a_time(kidneys):
    _, node = kidneys
    with working(node, wait=True) as first, working(node, wait=False) as second:
        assert (first, second) == (True, False)
    with working(node, wait=False) as again:
        assert again


# ---------------------------------------------------------------- tables, and what is offered
def within(days):
    """The shipped table with another number of days."""
    return SHIPPED_TABLE.read_text("utf-8").replace("soon_within_days = 3", f"soon_within_days = {days}")


def test_the_settings_table_wins_then_the_releases_then_the_shipped_one(kidneys, signer, tmp_path):
    centre, _ = kidneys
    shipped = Tables(Settings(bundles=centre))
    assert shipped.next_steps.soon_within_days == 3
    table = tmp_path / "table.toml"
    table.write_text(within(9))
    signer.sign(centre, "--next-steps", table)
    assert shipped.next_steps.soon_within_days == 9, "taken over while it runs"
    own = tmp_path / "own.toml"
    own.write_text(within(5))
    assert Tables(Settings(bundles=centre, next_steps=own)).next_steps.soon_within_days == 5
    signer.sign(centre, "--next-steps", table)
    resigned(centre, signer, tables={"next_steps": "[rule"})
    assert shipped.next_steps.soon_within_days == 9, "the table before it stays"
    with pytest.raises(BadTable, match="release 2"):
        Tables(Settings(bundles=centre))


def test_files_are_sent_compressed_where_that_pays(kidneys, signer, tmp_path):
    centre, _ = kidneys
    signer.sign(centre)
    kept = last_release(centre)
    cache = tmp_path / "packed"
    sent = {f.path: sent_file(centre, cache, f.sha256, may_be_packed=True) for _, f in kept.release.files()}
    assert sent["screening.json"].is_packed
    assert not sent["golden.npz"].is_packed
    assert sent_file(centre, cache, 64 * "0", may_be_packed=True) is None
    (centre / "kidney-1.1.0/golden.npz").unlink()
    assert list(missing_here(centre, kept.release)) == ["kidney-1.1.0"]
    assert read_kept(centre, 7) is None
