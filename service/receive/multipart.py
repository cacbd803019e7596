"""A posted visit, read as it arrives: every part to a draft file while it is hashed, nothing held in memory.

Bounds are checked on the first byte that breaks them, not at the end: the ninth image is refused when its header is
read. The size and the time of the body as a whole are bounded by ``service.api.edge``.

References
----------
RFC 7578 (multipart/form-data); section 4.7 deprecates Content-Transfer-Encoding, section 4.2 tells receivers not to
trust a filename's path.
"""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import FieldFault, InvalidRequest, UnsupportedMediaType
from service.receive.posted import ACCEPTED, LIMITS, MAX_CONTEXT_BYTES, MAX_PARTS, Field, Part, clean_filename
from service.storage.drafts import Draft, Drafts


class MultipartReader:
    """Takes the body in piece by piece. It blocks: to be used from a thread.

    Parameters
    ----------
    drafts
        For the files; they belong to the caller, also when this raises.

    Raises
    ------
    UnsupportedMediaType
        It is not ``multipart/form-data``.
    InvalidRequest
        It is, and cannot be read, or (from :meth:`feed` and :meth:`finish`) holds what a visit has no place for.
    """

    def __init__(self, content_type: str, drafts: Drafts) -> None:
        kind, options = parse_options_header(content_type)
        if kind.lower() != b"multipart/form-data":
            raise UnsupportedMediaType(kind.decode("latin-1")[:60], ACCEPTED)
        if not options.get(b"boundary"):
            raise _malformed()
        self._drafts = drafts
        self._parts: list[Part] = []
        self._headers: dict[bytes, bytes] = {}
        self._name = b""
        self._value = b""
        self._field: Field = "image"
        self._filename: str | None = None
        self._draft: Draft | None = None
        self._n_parts = 0
        self._counts = dict.fromkeys(LIMITS, 0)
        self._ended = False
        try:
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError:
            raise _malformed() from None

    def feed(self, data: bytes) -> None:
        if not data or self._ended:  # RFC 2046, section 5.1.1: what follows the last boundary is to be ignored
            return
        try:
            self._parser.write(data)
        except FormParserError:
            raise _malformed() from None

    def finish(self) -> list[Part]:
        """The parts of a body that was fed to its end."""
        if not self._ended:
            raise _malformed()
        return self._parts

    def _on_part_begin(self) -> None:
        self._headers = {}
        self._n_parts += 1
        if self._n_parts > MAX_PARTS:
            raise InvalidRequest(FieldFault("body", "field_too_many", str(sum(LIMITS.values()))))

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if kind.lower() != b"form-data" or b"name" not in options:
            raise _malformed()
        self._field = _known_field(options[b"name"])
        if self._headers.get(b"content-transfer-encoding", b"binary").strip().lower() not in (
            b"7bit",
            b"8bit",
            b"binary",
        ):
            raise InvalidRequest(FieldFault(f"{self._field}: Content-Transfer-Encoding", "field_invalid", "binary"))
        self._counts[self._field] += 1
        if self._counts[self._field] > LIMITS[self._field]:
            raise InvalidRequest(FieldFault(self._field, "field_too_many", str(LIMITS[self._field])))
        filename = options.get(b"filename")
        self._filename = None if filename is None else _decode(filename)
        self._draft = self._drafts.new()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._draft is None:
            raise _malformed()
        self._draft.write(memoryview(data)[start:end])
        if self._field == "context" and self._draft.n_bytes > MAX_CONTEXT_BYTES:
            raise InvalidRequest(FieldFault("context", "field_too_large", f"{MAX_CONTEXT_BYTES // 1000} kB"))

    def _on_part_end(self) -> None:
        draft, self._draft = self._draft, None
        if draft is None:
            raise _malformed()
        if not draft.n_bytes and not self._filename and self._field != "context":
            self._counts[self._field] -= 1  # what a browser sends for a file field that was left empty
            return
        index = sum(part.field != "context" for part in self._parts)
        filename = clean_filename(self._filename or "") or f"{self._field}-{index}"
        self._parts.append(Part(self._field, filename, draft))

    def _on_end(self) -> None:
        self._ended = True


def _known_field(name: bytes) -> Field:
    text = _decode(name)
    if text not in LIMITS:
        shown = "".join(each for each in text if each.isprintable())[:60] or "?"
        raise InvalidRequest(FieldFault(shown, "field_unknown"))
    return text


def _decode(name: bytes) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("latin-1")


def _malformed() -> InvalidRequest:
    return InvalidRequest(FieldFault("body", "body_malformed", "multipart/form-data"))
