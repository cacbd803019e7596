"""ER7, the text form of HL7 v2: character sets, bounds, escapes."""

from __future__ import annotations

import pytest

from service.protocols.er7 import CHARSETS, MAX_SEGMENTS, Message, NotUsable, encoded, escaped, header_of


def test_character_sets():
    assert set(CHARSETS.values()) >= {"ascii", "utf-8", "iso8859-1"}


def test_too_many_segments_are_refused():
    with pytest.raises(NotUsable):
        Message(b"MSH|^~\\&|" + b"\r" * (MAX_SEGMENTS + 1))


def test_an_escaped_text_is_read_back():
    for text in ("a|b^c~d\\e&f", "\\T\\", "Ẵ ư ế", "một\nhai"):
        message = encoded(["MSH|^~\\&||||||||||||||||UNICODE UTF-8", f"NTE|1||{escaped(text)}"])
        assert Message(message).segments[1].text(3) == text


MSH = "MSH|^~\\&||||||||||||||||UNICODE UTF-8"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"a\X0D0A\b", "a\nb"),
        (r"a\X0D\b", "a\nb"),
        (r"a\X0A\b", "a\nb"),
        (r"a\.br\b", "a\nb"),
        (r"a\X09\b", "a b"),
        ("a\tb", "a b"),
        ("a\u00a0b", "a b"),
        ("a\u2009b", "a b"),
        ("a\u3000b", "a b"),
        ("a\u2028b", "a\nb"),
        ("a\x0bb", "a\nb"),
        ("a\u200bb\ufeff\u00ad", "ab"),
        ("\u00a0a\t", "a"),
    ],
)
def test_blanks_and_line_ends_of_every_kind(written, read):
    assert Message(encoded([MSH, f"NTE|1||{written}"])).segments[1].text(3) == read


@pytest.mark.parametrize("text", ["a\x01b", "a\x1bb", r"a\X01\b", r"a\XZZ\b", r"a\C2842\b", "a\x7fb"])
def test_other_control_characters_are_not_guessed(text):
    with pytest.raises(NotUsable):
        Message(encoded([MSH, f"NTE|1||{text}"])).segments[1].text(3)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_segments_that_end_in_another_way(end):
    message = Message(f"{MSH}{end}PID|1{end}NTE|1||x{end}".encode())
    assert [each.name for each in message.segments] == ["MSH", "PID", "NTE"]
    header = header_of(f"{MSH}{end}PID|1{end}".encode())
    assert header is not None
    assert header.text(18) == "UNICODE UTF-8"


def test_line_feeds_in_a_text_end_no_segment():
    message = Message(f"{MSH}\rNTE|1||one\ntwo\r".encode())
    assert message.segments[1].text(3) == "one\ntwo"
    with pytest.raises(
        NotUsable
    ):  # the second line is no segment: then the message has one segment, and this is not guessed
        Message(f"{MSH}\nno segment\nNTE|1||x".encode())


@pytest.mark.parametrize("name", ["UNICODE UTF-8", "UTF-8", "utf8", "UNICODE UTF8", "Utf-8 "])
def test_names_of_utf_8(name):
    message = Message(encoded([MSH.replace("UNICODE UTF-8", name), "NTE|1||Nguyễn"]))
    assert message.segments[1].text(3) == "Nguyễn"
