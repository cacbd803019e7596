"""ER7, the text form of HL7 v2: character sets, bounds, escapes."""

from __future__ import annotations

import pytest

from service.protocols.er7 import CHARSETS, MAX_SEGMENTS, Message, NotUsable, encoded, escaped


def test_character_sets():
    assert set(CHARSETS.values()) >= {"ascii", "utf-8", "iso8859-1"}


def test_too_many_segments_are_refused():
    with pytest.raises(NotUsable):
        Message(b"MSH|^~\\&|" + b"\r" * (MAX_SEGMENTS + 1))


def test_an_escaped_text_is_read_back():
    for text in ("a|b^c~d\\e&f", "\\T\\", "Ẵ ư ế", "một\nhai"):
        message = encoded(["MSH|^~\\&||||||||||||||||UNICODE UTF-8", f"NTE|1||{escaped(text)}"])
        assert Message(message).segments[1].text(3) == text
