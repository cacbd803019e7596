"""A visit's context from DICOM headers, and the persons of one study."""

from __future__ import annotations

from data_specs.dicom.reference import DicomReference
from data_specs.person import age_on, dicom_day
from data_specs.visit.context import Context, Person, Referrer
from service.receive.dicom.context import by_person, context_of, readable_name
from service.receive.orders import merge_order
from tests.service.receive.dicom.made import LETTERS


def reference(**words):
    uids = dict.fromkeys(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"), "1.2.3")
    return DicomReference(**uids, **words)


def test_the_context_of_headers():
    said = reference(
        PatientID="P-1",
        PatientName=f"{LETTERS[:40]}^{LETTERS[40:]}^^BS",
        PatientBirthDate="19540229",
        PatientSex="m",
        StudyDate="20260228",
        ReferringPhysicianName="Lê^Thị^^BS",
        AccessionNumber="A-1",
    )
    context = context_of([said, reference()])
    assert context.person.name == f"{LETTERS[:40]} {LETTERS[40:]} BS"
    assert context.person.birth_date is None, "1954 had no 29 February"
    assert (context.person.sex, context.order.accession_number) == ("male", "A-1")
    assert str(context.visited_on) == "2026-02-28"
    assert context.referrer == Referrer(name="Lê Thị BS")
    assert context_of([reference()]).model_dump(exclude_unset=True) == {}
    disagreeing = context_of([said, reference(PatientID="P-1", PatientSex="F", AccessionNumber="A-2")])
    assert (disagreeing.person.id, disagreeing.person.sex, disagreeing.order) == ("P-1", None, None)
    for sloppy in ("X" * 200, "2026-1-1", "2026-01-01", "01/02/2026", "99999999", "²0260101"):
        assert dicom_day(sloppy) is None
        context_of([reference(PatientID=sloppy, PatientBirthDate=sloppy, StudyDate=sloppy, PatientSex=sloppy)])
    assert context_of([reference(PatientID="X" * 65)]).person.id is None, "a longer identifier may have been cut off"
    assert age_on(dicom_day("20260101"), dicom_day("20250101")) is None
    assert age_on(dicom_day("18500101"), dicom_day("20250101")) is None
    assert readable_name("=山田^太郎=") == "山田 太郎"
    assert readable_name("^^ =") is None


def test_a_placeholder_is_no_birth_date():
    said = reference(PatientID="P-1", PatientBirthDate="00010101", PatientAge="054Y", StudyDate="20261115")
    context = context_of([said])
    assert (context.person.birth_date, context.person.age_years) == (None, 54)
    order = Context(person=Person(id="P-1", birth_date="1972-03-01"), referrer=Referrer(id="BS01"))
    merged = merge_order(context, order)
    assert (str(merged.person.birth_date), merged.person.age_years, merged.referrer.id) == ("1972-03-01", 54, "BS01")


def test_the_persons_of_a_study():
    def apart(*said):
        return [len(each) for each in by_person([reference(**one) for one in said], lambda each: each)]

    one, two, nobody = {"PatientID": "1"}, {"PatientID": "2"}, {"PatientName": "X"}
    assert apart(one, one, nobody) == [3]
    assert apart(one, two, nobody, one) == [2, 1, 1]
    assert apart(one, {**one, "IssuerOfPatientID": "A"}) == [2]
    assert apart({**one, "IssuerOfPatientID": "B"}, {**one, "IssuerOfPatientID": "A"}) == [1, 1]
    assert apart(nobody, {}, nobody) == [3]
    assert apart(nobody, {"PatientName": "Y"}) == [1, 1]
