"""What was found in a visit of the random sample, and the groups that it belongs to."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from data_specs.dicom.reference import DicomReference
from data_specs.planning.sample import NOT_STATED, groups_of, reading
from data_specs.visit.context import Context, Person
from data_specs.visit.opinion import Author, Judgement, Opinion

AUTHOR = Author(id="D-1", name="BS. Test", facility="district", role="referrer")


def opinion(number=1, *, adds=None, blind=True):
    judgements = (Judgement(finding=adds, verdict="add"),) if adds else ()
    at = datetime(2026, 11, 1, tzinfo=UTC)
    return Opinion(number=number, author=AUTHOR, signed_at=at, judgements=judgements, blind=blind)


@pytest.mark.parametrize(
    ("opinions", "outcomes", "expected"),
    [
        ([], {}, None),
        ([opinion()], {}, False),
        ([opinion(adds="pneumonia")], {}, True),
        ([opinion(adds="effusion")], {"pneumonia": "refuted"}, True),  # the outcome is of another finding
        ([opinion()], {"pneumonia": "confirmed"}, True),
        ([], {"pneumonia": "refuted"}, False),
        ([], {"pneumonia": "refuted", "effusion": "confirmed"}, True),
        ([], {"pneumonia": "lost"}, None),
        ([], {"incident_ckd": "confirmed"}, None),  # of another organ
        ([opinion(adds="pneumonia"), opinion(2)], {}, False),  # the latest counts
        ([opinion(adds="atrial_fibrillation")], {}, False),
    ],
)
def test_what_was_found(opinions, outcomes, expected):
    assert reading("lung", opinions, outcomes) is expected


def test_who_saw_the_findings_of_the_machine_is_no_blind_reader():
    assert reading("lung", [opinion(adds="pneumonia", blind=False)], {}, blind_only=True) is None
    assert reading("lung", [opinion(), opinion(2, adds="pneumonia", blind=False)], {}, blind_only=True) is False
    assert reading("lung", [opinion(adds="pneumonia", blind=False)], {}) is True


def test_groups_are_stated_or_said_not_to_be():
    born = Context(person=Person(birth_date=date(1980, 5, 1), sex="female"), visited_on=date(2026, 11, 1))
    header = DicomReference(
        StudyInstanceUID="1.2",
        SeriesInstanceUID="1.2.3",
        SOPInstanceUID="1.2.3.4",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1",
        Manufacturer="Example",
        ManufacturerModelName="DR 1",
    ).model_dump_json()
    assert groups_of(born, [header])["device"] == "Example DR 1"
    assert groups_of(born, [header])["sex"] == "female"
    assert groups_of(born, [header, header])["device"] == "Example DR 1"
    assert groups_of(born, [header, None])["device"] == f"Example DR 1 + {NOT_STATED}"
    assert groups_of(Context(person=Person()), [])["device"] == NOT_STATED
    assert groups_of(Context(person=Person()), [])["age"] == NOT_STATED
