"""Where a DICOM object belongs, read from its header alone."""

from __future__ import annotations

import contextlib

import pytest

from data_specs.cxr.files import read_image
from data_specs.dicom.reference import named_study, reference_in
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


def test_the_header_says_which_device_made_it() -> None:
    found = reference_in(dicom(phantom(), EXPLICIT, **STUDY, Manufacturer="Acme", ManufacturerModelName="DX 1"))
    assert found is not None
    assert (found.Manufacturer, found.ManufacturerModelName) == ("Acme", "DX 1")


@pytest.mark.parametrize("uid", ["", "1.02.3", "1.2.x", "1.2.", "1." + "2" * 70, "UNKNOWN", "1.2\\1.3", "1.2.Ă"])
def test_an_identifier_that_breaks_the_rule_is_kept_as_it_came(uid: str) -> None:
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        found = reference_in(dicom(phantom(), **{**STUDY, keyword: uid and f" {uid}"}))
        assert found is not None
        assert found.model_dump().items() >= {**STUDY, keyword: uid}.items()
        assert not found.may_be_referred_to
        assert found.names_its_study == (keyword != "StudyInstanceUID" or uid not in ("", "UNKNOWN"))


@pytest.mark.parametrize("uid", ["1." + "2" * 600, "1.2\n3"])
def test_an_identifier_that_cannot_be_kept_whole_names_nothing(uid: str) -> None:
    found = reference_in(dicom(phantom(), **{**STUDY, "StudyInstanceUID": uid}))
    assert found is not None
    assert (found.StudyInstanceUID, found.SOPInstanceUID, found.names_its_study) == ("", "1.2.3.4.5", False)


def test_of_a_file_that_was_cut_nobody_can_say_that_it_has_no_identifier() -> None:
    content = dicom(phantom(), **STUDY)
    at = content.index(b"\x20\x00\x0d\x00UI")
    for cut in (at + 2, at + 8, at + 10):
        with pytest.raises(Refused, match="truncated"):
            reference_in(content[:cut])
    end = content.index(b"\xe0\x7f\x10\x00")
    found = reference_in(content[: end - 1])
    assert found is not None
    assert found.StudyInstanceUID == "1.2.3"


def test_the_study_of_several_objects_is_that_of_the_first_that_names_one() -> None:
    named = [reference_in(dicom(phantom(), **{**STUDY, "StudyInstanceUID": uid})) for uid in ("0", "", "1.02", "1.2")]
    assert named_study(each for each in named if each) == "1.02"
    assert named_study([]) == ""


def test_other_files_and_pieces_of_files_are_no_objects() -> None:
    whole = dicom(phantom(), **STUDY)
    assert reference_in(b"\x89PNG") is None
    for length in range(0, 1500, 37):
        with contextlib.suppress(Refused):
            reference_in(whole[:length])


LETTERS = "Trần^Thị Bưởi"


@pytest.mark.parametrize(
    ("stated", "written", "read"),
    [
        (None, LETTERS.encode(), LETTERS),
        ("", LETTERS.encode(), LETTERS),
        ("ISO_IR 192", LETTERS.encode(), LETTERS),
        ("ISO 2022 IR 192", LETTERS.encode(), LETTERS),
        (["", "ISO 2022 IR 192"], LETTERS.encode(), LETTERS),
        ("UTF-8", LETTERS.encode(), LETTERS),
        ("ISO-IR 192", LETTERS.encode(), LETTERS),
        ("NONSENSE", LETTERS.encode(), LETTERS),
        ("ISO_IR 100", "Müller^José".encode("latin-1"), "Müller^José"),
        ("ISO 2022 IR 100", "Müller^José".encode("latin-1"), "Müller^José"),
        ("ISO_IR 166", "สมชาย".encode("iso8859-11"), "สมชาย"),
        ("GB18030", "王^小东".encode("gb18030"), "王^小东"),
        (None, b"NGUYEN^HOA", "NGUYEN^HOA"),
        (None, "Müller^José".encode("latin-1"), "Mller^Jos"),
        (None, "Trần^Bưởi".encode("cp1258", "ignore"), None),
    ],
)
def test_character_sets(stated: str | list[str] | None, written: bytes, read: str | None) -> None:
    """Letters are read, or left out; none is read as another."""
    marker = b"X" * (len(written) + len(written) % 2)
    content = dicom(phantom(), **STUDY, PatientName=marker.decode(), SpecificCharacterSet="ISO_IR 100")
    old = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100"
    assert content.count(old) == content.count(marker) == 1
    said = "\\".join(stated) if isinstance(stated, list) else stated or ""
    said_bytes = said.encode() + b" " * (len(said) % 2)
    new = b"" if stated is None else old[:6] + len(said_bytes).to_bytes(2, "little") + said_bytes
    content = content.replace(old, new).replace(marker, written.ljust(len(marker)))
    found = reference_in(content)
    assert found is not None
    if read is None:
        assert found.PatientName.isascii()
    else:
        assert found.PatientName == read
    is_lost = read is None or read == "Mller^Jos"
    codes = [problem.code for problem in read_image(content).problems]
    assert codes == (["letters_left_out"] if is_lost else [])


def test_a_size_that_cannot_be_read_costs_no_study() -> None:
    content = dicom(phantom(), **STUDY)
    start = content.index(b"\x28\x00\x10\x00US\x02\x00")
    broken = content[: start + 6] + b"\x01\x00" + content[start + 8 : start + 9] + content[start + 10 :]
    found = reference_in(broken)
    assert found is not None
    assert (found.StudyInstanceUID, found.Rows, found.Columns) == ("1.2.3", None, 240)
