"""A hospital's order as a FHIR Bundle: known values are read, unknown ones are left out, unusable ones are refused."""

from __future__ import annotations

import copy
import json
import random
import re
import time
from datetime import date

import pytest

from data_specs.labs import standard_labs
from data_specs.person import age_on
from data_specs.visit.context import Context, Lab, Order, Person, Referrer, Vitals
from data_specs.vocabulary import terms
from service.errors import InvalidRequest
from service.receive.fhir.bundle import MAX_ENTRIES
from service.receive.fhir.request import context_of_bundle, is_bundle
from service.receive.fhir.values import VITAL_CODES, lab_codes
from tests.conftest import ROOT

NAME = "Người Được Khám Thử Nghiệm Ẵặ"
DOCTOR = "BS. Thử Nghiệm Tuyến Dưới"
LOINC, UCUM, OWN = "http://loinc.org", "http://unitsofmeasure.org", "urn:sangloc:term"
V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
STATUS = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
URN = "urn:uuid:00000000-0000-4000-8000-{:012d}"


def quantity(value: float, unit: str) -> dict:
    return {"value": value, "unit": unit, "system": UCUM, "code": unit}


def observation(code: str, value: float | None, unit: str = "", system: str = LOINC, **members: object) -> dict:
    coded = {"coding": [{"system": system, "code": code}]}
    stated = {} if value is None else {"valueQuantity": quantity(value, unit)}
    return {"resourceType": "Observation", "status": "final", "code": coded, **stated, **members}


def condition(text: str, **members: object) -> dict:
    return {"resourceType": "Condition", "code": {"text": text}, "subject": {"reference": URN.format(1)}, **members}


def bundle(*more: dict) -> dict:
    """An order with a person, a doctor at a facility, and whatever else is given."""
    resources = [
        {
            "resourceType": "ServiceRequest",
            "status": "active",
            "intent": "order",
            "identifier": [
                {"type": {"coding": [{"system": V2_0203, "code": "PLAC"}]}, "value": "ORD-1"},
                {"type": {"coding": [{"system": V2_0203, "code": "ACSN"}]}, "value": "ACC-1"},
            ],
            "subject": {"reference": URN.format(1)},
            "requester": {"reference": URN.format(2)},
            "authoredOn": "2026-11-21T08:00:00+07:00",
            "reasonCode": [{"text": "Ho kéo dài, sốt nhẹ"}],
        },
        {
            "resourceType": "Patient",
            "identifier": [{"use": "old", "value": "VN-OLD"}, {"value": "VN-0042"}],
            "name": [{"use": "nickname", "text": "Tí"}, {"use": "official", "text": NAME}],
            "gender": "female",
            "birthDate": "1961-05-30",
        },
        {
            "resourceType": "PractitionerRole",
            "practitioner": {"reference": URN.format(3)},
            "organization": {"reference": URN.format(4)},
        },
        {"resourceType": "Practitioner", "identifier": [{"value": "D-7"}], "name": [{"text": DOCTOR}]},
        {"resourceType": "Organization", "name": "Trạm y tế thử nghiệm"},
        *copy.deepcopy(more),
    ]
    entries = [{"fullUrl": URN.format(index), "resource": resource} for index, resource in enumerate(resources)]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def resource(document: dict, index: int) -> dict:
    return document["entry"][index]["resource"]


def refusal(document: dict) -> tuple[str, str, str]:
    with pytest.raises(InvalidRequest) as refused:
        context_of_bundle(document)
    fault = refused.value.faults[0]
    return fault.field, fault.code, fault.expected


# ---------------------------------------------------------------- what is read
def test_person_referrer_order_and_values_are_read():
    document = bundle(observation("2160-0", 88, "umol/L"), observation("8480-6", 142, "mm[Hg]"))
    assert is_bundle(document)
    assert context_of_bundle(document) == Context(
        person=Person(id="VN-0042", name=NAME, birth_date=date(1961, 5, 30), age_years=65.47, sex="female"),
        referrer=Referrer(id="D-7", name=DOCTOR, facility="Trạm y tế thử nghiệm"),
        order=Order(placer="ORD-1", accession_number="ACC-1", request=URN.format(0), reason="Ho kéo dài, sốt nhẹ"),
        labs=(Lab(name="creatinine", value=88, unit="umol/L"),),
        vitals=Vitals(systolic_mmHg=142),
    )
    assert not is_bundle({"person": {"id": "1"}})


@pytest.mark.parametrize(("kind", "national"), [("NI", "001061000123"), ("NNVNM", "001061000123"), ("NNN", None)])
def test_the_number_of_the_countrys_register_is_known_by_its_type(kind, national):
    typed = {"type": {"coding": [{"code": kind}]}, "value": "001061000123"}
    patient = {"resourceType": "Patient", "id": "p", "identifier": [{"value": "VN-0042", "use": "official"}, typed]}
    request = {"resourceType": "ServiceRequest", "id": "77", "subject": {"reference": "Patient/p"}}
    entries = [{"resource": request}, {"resource": patient}]
    person = context_of_bundle({"resourceType": "Bundle", "type": "transaction", "entry": entries}).person
    assert (person.id, person.national_id) == ("VN-0042", national)


def test_a_request_and_a_patient_are_enough():
    document = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"resource": {"resourceType": "ServiceRequest", "id": "77", "subject": {"reference": "Patient/p"}}},
            {"resource": {"resourceType": "Patient", "id": "p"}},
        ],
    }
    assert context_of_bundle(document) == Context(order=Order(request="ServiceRequest/77"))


@pytest.mark.parametrize(
    ("reference", "url"),
    [
        ("Patient/p", "https://h.example/fhir/Patient/p"),
        ("Patient/p/_history/3", "https://h.example/fhir/Patient/p"),
        ("https://h.example/fhir/Patient/p", "https://h.example/fhir/Patient/p"),
        ("Patient/p", None),
        (URN.format(1), URN.format(1)),
    ],
)
def test_references_find_their_entries(reference, url):
    document = bundle()
    document["entry"][0]["fullUrl"] = "https://h.example/fhir/ServiceRequest/77"
    document["entry"][1]["fullUrl"] = url
    resource(document, 1)["id"] = "p"
    resource(document, 0)["subject"]["reference"] = reference
    context = context_of_bundle(document)
    assert context.person.name == NAME
    assert context.order.request == "https://h.example/fhir/ServiceRequest/77"


def test_a_relative_reference_stays_on_its_server():
    document = bundle(dict(resource(bundle(), 1), name=[{"text": "Một Người Khác"}], id="p"))
    resource(document, 1)["id"] = "p"
    for index, host in ((0, "a"), (1, "a"), (5, "b")):
        document["entry"][index]["fullUrl"] = f"https://{host}.example/{resource(document, index)['resourceType']}/p"
    resource(document, 0)["subject"] = {"reference": "Patient/p"}
    assert context_of_bundle(document).person.name == NAME


def test_contained_resources_are_read():
    document = bundle()
    request = resource(document, 0)
    request["contained"] = [
        {**resource(document, 1), "id": "who"},
        {"resourceType": "PractitionerRole", "id": "by", "practitioner": {"reference": "#dr"}},
        {**resource(document, 3), "id": "dr"},
    ]
    request["subject"], request["requester"] = {"reference": "#who"}, {"reference": "#by"}
    context = context_of_bundle(document)
    assert (context.person.id, context.referrer) == ("VN-0042", Referrer(id="D-7", name=DOCTOR))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([{"family": "Thử", "given": ["Nghiệm", "Ẵ"]}], "Thử Nghiệm Ẵ"),
        ([{"text": "Nghiệm Thử", "family": "Thử", "given": ["Nghiệm"]}], "Nghiệm Thử"),
        ([{"use": "maiden", "text": "Trước"}, {"use": "usual", "text": "Nay"}], "Nay"),
        ([{"text": "Nghie\u0323\u0302m"}], "Nghie\u0323\u0302m"),
        ([{"given": ["Nghiệm"]}], "Nghiệm"),
        ([], None),
    ],
)
def test_the_name_of_the_patient(names, expected):
    document = bundle()
    resource(document, 1)["name"] = names
    assert context_of_bundle(document).person.name == expected


@pytest.mark.parametrize(
    ("requester", "expected"),
    [
        ({"reference": URN.format(3)}, Referrer(id="D-7", name=DOCTOR)),
        ({"reference": URN.format(4)}, Referrer(facility="Trạm y tế thử nghiệm")),
        ({"reference": "Practitioner/9", "display": DOCTOR}, Referrer(name=DOCTOR)),
        ({"identifier": {"value": "D-9"}}, Referrer(id="D-9")),
        (None, None),
    ],
)
def test_the_referrer(requester, expected):
    document = bundle()
    resource(document, 0)["requester"] = requester
    assert context_of_bundle(document).referrer == expected


@pytest.mark.parametrize(
    ("identifiers", "placer", "accession"),
    [
        ([{"value": "77"}], "77", None),
        ([{"value": "77"}, {"value": "78"}], None, None),
        ([{"system": "https://h.example/accession", "value": "A"}, {"value": "77"}], "77", "A"),
        ([{"type": {"coding": [{"system": V2_0203, "code": "FILL"}]}, "value": "F"}], None, None),
        ([], None, None),
    ],
)
def test_placer_and_accession_number(identifiers, placer, accession):
    document = bundle()
    resource(document, 0)["identifier"] = identifiers
    order = context_of_bundle(document).order
    assert (order.placer, order.accession_number) == (placer, accession)


def test_the_reason_may_be_a_condition():
    document = bundle(condition("Tăng huyết áp"))
    resource(document, 0)["reasonReference"] = [
        {"reference": URN.format(5)},
        {"reference": "x/1", "display": "khó thở"},
    ]
    context = context_of_bundle(document)
    assert context.order.reason == "Ho kéo dài, sốt nhẹ; Tăng huyết áp; khó thở"
    assert context.conditions is None  # the reason for the order is no complete list


# ---------------------------------------------------------------- ages
@pytest.mark.parametrize(
    ("born", "on", "years"),
    [
        ("1961-05-30", "2026-05-30", 65.0),
        ("1961-05-30", "2026-05-29", 64.99),
        ("2008-02-29", "2026-02-28", 17.99),
        ("2008-02-29", "2026-03-01", 18.0),
        ("2026-11-21", "2026-11-21", 0.0),
        ("9998-12-31", "9999-12-31", 1.0),
    ],
)
def test_an_age_is_never_rounded_up(born, on, years):
    assert age_on(date.fromisoformat(born), date.fromisoformat(on)) == years


def test_the_age_is_computed_for_the_day_of_the_visit():
    document = bundle()
    resource(document, 0)["occurrenceDateTime"] = "2026-05-29"
    context = context_of_bundle(document)
    assert (context.person.age_years, context.visited_on) == (64.99, date(2026, 5, 29))
    resource(document, 1)["birthDate"] = "1961"
    person = context_of_bundle(document).person
    assert (person.age_years, person.birth_date) == (None, None)  # a year alone gives no exact age


# ---------------------------------------------------------------- values
def test_every_known_code_is_a_laboratory_value_or_a_vital_sign():
    for name in lab_codes().values():
        assert not [
            each for each in standard_labs([Lab(name=name, value=1, unit="?")])[1] if each.code == "lab_unknown"
        ]
    for name, term in terms().items():
        if name in Vitals.model_fields and term.system == LOINC:
            assert VITAL_CODES[term.code] == name
    assert set(VITAL_CODES.values()) == set(Vitals.model_fields)


def test_values_are_read_with_their_units():
    document = bundle(
        observation("14959-1", 3.4, "mg/mmol{creat}"),
        observation("uric_acid", 400, "umol/L", system=OWN),
        observation("8310-5", 98.6, "[degF]"),
        observation("29463-7", 150, "[lb_av]"),
        observation("8302-2", 1.62, "m"),
        observation("8867-4", 72, "{beats}/min"),
        observation("9279-1", 16, "/min"),
        observation("2823-3", None),
        observation("2823-3", 9.9, "furlong", status="entered-in-error"),
        observation(
            "85354-9",
            None,
            component=[observation("8480-6", 142, "mm[Hg]"), observation("8462-4", 88, "mm[Hg]")],
        ),
    )
    context = context_of_bundle(document)
    assert context.labs == (
        Lab(name="urine_acr", value=3.4, unit="mg/mmol{creat}"),
        Lab(name="uric_acid", value=400, unit="umol/L"),
    )
    assert context.vitals == Vitals(
        temperature_celsius=37.0,
        weight_kg=68.039,
        height_cm=162.0,
        heart_rate_per_min=72,
        systolic_mmHg=142,
        diastolic_mmHg=88,
    )


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ([condition("Đái tháo đường"), condition("hypertension")], ("diabetes", "hypertension")),
        ([condition("x", code={"coding": [{"system": OWN, "code": "obesity"}]})], ("obesity",)),
        ([condition("Đái tháo đường"), condition("hen phế quản")], None),
        ([condition("đái tháo đường thai kỳ")], None),
        ([condition("diabetes", verificationStatus={"coding": [{"system": STATUS, "code": "provisional"}]})], None),
        (
            [
                condition("smoking"),
                condition("asthma", verificationStatus={"coding": [{"system": STATUS, "code": "refuted"}]}),
            ],
            ("smoking",),
        ),
        ([], None),
    ],
)
def test_conditions_are_read_only_where_all_are_known(stated, expected):
    assert context_of_bundle(bundle(*stated)).conditions == expected


# ---------------------------------------------------------------- what is refused, and where
def changed(index: int, **members: object) -> dict:
    document = bundle()
    resource(document, index).update(members)
    return document


def without(document: dict, index: int) -> dict:
    del document["entry"][index]
    return document


LAB = "context.entry.5.resource"
REFUSED = [
    (without(bundle(), 0), "context.entry", "field_missing", "ServiceRequest"),
    (bundle(resource(bundle(), 0)), "context.entry.5.resource", "field_too_many", "1 × ServiceRequest"),
    (without(bundle(), 1), "context.entry.0.resource.subject.reference", "field_invalid", "Patient"),
    (changed(0, subject=None), "context.entry.0.resource.subject", "field_missing", "Patient"),
    (changed(0, subject={"reference": "#x"}), "context.entry.0.resource.subject.reference", "field_invalid", "Patient"),
    (
        changed(0, subject={"reference": URN.format(3)}),
        "context.entry.0.resource.subject.reference",
        "field_invalid",
        "Patient",
    ),
    (
        changed(0, requester={"reference": "Practitioner/9"}),
        "context.entry.0.resource.requester",
        "field_invalid",
        "Practitioner, PractitionerRole, Organization",
    ),
    (changed(0, status="revoked"), "context.entry.0.resource.status", "field_invalid", None),
    (changed(0, doNotPerform=True), "context.entry.0.resource.doNotPerform", "field_invalid", "false"),
    (changed(0, modifierExtension=[{}]), "context.entry.0.resource.modifierExtension", "field_unknown", ""),
    (changed(0, authoredOn="21/11/2026"), "context.entry.0.resource.authoredOn", "field_invalid", "YYYY-MM-DD"),
    (
        changed(0, identifier=[{"type": {"coding": [{"code": "PLAC"}]}, "value": each} for each in "ab"]),
        "context.entry.0.resource.identifier.1",
        "field_repeated",
        "",
    ),
    (changed(0, reasonCode=[{"text": "x" * 1001}]), "context.entry.0.resource.reasonCode", "field_invalid", None),
    (
        changed(0, reasonReference=[{"reference": "#x"}] * 51),
        "context.entry.0.resource.reasonReference",
        "field_too_many",
        "50",
    ),
    (changed(1, gender="F"), "context.entry.1.resource.gender", "field_invalid", "female | male | other | unknown"),
    (changed(1, birthDate="1961-02-30"), "context.entry.1.resource.birthDate", "field_invalid", "YYYY-MM-DD"),
    (changed(1, birthDate="2027-01-01"), "context.entry.1.resource.birthDate", "field_invalid", "≤ 2026-11-21"),
    (changed(1, birthDate="1861-01-01"), "context.entry.1.resource.birthDate", "field_invalid", "≤ 130.0"),
    (changed(1, name="x"), "context.entry.1.resource.name", "field_invalid", "[{…}]"),
    (changed(1, name=[{"text": "x" * 201}]), "context.entry.1.resource.name", "field_invalid", None),
    (dict(bundle(), type="searchset"), "context.type", "field_invalid", None),
    (dict(bundle(), entry=[{}]), "context.entry.0.resource", "field_missing", ""),
    (dict(bundle(), entry=[{}] * (MAX_ENTRIES + 1)), "context.entry", "field_too_many", str(MAX_ENTRIES)),
    (bundle(observation("2160-0", 88, "")), f"{LAB}.valueQuantity.code", "field_invalid", None),
    (
        bundle(observation("2160-0", 88, "furlong")),
        f"{LAB}.valueQuantity.code",
        "field_invalid",
        "umol/L, mmol/L, mg/dL, mg/L",
    ),
    (bundle(observation("8480-6", 14, "kPa")), f"{LAB}.valueQuantity.code", "field_invalid", "mm[Hg]"),
    (bundle(observation("8480-6", 500, "mm[Hg]")), f"{LAB}.valueQuantity.value", "field_invalid", "≤ 320"),
    (
        bundle(observation("14959-1", None, valueQuantity={**quantity(3, "mg/g"), "comparator": "<"})),
        f"{LAB}.valueQuantity.comparator",
        "field_unknown",
        "",
    ),
    (bundle(observation("2160-0", None, valueString="88 umol/L")), LAB, "field_invalid", "valueQuantity"),
    (
        bundle(observation("2160-0", None, valueQuantity={"value": "88", "unit": "umol/L"})),
        f"{LAB}.valueQuantity.value",
        "field_invalid",
        "0.5",
    ),
    (bundle(observation("2160-0", 10**400, "umol/L")), f"{LAB}.valueQuantity.value", "field_invalid", "0.5"),
    (
        bundle(observation("8480-6", 140, "mm[Hg]"), observation("8480-6", 120, "mm[Hg]")),
        "context.entry.6.resource.valueQuantity.value",
        "field_repeated",
        "",
    ),
    (
        bundle(observation("2160-0", 88, "umol/L", subject={"reference": URN.format(6)}), {"resourceType": "Patient"}),
        f"{LAB}.subject",
        "field_invalid",
        "ServiceRequest.subject",
    ),
    (
        bundle(observation("2160-0", 88, "umol/L"), {"resourceType": "Patient"}),
        f"{LAB}.subject",
        "field_invalid",
        "Patient",
    ),
    (bundle(condition("x", subject={"reference": "Patient/9"})), f"{LAB}.subject", "field_invalid", "Patient"),
]


@pytest.mark.parametrize(("document", "field", "code", "expected"), REFUSED)
def test_a_refusal_names_the_field(document, field, code, expected):
    found = refusal(document)
    assert found[:2] == (field, code)
    assert expected is None or found[2] == expected
    assert NAME not in str(found)
    assert DOCTOR not in str(found)


def test_a_reference_that_fits_two_resources_is_refused():
    document = bundle({"resourceType": "Patient", "id": "p"})
    resource(document, 1)["id"] = "p"
    resource(document, 0)["subject"] = {"reference": "Patient/p"}
    assert refusal(document) == ("context.entry.0.resource.subject.reference", "field_invalid", "1 × Patient")


def test_any_bundle_is_read_or_refused():
    chance = random.Random(5)
    whole = bundle(
        observation("85354-9", None, component=[observation("8480-6", 142, "mm[Hg]")]),
        observation("2160-0", 88, "umol/L", subject={"reference": URN.format(1)}),
        condition("diabetes", verificationStatus={"coding": [{"system": STATUS, "code": "confirmed"}]}),
    )
    resource(whole, 0)["reasonReference"] = [{"reference": URN.format(7)}]
    tried = read = refused = 0
    junk = (
        None,
        [],
        {},
        0,
        1.5,
        True,
        "",
        "x",
        "#",
        [0],
        [[]],
        [None],
        [""],
        [{}],
        {"reference": "#"},
        10**400,
        "9999-12-31",
    )
    for bad in junk:
        for holder_at in range(120):
            tried += 1
            document = copy.deepcopy(whole)
            holder, key = chance.choice(list(places(document))) if holder_at else (document, "entry")
            holder[key] = bad
            try:
                assert isinstance(context_of_bundle(document), Context)
                read += 1
            except InvalidRequest as fault:
                refused += all(each.field.startswith("context") for each in fault.faults)
    assert read + refused == tried
    assert min(read, refused) > 100


def places(value):
    """Every value of a JSON document: the object or list that holds it, and its name or index there."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


def test_the_largest_bundle_is_read_quickly():
    document = bundle()
    resource(document, 1)["id"] = "p"
    value = observation("2823-3", 4.4, "mmol/L", subject={"reference": "Patient/p"})
    document["entry"] += [{"resource": copy.deepcopy(value)} for _ in range(190)]
    document["entry"] += [{"resource": dict(condition("asthma"), id=str(n))} for n in range(300)]
    start = time.perf_counter()
    assert len(context_of_bundle(document).labs) == 190
    assert time.perf_counter() - start < 0.5


def test_our_own_report_is_no_order():
    from service.report.fhir.document import render
    from tests.service import report_fixture

    assert refusal(json.loads(render(report_fixture.report(), "vi")))[:2] == ("context.entry", "field_missing")


def test_the_documented_order_is_read():
    docs = ROOT / "docs/reference/fhir.md"
    context = context_of_bundle(json.loads(re.findall(r"```json\n(.*?)```", docs.read_text(), re.DOTALL)[0]))
    assert (context.person.id, context.order.placer, context.referrer.id) == ("VN-0042", "ORD-1", "D-7")
    assert context.labs == (Lab(name="creatinine", value=88, unit="umol/L"),)
    assert f"at most {MAX_ENTRIES} entries" in docs.read_text()
