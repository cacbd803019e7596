"""Who may call by DICOM and HL7 v2, and addresses that are called: one parser and one look-up for both."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from service.protocols import peers
from service.protocols.peers import (
    Callers,
    network_of,
    prefix_of,
    read_ae_address,
    read_callers,
    read_host_and_port,
)
from service.settings import BadSettings, read_settings


def entries(text, **options):
    return [(caller.ae_title, caller.host, caller.site) for caller in read_callers(text, **options)]


# ---------------------------------------------------------------- the list of callers
def test_dicom_callers_are_read():
    assert entries("A@10.0.0.1=one, B C@[fd00:0::1]=two two,A@PACS.local = three", with_ae_title=True) == [
        ("A", "10.0.0.1", "one"),
        ("B C", "fd00::1", "two two"),
        ("A", "pacs.local", "three"),
    ]
    assert entries("A=B@h=s=t", with_ae_title=True) == [("A=B", "h", "s=t")]


def test_hl7_callers_are_read():
    assert entries(" 10.0.0.1 = lao-cai , ::ffff:10.0.0.2=a,[2001:DB8::1]=b, HIS.local=c ", with_ae_title=False) == [
        ("", "10.0.0.1", "lao-cai"),
        ("", "10.0.0.2", "a"),
        ("", "2001:db8::1", "b"),
        ("", "his.local", "c"),
    ]


@pytest.mark.parametrize("with_ae_title", [True, False])
def test_nobody_may_call_where_the_list_is_empty(with_ae_title):
    assert read_callers("", with_ae_title=with_ae_title) == ()
    assert read_callers("  ", with_ae_title=with_ae_title) == ()


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        ("h", 1),
        ("=s", 1),
        ("h=", 1),
        ("h=s,,i=t", 2),
        ("h=s,", 2),
        ("h i=s", 1),
        (f"h={'s' * 101}", 1),
        ("h=s,h=t", 2),
        ("h=s,H=t", 2),
        ("10.0.0.1=s,::ffff:10.0.0.1=t", 2),
        ("fd00::1=s,[FD00:0::1]=t", 2),
    ],
)
def test_an_entry_that_cannot_be_used_is_named_by_its_place(entry, place):
    with pytest.raises(ValueError, match=f"^entry {place} "):
        read_callers(entry, with_ae_title=False)
    titled = ",".join(f"A@{part}" if part else part for part in entry.split(","))
    with pytest.raises(ValueError, match=f"^entry {place} "):
        read_callers(titled, with_ae_title=True)


@pytest.mark.parametrize("entry", ["h=s", "@h=s", "ABCDEFGHIJKLMNOPQ@h=s", "A\\B@h=s", "A@=s"])
def test_a_dicom_caller_has_an_ae_title(entry):
    with pytest.raises(ValueError, match="entry 1 has to be AE_TITLE@HOST=SITE"):
        read_callers(entry, with_ae_title=True)


def test_an_hl7_caller_has_no_ae_title():
    with pytest.raises(ValueError, match="entry 1 has to be HOST=SITE"):
        read_callers("A@h=s", with_ae_title=False)


def test_the_same_entry_twice_counts_once():
    assert entries("h=s, H=s", with_ae_title=False) == [("", "h", "s")]
    assert entries("A@h=s,B@h=t,A@[h]=s", with_ae_title=True) == [("A", "h", "s"), ("B", "h", "t")]


def test_an_entry_that_cannot_be_used_stops_the_start(monkeypatch):
    for name in ("SANGLOC_DICOM_PEERS", "SANGLOC_HL7_PEERS"):
        monkeypatch.setenv(name, "h=s,,")
        with pytest.raises(BadSettings, match=f"{name} cannot be used: entry"):
            read_settings()
        monkeypatch.delenv(name)


# ---------------------------------------------------------------- the look-up
class Resolver:
    """Stands in for the system's: ``names`` has addresses, ``asked`` is what was looked up."""

    def __init__(self, monkeypatch, **names):
        self.names, self.asked = names, []
        self.pause = threading.Event()
        self.pause.set()
        monkeypatch.setattr(peers.socket, "getaddrinfo", self)

    def __call__(self, host, *_, **__):
        self.asked.append(host)
        self.pause.wait(10)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in self.names[host]]


def callers(text, with_ae_title=False):
    return Callers(read_callers(text, with_ae_title=with_ae_title))


def test_a_caller_is_known_by_title_and_host():
    known = callers("A@10.0.0.1=one, B C@[fd00::1]=two,A@10.0.0.2=three, D@localhost=four", with_ae_title=True)
    assert known.site_of("10.0.0.1", "A") == "one"
    assert known.site_of("::ffff:10.0.0.2", "A") == "three"
    assert known.site_of("fd00:0::1", "B C") == "two"
    assert known.site_of("127.0.0.1", "D") == "four"
    for ae_title, address in (("A", "10.0.0.3"), ("a", "10.0.0.1"), ("B", "fd00::1"), ("", ""), ("D", "10.0.0.1")):
        assert known.site_of(address, ae_title) is None


def test_a_name_with_several_addresses_is_known_by_each(monkeypatch):
    Resolver(monkeypatch, his=["10.0.0.1", "fd00::2%eth0", "::ffff:10.0.0.3"])
    known = callers("HIS=a")
    for address in ("10.0.0.1", "fd00::2", "10.0.0.3", "::ffff:10.0.0.1"):
        assert known.site_of(address) == "a"
    assert known.site_of("10.0.0.2") is None


def test_who_is_listed_by_address_waits_for_no_name(monkeypatch):
    resolver = Resolver(monkeypatch, his=["10.0.0.1"])
    known = callers("his=by-name,10.0.0.1=by-address")
    assert known.site_of("10.0.0.1") == "by-address"
    assert resolver.asked == []


def test_a_name_is_looked_up_again_after_a_while(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(peers.time, "monotonic", lambda: now)
    resolver = Resolver(monkeypatch, his=["10.0.0.1"])
    known = callers("his=a,gone=b")
    assert (known.site_of("10.0.0.1"), known.site_of("10.0.0.2")) == ("a", None)
    assert resolver.asked == ["his", "gone"]
    resolver.names = {"his": ["10.0.0.2"], "gone": ["10.0.0.1"]}
    assert (known.site_of("10.0.0.1"), known.site_of("10.0.0.2")) == ("a", None)
    now += peers.LOOK_UP_AGAIN_S + 1
    assert (known.site_of("10.0.0.1"), known.site_of("10.0.0.2")) == ("b", "a")
    assert resolver.asked == ["his", "gone", "his", "gone"]


def test_a_resolver_that_does_not_answer_is_waited_for_within_a_bound(monkeypatch):
    monkeypatch.setattr(peers, "LOOK_UP_S", 0.05)
    resolver = Resolver(monkeypatch, slow=["10.0.0.1"], quick=["10.0.0.2"])
    known = callers("slow=a,quick=b")
    resolver.pause.clear()
    started = time.monotonic()
    assert known.site_of("10.0.0.1") is None
    assert time.monotonic() - started < 5
    resolver.pause.set()


def test_many_callers_at_once_cost_one_look_up(monkeypatch):
    resolver = Resolver(monkeypatch, his=["10.0.0.1"])
    known = callers("his=a")
    resolver.pause.clear()
    found = []
    threads = [threading.Thread(target=lambda: found.append(known.site_of("10.0.0.1"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    resolver.pause.set()
    for thread in threads:
        thread.join()
    assert found == ["a"] * 8
    assert resolver.asked == ["his"]


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "é" * 70])
def test_a_name_that_cannot_be_one_has_no_addresses(host):
    assert callers(f"{host}=a").site_of("10.0.0.1") is None


# ---------------------------------------------------------------- who is called
def test_an_ae_address_is_read(monkeypatch):
    address = read_ae_address("A B@[::1]:104")
    assert (address.ae_title, address.host, address.port) == ("A B", "::1", 104)
    for text in ("A@h", "A@h:0", "A@h:65536", "@h:104", "A@h:104:1", "A@h/x:104", "h:104"):
        with pytest.raises(ValueError, match="AE_TITLE@HOST:PORT"):
            read_ae_address(text)
        monkeypatch.setenv("SANGLOC_DICOM_WORKLIST", text)
        with pytest.raises(BadSettings, match="SANGLOC_DICOM_WORKLIST"):
            read_settings()


def test_a_host_and_port_is_read():
    assert read_host_and_port("[::1]:2575") == ("::1", 2575)
    assert read_host_and_port("his.local:2575") == ("his.local", 2575)
    for text in ("h", "h:0", "h:65536", ":1", "h:1:2", "A@h:1", "h/x:1", "[::1:1", "h:x", ""):
        with pytest.raises(ValueError, match="HOST:PORT"):
            read_host_and_port(text)


# ---------------------------------------------------------------- what clients are counted by
@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("unknown", ""),
    ],
)
def test_clients_are_counted_by_the_part_of_their_address_that_they_cannot_choose(address, network):
    assert network_of(address) == network


@pytest.mark.parametrize(
    ("address", "prefix"),
    [
        ("198.51.100.77", "198.51.100.0/24"),
        ("::ffff:198.51.100.77", "198.51.100.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1::/48"),
        ("2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("", ""),
        ("testclient", ""),
        ("/", ""),
    ],
)
def test_what_is_written_down_of_an_address_does_not_tell_a_device(address, prefix):
    assert prefix_of(address) == prefix
    assert "/" in address or prefix_of(network_of(address)) == prefix
