"""The report as JSON: each fact with its sentence, so that a client needs no table of texts.

The schema without the sentences is :meth:`data_specs.visit.report.Report.model_json_schema`.
"""

from __future__ import annotations

import json

from data_specs.problems import Problem
from data_specs.visit.report import Report
from data_specs.vocabulary import Language
from service.language.texts import opening, text
from service.language.zone import day_and_time
from service.report import words
from service.report.words import say


def render(report: Report, language: Language) -> bytes:
    """UTF-8 JSON: the report's own JSON with the members ``sentence``, ``sentences``, ``language``, ``conclusions``.

    ``sentence`` is in each part, ``sentences`` in the report and in each opinion, all in ``language``. Without these
    four members it is the report's own JSON again: the member ``text`` (of an opinion, of a next step) is not changed.
    """
    document = report.model_dump(mode="json")
    document["language"] = language
    document["sentences"] = {
        "title": say("title", language),
        "status": say(f"status_{report.status}", language),
        "version": say("version", language, version=report.version, issued=day_and_time(report.issued_at)),
        "conclusion": words.conclusion(report, language),
        "decision_support": say("decision_support", language),
    }
    document["conclusions"] = list(report.conclusions)
    _add_sentences(document["priority_reasons"], report.priority_reasons, language)
    for name, organ in report.organs.items():
        part = document["organs"][name]
        part["sentence"] = text(f"organ_{name}", language)
        _add_sentences(part["reasons"], organ.reasons, language)
        for row, finding in zip(part["findings"], organ.findings, strict=True):
            point = words.point_sentence(finding, language)
            row["sentence"] = words.finding_sentence(finding, language) + (f"; {point}" if point else "")
    for row, posted in zip(document["inputs"], report.inputs, strict=True):
        _add_sentences(row["problems"], posted.problems, language)
    for row, step in zip(document["next_steps"], report.next_steps, strict=True):
        row["sentence"] = words.next_step(step, language)
    for row, opinion in zip(document["opinions"], report.opinions, strict=True):
        row["sentences"] = words.opinion_sentences(opinion, language)
        for part, judgement in zip(row["judgements"], opinion.judgements, strict=True):
            part["sentence"] = words.judgement_sentence(judgement, language)
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _add_sentences(rows: list[dict[str, str]], problems: tuple[Problem, ...], language: Language) -> None:
    for row, problem in zip(rows, problems, strict=True):
        row["sentence"] = opening(problem.message(language))
