"""The cohort: the table, the manifest, and the folder that holds them."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from data_specs.cohort import CohortManifest, Columns
from service.outcomes.cases import Case, Wanted, read_cases
from service.outcomes.files import Written, pseudonyms, write_case
from service.storage.database import Database
from service.storage.store import Store

FOLDER = {"cxr": "films", "ecg": "recordings"}
MANIFEST, TABLE = "cohort.yaml", "cases.csv"
T = TypeVar("T")


class NotExported(Exception):
    """What was asked for is refused; the message is one line for who asked."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how many cases were left out for what reason (a code of a refusal, or what is amiss)."""

    rows: list[dict[str, str]]
    labels: tuple[str, ...]
    left_out: Counter[str]


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
        _write_table(out / TABLE, exported)
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
    write = partial(write_case, store=store, folder=folder, wanted=wanted)
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


def _write_table(path: Path, exported: Exported) -> None:
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
    return text + (f" can be read ({listed(left_out)})" if left_out else "")


def listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {code}" for code, count in counts.most_common())
