"""Where a DICOM object belongs, read from its header alone."""

from __future__ import annotations

import contextlib

import pytest

from data_specs.dicom.reference import reference_in
from data_specs.problems import Refused
from tests.data_specs.cxr_made import DEFLATED, EXPLICIT, IMPLICIT, dicom, phantom

NAME = "Người^Được Khám Thử Nghiệm Ẵặ"


STUDY = {
    "StudyInstanceUID": "1.2.3",
    "SeriesInstanceUID": "1.2.3.4",
    "SOPInstanceUID": "1.2.3.4.5",
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
}


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, DEFLATED])
def test_the_header_says_where_it_belongs(syntax: str) -> None:
    said = {**STUDY, "SpecificCharacterSet": "ISO_IR 192", "PatientName": NAME, "AccessionNumber": "ACC-1"}
    found = reference_in(dicom(phantom(), syntax, **said))
    assert found is not None
    assert found.model_dump().items() >= STUDY.items()
    assert (found.PatientName, found.AccessionNumber, found.Rows, found.Columns) == (NAME, "ACC-1", 256, 240)


@pytest.mark.parametrize("uid", ["", "1.2.x", "1." + "2" * 70])
def test_without_uids_it_belongs_nowhere(uid: str) -> None:
    assert reference_in(dicom(phantom(), **{**STUDY, "StudyInstanceUID": uid})) is None


def test_other_files_and_pieces_of_files_are_no_objects() -> None:
    whole = dicom(phantom(), **STUDY)
    assert reference_in(b"\x89PNG") is None
    for length in range(0, 1500, 37):
        with contextlib.suppress(Refused):
            reference_in(whole[:length])
