"""A site with a certificate of normals, made by the real command, and films that the machine calls normal."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from data_specs.problems import Problem
from data_specs.visit.assessment import AssessedInput, AssessedOrgan, Assessment, FoundFinding
from data_specs.visit.contract import ModelUsed, OperatingPoint
from models.__main__ import main
from tests.conftest import ROOT
from tests.models.versions import for_triage, shipped
from tests.service.standin import StandIn

FINDING = "pneumonia (1-5)"
NORMAL, DOUBTFUL, FLAGGED = 0.02, 0.3, 0.9
FILM = (ROOT / "samples/film-normal.jpg").read_bytes()
CHILD = {"age_years": 3, "sex": "female"}
POINT = OperatingPoint(name="screening", threshold=0.5, cohort="made")


class Scoring(StandIn):
    """Gives the probability that a person's identifier says: ``0.02 …``."""

    async def assess(self, inputs, context, site):
        probability = float(context.person.id.split()[0])
        flagged = probability >= POINT.threshold
        found = FoundFinding(
            name="pneumonia",
            probability=probability,
            calibrated=True,
            positive=flagged,
            strength="strong" if flagged else "below",
            use="triage",
            operating_point=POINT,
        )
        lung = AssessedOrgan(status="assessed", category="high" if flagged else "low", findings=[found])
        organs = {
            "lung": lung,
            "cardiac": AssessedOrgan(status="not_assessed", reasons=[Problem("no_ecg", "reject")]),
            "kidney": AssessedOrgan(status="not_assessed", reasons=[Problem("labs_missing", "reject", "creatinine")]),
        }
        return Assessment(
            organs=organs,
            inputs=[AssessedInput(index=each.index, format="jpeg", accepted=True) for each in inputs],
            models=[ModelUsed(name="lung", version="1.0.0", sha256="0" * 64)],
        )


def bundles(folder: Path) -> Path:
    """The shipped ``lung`` as 1.0.0."""
    folder.mkdir()
    return shipped(folder, "lung", edit=for_triage)


def scores(path: Path, *, events: int, normal: int = 2000, missed: int = 0) -> Path:
    """A sample: events of high probability, ``missed`` of them at the level of normal films, and normal films."""
    draw = random.Random(7)
    rows = [(draw.uniform(0.6, 0.99), "confirmed", "female") for _ in range(events - missed)]
    rows += [(draw.uniform(0.01, 0.03), "confirmed", "female") for _ in range(missed)]
    rows += [(draw.uniform(0.01, 0.2), "refuted", "female") for _ in range(normal)]
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("person", "probability", "outcome", "sex"))
        lines.writerows((f"P{i}", *row) for i, row in enumerate(rows))
    return path


def certify(folder: Path, site: str, sample: Path, *more: str) -> int:
    """Run ``python -m models certify`` for a site."""
    given = ["--site", site, "--finding", FINDING, "--scores", str(sample), "--who", "the lead", "--why", "a test"]
    return main(["--bundles", str(folder), "certify", "lung", *given, *more])
