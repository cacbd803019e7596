"""Every real file at hand through the engine: assessed, or refused with the code that fits."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from data_specs.visit.assessment import Assessment
from data_specs.visit.context import Context
from inference.engine import Engine
from tests.inference.conftest import posted

ADULT = Context.model_validate({"person": {"age_years": 54}})


async def assess(engine: Engine, field: str, *paths: Path, context: Context | None = None) -> Assessment:
    return await engine.assess(posted(*((field, p.name, p.read_bytes()) for p in paths)), context or Context())


def rejected(assessment: Assessment) -> set[str]:
    return {p.code for i in assessment.inputs for p in i.problems if p.severity == "reject"}


async def test_chest_dicom(engine: Engine, shared_data: Path) -> None:
    paths = sorted((shared_data / "cxr/dicom/chest").glob("*.dcm"))
    assert len(paths) >= 10
    for path in paths:
        assessment = await assess(engine, "image", path)
        if "modality_CT" in path.name:
            assert rejected(assessment) == {"wrong_modality"}
        else:
            assert assessment.organs["lung"].status == "assessed", (path.name, assessment.inputs[0].problems)


@pytest.mark.parametrize(
    ("folder", "fitting"),
    [
        ("not_chest", {"wrong_body_part", "wrong_modality", "not_a_chest_image"}),
        ("malformed", {"no_pixel_data", "unreadable"}),
    ],
)
async def test_dicom_that_must_be_refused(engine: Engine, shared_data: Path, folder: str, fitting: set[str]) -> None:
    for path in sorted((shared_data / "cxr/dicom" / folder).glob("*.dcm")):
        assessment = await assess(engine, "image", path)
        assert assessment.organs["lung"].status == "not_assessed", path.name
        assert rejected(assessment) <= fitting, (path.name, rejected(assessment))
        assert rejected(assessment)


async def test_at_most_one_percent_of_real_films_are_refused_by_their_pixels(engine: Engine, shared_data: Path) -> None:
    """Films that no part of the pipeline was trained on: the paediatric test part and the tuberculosis films."""
    paths = sorted((shared_data / "cxr/kermany/test").glob("*/*.jpeg"))[::8]
    paths += sorted((shared_data / "cxr/tb/images").glob("*.jpg"))[::2]
    results = await asyncio.gather(*(assess(engine, "image", path, context=ADULT) for path in paths))
    refused = [path.name for path, result in zip(paths, results, strict=True) if rejected(result)]
    assert len(refused) <= 0.01 * len(paths), refused


async def test_raw_recordings(engine: Engine, shared_data: Path) -> None:
    headers = sorted((shared_data / "ecg/raw").glob("*.hea"))
    assert len(headers) >= 113
    acceptable = {"lead_flat": 5, "age_out_of_range": 5}
    seen: dict[str, list[str]] = {}
    for header in headers:
        assessment = await assess(engine, "ecg", header, header.with_suffix(".mat"))
        for code in rejected(assessment):
            seen.setdefault(code, []).append(header.name)
        if not rejected(assessment):
            assert assessment.organs["cardiac"].status == "assessed"
            assert "heart_rate" in {f.name for f in assessment.organs["cardiac"].findings}, header.name
    assert seen.keys() <= acceptable.keys(), seen
    assert all(len(names) <= acceptable[code] for code, names in seen.items()), seen


async def test_atrial_fibrillation_is_told_from_sinus_rhythm_in_other_hospitals(
    engine: Engine, shared_data: Path
) -> None:
    """Georgia, Chapman/Ningbo and CPSC recordings: none of them trained on, by their published diagnoses."""
    import csv

    fibrillating, sinus = [], []
    for row in csv.DictReader((shared_data / "ecg/raw/labels.csv").read_text().splitlines()):
        diagnoses = set(row["dx"].split(","))
        if row["db"] == "HR" or not diagnoses & {"164889003", "426783006", "426177001", "427084000"}:
            continue
        header = shared_data / "ecg/raw" / f"{row['record']}.hea"
        assessment = await assess(engine, "ecg", header, header.with_suffix(".mat"))
        found = {f.name: f for f in assessment.organs["cardiac"].findings}
        if "atrial_fibrillation" in found:
            group = fibrillating if "164889003" in diagnoses else sinus
            group.append(found["atrial_fibrillation"].probability)
    assert len(fibrillating) >= 5
    assert len(sinus) >= 10
    wins = sum(f > s for f in fibrillating for s in sinus) / (len(fibrillating) * len(sinus))
    assert wins >= 0.9, (fibrillating, sinus)


async def test_a_paced_recording_is_never_called_normal(engine: Engine, shared_data: Path) -> None:
    header = shared_data / "ecg/raw/HR12083.hea"
    assessment = await assess(engine, "ecg", header, header.with_suffix(".mat"))
    cardiac = assessment.organs["cardiac"]
    assert cardiac.status == "assessed"
    assert {f.name for f in cardiac.findings} == {"atrial_fibrillation", "heart_rate"}
    assert cardiac.risk is None
    assert cardiac.category != "low"
    assert [p.code for p in cardiac.reasons] == ["paced", "not_measurable", "information_only"]
    withheld = "normal_ecg, st_t_change, conduction_disturbance, myocardial_infarction, hypertrophy, qrs_axis"
    assert {p.found for i in assessment.inputs for p in i.problems if p.code == "paced"} == {withheld}
    assert "nothing_found" not in {p.code for p in assessment.priority_reasons}


FORMATS = {
    "aecg/Example_aECG.xml": None,
    "aecg/fda_subject1_0.xml": None,
    "dicom/waveform_ecg.dcm": None,
    "muse_xml/braveheart_example1.xml": None,
    "muse_xml/braveheart_example2.xml": None,
    "muse_xml/heartwise_dummy_ecg.xml": None,
    "philips_xml/v1_04_3191723_orig.xml": None,
    "philips_xml/v1_04_ad4d3d80_converted.xml": None,
    "philips_xml/v1_04_ad4d3d80_orig.xml": None,
    "scp/scptools_ANON000004.SCP": None,
    "wfdb_zoo/s0010_re.hea": None,
    "scp/contec_demo.scp": "leads_identical",  # a simulator: every lead a multiple of one signal
    "aecg/edge_empty.xml": "lead_missing",
    "aecg/edge_minimum_aecg.xml": "lead_missing",
    "csv/contec_0000050.csv": "lead_missing",
    "edf/contec_0000050.edf": "lead_flat",
    "edf/wfdb_test_edfann.edf": "lead_missing",
    "hdf5_sph/SPH00001.h5": "unsupported_format",
    "mat_cpsc2018/A1980.mat": "unit_unknown",
    "philips_xml/edge_invalid-doc-type.xml": "unsupported_format",
    "philips_xml/edge_invalid-doc-version.xml": "unsupported_format",
    "scp/contec_0000050.scp": "lead_flat",
    "scp/scptools_ANON000001.SCP": "lead_missing",
    "wfdb_zoo/100.hea": "lead_missing",
    "wfdb_zoo/a103l.hea": "lead_missing",
}


@pytest.mark.parametrize(("name", "code"), FORMATS.items())
async def test_formats(engine: Engine, shared_data: Path, name: str, code: str | None) -> None:
    path = shared_data / "ecg/formats" / name
    files = sorted(path.parent.glob(f"{path.stem}.*")) if path.suffix == ".hea" else [path]
    assessment = await assess(engine, "ecg", *files)
    assert rejected(assessment) == ({code} if code else set())
    assert assessment.organs["cardiac"].status == ("not_assessed" if code else "assessed")


async def test_a_stated_unit_reads_what_states_none(engine: Engine, shared_data: Path) -> None:
    path = shared_data / "ecg/formats/mat_cpsc2018/A1980.mat"
    assessment = await assess(engine, "ecg", path, context=Context(ecg_unit="mV"))
    assert assessment.organs["cardiac"].status == "assessed"
    wrong = await assess(engine, "ecg", path, context=Context(ecg_unit="uV"))
    assert rejected(wrong) == {"amplitude_implausible"}
