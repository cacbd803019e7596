"""``python -m service.outcomes_export``: what became of findings, as a cohort to train on, without whose they are.

Every accepted film or recording of a visit with a confirmed or refuted finding becomes a row of a table beside a
``cohort.yaml``. Nothing is copied as it was posted: a film is written as the 8-bit grey PNG that the reader of training
and serving shows of it, a recording as WFDB in nanovolts, both without any header of their own, so that no element,
tag or comment has to be known in order to be left out. Persons and files go under an HMAC with a key that is made for
the export and thrown away unless it is to be kept. No name, date of birth, number, file name or free text is read out.

The database and the store are those of the environment that the service runs in (``SANGLOC_…``).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hmac
import json
import os
import re
import secrets
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
from sqlalchemy import make_url, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from data_specs.assessment import Assessment
from data_specs.cohort import CohortManifest, Columns, Source
from data_specs.context import Context
from data_specs.ecg import LEADS, Recording
from data_specs.ecg_header import age_on, day
from data_specs.problems import Refused
from data_specs.report import DicomReference
from data_specs.visit import JUDGED, Organ
from service.database import Database, InputRow, OutcomeRow, VisitRow
from service.errors import StoredFileDamaged, StoredFileMissing
from service.settings import PREFIX, BadSettings, Settings, read_settings
from service.store import Store, open_store

if TYPE_CHECKING:
    from data_specs.cxr import ChestImage

T = TypeVar("T")
DONE, REFUSED, CANNOT = 0, 1, 2
ORGAN: dict[str, Organ] = {"cxr": "lung", "ecg": "cardiac"}
FIELD = {"cxr": "image", "ecg": "ecg"}
FOLDER = {"cxr": "films", "ecg": "recordings"}
LABEL = {"confirmed": "1", "refuted": "0"}
MANIFEST, TABLE = "cohort.yaml", "cases.csv"
ROWS_AT_ONCE = 200
KEY_BYTES = 32

OLDEST_TOLD = 90
"""Ages are told in whole years, all from 90 on as 90 (45 CFR 164.514(b)(2)(i)(C), the safe harbour of HIPAA)."""
COUNTS_PER_MV = 1_000_000
"""A count of an exported recording is a nanovolt: no coarser than single precision is at 8 mV."""
LARGEST_COUNT = 2**31 - 1
GAP = -(2**31)
"""WFDB format 32's value for 'none' (WFDB Applications Guide, signal(5))."""

NO_LABS = (
    "labs are not exported: a case of `incident_ckd` says whether the disease came within a follow-up, and an outcome "
    "records neither until when the person was followed nor when it came. Without them 'refuted' may mean 'not yet'. "
    "Make the table from the laboratory's records instead (docs/training.md, Laboratory values)"
)


class NotExported(Exception):
    """What was asked for is refused; the message is one line for who asked."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be exported.

    Parameters
    ----------
    findings
        Whose outcomes become labels.
    sites
        These alone; empty: all.
    since
        Visits that were received from here on.
    dates
        Whether the day that a DICOM header states goes into the table.
    key
        Of the pseudonyms.
    """

    modality: Literal["cxr", "ecg"]
    findings: tuple[str, ...]
    source: Source
    name: str
    key: bytes
    sites: tuple[str, ...] = ()
    since: datetime | None = None
    dates: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One film, or the recordings of one visit: posted once or again, it is one case.

    ``stated``: every visit that brought it states the person's number; else the file's own header is asked.

    Parameters
    ----------
    files
        What is read from the store.
    known_as
        The visit, and the person's number where the visit states one: what links it to other cases; never exported.
    outcomes
        Finding to the latest outcome and when it was recorded.
    """

    files: tuple[InputRow, ...]
    known_as: frozenset[tuple[str, ...]]
    stated: bool
    context: Context
    site: str
    outcomes: dict[str, tuple[datetime, str]]

    @property
    def content(self) -> tuple[str, ...]:
        return tuple(sorted(each.sha256 for each in self.files))

    def labels(self, findings: Iterable[str]) -> dict[str, str]:
        """``1`` or ``0``; empty where nothing is recorded, or the person was lost."""
        return {name: LABEL.get(self.outcomes[name][1], "") if name in self.outcomes else "" for name in findings}


@dataclass(frozen=True, slots=True)
class Written:
    """The rows of one case, their persons still open, and all that the case is known as."""

    rows: list[dict[str, str]]
    known_as: frozenset[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how many cases were left out for what reason (a code of a refusal, or what is amiss)."""

    rows: list[dict[str, str]]
    labels: tuple[str, ...]
    left_out: Counter[str]


# ---------------------------------------------------------------- what is there


def read_cases(session: Session, wanted: Wanted) -> list[Case]:
    """Cases with a confirmed or refuted finding, each once, whatever number of visits brought it."""
    outcomes = _latest_outcomes(session, wanted)
    visits = list(outcomes)
    cases: dict[tuple[str, ...], Case] = {}
    for start in range(0, len(visits), ROWS_AT_ONCE):
        query = select(VisitRow).where(VisitRow.id.in_(visits[start : start + ROWS_AT_ONCE]))
        for row in session.scalars(query.order_by(*_AS_RECEIVED)):
            for case in _cases_of(row, outcomes[row.id], wanted.modality):
                earlier = cases.get(case.content)
                cases[case.content] = case if earlier is None else _merged(earlier, case)
        session.expunge_all()  # assessments are large, and nothing of them is needed any more
    return [case for case in cases.values() if any(case.labels(wanted.findings).values())]


def _latest_outcomes(session: Session, wanted: Wanted) -> dict[str, dict[str, tuple[datetime, str]]]:
    """Visit, in the order in which they came, to finding to its latest outcome; ``lost`` takes an earlier one back."""
    columns = (OutcomeRow.visit_id, OutcomeRow.finding, OutcomeRow.outcome, OutcomeRow.recorded_at)
    query = select(*columns).join(VisitRow, VisitRow.id == OutcomeRow.visit_id)
    query = query.where(OutcomeRow.finding.in_(wanted.findings), VisitRow.status == "complete")
    if wanted.sites:
        query = query.where(VisitRow.site.in_(wanted.sites))
    if wanted.since is not None:
        query = query.where(VisitRow.received_at >= wanted.since)
    latest: dict[str, dict[str, tuple[datetime, str]]] = {}
    for visit, finding, outcome, at in session.execute(
        query.order_by(*_AS_RECEIVED, OutcomeRow.recorded_at, OutcomeRow.id)
    ):
        latest.setdefault(visit, {})[finding] = at, outcome
    return latest


_AS_RECEIVED = (VisitRow.received_at, VisitRow.id)


def _cases_of(row: VisitRow, outcomes: dict[str, tuple[datetime, str]], modality: Literal["cxr", "ecg"]) -> list[Case]:
    """The accepted inputs of one visit. A zip in which one of several recordings was refused is not accepted here."""
    assessed = Assessment.model_validate_json(row.assessment) if row.assessment else None
    accepted = {
        each.index
        for each in (assessed.inputs if assessed else ())
        if each.accepted and not any(problem.severity == "reject" for problem in each.problems)
    }
    files = [each for each in row.inputs if each.field == FIELD[modality] and each.index in accepted]
    context = Context.model_validate_json(row.context)
    known_as: set[tuple[str, ...]] = {("visit", row.id)}
    if row.person_id:
        known_as.add(("person", row.site, row.person_id))
    one = partial(Case, known_as=frozenset(known_as), stated=bool(row.person_id), context=context, site=row.site)
    units = [[each] for each in files] if modality == "cxr" else [files] if files else []
    return [one(tuple(unit), outcomes=outcomes) for unit in units]


def _merged(earlier: Case, later: Case) -> Case:
    """The same files, posted again: what the later visit says, and of each finding the latest outcome."""
    both = [*earlier.outcomes.items(), *later.outcomes.items()]
    outcomes = dict(sorted(both, key=lambda each: each[1][0]))
    known_as, stated = earlier.known_as | later.known_as, earlier.stated and later.stated
    return Case(later.files, known_as, stated, later.context, later.site, outcomes)


def pseudonyms(cases: Iterable[Written], key: bytes) -> list[str]:
    """One name for all cases that anything links: a person in two parts would be tested on what was learnt of them."""
    cases = list(cases)
    parent: dict[tuple[str, ...], tuple[str, ...]] = {}

    def root(of: tuple[str, ...]) -> tuple[str, ...]:
        while parent.setdefault(of, of) != of:
            parent[of] = of = parent[parent[of]]
        return of

    for case in cases:
        first, *others = case.known_as
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low  # 'person' before 'visit': with a kept key the name stays when more visits come
    return [_hidden(key, *root(min(case.known_as))) for case in cases]


def _hidden(key: bytes, *what: str) -> str:
    """Twenty hexadecimal digits that say nothing without the key (HMAC-SHA256, RFC 2104)."""
    return hmac.digest(key, json.dumps(what).encode(), "sha256").hex()[:20]


# ---------------------------------------------------------------- files


def read_film(content: bytes) -> ChestImage:
    """A film as training and serving read it.

    Raises
    ------
    Refused
        As :func:`data_specs.cxr_files.read_image`; ``burned_in_annotation`` where the header says that the picture
        itself tells whose it is.
    """
    from data_specs.cxr_files import read_image  # noqa: PLC0415  films alone need the codecs

    film = read_image(content)
    if any(problem.code == "burned_in_annotation" for problem in film.problems):
        raise Refused("burned_in_annotation", "YES", "NO")
    return film


def film_files(film: ChestImage, name: str) -> dict[str, bytes]:
    """A PNG (8-bit grey, no chunk but the pixels') that reads back to the same pixels.

    The 16 bits of the stored values would not: how they are to be shown is said by the header that stays behind.
    """
    import imagecodecs  # noqa: PLC0415

    return {f"{name}.png": bytes(imagecodecs.png_encode(film.pixels))}


def recording_files(recording: Recording, name: str) -> dict[str, bytes]:
    """A recording as WFDB format 32, twelve leads in nanovolts (larger counts where they would not fit), gaps kept.

    References
    ----------
    WFDB Applications Guide, header(5) and signal(5).
    """
    millivolts = recording.samples.astype(np.float64)
    gaps = np.isnan(millivolts)
    largest = float(np.fmax.reduce(np.abs(millivolts), axis=None, initial=0.0))
    gain = COUNTS_PER_MV if largest * COUNTS_PER_MV < LARGEST_COUNT else max(1, int(LARGEST_COUNT / largest))
    counts = np.where(gaps, GAP, np.rint(np.where(gaps, 0.0, millivolts) * gain)).astype("<i4")
    lines = [f"{name} {len(LEADS)} {recording.fs_hz!r} {counts.shape[1]}"]
    for lead, signal in zip(LEADS, counts, strict=True):
        checksum = (int(signal.sum(dtype=np.int64)) + 2**15) % 2**16 - 2**15
        lines.append(f"{name}.dat 32 {gain}(0)/mV 32 0 {signal[0]} {checksum} 0 {lead}")
    return {f"{name}.hea": ("\n".join(lines) + "\n").encode(), f"{name}.dat": counts.T.tobytes()}


def _write_case(case: Case, *, store: Store, folder: Path, wanted: Wanted) -> Written | str:
    """Write the files of a case; its rows, or why it is left out."""
    try:
        contents = [_content(store, each.sha256) for each in case.files]
        found = [read_film(contents[0])] if wanted.modality == "cxr" else _recordings(case, contents)
    except Refused as refusal:
        return refusal.problem.code
    except StoredFileMissing:
        return "not in the store"
    except StoredFileDamaged:
        return "damaged in the store"
    rows, numbers = [], set()
    for n, read in enumerate(found):
        name = _hidden(wanted.key, "file", *case.content, str(n))
        files = recording_files(read, name) if isinstance(read, Recording) else film_files(read, name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        rows.append(_row(case, next(iter(files)), read, wanted))
        if read.person_id:
            numbers.add(("person", case.site, read.person_id))
    return Written(rows, case.known_as if case.stated else case.known_as | numbers)


def _recordings(case: Case, contents: Sequence[bytes]) -> Sequence[ChestImage | Recording]:
    from data_specs.ecg_files import PostedFile, group_recordings, read_recording  # noqa: PLC0415  with all its readers

    posted = [
        PostedFile(each.index, each.filename, content) for each, content in zip(case.files, contents, strict=True)
    ]
    return [read_recording(group, ecg_unit=case.context.ecg_unit) for group in group_recordings(posted)]


def _content(store: Store, sha256: str) -> bytes:
    try:
        return store.read(sha256)
    except (StoredFileMissing, StoredFileDamaged):
        raise
    except Exception as error:  # the client of an object store raises whatever it likes, and may quote an address
        raise OSError(f"the store cannot be read ({type(error).__name__})") from error


def _row(case: Case, file: str, read: ChestImage | Recording, wanted: Wanted) -> dict[str, str]:
    """What goes into the table; age and sex as the visit says them, else as the file does."""
    said = case.context.person
    age = said.age_years
    if age is None:
        age = age_on(said.birth_date, case.context.visited_on)
    if age is None:
        age = read.age_years
    sex = said.sex if said.sex not in (None, "unknown") else read.sex
    header = case.files[0].dicom
    made_on = day(DicomReference.model_validate_json(header).StudyDate) if header and wanted.dates else None
    return {
        "file": file,
        "age_years": "" if age is None else str(min(int(age), OLDEST_TOLD)),
        "sex": sex or "",
        "site": case.site,
        "view": "" if isinstance(read, Recording) else read.view or "",
        "made_on": made_on.isoformat() if made_on else "",
        **case.labels(wanted.findings),
    }


# ---------------------------------------------------------------- the cohort


def export(database: Database, store: Store, out: Path, wanted: Wanted, *, quiet: bool = True) -> Exported:
    """Write the cohort into ``out``, the manifest last; what cannot be finished is taken away again.

    Raises
    ------
    NotExported
        ``out`` is not empty, or there is nothing to export.
    OSError, SQLAlchemyError
        Something cannot be read or written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise NotExported(f"{out} is not empty; give a folder that is, or none that exists")
    with database.transaction() as session:
        cases = read_cases(session, wanted)
    is_new = not out.exists()
    folder = out / FOLDER[wanted.modality]
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir()
    try:
        exported = _write_cases(cases, store, folder, wanted, quiet)
        if not exported.rows:
            raise NotExported(_nothing(wanted, exported.left_out))
        _write_table(out / TABLE, exported, wanted)
        document = _manifest(exported, wanted).model_dump(mode="json", exclude_defaults=True)
        lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in document.items()]
        (out / MANIFEST).write_text("".join(lines), encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        for name in (TABLE, MANIFEST):
            (out / name).unlink(missing_ok=True)
        if is_new:
            with contextlib.suppress(OSError):  # somebody put something there meanwhile
                out.rmdir()
        raise
    return exported


def _write_cases(cases: Sequence[Case], store: Store, folder: Path, wanted: Wanted, quiet: bool) -> Exported:
    """Every case's files; as many at a time as there are processors, so that few are in memory."""
    done: list[Written] = []
    left_out: Counter[str] = Counter()
    write = partial(_write_case, store=store, folder=folder, wanted=wanted)
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for written in _told(pool.map(write, cases), len(cases), quiet):
            if isinstance(written, str):
                left_out[written] += 1
            else:
                done.append(written)
    finally:
        pool.shutdown(cancel_futures=True)
    named = zip(done, pseudonyms(done, wanted.key), strict=True)
    rows = [{"person": person, **row} for written, person in named for row in written.rows]
    rows.sort(key=lambda row: (row["person"], row["file"]))  # their order must not tell in what order visits came
    labels = tuple(name for name in wanted.findings if any(row[name] for row in rows))
    return Exported(rows, labels, left_out)


def _told(items: Iterable[T], total: int, quiet: bool) -> Iterator[T]:
    """The items, and how far they are on standard error: one line that is written over, or a line for each tenth."""
    over = sys.stderr.isatty()
    for n, item in enumerate(items, start=1):
        yield item
        if not quiet and (over or n == total or n * 10 // total > (n - 1) * 10 // total):
            print(f"{n} of {total} written", end="\r" if over and n < total else "\n", file=sys.stderr, flush=True)


def _write_table(path: Path, exported: Exported, wanted: Wanted) -> None:
    columns = [*_columns(exported).values(), *exported.labels]
    with path.open("x", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(exported.rows)


def _columns(exported: Exported) -> dict[str, str]:
    """The columns that hold something, under the names that the manifest has for them."""
    names = ("person", "file", "age_years", "sex", "site", "view", "made_on")
    return {name: name for name in names if any(row[name] for row in exported.rows)}


def _manifest(exported: Exported, wanted: Wanted) -> CohortManifest:
    return CohortManifest(
        name=wanted.name,
        modality=wanted.modality,
        table=TABLE,
        files=FOLDER[wanted.modality],
        columns=Columns(**_columns(exported)),
        labels={name: name for name in exported.labels},
        source=wanted.source,
    )


def _nothing(wanted: Wanted, left_out: Counter[str]) -> str:
    text = f"nothing to export: no accepted case of modality {wanted.modality} with a confirmed or refuted finding"
    return text + (f" can be read ({_listed(left_out)})" if left_out else "")


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {code}" for code, count in counts.most_common())


# ---------------------------------------------------------------- the command


def main(arguments: Sequence[str] | None = None) -> int:
    """Export one cohort; 0: done, 1: refused, 2: cannot be done."""
    given = _parse(arguments)
    try:
        exported = _export_as(given)
    except NotExported as refusal:
        print(f"outcomes_export: {refusal}", file=sys.stderr)
        return REFUSED
    except BadSettings as error:
        print(f"outcomes_export: {error}", file=sys.stderr)
        return CANNOT
    except SQLAlchemyError as error:  # not quoted: an address may hold a password
        print(f"outcomes_export: the database does not answer ({type(error).__name__})", file=sys.stderr)
        return CANNOT
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"outcomes_export: {where}{error.strerror or error}", file=sys.stderr)
        return CANNOT
    persons = len({row["person"] for row in exported.rows})
    print(f"{len(exported.rows)} {FOLDER[given.modality]} of {persons} persons: {given.out / MANIFEST}")
    for name in exported.labels:
        counts = Counter(row[name] for row in exported.rows)
        print(f"  {name}: {counts['1']} confirmed, {counts['0']} refuted")
    if exported.left_out:
        print(f"left out: {_listed(exported.left_out)}")
    return DONE


def _export_as(given: argparse.Namespace) -> Exported:
    """Export as the command line asks, over the database and the store of the environment."""
    if given.modality == "labs":
        raise NotExported(NO_LABS)
    settings = read_settings()
    key = _read_key(given.key) if given.key else secrets.token_bytes(KEY_BYTES)
    wanted = Wanted(
        modality=given.modality,
        findings=tuple(given.findings or JUDGED[ORGAN[given.modality]]),
        source=Source(citation=given.citation, licence=given.licence),
        name=given.name or f"outcomes-{given.modality}",
        key=key,
        sites=tuple(given.site or ()),
        since=given.since,
        dates=given.dates,
    )
    database, store = _opened(settings)
    try:
        if not given.keep_key:
            return export(database, store, given.out, wanted, quiet=given.quiet)
        with _kept_beside(given.out, key):
            return export(database, store, given.out, wanted, quiet=given.quiet)
    finally:
        database.close()


@contextlib.contextmanager
def _kept_beside(out: Path, key: bytes) -> Iterator[None]:
    """The key in a file beside the folder, so that it does not travel with it; gone where nothing is exported."""
    path = out.resolve().with_name(out.resolve().name + ".key")
    if path.exists():
        raise NotExported(f"{path} is there already; a key is not written over")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    try:
        path.write_text(f"{key.hex()}\n", encoding="ascii")
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _opened(settings: Settings) -> tuple[Database, Store]:
    """Both as they are: neither is made where it is not."""
    places: dict[str, str] = {}
    try:
        if settings.database.startswith("sqlite:"):
            places["DATABASE_URL"] = make_url(settings.database).database or ""
        store = urlsplit(settings.store)
        if store.scheme in ("file", "local"):
            places["STORE_URL"] = unquote(store.path)
        for name, place in places.items():
            if not Path(place).exists():
                raise BadSettings(f"{PREFIX}DATA_DIR, {PREFIX}{name}: there is nothing at {place}")
        return Database(settings.database), open_store(settings.store, settings.data_dir)
    except (ImportError, ValueError, SQLAlchemyError) as error:  # not quoted: an address may hold a password
        names = f"{PREFIX}DATABASE_URL, {PREFIX}STORE_URL"
        raise BadSettings(f"one of {names} cannot be used: {type(error).__name__}") from error


def _read_key(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise NotExported(f"{path} holds no key; --keep-key writes one")
    return key


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m service.outcomes_export",
        description="Export what became of findings as a cohort for python -m training. Database and store: SANGLOC_…",
    )
    parser.add_argument("--modality", choices=("cxr", "ecg", "labs"), required=True, help="films or recordings")
    parser.add_argument("--out", type=Path, required=True, help="an empty folder, or one to be made")
    source = parser.add_argument_group("what the manifest and every model card say of it")
    source.add_argument("--citation", required=True, help="who is to be cited, and how")
    source.add_argument("--licence", required=True, help="terms under which it may be used")
    source.add_argument("--name", help="of the cohort; by default outcomes-MODALITY")
    which = parser.add_argument_group("which visits")
    which.add_argument("--site", nargs="+", help="of these sites alone")
    which.add_argument("--since", type=_midnight, metavar="YYYY-MM-DD", help="received on this day (UTC) or later")
    which.add_argument("--findings", nargs="+", help="these labels alone")
    whose = parser.add_argument_group("whose they are")
    key = whose.add_mutually_exclusive_group()
    key.add_argument("--keep-key", action="store_true", help="keep the key of the pseudonyms as OUT.key, mode 0600")
    key.add_argument("--key", type=Path, help="a kept key: persons get the names, and so the parts, that they had")
    whose.add_argument("--dates", action="store_true", help="with the day that a DICOM header states, as made_on")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    given = parser.parse_args(arguments)
    known = JUDGED[ORGAN[given.modality]] if given.modality in ORGAN else ()
    unknown = [name for name in given.findings or () if name not in known]
    if unknown and known:
        parser.error(f"--findings: no finding of {given.modality}: {', '.join(unknown)}; one of {', '.join(known)}")
    for option, text, most in (("citation", given.citation, 2000), ("licence", given.licence, 500)):
        if not text.strip() or not text.isprintable() or len(text) > most:
            parser.error(f"--{option}: one line of 1 to {most} characters")
    if given.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", given.name):
        parser.error("--name: up to 80 letters, digits, '.', '_' and '-'")
    return given


def _midnight(text: str) -> datetime:
    return datetime.combine(date.fromisoformat(text), time(), UTC)


if __name__ == "__main__":
    sys.exit(main())
