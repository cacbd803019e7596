"""The table of destination kinds: its order in the API, and which addresses each kind takes from whom."""

from __future__ import annotations

import importlib
from typing import get_args

import pytest

from service.api.destinations import NewDestination
from service.delivery.message import Options
from service.delivery.senders.dispatch import KINDS, Kind

HTTP = Options(allow_http=True)


def test_the_api_lists_the_kinds_in_the_order_of_the_table():
    assert get_args(Kind) == ("webhook", "fhir", "dicom", "stow", "hl7", "alarm", "health_book") == tuple(KINDS)
    assert NewDestination.model_json_schema()["properties"]["kind"]["enum"] == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_sender(kind):
    assert callable(importlib.import_module(f"service.delivery.senders.{kind}").send)


def is_taken(kind, address, *, options=None, is_admin=True):
    try:
        KINDS[kind].check_address(address, options or Options(), is_admin)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "a.localhost", "127.0.0.1", "127.1", "10.0.0.1", "192.168.1.1", "169.254.1.1", "0x7f.1"),
        *("2130706433", "[::1]", "[fd00::1]", "[fe80::1%25eth0]", "[::ffff:10.0.0.1]", "10.0.0.1."),
    ],
)
def test_a_site_cannot_name_an_address_inside_our_network_and_an_admin_can(host):
    assert not is_taken("webhook", f"https://{host}/x", is_admin=False)
    assert is_taken("webhook", f"https://{host}/x")


@pytest.mark.parametrize(
    "address", ["https://hospital.example/x?a=b", "https://8.8.8.8/", "https://[2001:4860::1]:8443/"]
)
def test_a_site_can_name_an_address_on_the_internet(address):
    assert is_taken("webhook", address, is_admin=False)
    assert not is_taken("webhook", address.replace("https", "http"), options=HTTP, is_admin=False)


def test_an_admin_may_allow_http():
    assert is_taken("fhir", "http://127.0.0.1:8080/fhir")
    assert not is_taken("fhir", "http://10.0.0.7/fhir")
    assert is_taken("fhir", "http://10.0.0.7/fhir", options=HTTP)
    assert not is_taken("stow", "ftp://10.0.0.7/", options=HTTP)


@pytest.mark.parametrize("kind", ["fhir", "stow"])
def test_only_a_webhook_has_a_query(kind):
    assert is_taken("webhook", "https://x/?a=b")
    assert not is_taken(kind, "https://x/?a=b")


@pytest.mark.parametrize(
    "address",
    ["https://x/ y", "https://x\\y/", "https://u@x/", "https://x/#a", "https://x:0/", "https://x:99999/", "x"],
)
def test_an_address_that_is_more_or_less_than_one_is_refused(address):
    assert not is_taken("webhook", address)


def test_addresses_of_dicom_and_hl7():
    assert is_taken("dicom", "MY PACS@[::1]:104")
    assert is_taken("hl7", "[::1]:2575")
    for kind, address in (("dicom", "host:104"), ("dicom", "https://x/"), ("hl7", "A@host:1"), ("hl7", "https://x/")):
        assert not is_taken(kind, address)
