"""What stands in for the engine at the service's border: quick, and told by a file's content how to behave.

``SLOW s`` takes s seconds, ``FAULT`` raises, anything else is accepted at once. Every
call is appended to ``journal``, one JSON line each, so that a test can count what a killed process had begun.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from types import MappingProxyType

from data_specs.problems import Problem
from data_specs.visit.assessment import AssessedInput, AssessedOrgan, Assessment, EvidenceMap, FoundFinding

MAP = EvidenceMap(kind="heatmap", input=0, values=[[0, 128], [255, 64]])


class StandIn:
    has_shadows = False
    bundles = batchers = MappingProxyType({})

    def __init__(self, journal: Path | None = None, seconds: float = 0.0):
        self.journal = journal
        self.seconds = seconds

    def _write(self, **event):
        if self.journal is not None:
            with self.journal.open("a") as file:
                file.write(json.dumps({**event, "pid": os.getpid()}) + "\n")
                file.flush()

    async def assess(self, inputs, context, site):
        person = context.person.id
        self._write(event="begin", person=person)
        await asyncio.sleep(self.seconds)
        assessed = []
        for each in inputs:
            self._write(event="decode", person=person, index=each.index)
            content = content_of(each.open())
            if content.startswith(b"SLOW"):
                await asyncio.sleep(float(content.split()[1]))
            if content.startswith(b"FAULT"):
                raise RuntimeError(f"a fault that names {person}")
            assessed.append(AssessedInput(index=each.index, format="png", accepted=True))
        self._write(event="end", person=person)
        return _assessment(assessed, inputs)

    def models(self):
        return [{"name": "lung", "version": "0.0.0", "sha256": "0" * 64, "card": "# stand-in"}]

    async def aclose(self):
        """Nothing is open."""


def content_of(opened):
    with os.fdopen(opened.descriptor, "rb") as file:
        file.seek(0)
        return file.read()


def _assessment(assessed, inputs):
    images = {each.index for each in inputs if each.field == "image"}
    shown = [each.index for each in assessed if each.accepted and each.index in images]
    lung = AssessedOrgan(status="not_assessed", reasons=[Problem("no_image", "reject")])
    if shown:
        evidence = [EvidenceMap(kind="heatmap", input=shown[0], values=MAP.values)]
        finding = FoundFinding(name="pneumonia", probability=0.8, positive=True, strength="strong", evidence=evidence)
        lung = AssessedOrgan(status="assessed", risk=0.8, category="high", findings=[finding])
    nothing = Problem("nothing_assessed", "reject")
    missing = {
        "cardiac": AssessedOrgan(status="not_assessed", reasons=[Problem("no_ecg", "reject")]),
        "kidney": AssessedOrgan(status="not_assessed", reasons=[Problem("labs_missing", "reject", "creatinine")]),
    }
    return Assessment(
        organs={"lung": lung, **missing},
        inputs=assessed,
        models=[],
        priority="urgent" if shown else "unassessed",
        priority_reasons=[] if shown else [nothing],
    )
