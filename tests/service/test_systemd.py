"""What systemd is told: a real socket, and real processes that start, work, hang and stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import httpx
import pytest

from service.systemd import Systemd
from tests.service import serve_standin
from tests.service.serving import until

EVERY_S = 0.2


class Listener:
    """The socket of a systemd."""

    def __init__(self, folder):
        self.address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)

    def heard(self, within_s):
        """The next message; ``None`` if none comes."""
        self._socket.settimeout(within_s)
        try:
            return self._socket.recv(100).decode()
        except (TimeoutError, BlockingIOError):
            return None

    def rest(self):
        found = []
        while (message := self.heard(0)) is not None:
            found.append(message)
        return found

    def close(self):
        self._socket.close()


@pytest.fixture
def listener(tmp_path):
    it = Listener(tmp_path)
    yield it
    it.close()


def watched(listener):
    return {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": str(round(4 * EVERY_S * 1e6))}


# ---------------------------------------------------------------- the environment
def test_who_started_the_process():
    for environment in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}, {"WATCHDOG_USEC": "10"}):
        assert Systemd.from_environment(environment) is None
        assert not environment, "processes that this one starts are not watched"
    address = {"NOTIFY_SOCKET": "@a"}
    assert Systemd.from_environment({**address}) == Systemd("@a")
    mine = {**address, "WATCHDOG_USEC": "2500000", "WATCHDOG_PID": str(os.getpid())}
    assert Systemd.from_environment(mine) == Systemd("@a", 2.5)
    assert Systemd.from_environment({**mine, **address, "WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}) == Systemd("@a")
    for odd in ("", "0", "-1", "x", "1.5", "²"):
        assert Systemd.from_environment({**address, "WATCHDOG_USEC": odd}) == Systemd("@a")


def test_both_kinds_of_address(listener):
    Systemd(listener.address).say("READY=1")
    assert listener.heard(5) == "READY=1"
    abstract = f"sangloc-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{abstract}")
        Systemd(f"@{abstract}").say("READY=1")
        receiver.settimeout(5)
        assert receiver.recv(100) == b"READY=1"


def test_a_systemd_that_does_not_listen_changes_nothing(tmp_path, capsys):
    Systemd(str(tmp_path / "nobody")).say("READY=1")
    assert "systemd_not_told" in capsys.readouterr().out


# ---------------------------------------------------------------- the database
async def told(listener, probe):
    """Whether a sign of life comes with this probe."""
    telling = asyncio.create_task(Systemd(listener.address, 0.2).keep_told(lambda: True, probe))
    try:
        assert await asyncio.to_thread(listener.heard, 5) == "READY=1"
        return await asyncio.to_thread(listener.heard, 1) == "WATCHDOG=1"
    finally:
        telling.cancel()


async def test_a_database_that_answers_is_a_sign_of_life_and_one_that_keeps_silent_is_none(listener):
    async def answers():
        return None

    async def fails():
        raise ConnectionRefusedError

    assert await told(listener, answers)
    listener.rest()
    assert await told(listener, fails), "to start again would repair no database"
    listener.rest()
    assert not await told(listener, asyncio.Event().wait)


async def test_who_is_not_watched_says_only_that_it_is_ready(listener):
    await asyncio.wait_for(Systemd(listener.address).keep_told(lambda: True, asyncio.Event().wait), 10)
    assert listener.rest() == ["READY=1"]


# ---------------------------------------------------------------- processes
def test_a_process_is_ready_works_and_stops(listener, new_process):
    # a child of this process, whose stops can be waited for
    process = new_process(script=serve_standin.__file__, **watched(listener)).start(wait=False)
    assert listener.heard(30) == "READY=1"
    assert httpx.get(f"{process.served.address}/readyz").status_code == 200, "it said so too early"
    for _ in range(3):
        assert listener.heard(10) == "WATCHDOG=1"
    process.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.process.pid, os.WSTOPPED | os.WNOWAIT)
    listener.rest()
    assert listener.heard(5 * EVERY_S) is None
    process.process.send_signal(signal.SIGCONT)
    assert listener.heard(10) == "WATCHDOG=1"
    assert process.stop() == 0
    said = listener.rest()
    assert said.count("STOPPING=1") == 1
    assert "READY=1" not in said


def test_a_process_that_cannot_listen_is_never_ready(listener, new_process):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        peers = {"SANGLOC_HL7_PORT": port, "SANGLOC_HL7_PEERS": "127.0.0.1=xa"}
        process = new_process(**watched(listener), **peers).start(wait=False)
        until(lambda: process.process.poll() is not None, 30)
    assert process.process.returncode == 1
    assert set(listener.rest()) <= {"STOPPING=1"}
