"""The envelope: structure by the table, signatures that others can check, the same bytes each time; and keys."""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC

import pytest

pytest.importorskip("signxml", reason="signxml is not installed: nothing is signed in this run")

from lxml import etree

from data_specs.visit.context import Lab
from service.delivery.health_book.envelope import record_of, request_of, sealed
from service.delivery.health_book.facts import facts_of, results_of
from service.delivery.health_book.keys import KeyUnusable, read_secret, read_signer
from service.delivery.health_book.table import Keys, read_book
from tests.service import report_fixture
from tests.service.delivery.health_book.gateway import (
    SAVED,
    BookGateway,
    Push,
    new_pair,
    new_table,
    private,
    signature_refused,
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return new_pair(folder, "facility", passphrase="a passphrase"), new_pair(folder, "doctor")


@pytest.fixture(scope="module")
def book(tmp_path_factory, pairs):
    return read_book(new_table(tmp_path_factory.mktemp("table"), *pairs))


def signed_report(**changes):
    report = report_fixture.report(2)
    person = report.person.model_copy(update={"national_id": "001061000123"})
    labs = (Lab(name="creatinine", value=88, unit="umol/L"),)
    return report.model_copy(update={"site": "xa", "person": person, "labs": labs, **changes})


def made(book, report):
    facts = facts_of(report, book, UTC, delivery="k", replaces=False)
    results, problems = results_of(report, book, "vi")
    record, lacking = record_of(book, facts, results)
    assert (problems, lacking) == ([], [])
    facility, doctor = read_signer(book.facility[0]), read_signer(book.doctor[0])
    envelope = sealed(book, record, facility, doctor)
    return envelope, request_of(book, record, facts, envelope, facility)


def test_what_is_made_is_what_the_gateway_takes(book, pairs):
    _, request = made(book, signed_report())
    push = Push(request, ())
    gateway = object.__new__(BookGateway)
    gateway.facility, gateway.doctor, gateway.records = *pairs, {}
    assert tuple(gateway.look(push)) == SAVED
    assert [each.tag for each in push.envelope] == ["THONGTINDONVI", "THONGTINHOSO", "CHUKYDONVI"]
    record = push.envelope.find("THONGTINHOSO")
    assert [each.tag for each in record] == ["NGAYLAP", "SOLUONGHOSO", "DANHSACHHOSO"]
    assert [each.findtext("LOAIHOSO") for each in record.findall("DANHSACHHOSO/HOSO/FILEHOSO")] == ["XML1", "XML11"]
    assert push.rows("MA_CHI_SO")[-1] == "CREA"


def test_the_same_version_gives_the_same_bytes(book):
    assert made(book, signed_report()) == made(book, signed_report())


@pytest.mark.parametrize("where", ["NGAYLAP", "NOIDUNGFILE", "MACSKCB"])
def test_a_change_anywhere_in_the_envelope_breaks_the_signature(book, pairs, where):
    envelope, _ = made(book, signed_report())
    assert signature_refused(envelope, pairs[0], "CHUKYDONVI") is None
    root = etree.fromstring(envelope)
    root.find(f".//{where}").text += "0"
    assert signature_refused(etree.tostring(root), pairs[0], "CHUKYDONVI") == "PS_DS_CA_SIGNATURE_INVALID"


def test_a_signature_of_another_holder_is_none(book, pairs):
    envelope, _ = made(book, signed_report())
    assert signature_refused(envelope, pairs[1], "CHUKYDONVI") == "PS_DS_CA_SIGNATURE_INVALID"


def test_a_changed_header_or_data_breaks_the_checksum(book, pairs):
    _, request = made(book, signed_report())
    gateway = object.__new__(BookGateway)
    gateway.facility, gateway.doctor, gateway.records = *pairs, {}
    for old, new in ((b'"NEW"', b'"REPLACE"'), (b"xml/base64", b"xml/base32")):
        assert old in request
        changed = request.replace(old, new)
        assert gateway.look(Push(changed, ())) == ["PS_DS_RSA_SIGNATURE_INVALID"]


@pytest.mark.parametrize("name", ["A & B <c> ]]>", "\x00\x0bA\ud7ff\ufffe", "Ẵặ" * 50, "<!-- x -->"])
def test_no_name_makes_the_envelope_invalid(book, pairs, name):
    report = signed_report()
    person = report.person.model_copy(update={"name": name})
    _, request = made(book, report.model_copy(update={"person": person}))
    gateway = object.__new__(BookGateway)
    gateway.facility, gateway.doctor, gateway.records = *pairs, {}
    push = Push(request, ())
    assert tuple(gateway.look(push)) == SAVED
    assert len(push.text("XML1", "HO_TEN")) == len(name)


def test_what_the_visit_does_not_have_gets_no_element(book):
    _, request = made(book, signed_report())
    envelope = etree.fromstring(base64.b64decode(json.loads(request)["data"]["file_content"]))
    first = envelope.find(".//NOIDUNGFILE").text
    assert b"DIA_CHI" not in base64.b64decode(first)


# ---------------------------------------------------------------- keys
def keys_of(pair, **changes):
    given = {name: getattr(pair, name) for name in ("key_file", "certificate_file", "passphrase_file")}
    return Keys(**{**given, **changes})


def test_a_key_with_a_passphrase_is_read_from_files(pairs):
    assert read_signer(keys_of(pairs[0])).key.key_size == 2048


@pytest.mark.parametrize(
    ("mode", "is_used"), [(0o600, True), (0o440, True), (0o400, True), (0o644, False), (0o620, False)]
)
def test_a_key_that_others_may_read_or_change_is_not_used(tmp_path, mode, is_used):
    path = private(tmp_path / "secret", "a secret\n")
    path.chmod(mode)
    if is_used:
        assert read_secret(path) == "a secret"
    else:
        with pytest.raises(KeyUnusable, match="file_open_to_others"):
            read_secret(path)


def test_what_is_wrong_with_a_key_is_one_word(tmp_path, pairs):
    facility, doctor = pairs
    other = private(tmp_path / "other", "no key")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for changes, reason in (
        ({"key_file": tmp_path / "none"}, "file_unreadable"),
        ({"key_file": tmp_path}, "file_unreadable"),
        ({"key_file": pipe}, "file_unreadable"),
        ({"key_file": other}, "key_unreadable"),
        ({"passphrase_file": None}, "key_unreadable"),
        ({"passphrase_file": other}, "key_unreadable"),
        ({"certificate_file": other}, "certificate_unreadable"),
        ({"certificate_file": doctor.certificate_file}, "certificate_of_another_key"),
    ):
        with pytest.raises(KeyUnusable) as refused:
            read_signer(keys_of(facility, **changes))
        assert str(refused.value) == reason
    with pytest.raises(KeyUnusable, match="secret_empty"):
        read_secret(private(tmp_path / "empty", " \n"))


def test_a_short_key_signs_nothing(tmp_path):
    with pytest.raises(KeyUnusable, match="key_not_rsa"):
        read_signer(keys_of(new_pair(tmp_path, "short", bits=1024)))
