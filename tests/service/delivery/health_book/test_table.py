"""The table of the health book: the shipped example, and what is refused with a line that says where."""

from __future__ import annotations

import tomllib

import pytest

from service.delivery.health_book.table import EXAMPLE, MAX_BYTES, Book, book_of, read_book
from service.settings import BadSettings, Settings


def filled_in():
    return EXAMPLE.read_text("utf-8").replace('"?"', '"x"')


def test_the_shipped_example_is_refused_until_somebody_has_filled_it_in():
    with pytest.raises(BadSettings, match=r"SANGLOC_HEALTH_BOOK: .*gateway.username_file: it still is '\?'"):
        read_book(EXAMPLE)
    book = Book.model_validate(tomllib.loads(filled_in()))
    assert (book.clock.hours, book.gateway.headers) == (24, {"service-type": "100"})
    assert [each.kind for each in book.file] == ["XML1", "XML11"]


def test_every_uncertain_part_of_the_example_says_how_sure_it_is():
    text = EXAMPLE.read_text("utf-8")
    assert "NOTHING HERE WAS READ IN THE DECISIONS THEMSELVES" in text
    unknown = [line for line in text.splitlines() if '"?"' in line and not line.startswith("#")]
    assert len(unknown) > 5
    for mark in ("[met]", "[disagree]", "[guess]"):
        assert text.count(mark) > 1


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('fact = "delivery"', 'fact = "person.blood_group"', "no such fact: person.blood_group"),
        ('fact = "delivery"', 'fact = "delivery"\nvalue = "x"', "either a fact or a value"),
        ('fact = "delivery"', 'fact = "content"', "no such fact: content"),
        ('arrived = "sent"', 'arrived = "printed"', "clock.arrived"),
        ('CM_SUCCESS = "sent"', 'CM_SUCCESS = "fine"', "codes.CM_SUCCESS"),
        ('name = "sender"', 'name = "message_id"', "header: one row for each"),
        ('name = "data_type"', 'name = "file_content"', "data: one row for each"),
        ('fact = "delivery"', 'fact = "delivery"\nform = "%Y"', "only a day or a moment has a form"),
        ('kind = "XML11"', 'kind = "XML1"', "file: one row for each"),
        ('root = "KHAMSUCKHOE"', 'root = "KHAM SUC KHOE"', "envelope.root"),
        ("hours = 24", "hours = 24\nhour = 1", "clock.hour"),
        ("hours = 24", "hours = ", "is not TOML"),
    ],
)
def test_a_table_that_cannot_be_used_says_where(tmp_path, old, new, says):
    text = filled_in()
    assert old in text
    path = tmp_path / "book.toml"
    path.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(BadSettings, match=r"^SANGLOC_HEALTH_BOOK: ") as refused:
        read_book(path)
    assert says in str(refused.value)


def test_a_table_that_is_not_there_or_too_long(tmp_path):
    with pytest.raises(BadSettings, match="No such file"):
        read_book(tmp_path / "none.toml")
    (tmp_path / "long.toml").write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(BadSettings, match="at most"):
        read_book(tmp_path / "long.toml")


def test_without_the_setting_there_is_no_book():
    assert book_of(Settings()) is None
