"""HL7 v2 messages as they travel (ER7): separators, escapes, character sets. What a message means is not known here.

Read lazily and by hand: a parser that makes an object of every component turns one megabyte of separators into
hundreds of megabytes, and a message of that size is what anybody may send.

References
----------
HL7 v2.5.1, chapter 2: sections 2.5 (segments, fields), 2.7 (escape sequences), 2.15.9 (MSH); table 0211 (character
sets), table 0357 (error codes).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

OUR_APPLICATION = "SANGLOC"
OWN_SYSTEM = "99SANGLOC"
"""Our own codes, ``urn:sangloc:term`` elsewhere; table 0396 keeps names that begin with 99 for such."""
CHARSETS = {"": "ascii", "ASCII": "ascii", "UNICODE UTF-8": "utf-8"} | {
    f"8859/{part}": f"iso8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)
}
"""Table 0211: those whose bytes below 128 are ASCII's, so that the separators can be found before they are known."""
VERSIONS = frozenset(
    {"2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.7.1", "2.8", "2.8.1", "2.8.2", "2.9"}
)
"""Table 0104: in all of them the fields that are read here stand where they stand in 2.5.1."""
MAX_SEGMENTS, MAX_REPETITIONS = 10_000, 1000
_BLANK = {each: " " for each in (*range(32), 127) if each != 10}
"""Controls that no text of a message can have: among them those that end a segment or a frame."""
_OURS = _BLANK | str.maketrans({"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\n": "\\.br\\"})

SEGMENT_SEQUENCE, FIELD_MISSING, DATA_TYPE, TABLE_VALUE = 100, 101, 102, 103
UNKNOWN_TYPE, UNKNOWN_EVENT, UNKNOWN_PROCESSING, UNKNOWN_VERSION = 200, 201, 202, 203
UNKNOWN_KEY, DUPLICATE_KEY, INTERNAL = 204, 205, 207
ERRORS = {
    SEGMENT_SEQUENCE: "Segment sequence error",
    FIELD_MISSING: "Required field missing",
    DATA_TYPE: "Data type error",
    TABLE_VALUE: "Table value not found",
    UNKNOWN_TYPE: "Unsupported message type",
    UNKNOWN_EVENT: "Unsupported event code",
    UNKNOWN_PROCESSING: "Unsupported processing id",
    UNKNOWN_VERSION: "Unsupported version id",
    UNKNOWN_KEY: "Unknown key identifier",
    DUPLICATE_KEY: "Duplicate key identifier",
    INTERNAL: "Application internal error",
}


class NotUsable(Exception):
    """A message that cannot be used, for one coded reason.

    Parameters
    ----------
    code
        Of table 0357.
    location
        Where, as ``segment^number^field``; never what stands there.
    rejected
        The message as such is not for us (``AR``), whatever its content; else its content is at fault (``AE``).
    """

    def __init__(self, code: int, location: str = "", *, rejected: bool = False) -> None:
        super().__init__(ERRORS[code])
        self.code = code
        self.location = location
        self.rejected = rejected


# ---------------------------------------------------------------- writing
def escaped(text: str) -> str:
    """Text as it may stand anywhere in a message of ours; a line's end becomes ``\\.br\\``, other controls a space."""
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_OURS)


def line(text: str) -> str:
    """As :func:`escaped`, for data types without lines (names, codes)."""
    return escaped(" ".join(text.translate(_BLANK).split()))


def composed(*parts: str, by: str = "^") -> str:
    """Components (already escaped) as one field, without empty ones at its end."""
    return by.join(parts).rstrip(by)


def segment(name: str, fields: Mapping[int, str]) -> str:
    """A segment from its fields by number; for MSH the two that hold the separators are written as they have to be."""
    last = max((number for number, field in fields.items() if field), default=0)
    if name == "MSH":
        return "|".join(["MSH", "^~\\&", *(fields.get(number, "") for number in range(3, last + 1))])
    return "|".join([name, *(fields.get(number, "") for number in range(1, last + 1))])


def encoded(segments: list[str]) -> bytes:
    """The message's bytes, in UTF-8."""
    return "".join(f"{each}\r" for each in segments).encode("utf-8", "replace")


# ---------------------------------------------------------------- reading
@dataclass(frozen=True, slots=True)
class Separators:
    field: str
    component: str
    repetition: str
    escape: str
    subcomponent: str


class Segment:
    """One segment of a message that was read. ``number`` counts those of its name from 1."""

    def __init__(self, text: str, number: int, separators: Separators, charset: str) -> None:
        self.name = text[:3]
        self.number = number
        self._text = text
        self._by = separators
        self._charset = charset

    @cached_property
    def _fields(self) -> list[str]:
        fields = self._text.split(self._by.field)
        return [fields[0], self._by.field, *fields[1:]] if self.name == "MSH" else fields

    def at(self, field: int) -> str:
        """Where a field stands, as an error says it."""
        return f"{self.name}^{self.number}^{field}"

    def repetitions(self, field: int) -> list[str]:
        """The field's repetitions as they came; for :meth:`part`.

        Raises
        ------
        NotUsable
            There are more than anybody means.
        """
        raw = self._fields[field] if field < len(self._fields) else ""
        found = raw.split(self._by.repetition, MAX_REPETITIONS)
        if len(found) > MAX_REPETITIONS:
            raise NotUsable(DATA_TYPE, self.at(field))
        return [each for each in found if each]

    def part(self, field: int, repetition: str, component: int = 1) -> str:
        """First subcomponent of a component, as text; ``""`` where it is absent or null.

        Raises
        ------
        NotUsable
            An escape sequence or a control character that no text can have.
        """
        components = repetition.split(self._by.component, component)
        raw = components[component - 1] if component <= len(components) else ""
        raw = raw.split(self._by.subcomponent, 1)[0].strip()
        if raw == '""':  # HL7's null: 'delete the value'
            return ""
        text = self._unescaped(raw, field).strip()
        if not all(each == "\n" or each.isprintable() for each in text):
            raise NotUsable(DATA_TYPE, self.at(field))
        return text

    def text(self, field: int, component: int = 1) -> str:
        """As :meth:`part`, of the first repetition."""
        repetitions = self.repetitions(field)
        return self.part(field, repetitions[0], component) if repetitions else ""

    def _unescaped(self, raw: str, field: int) -> str:
        by, escape = self._by, re.escape(self._by.escape)
        meant = {"F": by.field, "S": by.component, "T": by.subcomponent, "R": by.repetition, "E": by.escape}

        def one(sequence: re.Match[str]) -> str:
            code = sequence[1]
            if code in meant:
                return meant[code]
            if code in {"H", "N"}:  # highlighted, or not
                return ""
            if code[:1] == ".":
                return "\n" if code in {".br", ".sp"} else " "
            if code[:1] == "X":
                try:
                    return bytes.fromhex(code[1:]).decode(self._charset)
                except ValueError:
                    pass
            raise NotUsable(DATA_TYPE, self.at(field))  # other character sets, local sequences: not to be guessed

        return re.sub(f"{escape}([^{escape}]*){escape}", one, raw) if by.escape in raw else raw


class Message:
    """A message that was read.

    Parameters
    ----------
    frame
        Its bytes.
    charset
        Codec to read it with, whatever it says itself: for a message of which only ASCII is wanted.

    Raises
    ------
    NotUsable
        It has no MSH with separators, is not in a character set of :data:`CHARSETS`, or not in the one that it says.
    """

    def __init__(self, frame: bytes, charset: str | None = None) -> None:
        start, _, _ = frame.partition(b"\r")
        separators = _separators(start)
        charset = charset or _charset(Segment(start.decode("latin-1"), 1, separators, "latin-1"))
        try:
            text = frame.decode(charset)
        except UnicodeDecodeError:
            raise NotUsable(DATA_TYPE, "MSH^1^18", rejected=True) from None
        texts = text.split("\r", MAX_SEGMENTS)
        if len(texts) > MAX_SEGMENTS:
            raise NotUsable(SEGMENT_SEQUENCE)
        counted: dict[str, int] = {}
        self.segments: list[Segment] = []
        for each in filter(None, (text.strip("\n") for text in texts)):
            counted[each[:3]] = counted.get(each[:3], 0) + 1
            self.segments.append(Segment(each, counted[each[:3]], separators, charset))
        self.body = frame[len(start) :]

    @property
    def header(self) -> Segment:
        return self.segments[0]


def header_of(frame: bytes) -> Segment | None:
    """The MSH alone, of a message that may be unreadable otherwise: whom to answer, and about which message."""
    start, _, _ = frame[:10_000].partition(b"\r")
    try:
        return Segment(start.decode("ascii", "replace"), 1, _separators(start), "ascii")
    except NotUsable:
        return None


def _separators(start: bytes) -> Separators:
    """Those that MSH-1 and MSH-2 name."""
    chosen = start[3:4] + start[4:9].split(start[3:4])[0] if len(start) > 8 else b""
    ascii_marks = all(33 <= each <= 126 and not chr(each).isalnum() for each in chosen)
    if start[:3] != b"MSH" or len(chosen) < 5 or not ascii_marks or len(set(chosen)) < len(chosen):
        raise NotUsable(SEGMENT_SEQUENCE, "MSH^1^2", rejected=True)
    return Separators(*chosen[:5].decode("ascii"))


def _charset(header: Segment) -> str:
    """Codec of the one character set that MSH-18 names; more than one would need escapes between them."""
    names = header.repetitions(18)
    codec = CHARSETS.get(names[0].strip().upper() if names else "")
    if codec is None or len(names) > 1:
        raise NotUsable(TABLE_VALUE, "MSH^1^18", rejected=True)
    return codec
