"""``python -m service.outcomes``: what became of findings, as a cohort to train on, without whose they are.

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
import re
import secrets
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from data_specs.cohort import Source
from data_specs.visit.contract import visible_findings
from service.outcomes.cases import ORGAN, Wanted
from service.outcomes.cohort import FOLDER, MANIFEST, Exported, NotExported, export, listed
from service.settings import PREFIX, BadSettings, Settings, read_settings
from service.storage.database import Database
from service.storage.store import Store, open_store

DONE, REFUSED, CANNOT = 0, 1, 2
KEY_BYTES = 32
NO_LABS = (
    "labs are not exported: a case of `incident_ckd` says whether the disease came within a follow-up, and an outcome "
    "records neither until when the person was followed nor when it came. Without them 'refuted' may mean 'not yet'. "
    "Make the table from the laboratory's records instead (docs/training.md, Laboratory values)"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Export one cohort; 0: done, 1: refused, 2: cannot be done."""
    given = _parse(arguments)
    try:
        exported = _export_as(given)
    except NotExported as refusal:
        print(f"outcomes: {refusal}", file=sys.stderr)
        return REFUSED
    except BadSettings as error:
        print(f"outcomes: {error}", file=sys.stderr)
        return CANNOT
    except SQLAlchemyError as error:  # not quoted: an address may hold a password
        print(f"outcomes: the database does not answer ({type(error).__name__})", file=sys.stderr)
        return CANNOT
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"outcomes: {where}{error.strerror or error}", file=sys.stderr)
        return CANNOT
    persons = len({row["person"] for row in exported.rows})
    print(f"{len(exported.rows)} {FOLDER[given.modality]} of {persons} persons: {given.out / MANIFEST}")
    for name in exported.labels:
        counts = Counter(row[name] for row in exported.rows)
        print(f"  {name}: {counts['1']} confirmed, {counts['0']} refuted")
    if exported.left_out:
        print(f"left out: {listed(exported.left_out)}")
    return DONE


def _export_as(given: argparse.Namespace) -> Exported:
    """Export as the command line asks, over the database and the store of the environment."""
    if given.modality == "labs":
        raise NotExported(NO_LABS)
    settings = read_settings()
    key = _read_key(given.key) if given.key else secrets.token_bytes(KEY_BYTES)
    wanted = Wanted(
        modality=given.modality,
        findings=tuple(given.findings or visible_findings(ORGAN[given.modality])),
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
        prog="python -m service.outcomes",
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
    known = visible_findings(ORGAN[given.modality]) if given.modality in ORGAN else ()
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
