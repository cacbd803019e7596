"""The report as JSON: its own facts, and beside each of them the sentence, so that a client needs no table of words.

The schema of all but the sentences is :meth:`data_specs.visit.report.Report.model_json_schema`.
"""

from __future__ import annotations

import json

from data_specs.problems import Problem
from data_specs.visit.report import Report
from data_specs.vocabulary import Language
from service.language.texts import opening, text
from service.report import words
from service.report.words import say


def render(report: Report, language: Language) -> bytes:
    """UTF-8 JSON: ``sentence`` in each part, ``sentences`` of the report and of an opinion, all in ``language``.

    What the report itself calls ``text`` (a doctor's words, a step in every language) stays as it is: without the
    members ``sentence``, ``sentences``, ``language`` and ``conclusions`` it is the report's own JSON again.
    """
    said = report.model_dump(mode="json")
    said["language"] = language
    said["sentences"] = {
        "title": say("title", language),
        "status": say(f"status_{report.status}", language),
        "version": say("version", language, version=report.version, issued=words.day_and_time(report.issued_at)),
        "conclusion": words.conclusion(report, language),
        "decision_support": say("decision_support", language),
    }
    said["conclusions"] = list(report.conclusions)
    _say_reasons(said["priority_reasons"], report.priority_reasons, language)
    for name, organ in report.organs.items():
        told = said["organs"][name]
        told["sentence"] = text(f"organ_{name}", language)
        _say_reasons(told["reasons"], organ.reasons, language)
        for row, finding in zip(told["findings"], organ.findings, strict=True):
            point = words.point_sentence(finding, language)
            row["sentence"] = words.finding_sentence(finding, language) + (f"; {point}" if point else "")
    for row, posted in zip(said["inputs"], report.inputs, strict=True):
        _say_reasons(row["problems"], posted.problems, language)
    for row, step in zip(said["next_steps"], report.next_steps, strict=True):
        row["sentence"] = words.next_step(step, language)
    for row, opinion in zip(said["opinions"], report.opinions, strict=True):
        row["sentences"] = words.opinion_sentences(opinion, language)
        for given, judgement in zip(row["judgements"], opinion.judgements, strict=True):
            given["sentence"] = words.judgement(judgement, language)
    return json.dumps(said, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _say_reasons(rows: list[dict[str, str]], problems: tuple[Problem, ...], language: Language) -> None:
    for row, problem in zip(rows, problems, strict=True):
        row["sentence"] = opening(problem.message(language))
