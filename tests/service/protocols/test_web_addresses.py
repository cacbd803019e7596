"""Addresses that secrets are sent to."""

from __future__ import annotations

import pytest

from service.protocols.web_addresses import check_confidential


@pytest.mark.parametrize(
    "address",
    [
        "https://a.example",
        "https://a.example:8443/x?y=1",
        "http://127.0.0.1:9/",
        "http://localhost/",
        "http://[::1]:9/x",
    ],
)
def test_nobody_on_the_way_reads_these(address):
    assert check_confidential(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a.example",
        "//a.example",
        "http://a.example",
        "http://127.0.0.1.a.example/",
        "http://localhost.a.example/",
        "http://user@127.0.0.1/",
        "https://user:secret@a.example/",
        "https://",
        "https:///x",
        "https://a.example:0/",
        "https://a.example:99999/",
        "https://a.example/#x",
        "https://a.example\\@b.example/",
        "https://a.example/ x",
        "https://a.example/\n",
        "HTTPX://a.example",
        "ftp://127.0.0.1/",
        "https://a.example/" + "x" * 500,
        "https://[::1",
    ],
)
def test_these_are_refused(address):
    with pytest.raises(ValueError):  # noqa: PT011  its words are for settings, whose tests read them
        check_confidential(address)


def test_http_to_this_machine_only_where_it_may_be():
    with pytest.raises(ValueError, match="https"):
        check_confidential("http://127.0.0.1/", may_be_http=False)
