"""One run: list -> leave out what is done -> score -> write; progress, and what could not be scored."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice
from typing import TextIO

from data_specs.problems import Problem
from data_specs.vocabulary import Language
from inference.archive.cases import Case, Source
from inference.archive.parts import Archive, write_durably
from inference.archive.scoring import Options, Scored, seen

WRITTEN_S, WRITTEN_CASES = 60.0, 2000
"""What was scored is written after so long, if nothing else is asked for, or after so many cases: as much is scored
again after a kill."""
LISTED_CASES = 100_000
"""Cases that are listed before they are scored: how many there are is known for so many."""
PROGRESS_S = 5.0
FAILED = "failed.csv"

Scoring = Callable[[Sequence[Case]], Iterator[Scored]]


@dataclass
class Counts:
    """Cases of a run.

    Parameters
    ----------
    listed
        What the sources have, as far as it was asked for.
    there
        Done in an earlier run.
    twice
        The same content, and the same said of it, as another case.
    scored, refused
        Written in this run; those of them of which a file was not used.
    failed
        Not scored: the next run tries them again.
    """

    listed: int = 0
    there: int = 0
    twice: int = 0
    scored: int = 0
    refused: int = 0
    failed: int = 0

    def __str__(self) -> str:
        return (
            f"{self.listed} listed: {self.scored} scored ({self.refused} refused), {self.there} done before, "
            f"{self.twice} twice, {self.failed} not reached"
        )


@dataclass(frozen=True)
class Failed:
    """A line of ``failed.csv``; ``again``: the next run tries it."""

    address: str
    place: str
    problem: Problem
    again: bool


@dataclass
class Run:
    """Parameters as the command has them.

    Parameters
    ----------
    limit
        Most cases to score; ``None``: all.
    every_s
        How often what was scored is written.
    """

    archive: Archive
    sources: Sequence[Source]
    options: Options
    language: Language = "en"
    limit: int | None = None
    every_s: float = WRITTEN_S
    told: TextIO = sys.stderr
    counts: Counts = field(default_factory=Counts)
    failed: list[Failed] = field(default_factory=list)

    def do(self, scorers: AbstractContextManager[Scoring]) -> Counts:
        """Score what is not done, and write it; what is done is written, too, where this is stopped."""
        try:
            with scorers as scoring:
                waiting = islice(self._not_done(), self.limit)
                while cases := list(islice(waiting, LISTED_CASES)):
                    self._score(cases, scoring)
        finally:
            self.archive.close_up()
            if self.counts.listed:
                write_durably(self.archive.folder / FAILED, as_csv(self.failed, self.language))
        return self.counts

    def _not_done(self) -> Iterator[Case]:
        for source in self.sources:
            for case in source.cases():
                self.counts.listed += 1
                known = self.archive.seen.get(seen(case, source.address, self.options))
                if known in self.archive.done:
                    self.counts.there += 1
                    self._note_refusals(case, known)
                else:
                    yield case

    def _score(self, cases: Sequence[Case], scoring: Scoring) -> None:
        began = written = told = time.monotonic()
        waiting = 0
        for number, scored in enumerate(scoring(cases), 1):
            waiting += self._take(scored)
            now = time.monotonic()
            if waiting >= WRITTEN_CASES or now >= written + self.every_s:
                self.archive.write()
                written, waiting = now, 0
            if now >= told + PROGRESS_S:
                told = now
                rate = number / (now - began)
                left = (len(cases) - number) / rate / 60
                print(f"{number}/{len(cases)}, {rate:.1f}/s, {left:.0f} min left; {self.counts}", file=self.told)
        self.archive.write()

    def _take(self, scored: Scored) -> bool:
        if scored.failure is not None:
            self.counts.failed += 1
            self._fail(scored.case, 0, scored.failure, again=True)
            return False
        is_new = self.archive.take(scored)
        self.counts.scored += is_new
        self.counts.twice += not is_new
        refused = self._note_refusals(scored.case, scored.input)
        self.counts.refused += is_new and refused
        return is_new

    def _note_refusals(self, case: Case, name: str | None) -> bool:
        refused = self.archive.refused.get(name or "", [])
        for index, problem in refused:
            self._fail(case, index, problem, again=False)
        return bool(refused)

    def _fail(self, case: Case, index: int, problem: Problem, *, again: bool) -> None:
        address = self.sources[case.source].address
        self.failed.append(Failed(address, case.files[index].place, problem, again))


def as_csv(failed: Iterable[Failed], language: Language) -> str:
    """Each file that was not used, with the code and the reason, in the order of their places."""
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(("source", "file", "code", "reason", "again"))
    for each in sorted(failed, key=lambda each: (each.address, each.place, each.problem.code)):
        again = "yes" if each.again else "no"
        rows.writerow((each.address, each.place, each.problem.code, each.problem.message(language), again))
    return written.getvalue()
