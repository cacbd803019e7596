"""The sentences of the report: each is used by some format and is there in three languages, and none is missing."""

from __future__ import annotations

import io
import re
import string
from pathlib import Path

import pytest
from PIL import Image

from data_specs.problems import Problem
from data_specs.visit.next_step import NextStep
from data_specs.visit.opinion import Judgement
from data_specs.visit.report import Report, ReportFinding
from data_specs.vocabulary import LANGUAGES, Language
from inference.render.paper import PRINT_PX_PER_MM
from service.delivery.health_book.facts import results_of
from service.report import as_json, html, pdf, words
from service.report.dicom import images as dicom_images
from service.report.dicom import sr as dicom_sr
from service.report.fhir import document as fhir
from service.report.hl7 import message as hl7
from tests.conftest import ROOT
from tests.service.delivery.health_book.test_facts import BOOK
from tests.service.report_fixture import judged, report

HEATMAP = ("pneumonia", 0)
"""A finding of the fixture that has a heatmap, and the index of its film."""


def with_lung(made: Report, *findings: ReportFinding) -> Report:
    lung = made.organs["lung"].model_copy(update={"findings": findings})
    return made.model_copy(update={"organs": {**made.organs, "lung": lung}})


def negative_report() -> Report:
    made = with_lung(report(), judged("pneumonia", "lung", 0.1, 0.5))
    organs = {"lung": made.organs["lung"], "kidney": made.organs["kidney"]}
    return made.model_copy(update={"organs": organs, "priority": "routine", "priority_reasons": ()})


def pressing_report() -> Report:
    """Nothing is flagged, and a value presses."""
    reasons = (Problem("finding_urgent", "warn", found="spo2_percent 87"),)
    return negative_report().model_copy(update={"priority": "urgent", "priority_reasons": reasons})


def unusual_report() -> Report:
    """Findings without a verdict, for each reason there is; next steps within 0, 1, 7 and 365 days, empty opinions."""
    bare = judged("pneumonia", "lung", 0.7, 0.5).model_copy(update={"calibrated": False})
    no_point = {"operating_point": None, "positive": None}
    others = [
        judged("effusion", "lung", 0.7, 0.5).model_copy(update=no_point),
        judged("edema", "lung", 0.7, 0.5).model_copy(update={**no_point, "use": "information"}),
        judged("mass", "lung", 0.7, 0.5).model_copy(update={"positive": None, "strength": "undecided"}),
    ]
    made = with_lung(report(2), bare, *others)
    steps = tuple(
        NextStep(
            step=step,
            rule=step,
            because=("pneumonia",),
            within_days=days,
            text=dict.fromkeys(LANGUAGES, "…"),
            source="This table: made up",
        )
        for step, days in (("refer", 0), ("ask", 1), ("manage", 7), ("manage", 365))
    )
    empty_opinion = made.opinions[0].model_copy(update={"judgements": (), "text": "", "advice": None})
    empty_blind = empty_opinion.model_copy(update={"number": 2, "blind": True})
    return made.model_copy(update={"next_steps": steps, "opinions": (empty_opinion, empty_blind)})


def long_report() -> Report:
    """A report that is too long for one page, so that the PDF puts its negative findings on one line."""
    made = report(2)
    opinion = made.opinions[0].model_copy(update={"text": " ".join(f"ý{n}" for n in range(900))[:4000]})
    return made.model_copy(update={"opinions": (opinion, opinion.model_copy(update={"number": 2}))})


def rejected_report() -> Report:
    """The doctor finds nothing of what the machine found."""
    made = with_lung(report(2), judged("pneumonia", "lung", 0.7, 0.5))
    rejected = (Judgement(finding="pneumonia", verdict="disagree"),)
    return made.model_copy(update={"opinions": (made.opinions[0].model_copy(update={"judgements": rejected}),)})


def high_recording() -> bytes:
    into = io.BytesIO()
    Image.new("L", (270 * PRINT_PX_PER_MM, 300 * PRINT_PX_PER_MM)).save(into, "PNG")
    return into.getvalue()


def test_every_sentence_is_used_by_some_format(monkeypatch: pytest.MonkeyPatch) -> None:
    known = words.sentences()
    used: set[str] = set()

    class Recorded(dict[str, dict[str, str]]):
        def __getitem__(self, key: str) -> dict[str, str]:
            used.add(key)
            return known[key]

    monkeypatch.setattr(words, "sentences", Recorded)
    into = io.BytesIO()
    Image.linear_gradient("L").save(into, "PNG")
    for made in (
        report(1),
        report(2),
        report(3),
        negative_report(),
        pressing_report(),
        unusual_report(),
        rejected_report(),
        long_report(),
    ):
        for rendering in (as_json, fhir, hl7, dicom_sr):
            rendering.render(made, "vi")
        for page in (html, pdf):
            page.render(made, "vi", pictures={0: into.getvalue()})
        pdf.render(report(1), "vi", traces={1: high_recording()})
    dicom_images.render_heatmap(report(1), "vi", *HEATMAP, into.getvalue())
    results_of(rejected_report(), BOOK, "vi")
    assert known.keys() - used == set()


def test_every_sentence_is_there_in_every_language_with_the_same_values() -> None:
    for key, sentence in words.sentences().items():
        assert sentence.keys() == set(LANGUAGES), key
        names = {frozenset(name for _, name, _, _ in string.Formatter().parse(each)) for each in sentence.values()}
        assert len(names) == 1, key


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (None, ("", "", "")),
        (0, ("trong ngày hôm nay", "aujourd'hui", "today")),
        (1, ("trong vòng 24 giờ", "sous 24 heures", "within 24 hours")),
        (90, ("trong vòng 90 ngày", "sous 90 jours", "within 90 days")),
        (365, ("trong vòng 1 năm", "sous un an", "within a year")),
    ],
)
def test_a_step_says_how_soon(days: int | None, said: tuple[str, str, str]) -> None:
    step = report().next_steps[0].model_copy(update={"within_days": days})
    assert tuple(words.how_soon(step, language) for language in LANGUAGES) == said


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_rule_of_the_table_itself_says_so_in_the_readers_language(language: Language) -> None:
    own = unusual_report().next_steps[0]
    assert words.source_of(own, language) == words.say("own_rule", language)
    assert words.source_of(own.model_copy(update={"source": "KDIGO 2024"}), language) == "KDIGO 2024"
    timed = own.model_copy(update={"source": f"KDIGO 2024; {words.OWN_INTERVAL}"})
    assert words.source_of(timed, language) == f"KDIGO 2024; {words.say('own_interval', language)}"


@pytest.mark.parametrize(("language", "threshold"), [("vi", "ngưỡng"), ("fr", "seuil"), ("en", "threshold")])
def test_the_conclusion_is_true_after_a_doctor_disagrees(language: Language, threshold: str) -> None:
    """A finding that a doctor rejects is still above its threshold, so the conclusion must not say otherwise."""
    made = report(2)
    judgements = tuple(
        Judgement(finding=finding.name, verdict="disagree") for finding in made.findings if finding.positive
    )
    opinion = made.opinions[0].model_copy(update={"judgements": judgements})
    made = made.model_copy(update={"opinions": (opinion,)})
    assert made.conclusions == ()
    assert threshold not in words.conclusion(made, language)


def used_keys(path: Path) -> tuple[set[str], set[str]]:
    """Keys that a source file uses, and beginnings of the keys that it composes."""
    source = path.read_text("utf-8")
    call = r"\bsay\(\s*" if path.suffix == ".py" else r"\b(?:say|said)\(\s*"
    named = set(re.findall(call + r"[\"'](\w+)[\"']\s*[,)]", source))
    begun = set(re.findall(call + r"f\"(\w+_)\{", source)) | set(re.findall(call + r"'(\w+_)' ~", source))
    return named, begun


def test_every_sentence_that_is_used_exists() -> None:
    sources = [path for kind in ("py", "html") for path in (ROOT / "service").rglob(f"*.{kind}")]
    named, begun = (set.union(*each) for each in zip(*map(used_keys, sources), strict=True))
    assert len(named) > 30
    assert {"step_", "verdict_", "role_", "status_", "sr_"} <= begun
    assert named - words.sentences().keys() == set()
    assert [each for each in begun if not any(key.startswith(each) for key in words.sentences())] == []
