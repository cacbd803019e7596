"""The films and recordings of a list of studies, from an archive that speaks DICOMweb.

References
----------
DICOM PS3.18: section 10.4 (retrieve), 10.6 (search), table 10.6.1-5 (attributes of an instance).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from data_specs.dicom.reference import ECG_CLASSES, FILM_CLASSES
from data_specs.dicom.uids import bare_uid, names_something
from data_specs.problems import Refused
from inference.archive.cases import MAX_FILE_MB, Case, SourceFile
from inference.archive.tables import Line, lines_of

SOP_CLASS_UID, SOP_INSTANCE_UID, SERIES_INSTANCE_UID = "00080016", "00080018", "0020000E"
"""Attributes as DICOM JSON writes their tags (PS3.18, section F.2.2)."""
READ_HERE = frozenset((*FILM_CLASSES, *ECG_CLASSES))
"""SOP classes that are asked for: of a CT of a thousand slices nothing is fetched."""
READ_HERE_WORDS = ("CR", "DX", "SC", "ECG")
ACCEPTED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""The object as it is stored (PS3.18, section 8.7.3.5.2)."""
PAGE = 1000
"""Instances that are asked for at a time."""
TIMEOUT_S = 60.0
HEAD_BYTES = 64 * 1024
"""Beyond the limit of a file: what stands around it in a body of several parts."""


@dataclass(frozen=True)
class DicomWeb:
    """Each film and each recording of the studies in the column ``study`` of a table is a case.

    Parameters
    ----------
    address
        Root of the DICOMweb service, ``https://pacs.example/dicom-web``.
    authorization
        Content of the header Authorization; empty: none.
    """

    path: Path
    address: str
    columns: Mapping[str, str]
    authorization: str = ""
    number: int = 0
    site: str = ""
    max_mb: int = MAX_FILE_MB

    def cases(self) -> Iterator[Case]:
        for line in lines_of(self.path, "study", self.columns, self.site):
            yield from self._of_study(line)

    def read(self, file: SourceFile) -> bytes:
        if "/instances/" not in file.place:  # the list of the study was not given
            raise Refused("not_reached", file.mark)
        try:
            with self._client.stream("GET", f"{self.address}/{file.place}", headers={"Accept": ACCEPTED}) as answer:
                answer.raise_for_status()
                return only_part(self._body(answer), answer.headers.get("Content-Type", ""))
        except httpx.HTTPError as error:
            raise Refused("not_reached", reason_of(error)) from None

    def _of_study(self, line: Line) -> Iterator[Case]:
        """The study itself is a case that cannot be read where it is not listed, or has neither film nor recording."""
        study, unread = f"studies/{quote(line.wanted, safe='')}", f"0 × {', '.join(READ_HERE_WORDS)}"
        try:
            for found in self._instances(study):
                if _value(found, SOP_CLASS_UID) in READ_HERE:
                    series, name = _value(found, SERIES_INSTANCE_UID), _value(found, SOP_INSTANCE_UID)
                    place = f"{study}/series/{quote(series, safe='')}/instances/{quote(name, safe='')}"
                    unread = ""
                    yield line.case((SourceFile(name, place),), self.number)
        except (httpx.HTTPError, ValueError, AttributeError, LookupError, TypeError) as error:
            unread = reason_of(error)
        if unread:
            yield line.case((SourceFile(line.wanted, study, unread),), self.number)

    def _instances(self, study: str) -> Iterator[Mapping[str, Any]]:
        page, first = PAGE, 0
        while page == PAGE:
            asked: dict[str, str | int] = {"limit": PAGE, "offset": first, "includefield": SOP_CLASS_UID}
            answer = self._client.get(
                f"{self.address}/{study}/instances", params=asked, headers={"Accept": "application/dicom+json"}
            )
            answer.raise_for_status()
            listed = answer.json() if answer.status_code != httpx.codes.NO_CONTENT else []
            yield from listed
            page, first = len(listed), first + len(listed)

    def _body(self, answer: httpx.Response) -> bytes:
        content = bytearray()
        for piece in answer.iter_bytes():
            content += piece
            if len(content) > self.max_mb * 1_000_000 + HEAD_BYTES:
                raise Refused("over_limit", f"> {self.max_mb} MB", f"≤ {self.max_mb} MB")
        return bytes(content)

    @cached_property
    def _client(self) -> httpx.Client:
        headers = {"Authorization": self.authorization} if self.authorization else {}
        return httpx.Client(headers=headers, timeout=TIMEOUT_S, follow_redirects=False)

    def __getstate__(self) -> dict[str, Any]:
        """Without the open client, which belongs to its process."""
        return {name: value for name, value in vars(self).items() if name != "_client"}


def only_part(body: bytes, content_type: str) -> bytes:
    """The object in a body of one part, or the whole body where it is ``application/dicom`` itself.

    Raises
    ------
    Refused
        ``not_reached``: it is neither.

    References
    ----------
    RFC 2046, section 5.1.1: a part ends before the line break and the delimiter that follow it.
    """
    kind, _, parameters = content_type.partition(";")
    if kind.strip().lower() == "application/dicom":
        return body
    named = dict(part.strip().partition("=")[::2] for part in parameters.split(";"))
    boundary = {name.lower(): value.strip('"') for name, value in named.items()}.get("boundary", "")
    delimiter = b"--" + boundary.encode()
    _, found, rest = body.partition(delimiter)
    _, blank, content = rest.partition(b"\r\n\r\n")
    content, end, _ = content.rpartition(b"\r\n" + delimiter)
    if not (boundary and found and blank and end) or b"\r\n" + delimiter in content:
        raise Refused("not_reached", "multipart/related")
    return content


def reason_of(error: Exception) -> str:
    """A status, or the kind of an error: its text may hold an address with a password."""
    return f"HTTP {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else type(error).__name__


def _value(found: Mapping[str, Any], tag: str) -> str:
    value = found[tag]["Value"][0]
    if not isinstance(value, str) or not names_something(value):
        raise ValueError(tag)
    return bare_uid(value)
