"""Multipart bodies, read as they arrive: each part goes to a draft and is hashed; no whole body is held in memory.

A limit is checked on the first byte that breaks it, not at the end: the ninth image is refused when its header is read.
``service.api.edge`` limits the size and the time of the whole body.

References
----------
RFC 2046, section 5.1.1 (multipart). RFC 7578 (multipart/form-data); section 4.7 deprecates Content-Transfer-Encoding,
section 4.2 tells receivers not to trust a filename's path.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import FieldFault, InvalidRequest, UnsupportedMediaType
from service.faults import BETWEEN, quoted_name, quoted_value
from service.receive.posted import ACCEPTED, LIMITS, MAX_CONTEXT_BYTES, MAX_PARTS, Field, Part, clean_filename
from service.storage.drafts import Draft, Drafts

Headers = dict[bytes, bytes]
"""Of one part; names in lower case."""
MAX_PREAMBLE, MAX_PADDING = 16_384, 1000
"""Bytes before the first delimiter, and blanks behind one."""


class _Delimiters:
    """Leaves out what may stand around delimiters and means nothing: text before the first, and blanks behind each.

    Mail programs and some gateways write both; the parser knows neither.

    References
    ----------
    RFC 2046, section 5.1.1 (preamble, transport-padding).
    """

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._held = b"\r\n"  # the first delimiter may stand at the very beginning
        self._has_begun = False

    def passed_on(self, data: bytes) -> Iterator[bytes]:
        """The body's next bytes, as the parser is to have them; some wait for what follows.

        Raises
        ------
        FormParserError
            There is more before the first delimiter, or there are more blanks, than anybody writes.
        """
        if self._held:
            data, self._held = self._held + data, b""
        if not self._has_begun:
            first = data.find(self._delimiter)
            if first < 0:
                if len(data) > MAX_PREAMBLE:
                    raise FormParserError("no delimiter")
                self._held = data
                return
            self._has_begun = True
            yield from self._without_padding(data, first, 2)
        else:
            yield from self._without_padding(data, data.find(self._delimiter), 0)

    def _without_padding(self, data: bytes, found: int, start: int) -> Iterator[bytes]:
        """``data`` from ``start``, where ``found`` is its first delimiter, or negative."""
        start += found if start else 0
        while found >= 0:
            end = padded = found + len(self._delimiter)
            while data[padded : padded + 1] in (b" ", b"\t"):
                padded += 1
            if padded - end > MAX_PADDING:
                raise FormParserError("blanks behind a delimiter")
            if padded == len(data):
                yield data[start:found]
                self._held, self._has_begun = data[found:], start <= found
                return
            if padded > end and data[padded : padded + 1] == b"\r":
                yield data[start:end]
                start = padded
            found = data.find(self._delimiter, padded)
        begun = data.rfind(b"\r", max(start, len(data) - len(self._delimiter) + 1))
        if begun >= 0 and self._delimiter.startswith(data[begun:]):
            data, self._held = data[:begun], data[begun:]
        yield data[start:] if start else data


class PartsReader(ABC):
    """Takes a multipart body in, piece by piece, and hands on each part. It blocks: to be used from a thread.

    Parameters
    ----------
    boundary
        As the body's Content-Type states it.
    expected
        What the body has to be; quoted where it cannot be read.

    Raises
    ------
    InvalidRequest
        The body cannot be read. :meth:`feed` raises it too.
    """

    def __init__(self, boundary: bytes, expected: str) -> None:
        self._expected = expected
        self._headers: Headers = {}
        self._name = b""
        self._value = b""
        self._draft: Draft | None = None
        self._ended = False
        if not boundary:
            raise self._malformed()
        self._delimiters = _Delimiters(boundary)
        try:
            self._parser = MultipartParser(
                boundary,
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
            raise self._malformed() from None

    @abstractmethod
    def _begin_part(self, headers: Headers) -> Draft:
        """Check a part's headers; the draft for its content."""

    @abstractmethod
    def _end_part(self, draft: Draft) -> None:
        """Take a whole part."""

    def _check_size(self, draft: Draft) -> None:  # noqa: B027  most parts have no limit of their own
        """Check a part that is still growing."""

    def feed(self, data: bytes) -> None:
        if not data or self._ended:  # RFC 2046, section 5.1.1: what follows the last boundary is to be ignored
            return
        try:
            for piece in self._delimiters.passed_on(data):
                if piece and not self._ended:
                    self._parser.write(piece)
        except FormParserError:
            raise self._malformed() from None

    def check_ended(self) -> None:
        """Raise ``InvalidRequest`` where the body was not fed to its last delimiter."""
        if not self._ended:
            raise self._malformed()

    def name_and_filename(self, headers: Headers) -> tuple[str, bytes | None]:
        """What a part of a form says that it is; ``InvalidRequest`` where it does not say it."""
        kind, options = parse_options_header(headers.get(b"content-disposition", b""))
        if kind.lower() != b"form-data" or b"name" not in options:
            raise self._malformed()
        return decoded(options[b"name"]), options.get(b"filename")

    def _malformed(self) -> InvalidRequest:
        return InvalidRequest(FieldFault("body", "body_malformed", self._expected))

    def _on_part_begin(self) -> None:
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _on_headers_finished(self) -> None:
        self._draft = self._begin_part(self._headers)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._draft is None:
            raise self._malformed()
        self._draft.write(memoryview(data)[start:end])
        self._check_size(self._draft)

    def _on_part_end(self) -> None:
        draft, self._draft = self._draft, None
        if draft is None:
            raise self._malformed()
        self._end_part(draft)

    def _on_end(self) -> None:
        self._ended = True


def check_encoding(headers: Headers, field: str) -> None:
    """Check that a part is not encoded once more.

    Raises
    ------
    InvalidRequest
        Its Content-Transfer-Encoding is ``base64``, or another that would have to be decoded.
    """
    encoding = headers.get(b"content-transfer-encoding", b"binary").strip().lower()
    if encoding not in (b"7bit", b"8bit", b"binary"):
        found = quoted_value(encoding.decode("latin-1"))
        raise InvalidRequest(FieldFault(f"{field}: Content-Transfer-Encoding", "field_invalid", "binary", found))


class VisitParts:
    """The parts of one visit, as they come: their number, their fields and their names."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._n_parts = 0
        self._counts = dict.fromkeys(LIMITS, 0)
        self._field: Field = "image"
        self._filename: str | None = None

    def begin(self, name: str, filename: bytes | None, headers: Headers) -> None:
        """Check the headers of the next part.

        Raises
        ------
        InvalidRequest
            A visit has no such field, or too many parts of it, or the part is encoded once more.
        """
        self._n_parts += 1
        if self._n_parts > MAX_PARTS:
            raise InvalidRequest(FieldFault("body", "field_too_many", str(sum(LIMITS.values()))))
        self._field = _known_field(name)
        check_encoding(headers, self._field)
        self._counts[self._field] += 1
        if self._counts[self._field] > LIMITS[self._field]:
            raise InvalidRequest(FieldFault(self._field, "field_too_many", str(LIMITS[self._field])))
        self._filename = None if filename is None else decoded(filename)

    def check_size(self, draft: Draft) -> None:
        """Check the part that is still growing.

        Raises
        ------
        InvalidRequest
            The context is larger than any is.
        """
        if self._field == "context" and draft.n_bytes > MAX_CONTEXT_BYTES:
            raise InvalidRequest(FieldFault("context", "field_too_large", f"{MAX_CONTEXT_BYTES // 1000} kB"))

    def end(self, draft: Draft) -> None:
        """Take the whole part."""
        if not draft.n_bytes and not self._filename and self._field != "context":
            self._counts[self._field] -= 1  # what a browser sends for a file field that was left empty
            return
        index = sum(part.field != "context" for part in self._parts)
        filename = clean_filename(self._filename or "") or f"{self._field}-{index}"
        self._parts.append(Part(self._field, filename, draft))

    def finish(self) -> list[Part]:
        """All of them."""
        return self._parts


def form_boundary(content_type: str) -> bytes:
    """The boundary of a form's parts.

    Raises
    ------
    UnsupportedMediaType
        It is not ``multipart/form-data``.
    """
    kind, options = parse_options_header(content_type)
    if kind.lower() != b"multipart/form-data":
        raise UnsupportedMediaType(kind.decode("latin-1")[:60], ACCEPTED)
    return options.get(b"boundary", b"")


class FormReader(PartsReader):
    """Reads a posted visit: ``multipart/form-data`` with fields ``image``, ``ecg`` and ``context``.

    Parameters
    ----------
    drafts
        For the files; the caller removes them, also when this raises.

    Raises
    ------
    UnsupportedMediaType
        It is not ``multipart/form-data``.
    InvalidRequest
        It is, and cannot be read, or (from :meth:`feed` and :meth:`finish`) holds more than a visit may hold.
    """

    def __init__(self, content_type: str, drafts: Drafts) -> None:
        super().__init__(form_boundary(content_type), "multipart/form-data")
        self._drafts = drafts
        self._visit = VisitParts()

    def finish(self) -> list[Part]:
        """The parts of a body that was fed to its end."""
        self.check_ended()
        return self._visit.finish()

    def _begin_part(self, headers: Headers) -> Draft:
        self._visit.begin(*self.name_and_filename(headers), headers)
        return self._drafts.new()

    def _check_size(self, draft: Draft) -> None:
        self._visit.check_size(draft)

    def _end_part(self, draft: Draft) -> None:
        self._visit.end(draft)


def _known_field(name: str) -> Field:
    if name not in LIMITS:
        raise InvalidRequest(FieldFault(quoted_name(name), "field_unknown", BETWEEN.join(LIMITS)))
    return name


def decoded(name: bytes) -> str:
    """A name as it was written: UTF-8, else Latin-1."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("latin-1")
