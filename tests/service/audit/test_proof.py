"""Whatever is changed, removed, put elsewhere or inserted is named, and what is cut off shows by a noted head."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from service.audit.proof import Stored, prove
from service.storage.audit import BEFORE_THE_FIRST, Entry, Head, digest_of

AT = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


def chain(count=8, who="key-1"):
    made, previous = [], BEFORE_THE_FIRST
    for number in range(1, count + 1):
        entry = Entry(number, AT + timedelta(seconds=number), who, "doctor", "visit_read", f"visit-{number}", "{}")
        previous = digest_of(previous, entry.content())
        made.append(Stored(entry, previous))
    return made


def head_of(made):
    return Head(made[-1].entry.number, made[-1].digest)


def test_a_whole_chain_has_no_fault():
    made = chain()
    proof = prove(made, [head_of(made), Head(3, made[2].digest)])
    assert (proof.faults, proof.head, proof.entries) == ([], head_of(made), 8)


def test_an_empty_log_is_whole_until_a_head_was_noted():
    assert prove([]).faults == []
    assert prove([], [Head(0, BEFORE_THE_FIRST)]).faults == []
    assert len(prove([], [Head(1, "1" * 64)]).faults) == 1


CHANGES = {
    "number": None,
    "at": AT,
    "actor": "key-2",
    "role": "admin",
    "action": "file_read",
    "visit": None,
    "detail": '{"a":1}',
}


@pytest.mark.parametrize("field", [name for name in Entry._fields if name != "number"])
@pytest.mark.parametrize("number", range(1, 9))
def test_a_changed_entry_is_named(field, number):
    made = chain()
    entry, digest = made[number - 1]
    made[number - 1] = Stored(entry._replace(**{field: CHANGES[field]}), digest)
    (fault,) = prove(made).faults
    assert fault.startswith(f"entry {number}:")


@pytest.mark.parametrize("number", range(1, 9))
def test_a_changed_entry_with_a_digest_to_match_is_named_beside_the_next_one(number):
    made = chain()
    noted = head_of(made)
    entry = made[number - 1].entry._replace(actor="key-2")
    previous = made[number - 2].digest if number > 1 else BEFORE_THE_FIRST
    made[number - 1] = Stored(entry, digest_of(previous, entry.content()))
    (fault,) = prove(made, [noted]).faults
    assert f"entry {number}" in fault


@pytest.mark.parametrize("number", range(1, 8))
def test_a_removed_entry_is_named(number):
    made = chain()
    del made[number - 1]
    assert prove(made).faults == [f"entry {number}: missing"]


def test_removed_entries_are_named_together():
    made = chain()
    assert prove(made[:2] + made[5:]).faults == ["entries 3 to 5: missing"]


def test_a_cut_off_end_shows_by_a_noted_head():
    made = chain()
    assert prove(made[:-2]).faults == []
    (fault,) = prove(made[:-2], [head_of(made)]).faults
    assert fault == "entry 8: was written down as the head, and the chain ends at 6"


def test_a_chain_that_was_computed_anew_shows_by_a_noted_head():
    anew = chain(who="key-2")
    assert prove(anew).faults == []
    (fault,) = prove(anew, [head_of(chain())]).faults
    assert fault == "entry 8: is not the one whose digest was written down"


def test_entries_that_have_changed_places_are_named():
    made = chain()
    one, other = made[2], made[5]
    made[2] = Stored(other.entry._replace(number=3), other.digest)
    made[5] = Stored(one.entry._replace(number=6), one.digest)
    faults = prove(made).faults
    assert {each.partition(":")[0] for each in faults} == {"entry 3", "entry 4", "entry 6", "entry 7"}


def test_an_inserted_entry_is_named():
    """Where there is no free number, those behind it get other numbers."""
    made = chain()
    inserted = made[3].entry._replace(actor="key-2")
    moved = [Stored(each.entry._replace(number=each.entry.number + 1), each.digest) for each in made[3:]]
    between = [*made[:3], Stored(inserted, digest_of(made[2].digest, inserted.content())), *moved]
    faults = prove(between).faults
    assert faults[0].startswith("entry 5:")
    before = [Stored(made[0].entry._replace(number=0), made[0].digest), *made]
    assert prove(before).faults == ["entry 0: inserted: the first entry is 1"]
