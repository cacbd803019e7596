"""An HTTP client that sends what it is told and keeps its connection, so that strange requests can be sent cheaply."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from benchmarks.serving import KEY

Lost = (OSError, http.client.HTTPException)
"""What is raised where no answer came: the server ended, or closed the connection."""


NO_HTTP = b"Invalid HTTP request received."
"""What the HTTP library answers to bytes that are no request: there is nothing yet whose language could be asked."""


@dataclass(frozen=True)
class Answer:
    """A whole answer; names of headers are in lower case.

    Parameters
    ----------
    by_proxy
        A proxy stood between: where it reached no server it says so itself, with an empty body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    by_proxy: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def fault(self) -> str:
        """Why a client that relies on the contract would complain; empty where it would not.

        References
        ----------
        RFC 9457 (problem documents), RFC 9110 section 10.2.3 (Retry-After).
        """
        if self.by_proxy and self.status in (502, 503, 504) and not self.body:
            return ""
        if self.status in (503, 507):
            return "" if self.status == 507 or "retry-after" in self.headers else "503 without Retry-After"
        if self.status >= 500:
            return f"status {self.status}"
        # Open Inference and DICOMweb have bodies of their own for what went wrong
        is_protocol = self.headers.get("content-type", "").startswith(("application/json", "application/dicom+json"))
        is_page = self.headers.get("content-type", "").startswith("text/html")
        if self.status == 400 and self.body == NO_HTTP:
            return ""
        if self.status >= 400 and not is_protocol and not is_page:
            kind = self.headers.get("content-type", "none")
            return "" if kind.startswith("application/problem+json") else f"{self.status} as {kind[:40]}"
        return ""


class Client:
    """One connection at a time, opened when it is needed.

    Parameters
    ----------
    key
        Sent as a bearer token; empty: none is sent.
    source
        The address of loopback from which it connects.
    context
        With it, TLS is spoken, to the proxy on ``localhost``.
    """

    def __init__(
        self,
        port: int,
        key: str = KEY,
        *,
        source: str = "127.0.0.1",
        timeout_s: float = 120.0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.port, self._key, self._by_proxy = port, key, context is not None
        if context is None:
            self._connection = http.client.HTTPConnection(
                "127.0.0.1", port, timeout=timeout_s, source_address=(source, 0)
            )
        else:
            self._connection = http.client.HTTPSConnection(
                "localhost", port, timeout=timeout_s, source_address=(source, 0), context=context
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Send a request and read its answer.

        Raises
        ------
        OSError, http.client.HTTPException
            No answer came (:data:`Lost`).
        """
        sent = dict(headers or {})
        if self._key and "Cookie" not in sent:  # a session stands for a key
            sent.setdefault("Authorization", f"Bearer {self._key}")
        if body and not any(name.lower() in ("content-length", "transfer-encoding") for name in sent):
            sent["Content-Length"] = str(len(body))
        try:
            self._connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in sent.items():
                self._connection.putheader(name, value)
            self._connection.endheaders()
            with suppress(OSError):  # it may have answered, and closed, before the body's end
                self._connection.send(body)
            answer = self._connection.getresponse()
            headers_back = {name.lower(): value for name, value in answer.getheaders()}
            found = Answer(answer.status, headers_back, answer.read(), self._by_proxy)
        except BaseException:
            self._connection.close()
            raise
        if answer.will_close:
            self._connection.close()
        return found


@contextmanager
def all_closed(*clients: Client) -> Iterator[tuple[Client, ...]]:
    """Several clients, each closed at the end."""
    with ExitStack() as stack:
        yield tuple(stack.enter_context(client) for client in clients)
