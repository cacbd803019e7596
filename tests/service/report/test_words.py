"""The sentences of the report: each is said by some rendering, in three languages, and each that is said is there."""

from __future__ import annotations

import io
import re
import string
from pathlib import Path

import pytest
from PIL import Image

from data_specs.visit.report import NextStep, Report, ReportFinding
from data_specs.vocabulary import LANGUAGES
from service.report import as_json, html, pdf, words
from service.report.dicom import images as dicom_images
from service.report.dicom import sr as dicom_sr
from service.report.fhir import document as fhir
from service.report.hl7 import message as hl7
from tests.conftest import ROOT
from tests.service.report_fixture import judged, report

HEATMAP = ("pneumonia", 0)
"""A finding of the fixture with a heatmap, and the film that it lies over."""


def with_lung(made: Report, *findings: ReportFinding) -> Report:
    lung = made.organs["lung"].model_copy(update={"findings": findings})
    return made.model_copy(update={"organs": {**made.organs, "lung": lung}})


def nothing_found() -> Report:
    made = with_lung(report(), judged("pneumonia", "lung", 0.1, 0.5))
    return made.model_copy(update={"organs": {"lung": made.organs["lung"], "kidney": made.organs["kidney"]}})


def said_otherwise() -> Report:
    """An output that is no probability, one that nothing decides, every haste; signed without a word."""
    bare = judged("pneumonia", "lung", 0.7, 0.5).model_copy(update={"calibrated": False})
    undecided = judged("effusion", "lung", 0.7, 0.5).model_copy(update={"operating_point": None, "positive": None})
    made = with_lung(report(2), bare, undecided)
    steps = tuple(
        NextStep(
            step=step,
            rule=step,
            because=("pneumonia",),
            within_days=days,
            text=dict.fromkeys(LANGUAGES, "…"),
            source="made up",
        )
        for step, days in (("refer", 0), ("ask", 1), ("manage", 7))
    )
    wordless = made.opinions[0].model_copy(update={"judgements": (), "text": "", "advice": None})
    return made.model_copy(update={"next_steps": steps, "opinions": (wordless,)})


def too_long() -> Report:
    """Findings below their thresholds share a line before the page is given up."""
    made = report(2)
    opinion = made.opinions[0].model_copy(update={"text": " ".join(f"ý{n}" for n in range(900))[:4000]})
    return made.model_copy(update={"opinions": (opinion,)})


def test_every_sentence_is_said_by_some_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    known = words.sentences()
    said: set[str] = set()

    class Listened(dict[str, dict[str, str]]):
        def __getitem__(self, key: str) -> dict[str, str]:
            said.add(key)
            return known[key]

    monkeypatch.setattr(words, "sentences", Listened)
    into = io.BytesIO()
    Image.linear_gradient("L").save(into, "PNG")
    for made in (report(1), report(2), report(3), nothing_found(), said_otherwise(), too_long()):
        for rendering in (as_json, fhir, hl7, dicom_sr):
            rendering.render(made, "vi")
        for page in (html, pdf):
            page.render(made, "vi", pictures={0: into.getvalue()})
    dicom_images.render_heatmap(report(1), "vi", *HEATMAP, into.getvalue())
    assert known.keys() - said == set()


def test_every_sentence_is_there_in_every_language_with_the_same_values() -> None:
    for key, sentence in words.sentences().items():
        assert sentence.keys() == set(LANGUAGES), key
        names = {frozenset(name for _, name, _, _ in string.Formatter().parse(each)) for each in sentence.values()}
        assert len(names) == 1, key


def asked_for(path: Path) -> tuple[set[str], set[str]]:
    """Keys that a source asks for by name, and beginnings of those that it puts together."""
    source = path.read_text("utf-8")
    spoken = r"\bsay\(\s*" if path.suffix == ".py" else r"\b(?:say|said)\(\s*"
    named = set(re.findall(spoken + r"[\"'](\w+)[\"']\s*[,)]", source))
    begun = set(re.findall(spoken + r"f\"(\w+_)\{", source)) | set(re.findall(spoken + r"'(\w+_)' ~", source))
    return named, begun


def test_every_sentence_that_is_asked_for_is_there() -> None:
    sources = [path for kind in ("py", "html") for path in (ROOT / "service").rglob(f"*.{kind}")]
    named, begun = (set.union(*each) for each in zip(*map(asked_for, sources), strict=True))
    assert len(named) > 30
    assert {"step_", "verdict_", "role_", "status_", "sr_"} <= begun
    assert named - words.sentences().keys() == set()
    assert [each for each in begun if not any(key.startswith(each) for key in words.sentences())] == []
