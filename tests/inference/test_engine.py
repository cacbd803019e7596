"""The engine on real and hostile input: findings, refusals, ages, persons, and independence from the neighbours."""

from __future__ import annotations

import asyncio
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from data_specs.visit.assessment import Assessment
from data_specs.visit.context import Context, Lab, Person
from inference.engine import Engine
from tests.inference.conftest import SAMPLES, posted

ADULT = Context.model_validate({"person": {"age_years": 42, "sex": "female"}})


def codes(assessment: Assessment, index: int) -> set[str]:
    return {p.code for p in assessment.inputs[index].problems}


def probabilities(assessment: Assessment, organ: str) -> dict[str, float]:
    return {f.name: f.probability for f in assessment.organs[organ].findings if f.probability is not None}  # type: ignore[index]


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


async def test_the_sample_visit(engine: Engine) -> None:
    context = Context.model_validate_json((SAMPLES / "context.json").read_bytes())
    files = [
        ("image", "film-normal.jpg"),
        ("image", "film-abnormal.jpg"),
        ("ecg", "E07517.hea"),
        ("ecg", "E07517.mat"),
        ("ecg", "recording.dcm"),
    ]
    inputs = posted(*((field, name, (SAMPLES / name).read_bytes()) for field, name in files))
    assessment = await engine.assess(inputs, context)
    assert [o.status for o in assessment.organs.values()] == ["assessed"] * 3
    assert all(i.accepted for i in assessment.inputs), [i.problems for i in assessment.inputs]
    assert [i.format for i in assessment.inputs] == ["jpeg", "jpeg", "wfdb", "wfdb", "dicom"]
    lung = {f.name: f for f in assessment.organs["lung"].findings}
    assert (lung["abnormal"].positive, lung["abnormal"].use) == (None, "information")
    assert {m.input for m in lung["abnormal"].evidence} <= {0, 1}
    assert 1 in {m.input for m in lung["abnormal"].evidence}
    cardiac_found = {f.name: f for f in assessment.organs["cardiac"].findings}
    assert cardiac_found["normal_ecg"].positive is False
    cardiac = {f.name: f.value for f in assessment.organs["cardiac"].findings if f.value is not None}
    assert 100 <= cardiac["heart_rate"] <= 125, "the record is labelled sinus tachycardia"
    kidney = {f.name: f.value for f in assessment.organs["kidney"].findings}
    assert kidney["egfr"] == pytest.approx(50.5, abs=1.5)
    assert (kidney["kdigo_g"], kidney["kdigo_a"], kidney["kdigo_risk"]) == ("G3a", "A2", "high")
    assert [m.name for m in assessment.models] == ["lung", "cardiac", "kidney"]


async def test_the_normal_film_is_less_suspicious_than_the_abnormal_one(
    engine: Engine, normal_film: bytes, abnormal_film: bytes
) -> None:
    normal = await engine.assess(posted(("image", "a.jpg", normal_film)), ADULT)
    abnormal = await engine.assess(posted(("image", "b.jpg", abnormal_film)), ADULT)
    assert probabilities(normal, "lung")["abnormal"] < probabilities(abnormal, "lung")["abnormal"]


async def test_nothing_posted_is_unassessed_with_reasons(engine: Engine) -> None:
    assessment = await engine.assess([], Context())
    reasons = {name: [p.code for p in o.reasons] for name, o in assessment.organs.items()}
    assert reasons == {"lung": ["no_image"], "cardiac": ["no_ecg"], "kidney": ["labs_missing"]}
    assert all(o.risk is None and o.category is None for o in assessment.organs.values())
    assert assessment.models == []


async def test_a_refused_file_leaves_its_neighbours_alone(
    engine: Engine, normal_film: bytes, recording: list[tuple[str, bytes]]
) -> None:
    alone = await engine.assess(posted(("image", "good.jpg", normal_film)), ADULT)
    hostile = [b"", b"\x89PNG\r\n\x1a\n" + bytes(50), normal_film[:2000], b"DICM" * 100, b"%PDF-1.7 hello"]
    files = [("image", f"{i}.bin", content) for i, content in enumerate(hostile)]
    files += [("ecg", name, content) for name, content in recording]
    files += [("ecg", "x.scp", bytes(range(256)) * 20), ("image", "good.jpg", normal_film)]
    together = await engine.assess(posted(*files), ADULT)
    assert [i.accepted for i in together.inputs] == [False] * 5 + [True, True, False, True]
    assert all(codes(together, i) for i in (0, 1, 2, 3, 4, 7))
    assert probabilities(together, "lung") == pytest.approx(probabilities(alone, "lung"), abs=1e-5)
    assert together.organs["cardiac"].status == "assessed"


async def test_all_refused_is_never_a_negative_finding(engine: Engine) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400), dtype=np.uint8)
    assessment = await engine.assess(posted(("image", "noise.png", png(noise))), ADULT)
    lung = assessment.organs["lung"]
    assert (lung.status, lung.findings, lung.risk) == ("not_assessed", [], None)
    assert [p.code for p in lung.reasons] == ["inputs_refused", "not_a_chest_image"]


@pytest.mark.parametrize(
    ("age", "status", "finding"),
    [
        (3, "assessed", "pneumonia"),
        (10, "not_assessed", None),
        (54, "assessed", "abnormal"),
        (99, "not_assessed", None),
    ],
)
async def test_findings_are_offered_for_the_ages_they_were_evaluated_in(
    engine: Engine, abnormal_film: bytes, age: float, status: str, finding: str | None
) -> None:
    context = Context.model_validate({"person": {"age_years": age}})
    assessment = await engine.assess(posted(("image", "f.jpg", abnormal_film)), context)
    assert assessment.organs["lung"].status == status
    if finding is None:
        assert "age_out_of_range" in codes(assessment, 0)
        assert assessment.inputs[0].problems[0].found == f"{age:g}"
    else:
        assert finding in probabilities(assessment, "lung")


async def test_an_unknown_age_gives_what_holds_for_adults_with_a_reserve(engine: Engine, normal_film: bytes) -> None:
    assessment = await engine.assess(posted(("image", "f.jpg", normal_film)), Context())
    assert [p.code for p in assessment.organs["lung"].reasons] == ["age_unknown", "information_only"]
    known = await engine.assess(posted(("image", "f.jpg", normal_film)), ADULT)
    assert probabilities(assessment, "lung") == pytest.approx(probabilities(known, "lung"), abs=1e-5)


async def test_a_recording_of_someone_else_is_refused(engine: Engine, recording: list[tuple[str, bytes]]) -> None:
    files = posted(*(("ecg", name, content) for name, content in recording))
    for person in ({"sex": "male"}, {"age_years": 61}):
        assessment = await engine.assess(files, Context.model_validate({"person": person}))
        assert "person_mismatch" in codes(assessment, 0)
        assert assessment.organs["cardiac"].status == "not_assessed"
    assessment = await engine.assess(files, Context.model_validate({"person": {"sex": "female", "age_years": 43}}))
    assert assessment.organs["cardiac"].status == "assessed"


@pytest.mark.parametrize("change", ["inverted", "detail"])
async def test_a_film_that_is_not_as_it_should_be_is_noticed(engine: Engine, normal_film: bytes, change: str) -> None:
    film = np.asarray(Image.open(io.BytesIO(normal_film)).convert("L"))
    changed, code = {
        "inverted": (255 - film, "inverted"),
        "detail": (np.kron(film[30:110, 30:110], np.ones((4, 4), dtype=np.uint8)), "not_a_chest_image"),
    }[change]
    assessment = await engine.assess(posted(("image", "f.png", png(np.ascontiguousarray(changed)))), ADULT)
    assert codes(assessment, 0) == {code}


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_a_turned_film_is_assessed_upright_and_its_heatmaps_lie_as_it_does(
    engine: Engine, abnormal_film: bytes, turns: int
) -> None:
    film = np.asarray(Image.open(io.BytesIO(abnormal_film)).convert("L"))
    lying = np.ascontiguousarray(np.rot90(film, -turns))
    upright = await engine.assess(posted(("image", "f.png", png(film))), ADULT)
    turned = await engine.assess(posted(("image", "f.png", png(lying))), ADULT)
    (said,) = turned.inputs[0].problems
    assert (said.code, said.severity, said.found) == ("turned", "warn", f"{90 * turns}°")
    assert probabilities(turned, "lung") == pytest.approx(probabilities(upright, "lung"), abs=0.01)
    heatmaps = [
        next(f for f in assessed.organs["lung"].findings if f.name == "abnormal").evidence[0].values
        for assessed in (upright, turned)
    ]
    # Of 255. The lungs' borders, and with them the film's cut, may lie a pixel further when it is turned.
    apart = np.abs(np.asarray(heatmaps[1]) - np.rot90(heatmaps[0], -turns))
    assert apart.mean() < 2
    assert apart.max() <= 25


async def test_a_mirrored_film_is_assessed_and_its_heart_is_said_to_lie_on_the_right(
    engine: Engine, normal_film: bytes
) -> None:
    film = np.asarray(Image.open(io.BytesIO(normal_film)).convert("L"))
    for mirrored, expected in ((film[:, ::-1], ["heart_on_the_right"]), (film[::-1], ["turned", "heart_on_the_right"])):
        assessment = await engine.assess(posted(("image", "f.png", png(np.ascontiguousarray(mirrored)))), ADULT)
        assert [p.code for p in assessment.inputs[0].problems] == expected
        assert assessment.organs["lung"].status == "assessed"


async def test_a_zip_may_hold_the_recording(engine: Engine, recording: list[tuple[str, bytes]]) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in recording:
            archive.writestr(f"folder/{name}", content)
    assessment = await engine.assess(posted(("ecg", "visit.zip", stream.getvalue())), ADULT)
    assert assessment.organs["cardiac"].status == "assessed"
    assert assessment.inputs[0].accepted


async def test_a_result_does_not_depend_on_what_else_was_in_the_batch(
    engine: Engine, normal_film: bytes, abnormal_film: bytes, recording: list[tuple[str, bytes]]
) -> None:
    """The same film and recording alone and among 200 mixed others: 1e-5 at most between the probabilities."""
    mine = posted(("image", "a.jpg", abnormal_film), *(("ecg", n, c) for n, c in recording))
    alone = await engine.assess(mine, ADULT)
    rng = np.random.default_rng(5)
    film = np.asarray(Image.open(io.BytesIO(normal_film)).convert("L"))
    others = []
    for i in range(200):
        if i % 4 == 0:
            others.append(engine.assess(posted(*(("ecg", n, c) for n, c in recording)), ADULT))
        else:
            darker = (film * rng.uniform(0.5, 1.0)).astype(np.uint8)
            content = png(darker) if i % 4 < 3 else rng.bytes(5000)
            others.append(engine.assess(posted(("image", "o.png", content)), ADULT))
    crowd, *rest = await asyncio.gather(engine.assess(mine, ADULT), *others)
    assert len(rest) == 200
    for organ in ("lung", "cardiac"):
        assert probabilities(crowd, organ) == pytest.approx(probabilities(alone, organ), abs=1e-5)


async def test_an_unknown_condition_is_a_reserve_of_the_visit(engine: Engine) -> None:
    person = Person(age_years=54, sex="female")
    labs = (Lab(name="creatinine", value=88, unit="umol/L"),)
    found = await engine.assess([], Context(person=person, labs=labs, conditions=("asthma", "diabetes")))
    kidney = found.organs["kidney"]
    assert kidney.status == "assessed"
    (reserve,) = [each for each in kidney.reasons if each.code == "condition_unknown"]
    assert (reserve.severity, reserve.found) == ("warn", "asthma")
    assert "hypertension" in reserve.message("vi")
