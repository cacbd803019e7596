"""One address and one key. A request is sent again after a lost connection or a refusal that will pass.

Every request of this client may be sent again without harm: a posted visit carries an ``Idempotency-Key``, everything
else only reads, or goes on from where the service says that it is.
"""

from __future__ import annotations

import random
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from client.cases import Case

PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Status codes after which the same request may succeed."""
RESUMED_FROM_BYTES = 2_000_000
"""A visit with a file of this size is sent by resumable uploads: over a thin link a lost connection costs one piece."""
PIECE_BYTES = 500_000
TUS = {"Tus-Resumable": "1.0.0"}
LONGEST_PAUSE_S = 60.0


class Refused(Exception):
    """The service refused a request, and will refuse it again: ``str()`` is its own sentence.

    Parameters
    ----------
    status
        Of HTTP.
    code
        ``code`` of the problem document; empty where there was none.
    """

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.code = status, code


class NotReached(Exception):
    """No connection, or no answer but passing refusals, for as long as the client was told to try."""


class Connection:
    """The service at one address, called with one key; used from several threads.

    Parameters
    ----------
    patience_s
        How long one request is tried again.
    language
        ``vi``, ``fr`` or ``en``: of the sentences in the answers.
    """

    def __init__(self, address: str, key: str, *, language: str = "en", patience_s: float = 300.0) -> None:
        self.address = address.rstrip("/")
        self._patience_s = patience_s
        self._stopped = threading.Event()
        headers = {"Authorization": f"Bearer {key}", "Accept-Language": language}
        self._http = httpx.Client(base_url=self.address, headers=headers, timeout=60)

    def close(self) -> None:
        """End its connections."""
        self._http.close()

    def stop(self) -> None:
        """Try nothing again from now on, in no thread."""
        self._stopped.set()

    def post(self, case: Case, key: str | None = None) -> dict[str, Any]:
        """The posted visit, which is on the service's disk and perhaps not assessed yet.

        ``key``: its ``Idempotency-Key``; left out, the case's digest, with which the same case is one visit.
        """
        large = any(path.stat().st_size >= RESUMED_FROM_BYTES for _, path in case.files)
        headers = {"Idempotency-Key": key or case.digest, "Prefer": "respond-async"}
        visit: dict[str, Any] = (self._post_uploads if large else self._post_form)(case, headers).json()
        return visit

    def wait(self, visit_id: str) -> dict[str, Any]:
        """The visit when it is assessed.

        Raises
        ------
        NotReached
            It was not assessed while the client was told to try.
        """
        end, pause_s = time.monotonic() + self._patience_s, 0.2
        while (visit := self.visit(visit_id))["status"] == "accepted":
            if time.monotonic() > end:
                raise NotReached(f"{visit_id} is not assessed yet")
            self._pause(pause_s)
            pause_s = min(1.5 * pause_s, 2.0)
        return visit

    def visit(self, visit_id: str) -> dict[str, Any]:
        """A visit as it is now."""
        return self._get(f"/v1/visits/{quote(visit_id, safe='')}").json()  # type: ignore[no-any-return]

    def visits(self, **filters: str) -> Iterator[dict[str, Any]]:
        """The visits that the key may see, newest first; ``filters`` are those of ``GET /v1/visits``."""
        cursor: dict[str, str] = {}
        while True:
            page = self._get("/v1/visits", params={**filters, **cursor}).json()
            yield from page["items"]
            if page["next"] is None:
                return
            cursor = {"cursor": page["next"]}

    def report(self, visit_id: str, suffix: str) -> bytes:
        """The report of a visit in one of its formats (``pdf``, ``html``, ``fhir.json`` …)."""
        return self._get(f"/v1/visits/{quote(visit_id, safe='')}/report.{quote(suffix, safe='')}").content

    # ------------------------------------------------------------------ ways to post
    def _post_form(self, case: Case, headers: dict[str, str]) -> httpx.Response:
        def post() -> httpx.Response:
            with ExitStack() as opened:
                files = [
                    (field, (path.name, opened.enter_context(path.open("rb")), "application/octet-stream"))
                    for field, path in case.files
                ]
                context = ("context", (None, case.context_json(), "application/json"))
                return self._http.post("/v1/visits", files=[*files, context], headers=headers)

        return self._sent(post)

    def _post_uploads(self, case: Case, headers: dict[str, str]) -> httpx.Response:
        uploads = [self._upload(field, path) for field, path in case.files]
        body = {"uploads": uploads, "context": case.context}
        return self._sent(lambda: self._http.post("/v1/uploads/visit", json=body, headers=headers))

    def _upload(self, field: str, path: Path) -> str:
        """Send a file in pieces, each from where the service says that the upload ends; its id.

        References
        ----------
        tus resumable upload protocol 1.0.0, core protocol and creation.
        """
        about = ",".join(f"{name} {_base64(value)}" for name, value in (("filename", path.name), ("field", field)))
        n_bytes = path.stat().st_size
        headers = {**TUS, "Upload-Length": str(n_bytes), "Upload-Metadata": about}
        where = str(self._sent(lambda: self._http.post("/v1/uploads", headers=headers)).headers["Location"])
        offset: int | None = 0

        def next_piece() -> httpx.Response:
            nonlocal offset
            at, offset = offset, None  # until the service has said so, it is not known where the upload ends
            if at is None:
                asked = self._http.head(where, headers=TUS)
                if not asked.is_success or int(asked.headers["Upload-Offset"]) == n_bytes:
                    return asked
                at = int(asked.headers["Upload-Offset"])
            with path.open("rb") as file:
                file.seek(at)
                piece = file.read(PIECE_BYTES)
            headers = {**TUS, "Upload-Offset": str(at), "Content-Type": "application/offset+octet-stream"}
            return self._http.patch(where, content=piece, headers=headers)

        while offset is None or offset < n_bytes:
            offset = int(self._sent(next_piece).headers["Upload-Offset"])
        return where.rpartition("/")[2]

    # ------------------------------------------------------------------ sending, and sending again
    def _get(self, path: str, **given: Any) -> httpx.Response:
        return self._sent(lambda: self._http.get(path, **given))

    def _sent(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        """The answer to a request that is sent again as long as it may still succeed.

        Raises
        ------
        Refused, NotReached
        """
        end, pause_s = time.monotonic() + self._patience_s, 1.0
        while True:
            asked_s = 0.0
            try:
                answer = send()
            except httpx.TransportError as error:
                why = f"no connection to {self.address} ({type(error).__name__})"
            else:
                if answer.is_success:
                    return answer
                refused = _refused(answer)
                if answer.status_code not in PASSING:
                    raise refused
                why, asked_s = str(refused), _retry_after_s(answer)
            now_s = max(asked_s, pause_s * random.uniform(0.5, 1))  # noqa: S311  so that clients do not come together
            if time.monotonic() + now_s > end:
                raise NotReached(why)
            self._pause(now_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _pause(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise NotReached("stopped")


def _refused(answer: httpx.Response) -> Refused:
    try:
        problem = answer.json()
        return Refused(answer.status_code, str(problem["code"]), str(problem["detail"]))
    except (ValueError, KeyError, TypeError):  # not an answer of the service: of a proxy, or of another server
        return Refused(answer.status_code, "", f"{answer.status_code} {answer.reason_phrase}")


def _retry_after_s(answer: httpx.Response) -> float:
    """Seconds of ``Retry-After``; the form with a date, which the service does not send, counts as none."""
    said = answer.headers.get("Retry-After", "")
    return min(float(said), LONGEST_PAUSE_S) if said.isascii() and said.isdigit() else 0.0


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode()
