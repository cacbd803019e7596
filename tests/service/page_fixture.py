"""Visits to look at: stored through the service's own tables and store, with assessments written by hand.

The films and recordings are real ones where the shared data is found, and made here where it is not. Nothing here
passes through a model: the pages are tested, not what a model says.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import uvicorn
from PIL import Image

from data_specs.problems import Problem
from data_specs.visit.assessment import AssessedInput, AssessedOrgan, Assessment, EvidenceMap, FoundFinding
from data_specs.visit.context import Context
from data_specs.visit.contract import ModelUsed, OperatingPoint
from service.app import build
from service.keys import ADMIN_SITE, BOOTSTRAP_ID, Key
from service.settings import Settings
from service.state import Service
from service.storage.drafts import Draft
from service.storage.folding import listed
from service.storage.tables import InputRow, VisitRow
from service.visits.work import Engine
from tests.readers import shared_readers

SECRET = "key-of-the-page-tests"
OWNER = Key(BOOTSTRAP_ID, "admin", ADMIN_SITE)


@dataclass(frozen=True)
class Site:
    """A running service with visits in it: its address, the visits' ids by kind, its inner parts."""

    url: str
    ids: dict[str, str]
    service: Service


@contextmanager
def running_site(
    folder: Path, shared: Path | None = None, *, filler: int = 0, engine: Engine | None = None
) -> Iterator[Site]:
    """The real application on a free port of loopback; without an engine it starts, and assesses nothing."""
    bundles = folder / "bundles"
    bundles.mkdir()
    settings = Settings(data_dir=folder / "var", bundles=bundles, bootstrap_key=SECRET)
    app = build(settings, engine, stop=lambda: None, readers=shared_readers())
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False, ws="none"))
    thread = threading.Thread(target=server.run, name="site")
    thread.start()
    try:
        for _ in range(200):
            if server.started or not thread.is_alive():
                break
            time.sleep(0.05)
        assert server.started, "the service did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        service: Service = app.state.service
        with ThreadPoolExecutor(1) as aside:  # playwright keeps a loop running on the tests' own thread
            ids = aside.submit(asyncio.run, store_visits(service, OWNER, shared, filler=filler)).result()
        yield Site(f"http://127.0.0.1:{port}", ids, service)
    finally:
        server.should_exit = True
        thread.join(20)


@dataclass(frozen=True)
class Posted:
    field: str
    filename: str
    content: bytes


def made_film(side: int = 512) -> bytes:
    """PNG of two dark fields on a lighter ground; enough for a page to show."""
    y, x = np.mgrid[0:side, 0:side] / side
    film = 150 + 60 * np.exp(-(((x - 0.5) / 0.09) ** 2))
    for middle in (0.28, 0.72):
        film -= 120 * np.exp(-((((x - middle) / 0.14) ** 2 + ((y - 0.45) / 0.28) ** 2) ** 2))
    out = io.BytesIO()
    Image.fromarray(film.clip(0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def made_recording(stem: str = "ecg", fs_hz: int = 500, duration_s: int = 10) -> list[Posted]:
    """WFDB format 16 at 1000 adu/mV: narrow spikes at 72 a minute, a different height in each lead."""
    names = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    t = np.arange(fs_hz * duration_s) / fs_hz
    beat = (t * 72 / 60) % 1.0
    shape = np.exp(-(((beat - 0.3) / 0.012) ** 2)) + 0.25 * np.exp(-(((beat - 0.62) / 0.05) ** 2))
    heights = (700, 1100, 400, -900, 150, 750, -600, -800, 500, 1300, 1200, 900)
    samples = np.stack([shape * height for height in heights]).round().astype("<i2")
    head = [f"{stem} 12 {fs_hz} {t.size}"]
    head += [
        f"{stem}.dat 16 1000/mV 16 0 {row[0]} {int(row.sum(dtype=np.int64)) & 0xFFFF} 0 {name}"
        for name, row in zip(names, samples, strict=True)
    ]
    return [
        Posted("ecg", f"{stem}.hea", ("\n".join(head) + "\n").encode()),
        Posted("ecg", f"{stem}.dat", samples.T.tobytes()),
    ]


def real_files(shared: Path) -> tuple[Posted, Posted, list[Posted], Posted]:
    """An adult film as DICOM, a child's as JPEG, a recording as WFDB, a leg."""
    dicom = shared / "cxr" / "dicom"
    child = sorted((shared / "cxr" / "kermany" / "test").rglob("*.jp*g"))[0]
    ecg = [shared / "ecg" / "raw" / name for name in ("E07501.hea", "E07501.mat")]
    return (
        Posted("image", "thorax-pa.dcm", (dicom / "chest" / "RG1half_MONO2_ExplicitLE.dcm").read_bytes()),
        Posted("image", "phim-nguc.jpeg", child.read_bytes()),
        [Posted("ecg", path.name, path.read_bytes()) for path in ecg],
        Posted("image", "RG3_leg.dcm", (dicom / "not_chest" / "RG3_CR_leg_mono1_10bit_JPLL.dcm").read_bytes()),
    )


def made_files() -> tuple[Posted, Posted, list[Posted], Posted]:
    film = made_film()
    return (
        Posted("image", "thorax-pa.png", film),
        Posted("image", "phim-nguc.png", made_film(640)),
        made_recording("E07501"),
        Posted("image", "RG3_leg.png", made_film(300)),
    )


def heatmap(index: int, x: float, y: float, width: float = 0.16, side: int = 12) -> EvidenceMap:
    row, column = np.mgrid[0:side, 0:side] / (side - 1)
    values = 255 * np.exp(-(((column - x) / width) ** 2) - ((row - y) / width) ** 2)
    return EvidenceMap(kind="heatmap", input=index, values=values.round().astype(int).tolist())


def shading(index: int, steps: int = 40) -> EvidenceMap:
    values = 255 * np.abs(np.sin(np.arange(steps) / 4.2)) ** 4
    return EvidenceMap(kind="trace", input=index, span=(0.0, 10.0), values=[values.round().astype(int).tolist()])


def point(threshold: float, sensitivity: float, specificity: float, cohort: str) -> OperatingPoint:
    return OperatingPoint(
        name="screening", threshold=threshold, sensitivity=sensitivity, specificity=specificity, cohort=cohort
    )


def found(name: str, probability: float, at: OperatingPoint, *evidence: EvidenceMap) -> FoundFinding:
    positive = probability >= at.threshold
    return FoundFinding(
        name=name, probability=probability, positive=positive, operating_point=at, evidence=list(evidence)
    )


MODELS = [
    ModelUsed(name=n, version="1.0.0", sha256=hashlib.sha256(n.encode()).hexdigest()) for n in ("lung", "cardiac")
]
ADULTS = "NIH ChestX-ray14, adults, PA and AP"
PTBXL = "PTB-XL, fold 10"


def sick_lung() -> AssessedOrgan:
    return AssessedOrgan(
        status="assessed",
        risk=0.91,
        category="high",
        findings=[
            found("abnormal", 0.91, point(0.38, 0.90, 0.52, ADULTS), heatmap(0, 0.3, 0.62, 0.22)),
            found("effusion", 0.74, point(0.22, 0.88, 0.71, ADULTS), heatmap(0, 0.24, 0.78)),
            found("cardiomegaly", 0.08, point(0.19, 0.86, 0.79, ADULTS), heatmap(0, 0.55, 0.66)),
            found("infiltration", 0.41, point(0.35, 0.81, 0.55, ADULTS), heatmap(0, 0.33, 0.5)),
            found("atelectasis", 0.21, point(0.24, 0.83, 0.66, ADULTS)),
            found("pneumothorax", 0.0004, point(0.11, 0.85, 0.82, ADULTS)),
        ],
    )


def sick_heart(index: int) -> AssessedOrgan:
    return AssessedOrgan(
        status="assessed",
        risk=0.97,
        category="high",
        reasons=[Problem("not_measurable", "warn", "pr_interval")],
        findings=[
            found("normal_ecg", 0.04, point(0.5, 0.93, 0.88, PTBXL)),
            found("atrial_fibrillation", 0.97, point(0.2, 0.96, 0.97, PTBXL), shading(index)),
            found("st_t_change", 0.52, point(0.3, 0.91, 0.83, PTBXL), shading(index, 24)),
            found("conduction_disturbance", 0.12, point(0.28, 0.89, 0.87, PTBXL)),
            FoundFinding(name="heart_rate", value=118.0, unit="/min"),
            FoundFinding(name="qrs_duration", value=96.0, unit="ms"),
            FoundFinding(name="qtc_interval", value=452.0, unit="ms"),
        ],
    )


def kidneys() -> AssessedOrgan:
    return AssessedOrgan(
        status="assessed",
        risk=0.064,
        category="intermediate",
        findings=[
            FoundFinding(name="egfr", value=52.4, unit="mL/min/1.73 m2"),
            FoundFinding(name="kdigo_g", value="G3a"),
            FoundFinding(name="kdigo_a", value="A2"),
            FoundFinding(name="kdigo_risk", value="very high"),
            FoundFinding(name="kfre_2y", probability=0.0041),
            FoundFinding(name="kfre_5y", probability=0.0162),
        ],
    )


def missing(code: str, found_words: str = "", expected: str = "") -> AssessedOrgan:
    return AssessedOrgan(status="not_assessed", reasons=[Problem(code, "reject", found_words, expected)])


def used(index: int, format: str, *problems: Problem) -> AssessedInput:
    return AssessedInput(index=index, format=format, accepted=True, problems=list(problems))


def refused(index: int, format: str | None, problem: Problem) -> AssessedInput:
    return AssessedInput(index=index, format=format, accepted=False, problems=[problem])


LEG = Problem("wrong_body_part", "reject", "LEG", "CHEST")
FLAT = Problem("lead_flat", "reject", "V2, V3", "12")


async def store_visits(service: Service, key: Key, shared: Path | None = None, *, filler: int = 0) -> dict[str, str]:
    """Store one visit of each kind and ``filler`` routine ones; their ids by kind."""
    adult, child, ecg, leg = real_files(shared) if shared else made_files()
    adult_format = "dicom" if shared else "png"
    now = datetime.now(UTC)
    person = {
        "urgent": ("BN-2041", 67, "male"),
        "soon": ("BN-2038", 4.0, "female"),
        "routine": ("BN-2035", 41, "female"),
    }

    def context(name: str | None = None, age: float | None = None, sex: str | None = None) -> Posted:
        given = {"id": name, "age_years": age, "sex": sex}
        return Posted("context", "context.json", json.dumps({"person": given}).encode())

    kept: dict[str, str] = {}

    async def keep(
        kind: str, minutes: float, about: Posted, files: list[Posted], assessment: Assessment | None
    ) -> None:
        kept[kind] = await _store(service, key, now - timedelta(minutes=minutes), [*files, about], assessment)

    await keep(
        "urgent",
        34,
        context(*person["urgent"]),
        [adult, *ecg, leg],
        Assessment(
            organs={"lung": sick_lung(), "cardiac": sick_heart(1), "kidney": kidneys()},
            inputs=[
                used(0, adult_format),
                used(1, "wfdb", Problem("noisy", "warn", "V4, V5", "< 0.1 mV")),
                used(2, "wfdb"),
                refused(3, adult_format, LEG),
                used(4, "json"),
            ],
            models=MODELS,
            priority="urgent",
            priority_reasons=[
                Problem("finding_urgent", "warn", "atrial_fibrillation"),
                Problem("category_high", "warn", "effusion"),
            ],
        ),
    )
    await keep(
        "soon",
        190,
        context(*person["soon"]),
        [child, *ecg],
        Assessment(
            organs={
                "lung": AssessedOrgan(
                    status="assessed",
                    risk=0.63,
                    category="intermediate",
                    findings=[
                        found(
                            "pneumonia",
                            0.63,
                            point(0.31, 0.95, 0.74, "Kermany, test part, children"),
                            heatmap(0, 0.7, 0.6),
                        )
                    ],
                ),
                "cardiac": missing("inputs_refused"),
                "kidney": missing("labs_missing", "creatinine"),
            },
            inputs=[used(0, "jpeg"), refused(1, "wfdb", FLAT), refused(2, "wfdb", FLAT), used(3, "json")],
            models=MODELS[:1],
            priority="soon",
            priority_reasons=[Problem("category_intermediate", "warn", "pneumonia")],
        ),
    )
    quiet = Assessment(
        organs={
            "lung": AssessedOrgan(
                status="assessed",
                risk=0.05,
                category="low",
                findings=[found("abnormal", 0.05, point(0.38, 0.90, 0.52, ADULTS), heatmap(0, 0.5, 0.5))],
            ),
            "cardiac": missing("no_ecg"),
            "kidney": missing("labs_missing", "creatinine"),
        },
        inputs=[used(0, adult_format), used(1, "json")],
        models=MODELS[:1],
        priority="routine",
        priority_reasons=[Problem("nothing_found", "warn")],
    )
    await keep("routine", 65, context(*person["routine"]), [adult], quiet)
    await keep(
        "unassessed",
        12,
        context(),
        [leg],
        Assessment(
            organs={
                "lung": missing("inputs_refused"),
                "cardiac": missing("no_ecg"),
                "kidney": missing("labs_missing", "creatinine"),
            },
            inputs=[refused(0, adult_format, LEG), used(1, "json")],
            models=[],
            priority="unassessed",
            priority_reasons=[Problem("nothing_assessed", "warn")],
        ),
    )
    await keep("accepted", 0, context("BN-2042", 58, "female"), [adult], None)
    for n in range(filler):
        await keep(
            f"filler-{n}", 80 + n, context(f"BN-1{n:03}", 20 + n % 60, ("female", "male")[n % 2]), [adult], quiet
        )
    return kept


async def _store(
    service: Service, key: Key, received_at: datetime, files: list[Posted], assessment: Assessment | None
) -> str:
    about = next(each for each in files if each.field == "context")
    known = Context.model_validate_json(about.content)
    visit = VisitRow(
        id=str(uuid.uuid4()),
        person_id=known.person.id,
        **listed(known, None),
        site=key.site,
        key_id=key.id,
        context=about.content.decode(),
        status="complete" if assessment else "accepted",
        priority=assessment.priority if assessment else "unassessed",
        received_at=received_at,
        completed_at=received_at + timedelta(seconds=9) if assessment else None,
        assessment=assessment.model_dump_json() if assessment else None,
        body_hash=hashlib.sha256(b"".join(each.content for each in files)).hexdigest(),
    )
    for index, each in enumerate(files):
        sha256 = hashlib.sha256(each.content).hexdigest()
        draft = Draft(service.store.drafts)
        draft.write(each.content)
        service.store.put(draft)
        visit.inputs.append(
            InputRow(index=index, field=each.field, filename=each.filename, sha256=sha256, n_bytes=len(each.content))
        )
    await service.database.write(lambda session: session.add(visit))
    return visit.id
