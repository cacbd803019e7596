"""Write the cohort: its files, its table, and its manifest."""

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
from service.outcomes.cases import Case, ExportRequest, read_cases
from service.outcomes.files import WrittenCase, pseudonyms, write_case
from service.storage.database import Database
from service.storage.store import Store

FOLDER = {"cxr": "films", "ecg": "recordings"}
MANIFEST, TABLE = "cohort.yaml", "cases.csv"
T = TypeVar("T")


class NotExported(Exception):
    """The export is refused. The message is one line for the person at the command line."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how many cases were left out by reason (the code of a refusal, or a few words)."""

    rows: list[dict[str, str]]
    labels: tuple[str, ...]
    left_out: Counter[str]


def export(database: Database, store: Store, out: Path, request: ExportRequest, *, quiet: bool = True) -> Exported:
    """Write the cohort into ``out``, the manifest last. If it fails, everything that was written is removed.

    Raises
    ------
    NotExported
        ``out`` is not empty, or there is nothing to export.
    OSError, StorageUnavailable
        Something cannot be read or written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise NotExported(f"{out} is not empty; name an empty or a new folder")
    with database.transaction() as session:
        cases = read_cases(session, request)
    is_new = not out.exists()
    folder = out / FOLDER[request.modality]
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir()
    try:
        exported = _write_cases(cases, store, folder, request, quiet)
        if not exported.rows:
            raise NotExported(_nothing_to_export(request, exported.left_out))
        _write_table(out / TABLE, exported)
        document = _manifest(exported, request).model_dump(mode="json", exclude_defaults=True)
        lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in document.items()]
        (out / MANIFEST).write_text("".join(lines), encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        for name in (TABLE, MANIFEST):
            (out / name).unlink(missing_ok=True)
        if is_new:
            with contextlib.suppress(OSError):  # another program has written into it meanwhile
                out.rmdir()
        raise
    return exported


def _write_cases(cases: Sequence[Case], store: Store, folder: Path, request: ExportRequest, quiet: bool) -> Exported:
    """Write the files of all cases, as many at a time as there are processors, to limit the memory."""
    done: list[WrittenCase] = []
    left_out: Counter[str] = Counter()
    write = partial(write_case, store=store, folder=folder, request=request)
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for written in _with_progress(pool.map(write, cases), len(cases), quiet):
            if isinstance(written, str):
                left_out[written] += 1
            else:
                done.append(written)
    finally:
        pool.shutdown(cancel_futures=True)
    persons = zip(done, pseudonyms(done, request.key), strict=True)
    rows = [{"person": person, **row} for written, person in persons for row in written.rows]
    rows.sort(key=lambda row: (row["person"], row["file"]))  # the order must not show when visits came
    labels = tuple(name for name in request.findings if any(row[name] for row in rows))
    return Exported(rows, labels, left_out)


def _with_progress(items: Iterable[T], total: int, quiet: bool) -> Iterator[T]:
    """The items, with progress on standard error: one line that is overwritten on a terminal, else ten lines."""
    is_terminal = sys.stderr.isatty()
    for n, item in enumerate(items, start=1):
        yield item
        if not quiet and (is_terminal or n == total or n * 10 // total > (n - 1) * 10 // total):
            print(
                f"{n} of {total} written", end="\r" if is_terminal and n < total else "\n", file=sys.stderr, flush=True
            )


def _write_table(path: Path, exported: Exported) -> None:
    columns = [*_columns(exported).values(), *exported.labels]
    with path.open("x", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(exported.rows)


def _columns(exported: Exported) -> dict[str, str]:
    """The columns that are not empty, by their names in the manifest."""
    names = ("person", "file", "age_years", "sex", "site", "view", "made_on")
    return {name: name for name in names if any(row[name] for row in exported.rows)}


def _manifest(exported: Exported, request: ExportRequest) -> CohortManifest:
    return CohortManifest(
        name=request.name,
        modality=request.modality,
        table=TABLE,
        files=FOLDER[request.modality],
        columns=Columns(**_columns(exported)),
        labels={name: name for name in exported.labels},
        source=request.source,
    )


def _nothing_to_export(request: ExportRequest, left_out: Counter[str]) -> str:
    text = f"nothing to export: no accepted case of modality {request.modality} with a confirmed or refuted finding"
    return text + (f" can be read ({counts_text(left_out)})" if left_out else "")


def counts_text(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {code}" for code, count in counts.most_common())
