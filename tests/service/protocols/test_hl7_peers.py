"""Peers of the HL7 v2 listener, as the settings list them."""

from __future__ import annotations

import pytest

from service.protocols.hl7_peers import check_listening, read_peers


def test_peers_are_read():
    peers = read_peers(" 10.0.0.1=lao-cai , ::ffff:10.0.0.2=a,[2001:DB8::1]=b, HIS.local=c ")
    assert [(each.host, each.site) for each in peers] == [
        ("10.0.0.1", "lao-cai"),
        ("10.0.0.2", "a"),
        ("2001:db8::1", "b"),
        ("his.local", "c"),
    ]
    assert read_peers("") == ()
    for bad in ("10.0.0.1", "=a", "10.0.0.1=", "a=b,,c=d", "a=1,a=2", "a b=c", f"a={'s' * 101}"):
        with pytest.raises(ValueError, match="entry"):
            read_peers(bad)


def test_a_listener_needs_peers():
    with pytest.raises(ValueError, match="say who may call"):
        check_listening(2575, "")
    check_listening(0, "")
