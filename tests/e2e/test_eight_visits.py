"""Eight varied visits, read whole: the page and the report of each, in three languages, as texts that stand beside.

Who changes a sentence writes them anew (``WRITE_EXPECTED=1 pytest tests/e2e/test_eight_visits.py``) and reads what has
changed, as a tired doctor would: priority, categories, findings, steps and report have to say one thing.
"""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from data_specs.visit.assessment import Assessment
from data_specs.visit.context import Context
from data_specs.visit.contract import PRIORITIES, Organ
from data_specs.vocabulary import LANGUAGES
from inference.engine import Engine, organ
from inference.findings import InputResult, answer, offered
from inference.runtime.session import Machine
from tests.conftest import ROOT
from tests.readers import shared_readers
from tests.service.serving import ADMIN, serving, settings_for

EXPECTED = Path(__file__).parent / "eight_visits"
FILM = (ROOT / "samples" / "film-normal.jpg").read_bytes()
RECORDING = [(name, (ROOT / "samples" / name).read_bytes()) for name in ("E07517.hea", "E07517.mat")]
WOMAN = {"age_years": 61, "sex": "female"}
CREATININE = {"name": "creatinine", "value": 70, "unit": "umol/L"}

ALBUMINURIA = {"name": "urine_acr", "value": 90, "unit": "mg/mmol"}

VISITS: dict[str, dict[str, Any]] = {
    "hypoxaemia": {"person": WOMAN, "vitals": {"spo2_percent": 87}},
    "pneumonia-at-3": {"person": {"age_years": 3, "sex": "male"}, "film": True},
    "egfr-8": {
        "person": WOMAN,
        "labs": [{**CREATININE, "value": 480}, {"name": "urine_acr", "value": 90, "unit": "mg/mmol"}],
    },
    "egfr-falls": {"person": WOMAN, "labs": [{**CREATININE, "value": 121}], "visited_on": "2026-11-20"},
    "glucose-2.4": {"person": WOMAN, "labs": [{"name": "glucose", "value": 2.4, "unit": "mmol/L"}]},
    "infarction": {"person": {**WOMAN, "age_years": 42}, "recording": True},
    "182-mmHg-alone": {"person": WOMAN, "vitals": {"systolic_mmHg": 182, "diastolic_mmHg": 95}},
    "a-teenagers-film": {"person": {"age_years": 15, "sex": "female"}, "film": True},
}
PRIORITY = {
    "hypoxaemia": "urgent",
    "pneumonia-at-3": "urgent",
    "egfr-8": "urgent",
    "egfr-falls": "soon",
    "glucose-2.4": "urgent",
    "infarction": "urgent",
    "182-mmHg-alone": "urgent",
    "a-teenagers-film": "unassessed",
}
EARLIER = (("2024-11-20", 93), ("2025-11-20", 106))
"""Days and creatinine of the earlier visits of whom eGFR falls."""

GIVEN: dict[str, tuple[Organ, dict[str, float]]] = {
    "pneumonia-at-3": ("lung", {"pneumonia": 9.0}),
    "infarction": ("cardiac", {"normal_ecg": -4.0, "st_t_change": 9.0, "myocardial_infarction": 9.0}),
}
"""Logits in the place of the network's, which no sample file reaches; all findings are for triage then."""


class EngineTold(Engine):
    """The engine, but for the logits of :data:`GIVEN`."""

    async def assess(self, inputs: Any, context: Context, site: str = "") -> Assessment:
        found = await super().assess(inputs, context, site)
        if context.person.id not in GIVEN:
            return found
        name, logits = GIVEN[context.person.id]
        specs = [
            spec.model_copy(update={"use": "triage"})
            for spec in offered(self.bundles[name].manifest, context.person.age_years)
        ]
        numbers = np.full(1 + max(spec.column for spec in specs), -4.0)
        for spec in specs:
            numbers[spec.column] = logits.get(spec.name, -4.0)
        measured = [each for each in found.organs[name].findings if each.value is not None]
        told = answer(specs, numbers)
        told.findings += measured
        return found.model_copy(
            update={"organs": {**found.organs, name: organ(name, [InputResult((0,), answer=told)], was_sent=True)}}
        )


BLOCKS = {"p", "li", "tr", "td", "th", "dt", "dd", "h1", "h2", "h3", "div", "section", "summary", "label", "button"}
LEFT_OUT = {"script", "style", "head", "nav", "form", "svg"}
WITHOUT_END = {"input", "img", "br", "meta", "link", "hr"}


class _Text(HTMLParser):
    """The text of a page, a line for each block; nothing of scripts, styles and hidden parts."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = [""]
        self.left_out = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.left_out or tag in LEFT_OUT:
            self.left_out += tag not in WITHOUT_END
        elif tag in BLOCKS:
            self.lines.append("")

    def handle_endtag(self, tag: str) -> None:
        if self.left_out:
            self.left_out -= 1
        elif tag in BLOCKS:
            self.lines.append("")

    def handle_data(self, data: str) -> None:
        if not self.left_out:
            self.lines[-1] += data


def text_of(html: str) -> str:
    """The text of a page without what differs from run to run: identifiers, days and times, versions of models."""
    parser = _Text()
    parser.feed(html)
    lines = [re.sub(r"\s+", " ", line).strip() for line in parser.lines]
    text = "\n".join(line for line in lines if line)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    text = re.sub(r"(\d{1,2} \w{3} \d{4}|\d{2}/\d{2}/\d{4}|\d{4}-\d{2}-\d{2}),? \d{2}:\d{2}( \S+)?", "WHEN", text)
    return re.sub(r"\d+\.\d+\.\d+ ?(·|\()? ?[0-9a-f]{12}\)?", "VERSION", text)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """The text of page and report, by visit and language."""
    engine = EngineTold(ROOT / "models" / "bundles", Machine("cpu"), readers=shared_readers())
    read = {}
    with serving(settings_for(tmp_path_factory.mktemp("eight")), engine) as served, served.client() as client:
        for day, creatinine in EARLIER:
            post(
                client,
                "egfr-falls",
                {"person": WOMAN, "labs": [{**CREATININE, "value": creatinine}], "visited_on": day},
            )
        for name, given in VISITS.items():
            visit = post(client, name, given)
            assert visit["priority"] == PRIORITY[name]
            with httpx.Client(base_url=served.address, timeout=60) as reader:
                reader.post("/login", data={"key": ADMIN})
                for language in LANGUAGES:
                    reader.cookies.set("language", language)
                    page = reader.get(f"/visits/{visit['id']}")
                    assert page.status_code == 200
                    address = f"/v1/visits/{visit['id']}/report.html"
                    report = client.get(address, headers={"Accept-Language": language})
                    assert report.status_code == 200
                    read[name, language] = f"PAGE\n{text_of(page.text)}\n\nREPORT\n{text_of(report.text)}\n"
    return read


def post(client: httpx.Client, name: str, given: dict[str, Any]) -> dict[str, Any]:
    context = {key: value for key, value in given.items() if key not in ("film", "recording")}
    context["person"] = {"id": name, **context["person"]}
    files: list[Any] = [("context", (None, json.dumps(context), "application/json"))]
    files += [("image", ("film.jpg", FILM))] if given.get("film") else []
    files += [("ecg", file) for file in RECORDING] if given.get("recording") else []
    answer = client.post("/v1/visits", files=files, headers={"Prefer": "wait=60"})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", VISITS)
def test_a_visit_reads_as_it_stands_beside(texts: dict[tuple[str, str], str], name: str, language: str) -> None:
    path = EXPECTED / f"{name}.{language}.txt"
    if os.environ.get("WRITE_EXPECTED"):
        path.write_text(texts[name, language], "utf-8")
    assert texts[name, language] == path.read_text("utf-8")


def test_no_text_stands_there_that_is_not_read() -> None:
    assert {path.stem for path in EXPECTED.glob("*.txt")} == {
        f"{name}.{language}" for name in VISITS for language in LANGUAGES
    }
    assert set(PRIORITY.values()) <= set(PRIORITIES)
