"""The centre, as a node sees it: its requests, each bounded in time and size.

References
----------
https://tus.io/protocols/resumable-upload, version 1.0.0, for films; RFC 9110, sections 8.4 (Content-Encoding: gzip),
13.1.5 (If-Range) and 14 (Range).
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode

import httpx
from pydantic import BaseModel, ValidationError

from service.delivery.message import NotDelivered
from service.delivery.senders.http import MAY_PASS, new_client, reason_of, retry_after_s
from service.exchange.record import Answer, News, NodeState, VisitRecord
from service.release.incoming import PACKED
from service.release.signed import SignedRelease, read_signed

REQUEST_S = 120.0
"""For one request: at 4 kB/s, half of what a piece and its answer may hold."""
PIECE_BYTES = 256 * 1024
"""Of a film. Between two pieces something more urgent is sent first."""
MAX_ANSWER_BYTES = 8_000_000
GONE = "http_410"
NOT_FOUND = "http_404"
PAST_THE_END = "http_422"
TOO_LARGE = "answer_too_large"
CHANGED = "changed"
_CONTENT_RANGE = re.compile(r"bytes (\d{1,12})-\d{1,12}/(\d{1,12})", re.ASCII)

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer of success."""

    headers: httpx.Headers
    content: bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a file of a release.

    Parameters
    ----------
    name
        The file's digest, with :data:`service.release.incoming.PACKED` where the bytes are gzip's.
    n_bytes
        Of the whole that it is a piece of.
    """

    name: str
    content: bytes
    n_bytes: int


class Centre:
    """The requests that a node sends.

    Parameters
    ----------
    address
        ``https://…``, or ``http://`` of loopback.
    key
        The node's key there.
    """

    def __init__(self, address: str, key: str) -> None:
        self._address = address.rstrip("/")
        self._client = new_client(2)
        self._client.headers["Authorization"] = f"Bearer {key}"

    async def aclose(self) -> None:
        await self._client.aclose()

    async def news(self) -> News:
        """What has changed there.

        Raises
        ------
        NotDelivered
            As every other request: ``permanent`` where the same request would be refused again.
        """
        return _read(News, await self._ask("GET", "/v1/node/news"))

    async def put(self, visit_id: str, record: VisitRecord) -> Answer:
        """Send all that is here of a visit; the answer is all that is there."""
        body = gzip.compress(record.model_dump_json().encode(), 6)
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        return _read(Answer, await self._ask("PUT", f"/v1/node/visits/{visit_id}", headers, body))

    async def put_preview(self, visit_id: str, index: int, jpeg: bytes) -> None:
        """Send a smaller picture of a film."""
        await self._ask(
            "PUT", f"/v1/node/visits/{visit_id}/inputs/{index}/preview", {"Content-Type": "image/jpeg"}, jpeg
        )

    async def upload(
        self,
        content: bytes,
        begun: str | None,
        keep: Callable[[str], Awaitable[None]],
        may_go_on: Callable[[], Awaitable[bool]],
    ) -> str | None:
        """Send bytes in pieces; the id of the finished upload, ``None`` where something more urgent came first.

        Parameters
        ----------
        begun
            The id of an upload of the same bytes that was begun before; it goes on where it is still there.
        keep
            Called with the id of a new upload.
        may_go_on
            Asked before each piece but the first.
        """
        upload_id, at = begun, 0
        if upload_id is not None:
            try:
                state = await self._ask("HEAD", f"/v1/uploads/{upload_id}", _TUS)
                at = int(state.headers.get("upload-offset", "0"))
            except NotDelivered as gone:
                if gone.code not in (GONE, NOT_FOUND):
                    raise
                upload_id = None
        if upload_id is None:
            made = await self._ask("POST", "/v1/uploads", {**_TUS, "Upload-Length": str(len(content))})
            upload_id, at = made.headers["location"].rpartition("/")[2], 0
            await keep(upload_id)
        first = True
        while at < len(content):
            if not first and not await may_go_on():
                return None
            first = False
            headers = {**_TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(at)}
            sent = await self._ask("PATCH", f"/v1/uploads/{upload_id}", headers, content[at : at + PIECE_BYTES])
            at = int(sent.headers["upload-offset"])
        return upload_id

    async def put_file(self, visit_id: str, index: int, upload_id: str, encoding: str) -> None:
        """Make a finished upload the file of a visit."""
        body = json.dumps({"upload": upload_id, "encoding": encoding}).encode()
        headers = {"Content-Type": "application/json"}
        await self._ask("PUT", f"/v1/node/visits/{visit_id}/inputs/{index}", headers, body)

    async def release(self, state: NodeState) -> SignedRelease | None:
        """The release that is offered, not verified; ``None`` where there is none.

        Raises
        ------
        NotDelivered
        NotTaken
            It cannot be read.
        """
        said = urlencode(state.model_dump(mode="json", exclude_none=True))
        try:
            answered = await self._ask("GET", f"/v1/node/release?{said}")
        except NotDelivered as refusal:
            if refusal.code == NOT_FOUND:
                return None
            raise
        return read_signed(answered.content)

    async def piece(self, sha256: str, name: str, at: int) -> Piece | None:
        """A piece of a file of the release, from byte ``at`` of what has the name ``name`` there.

        ``None`` where nothing is behind ``at``.

        Raises
        ------
        NotDelivered
            :data:`CHANGED` where what has come so far is no longer the beginning of what is sent.
        """
        headers = {"Range": f"bytes={at}-{at + PIECE_BYTES - 1}", "Accept-Encoding": "gzip"}
        if at:
            headers["If-Range"] = f'"{name}"'
        try:
            path = f"/v1/node/release/files/{sha256}"
            answered = await self._ask("GET", path, headers, at_most=PIECE_BYTES, is_raw=True)
        except NotDelivered as refusal:
            if at and refusal.code == PAST_THE_END:
                return None
            if at and refusal.code == TOO_LARGE:  # all of it came, in the place of a piece
                raise NotDelivered(CHANGED) from None
            raise
        there = answered.headers.get("etag", "").strip('"')
        match = _CONTENT_RANGE.fullmatch(answered.headers.get("content-range", ""))
        if at and match is None:
            raise NotDelivered(CHANGED)
        if there not in (sha256, sha256 + PACKED) or match is None or int(match[1]) != at or not answered.content:
            raise NotDelivered("answer")
        return Piece(there, answered.content, int(match[2]))

    async def _ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        *,
        at_most: int = MAX_ANSWER_BYTES,
        is_raw: bool = False,
    ) -> Answered:
        try:
            request = self._client.build_request(
                method,
                self._address + path,
                headers=headers,
                content=body,
                timeout=httpx.Timeout(REQUEST_S, connect=10),
            )
            response = await self._client.send(request, stream=True)
            try:
                content = b""
                async for piece in response.aiter_raw() if is_raw else response.aiter_bytes():
                    content += piece
                    if len(content) > at_most:
                        raise NotDelivered(TOO_LARGE)
            finally:
                await response.aclose()
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
            raise NotDelivered("address") from None
        except httpx.TimeoutException:
            raise NotDelivered("timeout") from None
        except (httpx.HTTPError, OSError) as error:
            raise NotDelivered(reason_of(error)) from None
        status = response.status_code
        if not 200 <= status < 300:
            # 401: the key of this node is at fault, and no visit
            permanent = 400 <= status < 500 and status not in MAY_PASS and status != 401
            raise NotDelivered(f"http_{status}", permanent, None if permanent else retry_after_s(response.headers))
        return Answered(response.headers, content)


_TUS = {"Tus-Resumable": "1.0.0"}


def _read(kind: type[T], answered: Answered) -> T:
    try:
        return kind.model_validate_json(answered.content)
    except ValidationError:
        raise NotDelivered("answer") from None
