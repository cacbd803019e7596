"""HL7 v2 messages as text (ER7): separators, escapes, character sets. What a message means is not known here.

Fields are split only when they are asked for. A parser that makes an object of every component turns one megabyte of
separators into hundreds of megabytes of memory, and any peer can send such a message.

References
----------
HL7 v2.5.1, chapter 2: sections 2.5 (segments, fields), 2.7 (escape sequences), 2.15.9 (MSH); table 0211 (character
sets), table 0357 (error codes).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

OUR_APPLICATION = "SANGLOC"
OWN_SYSTEM = "99SANGLOC"
"""The system of our own codes, elsewhere ``urn:sangloc:term``; table 0396 keeps names with 99 for local codes."""
CHARSETS = (
    {"": "ascii", "ASCII": "ascii"}
    | dict.fromkeys(("UNICODE UTF-8", "UNICODE UTF8", "UTF-8", "UTF8"), "utf-8")
    | {f"8859/{part}": f"iso8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)}
)
"""Of table 0211 those in which bytes below 128 are ASCII, so that separators are found before the set is known;
UTF-8 also by the names that it has elsewhere."""
VERSIONS = frozenset(
    {"2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.7.1", "2.8", "2.8.1", "2.8.2", "2.9"}
)
"""Table 0104: versions in which the fields that are read here have the same place as in 2.5.1."""
MAX_SEGMENTS, MAX_REPETITIONS = 10_000, 1000
_BLANK = {code: " " for code in (*range(32), 127) if code != 10}
"""Control characters become spaces, among them those that end a segment or a frame; a line feed is kept."""
_LINE_ENDS = re.compile(r"\r\n|[\r\v\f\u2028\u2029]")
_ESCAPED = _BLANK | str.maketrans(
    {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\n": "\\.br\\"}
)

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
        Code of table 0357.
    location
        Where, as ``segment^number^field``; never the value itself.
    rejected
        Whether the message as a whole is not accepted (``AR``); else its content has an error (``AE``).
    """

    def __init__(self, code: int, location: str = "", *, rejected: bool = False) -> None:
        super().__init__(ERRORS[code])
        self.code = code
        self.location = location
        self.rejected = rejected


# ---------------------------------------------------------------- writing
def escaped(text: str) -> str:
    """Text for any field of a message; the end of a line becomes ``\\.br\\``, another control character a space."""
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_ESCAPED)


def line(text: str) -> str:
    """As :func:`escaped`, for data types of one line (names, codes)."""
    return escaped(" ".join(text.translate(_BLANK).split()))


def composed(*parts: str, by: str = "^") -> str:
    """Components, escaped before, as one field without empty components at its end."""
    return by.join(parts).rstrip(by)


def segment(name: str, fields: Mapping[int, str]) -> str:
    """A segment from its fields by number; of MSH the two fields with the separators are added."""
    last = max((number for number, field in fields.items() if field), default=0)
    if name == "MSH":
        return "|".join(["MSH", "^~\\&", *(fields.get(number, "") for number in range(3, last + 1))])
    return "|".join([name, *(fields.get(number, "") for number in range(1, last + 1))])


def encoded(segments: list[str]) -> bytes:
    """The message's bytes, in UTF-8."""
    return "".join(f"{text}\r" for text in segments).encode("utf-8", "replace")


# ---------------------------------------------------------------- reading
@dataclass(frozen=True, slots=True)
class Separators:
    field: str
    component: str
    repetition: str
    escape: str
    subcomponent: str


class Segment:
    """One segment of a message; ``number`` counts the segments of its name from 1."""

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
        """The place of a field, as an ERR segment has it."""
        return f"{self.name}^{self.number}^{field}"

    def repetitions(self, field: int) -> list[str]:
        """The field's repetitions as raw text, for :meth:`part`.

        Raises
        ------
        NotUsable
            There are more than ``MAX_REPETITIONS``.
        """
        raw = self._fields[field] if field < len(self._fields) else ""
        found = raw.split(self._by.repetition, MAX_REPETITIONS)
        if len(found) > MAX_REPETITIONS:
            raise NotUsable(DATA_TYPE, self.at(field))
        return [each for each in found if each]

    def part(self, field: int, repetition: str, component: int = 1) -> str:
        """First subcomponent of a component, as text; ``""`` if it is absent or null.

        Raises
        ------
        NotUsable
            It has an escape sequence that cannot be read, or a control character that is no blank and no line end.
        """
        components = repetition.split(self._by.component, component)
        raw = components[component - 1] if component <= len(components) else ""
        raw = raw.split(self._by.subcomponent, 1)[0].strip()
        if raw == '""':  # HL7's null, which means 'delete the value'
            return ""
        text = _plain(self._unescaped(raw, field)).strip()
        if not all(character == "\n" or character.isprintable() for character in text):
            raise NotUsable(DATA_TYPE, self.at(field))
        return text

    def text(self, field: int, component: int = 1) -> str:
        """As :meth:`part`, of the first repetition."""
        repetitions = self.repetitions(field)
        return self.part(field, repetitions[0], component) if repetitions else ""

    def _unescaped(self, raw: str, field: int) -> str:
        by, escape = self._by, re.escape(self._by.escape)
        meant = {"F": by.field, "S": by.component, "T": by.subcomponent, "R": by.repetition, "E": by.escape}

        def replaced(sequence: re.Match[str]) -> str:
            code = sequence[1]
            if code in meant:
                return meant[code]
            if code in {"H", "N"}:  # highlighting begins or ends
                return ""
            if code[:1] == ".":
                return "\n" if code in {".br", ".sp"} else " "
            if code[:1] == "X":
                try:
                    return bytes.fromhex(code[1:]).decode(self._charset)
                except ValueError:
                    pass
            raise NotUsable(DATA_TYPE, self.at(field))  # other character sets and local sequences are not guessed

        return re.sub(f"{escape}([^{escape}]*){escape}", replaced, raw) if by.escape in raw else raw


def _plain(text: str) -> str:
    """Every kind of line end as a line feed, every kind of blank as a space, without characters that are not seen."""
    if text.isascii() and text.isprintable():
        return text
    text = _LINE_ENDS.sub("\n", text)
    kinds = {character: unicodedata.category(character) for character in set(text)}
    blanks = {ord(character): " " for character, kind in kinds.items() if kind == "Zs" or character == "\t"}
    return text.translate(blanks | {ord(character): None for character, kind in kinds.items() if kind == "Cf"})


def _with_segment_ends(frame: bytes) -> bytes:
    """A message whose segments end with line feeds alone, with the carriage returns that they should have.

    It is such a message only where every line begins as a segment does; else a line feed is part of a text.
    """
    if b"\r" in frame or b"\n" not in frame:
        return frame
    lines = frame.strip(b"\n").split(b"\n", MAX_SEGMENTS)
    by = frame[3:4]
    are_segments = all(len(line_) == 3 or line_[3:4] == by for line_ in lines)
    return b"\r".join(lines) + b"\r" if are_segments else frame


class Message:
    """A message, read from its bytes.

    Parameters
    ----------
    charset
        Codec to read it with instead of the one of MSH-18: for a message of which only ASCII fields are used.

    Raises
    ------
    NotUsable
        It has no MSH with separators, names no character set of :data:`CHARSETS`, or its bytes are not in that set.
    """

    def __init__(self, frame: bytes, charset: str | None = None) -> None:
        frame = _with_segment_ends(frame)
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
        for line_ in filter(None, (text.strip("\n") for text in texts)):
            counted[line_[:3]] = counted.get(line_[:3], 0) + 1
            self.segments.append(Segment(line_, counted[line_[:3]], separators, charset))
        self.body = frame[len(start) :]

    @property
    def header(self) -> Segment:
        return self.segments[0]


def header_of(frame: bytes) -> Segment | None:
    """The MSH of a message whose rest may be unreadable: it says whom to answer, about which message."""
    start, _, _ = _with_segment_ends(frame)[:10_000].partition(b"\r")
    try:
        return Segment(start.decode("ascii", "replace"), 1, _separators(start), "ascii")
    except NotUsable:
        return None


def _separators(start: bytes) -> Separators:
    """The separators of MSH-1 and MSH-2."""
    chosen = start[3:4] + start[4:9].split(start[3:4])[0] if len(start) > 8 else b""
    ascii_marks = all(33 <= mark <= 126 and not chr(mark).isalnum() for mark in chosen)
    if start[:3] != b"MSH" or len(chosen) < 5 or not ascii_marks or len(set(chosen)) < len(chosen):
        raise NotUsable(SEGMENT_SEQUENCE, "MSH^1^2", rejected=True)
    return Separators(*chosen[:5].decode("ascii"))


def _charset(header: Segment) -> str:
    """Codec of the character set that MSH-18 names; a message in several sets is not read."""
    names = header.repetitions(18)
    codec = CHARSETS.get(names[0].strip().upper() if names else "")
    if codec is None or len(names) > 1:
        raise NotUsable(TABLE_VALUE, "MSH^1^18", rejected=True)
    return codec
