"""``python -m service.outcomes``: export the recorded outcomes of findings as a cohort, without personal data.

Every accepted film or recording of a visit with a confirmed or refuted finding becomes a row of a table, which a
``cohort.yaml`` describes. No posted file is copied. A film is written as an 8-bit grey PNG with the pixels that
training and serving read from it, a recording as WFDB in nanovolts. Both are written without any posted header, so that
no list of headers with personal data is needed. Persons and files are named by an HMAC, whose key is made for the
export and is not kept unless ``--keep-key`` asks for it. No name, birth date, number, file name or free text is
exported.

The database and the store are those that the service's environment names (``SANGLOC_…``).
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

from sqlalchemy import select

from data_specs.cohort import Source
from data_specs.visit.contract import visible_findings
from service.outcomes.cases import ORGAN, ExportRequest
from service.outcomes.cohort import FOLDER, MANIFEST, Exported, NotExported, counts_text, export
from service.settings import read_settings
from service.sites import listed
from service.storage.audit import acting_as, note
from service.storage.commands import CANNOT, DONE, OUTAGES, REFUSED, open_existing, plain_reason
from service.storage.database import Database
from service.storage.tables import IS_CASE, VisitRow

KEY_BYTES = 32
NO_LABS = (
    "labs are not exported: a case of `incident_ckd` says whether the disease came within a follow-up time, but an "
    "outcome records neither how long the person was followed nor when it came. So 'refuted' may mean 'not yet'. "
    "Make the table from the laboratory's records instead (docs/reference/cohort-manifest.md)"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Export one cohort. Returns 0: exported, 1: refused, 2: something cannot be read or written."""
    given = _parse(arguments)
    try:
        with acting_as("outcomes"):
            exported = _export_as(given)
    except NotExported as refusal:
        print(f"outcomes: {refusal}", file=sys.stderr)
        return REFUSED
    except OUTAGES as error:
        print(f"outcomes: {plain_reason(error)}", file=sys.stderr)
        return CANNOT
    persons = len({row["person"] for row in exported.rows})
    print(f"{len(exported.rows)} {FOLDER[given.modality]} of {persons} persons: {given.out / MANIFEST}")
    for name in exported.labels:
        counts = Counter(row[name] for row in exported.rows)
        print(f"  {name}: {counts['1']} confirmed, {counts['0']} refuted")
    if exported.left_out:
        print(f"left out: {counts_text(exported.left_out)}")
    return DONE


def _export_as(given: argparse.Namespace) -> Exported:
    """Export as the command line says, from the database and the store of the environment."""
    if given.modality == "labs":
        raise NotExported(NO_LABS)
    settings = read_settings()
    key = _read_key(given.key) if given.key else secrets.token_bytes(KEY_BYTES)
    request = ExportRequest(
        modality=given.modality,
        findings=tuple(given.findings or visible_findings(ORGAN[given.modality])),
        source=Source(citation=given.citation, licence=given.licence),
        name=given.name or f"outcomes-{given.modality}",
        key=key,
        sites=tuple(given.site or ()),
        since=given.since,
        dates=given.dates,
    )
    database, store = open_existing(settings)
    try:
        _expect_visits_of(database, request.sites)
        with database.transaction(write=True) as session:
            note(session, "cases_exported", modality=request.modality, sites=list(request.sites))
        if not given.keep_key:
            return export(database, store, given.out, request, quiet=given.quiet)
        with _key_file(given.out, key):
            return export(database, store, given.out, request, quiet=given.quiet)
    finally:
        database.close()


def _expect_visits_of(database: Database, sites: Sequence[str]) -> None:
    """Refuse a site that has posted nothing: most likely its name is mistyped.

    Raises
    ------
    NotExported
    """
    if sites:
        with database.transaction() as session:
            known = sorted(session.scalars(select(VisitRow.site).where(~IS_CASE).distinct()))
        if unknown := [site for site in sites if site not in known]:
            raise NotExported(
                f"--site: no visits of {', '.join(unknown)}; there are some of: {listed(known) or 'none'}"
            )


@contextlib.contextmanager
def _key_file(out: Path, key: bytes) -> Iterator[None]:
    """Write the key to ``OUT.key``, outside the exported folder; remove it again if the export fails.

    Raises
    ------
    NotExported
        The file exists already.
    """
    path = out.resolve().with_name(out.resolve().name + ".key")
    if path.exists():
        raise NotExported(f"{path} exists already; a key is not overwritten")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    try:
        path.write_text(f"{key.hex()}\n", encoding="ascii")
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _read_key(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise NotExported(f"{path} is not a key file; --keep-key writes one")
    return key


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m service.outcomes",
        description="Export recorded outcomes as a cohort for python -m training. Database and store: SANGLOC_…",
    )
    parser.add_argument("--modality", choices=("cxr", "ecg", "labs"), required=True, help="films or recordings")
    parser.add_argument("--out", type=Path, required=True, help="an empty or new folder")
    source = parser.add_argument_group("for the manifest and the model cards")
    source.add_argument("--citation", required=True, help="how to cite the source")
    source.add_argument("--licence", required=True, help="terms of use")
    source.add_argument("--name", help="of the cohort (default: outcomes-MODALITY)")
    which = parser.add_argument_group("which visits")
    which.add_argument("--site", nargs="+", help="only of these sites")
    which.add_argument("--since", type=_midnight, metavar="YYYY-MM-DD", help="received on this day (UTC) or later")
    which.add_argument("--findings", nargs="+", help="only these labels")
    privacy = parser.add_argument_group("pseudonyms and dates")
    key = privacy.add_mutually_exclusive_group()
    key.add_argument("--keep-key", action="store_true", help="keep the key of the pseudonyms as OUT.key, mode 0600")
    key.add_argument(
        "--key",
        type=Path,
        help="a kept key: persons get the same pseudonyms, and so the same parts of the split, as before",
    )
    privacy.add_argument("--dates", action="store_true", help="export the StudyDate of DICOM headers as made_on")
    parser.add_argument("--quiet", action="store_true", help="do not show progress")
    given = parser.parse_args(arguments)
    known = visible_findings(ORGAN[given.modality]) if given.modality in ORGAN else ()
    unknown = [name for name in given.findings or () if name not in known]
    if unknown and known:
        parser.error(f"--findings: no finding of {given.modality}: {', '.join(unknown)}; one of {', '.join(known)}")
    for option, text, limit in (("citation", given.citation, 2000), ("licence", given.licence, 500)):
        if not text.strip() or not text.isprintable() or len(text) > limit:
            parser.error(f"--{option}: one line of 1 to {limit} characters")
    if given.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", given.name):
        parser.error("--name: up to 80 letters, digits, '.', '_' and '-'")
    return given


def _midnight(text: str) -> datetime:
    return datetime.combine(date.fromisoformat(text), time(), UTC)


if __name__ == "__main__":
    sys.exit(main())
