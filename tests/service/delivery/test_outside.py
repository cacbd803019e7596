"""Which addresses are inside our own network, and that names which lead there are not connected to."""

from __future__ import annotations

import contextlib
import gc
import json
import socket
import threading
from ipaddress import ip_address

import pytest

from service.delivery.addresses import is_inside
from service.delivery.outside import MAX_ADDRESSES, NotOutside, outside_addresses, resolve
from service.storage.database import database_now, insert_rows
from service.storage.tables import DestinationRow
from tests.service.delivery.test_delivery import QUICK, deliveries, destination, post
from tests.service.serving import serving, settings_for, until

INSIDE = (
    *("127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1"),
    *("169.254.1.1", "169.254.169.254", "192.0.0.9", "192.0.2.1", "192.88.99.1", "198.18.0.1", "203.0.113.1"),
    *("224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "fc00::1", "fd12::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1", "100::1"),
    *("::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:0:10.0.0.1", "::10.0.0.1", "::127.0.0.1"),
    *("64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::10.0.0.1", "64:ff9b:1:a00:1::"),
    *(
        "64:ff9b:1::8.8.8.8",
        "2002:a00:1::1",
        "2002:7f00:1::1",
        "2002:c0a8:1::1",
        "2001::1",
        "2001:0:808:808::1",
        "2001:db8::1",
    ),
    "3fff::1",
)
OUTSIDE = (
    *("8.8.8.8", "172.32.0.1", "100.128.0.1", "193.0.0.1", "::ffff:8.8.8.8"),
    *("2001:4860:4860::8888", "2606:4700::1111", "64:ff9b::8.8.8.8", "2002:808:808::1", "2a00:1450::1"),
)
UNKNOWN_NAME = "nobody.invalid"
KINDS = {"webhook": "https://{}/x", "fhir": "https://{}", "stow": "https://{}", "dicom": "PACS@{}", "hl7": "{}"}


@pytest.mark.parametrize("address", INSIDE)
def test_what_is_inside(address):
    assert is_inside(ip_address(address))


@pytest.mark.parametrize("address", OUTSIDE)
def test_what_is_outside(address):
    assert not is_inside(ip_address(address))


@pytest.mark.parametrize("inside", ["10.0.0.1", "::1", "64:ff9b::10.0.0.1"])
def test_one_address_inside_refuses_them_all(inside):
    assert outside_addresses("h", lambda _: ["2606:4700::1111", "8.8.8.8"]) == ["8.8.8.8", "2606:4700::1111"]
    for found in (["8.8.8.8", inside], [inside, "8.8.8.8"], [f"8.8.8.{n}" for n in range(9)] + [inside]):
        with pytest.raises(NotOutside):
            outside_addresses("h", lambda _, found=found: found)
    assert len(outside_addresses("h", lambda _: [f"8.8.8.{n}" for n in range(9)])) == MAX_ADDRESSES


def test_the_machines_own_resolver():
    with pytest.raises(NotOutside):
        outside_addresses("localhost")
    with pytest.raises(socket.gaierror):
        outside_addresses(UNKNOWN_NAME)
    with pytest.raises(OSError, match="no host's name"):
        outside_addresses("a" * 64)
    with pytest.raises(OSError, match="no address"):
        outside_addresses("h", lambda _: [])
    assert outside_addresses("8.8.8.8") == ["8.8.8.8"]


# ---------------------------------------------------------------- every kind of destination
@pytest.fixture
def name():
    """A name of this machine whose text does not show that it is inside."""
    found = socket.gethostname()
    try:
        addresses = resolve(found)
    except OSError:
        addresses = []
    if not addresses or not all(is_inside(ip_address(each)) for each in addresses) or "localhost" in found:
        pytest.skip("the machine's name leads to no address inside: names that lead there are not tried in this run")
    return found


@contextlib.contextmanager
def door():
    """A port of this machine that takes connections, counts them, and answers nothing."""
    came = []
    with socket.create_server(("", 0)) as listener:

        def take():
            with contextlib.suppress(OSError):  # closed at the end
                while True:
                    connection, _ = listener.accept()
                    came.append(connection)
                    connection.close()

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield listener.getsockname()[1], came
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def insert(served, kind, address, *, may_be_inside):
    def write(session):
        row = DestinationRow(id=f"{kind}-{may_be_inside}", kind=kind, address=address, language="en", secret="s" * 16)
        row.site, row.ended_at = None, None
        row.options, row.may_be_inside, row.created_at = json.dumps({}), may_be_inside, database_now(session)
        insert_rows(session, row)

    with served.app.state.service.database.transaction(write=True) as session:
        write(session)


# pynetdicom leaves a socket to the garbage collector, which says so
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_kind_of_destination_leads_a_site_inside(tmp_path, name):
    with door() as (sites, tried), door() as (ours, came), serving(settings_for(tmp_path, **QUICK)) as served:
        for kind, address in KINDS.items():
            insert(served, kind, address.format(f"{name}:{sites}"), may_be_inside=False)
            insert(served, kind, address.format(f"{name}:{ours}"), may_be_inside=True)
        post(served)
        until(lambda: all(each["problem"] for each in deliveries(served)), 30)
        problems = {each["problem"] for each in deliveries(served) if each["destination"].endswith("-False")}
        assert problems == {"unreachable"}
        assert len(came) >= len(KINDS)
        assert tried == []
    gc.collect()


def test_a_site_learns_no_more_of_an_inside_name_than_of_an_unknown_one(tmp_path, name):
    with door() as (port, came), serving(settings_for(tmp_path, **QUICK)) as served:
        key = served.key("site", "probing")
        probes = [destination(served, f"https://{host}:{port}/", key=key)["id"] for host in (name, UNKNOWN_NAME)]
        ours = destination(served, f"https://{name}:{port}/", site="probing")["id"]
        post(served, key=key)
        until(lambda: all(each["problem"] for each in deliveries(served)), 30)
        problems = {each["destination"]: each["problem"] for each in deliveries(served)}
        assert {problems[each] for each in probes} == {"unreachable"}
        assert problems[ours] in ("broken_off", "unreachable", "tls")
        assert came, "an admin may name an address inside"
