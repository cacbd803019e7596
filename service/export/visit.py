"""One visit without names: what of its context, its findings and its files may leave, and in which form.

Nothing is copied. Each member is written from a value that was read and that can be one of a few things: a term of the
vocabulary, a number within bounds, a day that is moved.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from data_specs.conditions import CONDITIONS, normal_name
from data_specs.ecg.recording import Recording
from data_specs.labs import ANALYTES, standard_labs
from data_specs.person import OLDEST_TOLD_YEARS, Sex, age_at_examination
from data_specs.problems import Refused
from data_specs.schema import Schema
from data_specs.visit.assessment import Assessment
from data_specs.visit.context import Context, Lab, Person, known_members
from data_specs.visit.contract import Organ, Priority
from data_specs.visit.teaching import Truth
from inference.readers.job import Job, Read
from inference.readers.pool import Readers
from inference.readers.worker import FileChanged
from inference.render.sharing import film_to_share, recordings_to_share
from service.errors import StoredFileDamaged, StoredFileMissing
from service.export.film import film_file
from service.export.names import Names
from service.export.profile import counted
from service.export.truth import seen_in
from service.export.words import terms_in
from service.outcomes.files import recording_files
from service.storage.store import Store
from service.storage.tables import InputRow, VisitRow

T = TypeVar("T")
Corners = tuple[int, int, int, int]
"""First row and column, and those behind the last, px."""
MISSING, DAMAGED, REFUSED = "file_not_in_store", "file_damaged", "inputs_refused"
"""Codes of files that are withheld; a file that cannot be read or was refused at home has that reason's code."""


class SharedFinding(Schema):
    """A finding of the machine at home."""

    organ: Organ
    name: str
    probability: float | None = None
    positive: bool | None = None


class SharedVisit(Schema):
    """A visit as it leaves.

    Parameters
    ----------
    visit, person, site
        Pseudonyms.
    asked_about
        Findings that the order's reason and open questions name.
    files
        Names of its files in the package.
    truth
        What became known of it, in a package to learn from.
    """

    visit: str
    person: str
    site: str
    context: Context
    priority: Priority
    findings: tuple[SharedFinding, ...] = ()
    asked_about: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    truth: Truth | None = None


@dataclass
class Leaving:
    """A visit, its files, and what happened to it on the way.

    Parameters
    ----------
    blacked_out
        What was blacked out, by file.
    withheld
        Files that cannot leave, by the code of the reason.
    removed
        Elements of posted headers, as :func:`service.export.profile.counted` counts them.
    """

    visit: SharedVisit
    files: dict[str, bytes]
    blacked_out: dict[str, tuple[Corners, ...]] = field(default_factory=dict)
    withheld: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)


def leaving(
    row: VisitRow, questions: list[str], names: Names, store: Store, readers: Readers, truth: Truth | None = None
) -> Leaving:
    """A finished visit as it leaves. It blocks: to be used from a thread.

    Parameters
    ----------
    questions
        Texts of its open questions.
    truth
        What became known of it, where that leaves too: as much of it as can be seen in the files that leave.

    Raises
    ------
    ReadersFailed, StorageUnavailable
    """
    assessment, context = row.read_assessment(), row.read_context()
    person = names.person(row.site, row.person_id, row.id)
    on = names.moved(context.visited_on or row.received_at.date(), person)
    made = Leaving(
        SharedVisit(
            visit=names.visit(row.id),
            person=person,
            site=names.site(row.site),
            context=_context(context, person, on),
            priority=assessment.priority if assessment else "unassessed",
            findings=_findings(assessment),
            asked_about=terms_in(context.order.reason if context.order else None, *questions),
        ),
        files={},
    )
    stated: list[tuple[float | None, Sex | None]] = []
    accepted = _accepted(row, assessment, made)
    for posted in (each for each in accepted if each.field == "image"):
        film = _read(store, readers, made, film_to_share, [posted])
        if film is None:
            continue
        made.removed += counted(film.document.tags)
        stated.append((film.document.age_years, film.document.sex))
        age, sex = _age(_known_age(context, stated)), _known_sex(context, stated)
        name = f"{made.visit.visit}-{posted.index:02}.dcm"
        uids = (names.uid("study", row.id), names.uid("series", row.id, str(posted.index)), names.uid(row.id, name))
        made.files[name] = film_file(
            film.document, film.arrays[0], person=person, age=age, sex=sex, made_on=on, uids=uids
        )
        if film.document.boxes:
            made.blacked_out[name] = film.document.boxes
    recordings = [each for each in accepted if each.field == "ecg"]
    listed = [(each.index, each.filename) for each in recordings]
    found = None
    if recordings:
        found = _read(store, readers, made, recordings_to_share, recordings, listed, context.ecg_unit)
    if found is not None:
        made.withheld.update(found.document.refused)
        for n, (told, samples) in enumerate(zip(found.document.recordings, found.arrays, strict=True)):
            stated.append((told.age_years, told.sex))
            made.files |= recording_files(_recording(samples, told.fs_hz), f"{made.visit.visit}-e{n:02}")
    whole = _context(context, person, on, _known_age(context, stated), _known_sex(context, stated))
    known = seen_in(truth, made.files) if truth is not None else None
    made.visit = made.visit.model_copy(update={"context": whole, "files": tuple(made.files), "truth": known})
    return made


def _accepted(row: VisitRow, assessment: Assessment | None, made: Leaving) -> list[InputRow]:
    """The files that were accepted at home; others are counted as withheld, a zip with one refused recording too.

    A file whose person is another one would be taken for this person's where nothing is left to compare it with.
    """
    refused = {}
    for each in assessment.inputs if assessment else ():
        codes = [problem.code for problem in each.problems if problem.severity == "reject"]
        if codes or not each.accepted:
            refused[each.index] = codes[0] if codes else REFUSED
    made.withheld.update(refused.values())
    return [each for each in row.inputs if each.index not in refused]


def _read(
    store: Store, readers: Readers, made: Leaving, job: Job[..., T], files: list[InputRow], *arguments: Any
) -> Read[T] | None:
    """What a reader makes of posted files; ``None``, and counted as withheld, where it cannot read them."""
    try:
        return readers.submit(job, [partial(store.open, each.sha256) for each in files], *arguments).result()
    except Refused as refusal:
        made.withheld[refusal.problem.code] += len(files)
    except StoredFileMissing:
        made.withheld[MISSING] += len(files)
    except (StoredFileDamaged, FileChanged):
        made.withheld[DAMAGED] += len(files)
    return None


def _recording(samples: NDArray[np.generic], fs_hz: float) -> Recording:
    return Recording(np.asarray(samples, np.float32), fs_hz, "wfdb")


def _context(
    context: Context, person: str, on: date, age_years: float | None = None, sex: Sex | None = None
) -> Context:
    """What may leave of a context: no name, no number, no words; a day that is moved."""
    age = _age(age_years if age_years is not None else _known_age(context, []))
    return Context(
        person=Person(**known_members(id=person, age_years=age, sex=sex or _known_sex(context, []))),
        visited_on=on,
        labs=_labs(context),
        vitals=context.vitals,
        conditions=_conditions(context),
    )


def _known_age(context: Context, stated: list[tuple[float | None, Sex | None]]) -> float | None:
    person = context.person
    known = age_at_examination(person.age_years, person.birth_date, context.visited_on)
    return known if known is not None else next((age for age, _ in stated if age is not None), None)


def _known_sex(context: Context, stated: list[tuple[float | None, Sex | None]]) -> Sex | None:
    said = context.person.sex
    return said if said not in (None, "unknown") else next((sex for _, sex in stated if sex is not None), said)


def _age(years: float | None) -> int | None:
    """Completed years; 90 stands for all that are older."""
    return None if years is None else min(int(years), OLDEST_TOLD_YEARS)


def _labs(context: Context) -> tuple[Lab, ...]:
    """Values that the table of analytes knows, within its bounds, in its own names and units."""
    values, _ = standard_labs(context.labs)
    return tuple(
        Lab(name=each.name, value=float(f"{values[each.key]:.6g}"), unit=each.unit)
        for each in ANALYTES
        if each.key in values
    )


def _conditions(context: Context) -> tuple[str, ...] | None:
    if context.conditions is None:
        return None
    said = {normal_name(text) for text in context.conditions}
    return tuple(name for name, names in CONDITIONS.items() if names & said)


def _findings(assessment: Assessment | None) -> tuple[SharedFinding, ...]:
    return tuple(
        SharedFinding(organ=organ, name=each.name, probability=each.probability, positive=each.positive)
        for organ, assessed in (assessment.organs.items() if assessment else ())
        for each in assessed.findings
        if each.probability is not None
    )
