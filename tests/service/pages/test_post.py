"""The form of a visit, as a browser without script sends it: what it takes, and what it keeps when it is refused."""

from __future__ import annotations

import html
import re

import pytest

from data_specs.labs import ANALYTES
from data_specs.problems import message
from data_specs.visit.context import Vitals
from data_specs.vocabulary import LANGUAGES, display
from service.language.texts import text
from tests.service.serving import serving, settings_for

FILM = ("film.png", b"an image", "image/png")
EVERYTHING = {
    "person_id": "BN-1",
    "person_name": "Người Được Khám Thử Nghiệm",
    "birth_date": "1960-02-29",
    "sex": "female",
    "visited_on": "2026-11-20",
    "referrer_id": "D-1",
    "referrer_name": "BS. Thử Nghiệm",
    "referrer_facility": "Trạm y tế thử nghiệm",
    "ecg_unit": "uV",
    "systolic_mmHg": "145",
    "diastolic_mmHg": "90",
    "heart_rate_per_min": "72",
    "spo2_percent": "97",
    "temperature_celsius": "37,5",
    "weight_kg": "60.5",
    "height_cm": "158",
    "bmi_kg_per_m2": "24.2",
    "conditions": ["diabetes", "smoking"],
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(settings_for(tmp_path_factory.mktemp("post"))) as running:
        yield running


@pytest.fixture
def client(served):
    with served.client(served.key("site", "commune")) as opened:
        yield opened


def context_of(served, answer):
    assert answer.status_code == 303, answer.text
    from data_specs.visit.context import Context
    from service.storage.tables import VisitRow

    with served.app.state.service.database.transaction() as session:
        row = session.get(VisitRow, answer.headers["location"].rsplit("/", 1)[1])
        return Context.model_validate_json(row.context)


def typed(page, name):
    """What the form holds in a field."""
    found = re.search(rf'<input[^>]* name="{name}"[^>]*? value="([^"]*)"', page) or re.search(
        rf'<input[^>]* value="([^"]*)"[^>]* name="{name}"', page
    )
    return html.unescape(found[1])


def chosen(page, name):
    select = re.search(rf'<select[^>]* name="{name}".*?</select>', page, re.DOTALL)[0]
    found = re.search(r'value="([^"]*)" selected', select)
    return found[1] if found else ""


def first_form(page):
    return page.split("<template", 1)[0]


def test_everything_that_the_contract_takes_can_be_typed(served, client):
    given = {**EVERYTHING, "national_id": "001060012345"}  # the form asks for it where there is a health book
    posted = context_of(served, client.post("/post", data=given, files={"image": FILM}))
    assert posted.person.model_dump(mode="json") == {
        "id": "BN-1",
        "name": "Người Được Khám Thử Nghiệm",
        "birth_date": "1960-02-29",
        "age_years": pytest.approx(66.7, abs=0.1),
        "sex": "female",
        "national_id": "001060012345",
        "residence": None,  # an address comes from a hospital's system
    }
    assert posted.referrer.model_dump() == {
        "id": "D-1",
        "name": "BS. Thử Nghiệm",
        "facility": "Trạm y tế thử nghiệm",
    }
    assert str(posted.visited_on) == "2026-11-20"
    assert posted.ecg_unit == "uV"
    assert posted.conditions == ("diabetes", "smoking")
    vitals = {name: float(EVERYTHING[name].replace(",", ".")) for name in Vitals.model_fields}
    assert posted.vitals.model_dump() == vitals


@pytest.mark.parametrize("analyte", ANALYTES, ids=lambda each: each.name)
def test_every_laboratory_value_can_be_typed_in_each_of_its_units(served, client, analyte):
    middle = (analyte.minimum + min(analyte.maximum, 10 * analyte.minimum + 1)) / 2
    for plain, unit in zip(analyte.units, analyte.accepted_units, strict=True):
        value = (middle - analyte.units[plain].offset) / analyte.units[plain].factor
        form = {analyte.name: f"{value:.6g}", f"{analyte.name}_unit": unit}
        (lab,) = context_of(served, client.post("/post", data=form)).labs
        assert (lab.name, lab.unit, lab.value) == (analyte.name, unit, pytest.approx(value, rel=1e-5))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_unit_is_chosen_for_the_person_posting(client, language):
    told = {"Accept-Language": language}
    empty = first_form(client.get("/post", headers=told).text)
    for analyte in ANALYTES:
        units = re.search(rf'<select name="{analyte.name}_unit".*?</select>', empty, re.DOTALL)[0]
        assert "selected" not in units
        assert units.count("<option") == len(analyte.units) + (len(analyte.units) > 1)
        assert html.escape(display(analyte.name, language)).lower() in empty.lower()
    refused = client.post("/post", data={"creatinine": "88"}, headers=told)
    assert refused.status_code == 422
    beside = re.search(r'id="creatinine-error".*?</p>', refused.text, re.DOTALL)[0]
    assert text("post_choose_unit", language) in html.unescape(beside)
    assert typed(refused.text, "creatinine") == "88"


def test_all_that_was_typed_is_kept_beside_the_reasons(client):
    given = {
        **EVERYTHING,
        "age": "two hundred",
        "systolic_mmHg": "1450",
        "sodium": "140",
        "sodium_unit": "mmol/L",
        "potassium": "45",
        "potassium_unit": "mmol/L",
        "visited_on": "20/11/2026",
    }
    refused = client.post("/post", data=given, headers={"Accept-Language": "en"})
    assert refused.status_code == 422
    shown = first_form(refused.text)
    for name, value in given.items():
        if name == "conditions":
            assert all(re.search(rf'value="{each}" checked', shown) for each in value)
        elif name.endswith("_unit") or name == "sex":
            assert chosen(shown, name) == value, name
        else:
            assert typed(shown, name) == value, name
    wrong = set(re.findall(r'id="(\w+)-error"', shown))
    assert wrong == {"age", "systolic_mmHg", "visited_on"}
    assert re.search(r'id="age-error".*?The value is not accepted', shown, re.DOTALL)
    assert len(re.findall(r'<details class="more" open', shown)) == 2  # the other laboratory values, the vital signs
    again = client.post("/post", data={**given, "age": "", "systolic_mmHg": "145", "visited_on": "2026-11-20"})
    assert set(re.findall(r'id="(\w+)-error"', again.text)) == {"potassium"}  # read as a number, and implausible


def test_values_that_contradict_each_other_are_said_at_once(client):
    form = {"urea": "5", "urea_unit": "mmol/L", "urea_nitrogen": "60", "urea_nitrogen_unit": "mg/dL"}
    refused = client.post("/post", data=form)
    assert refused.status_code == 422
    assert 'id="urea-error"' in refused.text


@pytest.mark.parametrize(
    ("written", "value"), [("1.5", 1.5), ("1,5", 1.5), (" 1,25 ", 1.25), ("0,825", 0.825), ("12", 12.0), ("１２", 12.0)]
)
def test_a_comma_is_a_decimal_point(served, client, written, value):
    posted = context_of(
        served, client.post("/post", data={"age": written, "creatinine": written, "creatinine_unit": "mg/dL"})
    )
    assert (posted.person.age_years, posted.labs[0].value) == (value, value)


@pytest.mark.parametrize("written", ["1,200", "1.2.3", "1 200", "nan", "inf", "1e999", "--5", "x"])
def test_a_number_that_can_be_read_in_two_ways_or_in_none_is_refused(client, written):
    refused = client.post("/post", data={"creatinine": written, "creatinine_unit": "umol/L"})
    assert refused.status_code == 422
    assert 'id="creatinine-error"' in refused.text
    assert typed(refused.text, "creatinine") == written
    if written == "1,200":
        assert "1.200 / 1200" in refused.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_files_of_a_refused_form_have_to_be_chosen_again_and_the_page_says_so(client, language):
    told = {"Accept-Language": language}
    refused = client.post("/post", data={"age": "x"}, files={"image": FILM}, headers=told)
    beside = re.search(r'id="image-error".*?</p>', refused.text, re.DOTALL)[0]
    assert text("post_choose_again", language) in html.unescape(beside)
    nothing = client.post("/post", data={"age": "5"}, headers=told)
    assert message("field_missing", language) in html.unescape(nothing.text)
    assert text("post_choose_again", language) not in html.unescape(nothing.text)


def test_the_second_form_of_a_page_has_ids_of_its_own(client):
    refused = client.post("/post", data={"form": "2", "age": "x"}).text
    shown = first_form(refused)
    assert 'id="p2-age-error"' in shown
    assert 'for="p2-creatinine"' in shown
    assert 'id="age"' not in refused
    ids = re.findall(r' id="([^"]+)"', refused)
    assert len(ids) == len(set(ids))
    for odd in ("0", "-1", "999", "x", "²"):
        assert client.post("/post", data={"form": odd, "age": "x"}).status_code == 422


def test_posting_again_by_the_same_form_is_no_second_visit(client):
    token = typed(client.get("/post").text, "token")
    form = {"token": token, "creatinine": "88", "creatinine_unit": "umol/L"}
    first, second = client.post("/post", data=form), client.post("/post", data=form)
    assert first.headers["location"] == second.headers["location"]
