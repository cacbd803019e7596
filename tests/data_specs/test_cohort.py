"""The cohort manifest: what is read, and what its errors say."""

from __future__ import annotations

import contextlib
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from data_specs.cohort import CohortManifest, ManifestInvalid, read_manifest

GOOD = """
name: district-2026
modality: cxr
table: films.csv
files: films
columns: {person: patient, file: image, age_years: age, sex: sex, site: hospital, view: view, split: part}
values:
  sex: {1: male, 2: female}
labels:
  pneumonia: Pneumonia
source: {citation: "A district hospital, 2026", licence: own}
age_years: [18, 86]
"""


def read(folder: Path, text: str | bytes) -> CohortManifest:
    path = folder / "cohort.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_manifest(path)


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ManifestInvalid) as refused:
        read(folder, text)
    return list(refused.value.faults)


def test_reads_a_manifest(tmp_path: Path) -> None:
    manifest = read(tmp_path, GOOD)
    assert manifest.columns.person == "patient"
    assert manifest.columns.device is None
    assert manifest.labels == {"pneumonia": "Pneumonia"}
    assert manifest.values.sex == {"1": "male", "2": "female"}
    assert manifest.age_years == (18, 86)


def test_names_every_fault_with_its_line_path_and_meaning(tmp_path: Path) -> None:
    text = (
        GOOD.replace("file: image", "fille: image").replace("  pneumonia:", "  pneumoni:").replace("licence: own", "")
    )
    found = faults(tmp_path, text.replace("[18, 86]", "[86, 18]"))
    assert len(found) == 4
    assert any(
        f.startswith("line 6: columns.fille: not a name that is read (meant: one of person, file") for f in found
    )
    assert any(f.startswith("line 9: labels: no term of the vocabulary: pneumoni") for f in found)
    assert any(f.startswith("line 11: source.licence: missing (meant: terms under which") for f in found)
    assert any(f.startswith("line 12: age_years: 86 to 18 is no range") for f in found)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (" file: image,", "", "needs `columns.file`"),
        ("name: district-2026", "name: ../../x", "line 2: name"),
        ("files: films", "files: films\nfiles: other", "files is written twice"),
        ("files: films", "site: here", "say either `site`"),
        ("files: films", "features: {creatinine: {column: c, unit: mg/dL}}", "belongs to modality labs"),
        ("files: films", "shares: {train: 0.9}", "add up to 1.3"),
        ("sex: {1: male, 2: female}", "sex: {1: man}", "values.sex.1"),
        ("modality: cxr", "modality: labs", "needs `features`"),
    ],
)
def test_refuses(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    assert any(said in fault for fault in faults(tmp_path, GOOD.replace(old, new)))


def test_features_are_named_and_measured_as_in_a_visit(tmp_path: Path) -> None:
    labs = """
name: kidneys
modality: labs
table: labs.csv
columns: {person: id, age_years: age, sex: sex}
labels: {incident_ckd: event}
features:
  creatinine: {column: crea, unit: FEATURE}
  diabetes: {column: dm, unit: "1"}
  systolic_mmHg: {column: sbp, unit: mmHg}
source: {citation: c, licence: l}
"""
    assert read(tmp_path, labs.replace("FEATURE", "umol/L")).features["creatinine"].column == "crea"
    assert any("unit" in f and "features" in f for f in faults(tmp_path, labs.replace("FEATURE", "furlong")))
    assert any("systolic" in f for f in faults(tmp_path, labs.replace("FEATURE", "mg/dL").replace("mmHg}", "kPa}")))


def test_aliases_do_not_explode(tmp_path: Path) -> None:
    bomb = "a: &a [x,x]\n" + "".join(f"{n}: &{n} [*{p},*{p}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True))
    assert "aliases" in faults(tmp_path, bomb)[0]


def test_says_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid, match="cannot be read"):
        read_manifest(tmp_path / "none.yaml")
    assert "line 1" in faults(tmp_path, "a: [")[0] or "line 2" in faults(tmp_path, "a: [")[0]
    assert "no mapping" in faults(tmp_path, "just words")[0]
    assert "no mapping" in faults(tmp_path, "")[0]
    assert "bytes" in faults(tmp_path, "a" * (1 << 21))[0]
    assert "not YAML" in faults(tmp_path, "[" * 20_000)[0]


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_other_exception_leaves_for_any_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    with pytest.raises(ManifestInvalid):
        read(tmp_path_factory.getbasetemp(), content)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_no_other_exception_leaves_for_a_damaged_manifest(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int
) -> None:
    damaged = bytearray(GOOD.encode())
    damaged[at] = byte
    with contextlib.suppress(ManifestInvalid):
        read(tmp_path_factory.getbasetemp(), bytes(damaged))


def test_the_schema_says_the_same(tmp_path: Path) -> None:
    schema = CohortManifest.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    document = yaml.safe_load(GOOD.replace("{1: male, 2: female}", '{"1": male, "2": female}'))
    jsonschema.validate(document, schema)
    assert read(tmp_path, GOOD)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document | {"colums": {}}, schema)
    assert all("description" in field for field in schema["properties"].values())
