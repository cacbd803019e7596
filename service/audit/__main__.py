"""``python -m service.audit``: prove the audit log, export it, and say its head.

The database is that of the service's environment (``SANGLOC_…``). The head, noted on paper or on another machine,
is what shows later that the log was not cut off or computed anew.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, select

from service.audit.decisions import lines_gone
from service.audit.fhir import prove_file, write_events
from service.audit.proof import START, Proof, Stored, compare_rows, prove, stored_entries
from service.logs import set_up_logs
from service.settings import read_settings
from service.storage.audit import AUDIT, Head, head_of, note
from service.storage.commands import DONE, REFUSED, NotDone, carried_out, open_existing
from service.storage.database import Database

_HEAD = re.compile(r"(\d{1,18}):([0-9a-f]{64})", re.ASCII)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command. Returns 0: done, the chain is whole; 1: it is broken; 2: something cannot be used."""
    given = _parse(arguments)
    return carried_out("audit", lambda: given.command(given))


def _verify(given: argparse.Namespace) -> int:
    if given.file is not None:
        return _verify_file(given.file)
    heads = [*given.head, *(_heads_in(given.heads) if given.heads else ())]
    with closing(_database()) as database, database.snapshot() as connection:
        proof = prove(stored_entries(connection), heads)
        compare_rows(connection, proof)
        gone = lines_gone(connection, read_settings().bundles)
    if gone:
        print(f"registry.jsonl no longer has the lines that were noted by entries {', '.join(map(str, gone))}")
    told = {"assessments, opinions and incidents that are as they were written": proof.compared}
    return _told("log", proof, told | ({"noted heads that fit": len(heads)} if heads else {}))


def _verify_file(path: Path) -> int:
    try:
        with path.open(encoding="utf-8") as lines:
            proof, lacking = prove_file(lines)
    except ValueError as error:
        raise NotDone(f"{path}: {error}") from None
    return _told("file", proof, {"entries between its first and its last that it does not have": lacking})


def _told(what: str, proof: Proof, counts: Mapping[str, int]) -> int:
    for fault in proof.faults:
        print(fault)
    if proof.faults:
        print(f"the {what} is NOT whole: faults: {len(proof.faults):,}, entries: {proof.entries:,}")
        return REFUSED
    print(f"the {what} is whole: {proof.entries:,} entries, the last is {proof.head}")
    for name, count in counts.items():
        print(f"  {name}: {count:,}")
    return DONE


def _head(_given: argparse.Namespace) -> int:
    with closing(_database()) as database, database.transaction() as session:
        print(head_of(session))
    return DONE


def _export(given: argparse.Namespace) -> int:
    with closing(_database()) as database:
        with database.transaction(write=True) as session:
            note(session, "log_exported", given.visit, first=given.first, last=given.last)
        with database.snapshot() as connection, given.out.open("x", encoding="utf-8") as out:
            count = write_events(_with_previous(connection, given), out)
    print(f"exported: {count:,} entries, {given.out}")
    return DONE


def _with_previous(connection: Connection, given: argparse.Namespace) -> Iterator[tuple[Stored, str]]:
    """The wanted entries, each with the digest of the one before it."""
    query = select(AUDIT).where(AUDIT.c.number >= given.first)
    if given.last is not None:
        query = query.where(AUDIT.c.number <= given.last)
    if given.visit is not None:
        query = query.where(AUDIT.c.visit == given.visit)
    last = START
    for stored in stored_entries(connection, query):
        number = stored.entry.number
        if last.number != number - 1:
            before = select(AUDIT.c.digest).where(AUDIT.c.number == number - 1)
            last = Head(number - 1, connection.execute(before).scalar() or START.digest)
        yield stored, last.digest
        last = Head(number, stored.digest)


def _database() -> Database:
    database, _ = open_existing(read_settings())
    return database


def _heads_in(path: Path) -> list[Head]:
    """The heads in a file of lines, as ``head`` prints them; what else stands on a line is left out."""
    return [Head(int(number), digest) for number, digest in _HEAD.findall(path.read_text("utf-8"))]


def _a_head(text: str) -> Head:
    match = _HEAD.fullmatch(text.strip())
    if match is None:
        raise ValueError
    return Head(int(match[1]), match[2])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m service.audit", description="The audit log.")
    commands = parser.add_subparsers(required=True)
    verify = commands.add_parser("verify", help="prove the chain, or name every place where it is broken")
    verify.add_argument("--head", type=_a_head, action="append", default=[], help="NUMBER:DIGEST that was noted")
    verify.add_argument("--heads", type=Path, help="a file of noted heads, one a line")
    verify.add_argument("--file", type=Path, help="an exported file, in place of the database")
    verify.set_defaults(command=_verify)
    export = commands.add_parser("export", help="write FHIR R4 AuditEvents, one a line, into a new file")
    export.add_argument("out", type=Path)
    export.add_argument("--visit", help="of this visit only")
    export.add_argument("--first", type=int, default=1, help="from this entry on")
    export.add_argument("--last", type=int, help="up to this entry")
    export.set_defaults(command=_export)
    commands.add_parser("head", help="number and digest of the last entry").set_defaults(command=_head)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    set_up_logs(logging.CRITICAL)  # main() says what went wrong
    os.umask(0o077)
    sys.exit(main())
