"""A doctor signs some of the visits while servers are harmed, which makes a second version of their report."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlencode

from benchmarks.chaos.asking import Answer, Client, Lost
from benchmarks.chaos.audit import rows
from benchmarks.chaos.beside import beside
from benchmarks.chaos.record import Figures
from benchmarks.chaos.visits import ASK_AGAIN_S, Load

Ask = Callable[[str, str, bytes, dict[str, str]], Answer]
"""Method, path, body and headers of a request; as :meth:`benchmarks.chaos.asking.Client.ask`."""
SIGN_EVERY_S = 0.3
JSON = {"Content-Type": "application/json"}


@contextmanager
def signing(load: Load, asks: Sequence[Ask], signed: list[str]) -> Iterator[None]:
    """Sign visits of ``load`` meanwhile, by each of ``asks`` in turn; their ids are added to ``signed``."""
    ended = threading.Event()

    def sign_some() -> None:
        tried: set[str] = set()
        while not ended.wait(SIGN_EVERY_S):
            ids = [each.id for each in list(load.accepted.values())[-40:-10] if each.id not in tried]
            if not ids:
                continue
            tried.add(ids[0])
            try:
                ask = asks[len(tried) % len(asks)]
                answer = ask("POST", f"/v1/visits/{ids[0]}/opinions", b'{"version": 1}', JSON)
            except Lost:
                continue
            if answer.status == 201:
                signed.append(ids[0])

    with beside(ended, sign_some):
        yield


def audit_signatures(figures: Figures, database_url: str, signed: Sequence[str]) -> None:
    """Count the signatures that were taken and are not there."""
    versions = dict(rows(database_url, "SELECT id, version FROM visits"))
    figures.counts["signed"] += len(signed)
    figures.counts["signatures lost"] += sum(versions.get(id_, 1) < 2 for id_ in signed)


class BrowserSession:
    """A session that a browser opens with a key and then uses by its cookie.

    Parameters
    ----------
    client
        It sends no key of its own.
    origin
        The address that the browser shows.
    """

    def __init__(self, figures: Figures, client: Client, origin: str, key: str) -> None:
        self._figures, self._client = figures, client
        self._headers = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
        self.cookie = ""
        form = urlencode({"key": key, "next": "/worklist"}).encode()
        answer = client.ask(
            "POST", "/login", form, {**self._headers, "Content-Type": "application/x-www-form-urlencoded"}
        )
        self.cookie = answer.headers.get("set-cookie", "").partition(";")[0]
        if answer.status != 303 or not self.cookie:
            raise RuntimeError(f"the session was not opened: {answer.status}")

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        """As :meth:`benchmarks.chaos.asking.Client.ask`; counts what the session was refused."""
        answer = self._client.ask(method, path, body, {**self._headers, "Cookie": self.cookie, **headers})
        counts = self._figures.counts
        counts[f"session answer {answer.status}"] += 1
        counts["sessions lost"] += answer.status == 401
        if answer.fault:
            counts[f"wrong answer: session, {answer.fault}"] += 1
            counts["wrong answers"] += 1
        return answer

    def close(self) -> None:
        """Sign out; asked for again until it is answered."""
        while True:
            try:
                if self.ask("POST", "/logout", b"", {}).status == 303:
                    return
            except Lost:
                self._figures.counts["answers lost"] += 1
            time.sleep(ASK_AGAIN_S)


def audit_sessions(figures: Figures, sessions: Sequence[BrowserSession], clients: Sequence[Client]) -> None:
    """Each server knows each session, and none after it has ended.

    Parameters
    ----------
    clients
        One for each server, without a key.
    """
    for session in sessions:
        for is_open in (True, False):
            for client in clients:
                status = client.ask("GET", "/v1/visits?limit=1", b"", {"Cookie": session.cookie}).status
                figures.counts["sessions lost"] += is_open and status != 200
                figures.counts["sessions that went on"] += not is_open and status != 401
            if is_open:
                session.close()
    figures.counts["sessions"] += len(sessions)
