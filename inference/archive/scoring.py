"""Cases -> rows, by the engine that serves. Without Ray there is one scorer, with Ray one in each actor."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from data_specs.dicom.reference import START_BYTES, DicomReference, is_dicom
from data_specs.fields import field_of
from data_specs.person import dicom_day, pseudonym, read_identifier
from data_specs.problems import Problem, Refused
from data_specs.visit.context import Context, Person
from inference.archive.cases import Case, Source, SourceFile
from inference.archive.rows import Partition, Row, rows_of, versions_of
from inference.archive.versions import only
from inference.engine import Engine, PostedInput
from inference.readers.files import OpenFile
from inference.readers.header import read_dicom_reference
from inference.readers.pool import Readers, ReadersFailed
from inference.runtime.session import Machine

AT_ONCE_FOR_EACH_WORKER, AT_ONCE_LEAST, AT_ONCE_ON_GPU = 8, 16, 128
"""Cases in the engine at a time: their files are in memory. Enough that readers, networks and source all have work."""
NOWHERE = Partition(None, None)
INPUT_DIGITS = 32


@dataclass(frozen=True)
class Options:
    """What a scorer has to know; it travels to other processes.

    Parameters
    ----------
    versions
        Of each bundle in ``bundles``.
    workers
        Cores: threads of the sessions, and reader processes (two at least).
    key
        Of the pseudonyms of persons and visits.
    keep_identifiers
        Write identifiers and places of files as the source has them.
    """

    bundles: Path
    versions: dict[str, str]
    key: bytes
    device: str = "auto"
    session: str = "auto"
    workers: int = 1
    keep_identifiers: bool = False
    ecg_unit: Literal["uV", "mV"] | None = None


@dataclass(frozen=True)
class Scored:
    """What became of a case.

    Parameters
    ----------
    rows
        Empty where the same input was scored before, or where it was not scored.
    failure
        Why it was not scored: the next run tries it again.
    """

    case: Case
    input: str = ""
    partition: Partition = NOWHERE
    rows: tuple[Row, ...] = ()
    failure: Problem | None = None


class Scorer:
    """An engine of its own, and what reads the sources.

    Parameters
    ----------
    known
        Inputs that need not be scored, by their digests.

    Raises
    ------
    BundleError, DeviceError
        As :class:`inference.engine.Engine`.
    """

    def __init__(self, sources: Sequence[Source], options: Options, known: Collection[str] = frozenset()) -> None:
        self.options, self._sources, self._known = options, sources, known
        with ExitStack() as closing:
            machine = Machine(options.device, threads=options.workers, session=options.session)
            self._readers = Readers(options.workers)
            closing.callback(self._readers.close)
            bundles = closing.enter_context(only(options.bundles, options.versions))
            self._engine = Engine(bundles, machine, readers=self._readers)
            closing.callback(self._engine.close)
            self._versions = versions_of(options.versions)
            on_gpu = any(bundle.session.device == "cuda" for bundle in self._engine.bundles.values())
            at_once = max(AT_ONCE_LEAST, AT_ONCE_FOR_EACH_WORKER * options.workers)
            self._at_once = AT_ONCE_ON_GPU if on_gpu else at_once
            self._threads = closing.enter_context(ThreadPoolExecutor(self._at_once, "source"))
            self._loop = asyncio.new_event_loop()
            closing.callback(self._loop.close)
            self._running: set[asyncio.Task[Scored]] = set()
            closing.callback(self._leave)
            self._closing = closing.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def scored(self, cases: Iterator[Case]) -> Iterator[Scored]:
        """What became of each case, in the order in which they are done."""
        for case in cases:
            self._running.add(self._loop.create_task(self._score(case)))
            if len(self._running) >= self._at_once:
                yield from self._done()
        while self._running:
            yield from self._done()

    def _done(self) -> list[Scored]:
        """Wait for the first that is done."""

        async def first() -> set[asyncio.Task[Scored]]:
            done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            return done

        done = self._loop.run_until_complete(first())
        self._running -= done
        return [task.result() for task in done]

    def _leave(self) -> None:
        """Give up what is not done; there is something only where a run was stopped."""

        async def cancelled() -> None:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

        while not all(task.done() for task in self._running):
            with suppress(RuntimeError):  # a signal that came within a task stops the loop once more
                self._loop.run_until_complete(cancelled())

    async def _score(self, case: Case) -> Scored:
        try:
            return await self._assessed(case)
        except Refused as refusal:  # of a source: it says nothing about the content
            return Scored(case, failure=refusal.problem)
        except (ReadersFailed, OSError) as error:
            return Scored(case, failure=Problem("inference_failed", "reject", type(error).__name__))

    async def _assessed(self, case: Case) -> Scored:
        contents = [await self._read(case, file) for file in case.files]
        sha256 = [hashlib.sha256(content).hexdigest() for content in contents]
        digest = input_digest(case, sha256, self.options)
        if digest in self._known:
            return Scored(case, digest)
        reference = await self._reference(contents)
        fields = [field_of(content[:START_BYTES]) for content in contents]
        posted = [
            PostedInput(i, field, file.name, content)
            for i, (field, file, content) in enumerate(zip(fields, case.files, contents, strict=True))
        ]
        person = Person(age_years=case.age_years, sex=case.sex)
        context = Context(person=person, visited_on=case.made_on, ecg_unit=self.options.ecg_unit)
        found = await self._engine.assess(posted, context, case.site)
        failed = [p for each in found.inputs for p in each.problems if p.code == "inference_failed"]
        if failed:
            return Scored(case, digest, failure=failed[0])
        partition = Partition(case.made_on or dicom_day(reference.StudyDate if reference else ""), case.site or None)
        whole = {
            **partition._asdict(),
            **names_of(case, reference, self.options),
            "input": digest,
            "seen": seen(case, self._sources[case.source].address, self.options),
            "sha256": sha256,
        }
        return Scored(case, digest, partition, tuple(rows_of(found, fields, self._versions, whole)))

    async def _read(self, case: Case, file: SourceFile) -> bytes:
        return await self._loop.run_in_executor(self._threads, self._sources[case.source].read, file)

    async def _reference(self, contents: Sequence[bytes]) -> DicomReference | None:
        """What the header of the first DICOM file says; ``None`` without one, or where it cannot be read."""
        content = next((each for each in contents if is_dicom(each)), None)
        if content is None:
            return None
        for n_bytes in (START_BYTES, None):  # the header of a film is nearly always within the first part
            try:
                read = await self._readers.run(read_dicom_reference, [partial(OpenFile.of, content[:n_bytes])])
                return read.document
            except Refused:
                continue
        return None


def input_digest(case: Case, sha256: Sequence[str], options: Options) -> str:
    """Names what was scored: contents, and all that is stated about them.

    The names of a recording's files belong to it, because a WFDB header names its signals.
    """
    names = [file.name for file in case.files] if len(case.files) > 1 else []
    person = pseudonym(options.key, "person", case.site, case.person) if case.person else ""
    stated = [person, case.site, case.age_years, case.sex, case.made_on and case.made_on.isoformat(), options.ecg_unit]
    return hashlib.sha256(json.dumps([list(sha256), names, stated]).encode()).hexdigest()[:INPUT_DIGITS]


def seen(case: Case, address: str, options: Options) -> str:
    """Names a case before it is read: where it lies, what its source says of its content, what is stated about it."""
    files = [[file.place, file.mark, file.n_bytes] for file in case.files]
    made_on = case.made_on and case.made_on.isoformat()
    whole = [address, files, case.site, case.person, case.age_years, case.sex, made_on, options.ecg_unit]
    return pseudonym(options.key, "seen", json.dumps(whole))


def names_of(case: Case, reference: DicomReference | None, options: Options) -> dict[str, Any]:
    """Person, visit and file: pseudonyms, or as the source has them where that is asked for."""
    person = case.person or read_identifier(reference.PatientID if reference else None)
    study = reference.StudyInstanceUID if reference and reference.names_its_study else None
    if options.keep_identifiers:
        return {"person": person, "visit": study, "file": case.place}
    return {
        "person": pseudonym(options.key, "person", case.site, person) if person else None,
        "visit": pseudonym(options.key, "visit", study) if study else None,
        "file": None,
    }
