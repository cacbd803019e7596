"""``python -m client``: post visits, wait for them, list, show, and fetch reports, over the public interface.

The key is read from ``SANGLOC_KEY`` or from ``--key-file``, never from the command line, where others could see it.

Exit codes: 0 all is done; 1 a visit was refused, has failed or is not there; 2 the input or the command cannot be used;
3 the key is not known or may not do this; 4 the service does not answer; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from client import shown
from client.cases import BadInput, read_cases
from client.connection import Connection, NotReached, Refused
from client.posting import Notes, Outcome, notes_beside, post_all, wait_for_all

DONE, REFUSED, BAD_INPUT, BAD_KEY, NO_ANSWER, STOPPED = 0, 1, 2, 3, 4, 130
KEY = "SANGLOC_KEY"
BAR = 40
"""Width of the progress bar."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one command; its exit code."""
    given = _parser().parse_args(arguments)
    try:
        with contextlib.closing(
            Connection(given.server, _key(given.key_file), language=given.language, patience_s=given.patience)
        ) as connection:
            code: int = given.command(connection, given)
            return code
    except BadInput as error:
        return _say(str(error), BAD_INPUT)
    except Refused as error:
        return _say(str(error), BAD_KEY if error.status in (401, 403) else REFUSED)
    except NotReached as error:
        return _say(f"{error}; run the command again to go on from here", NO_ANSWER)
    except OSError as error:
        return _say(f"{error.filename or ''}: {error.strerror or error}", BAD_INPUT)
    except KeyboardInterrupt:
        return _say("stopped; run the command again to go on from here", STOPPED)


def _say(sentence: str, code: int) -> int:
    print(f"client: {sentence}", file=sys.stderr)
    return code


def _key(file: Path | None) -> str:
    key = file.read_text("utf-8").strip() if file is not None else os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable() and key):
        raise BadInput(f"there is no key: set {KEY}, or name a file with --key-file")
    return key


# ---------------------------------------------------------------- commands
def _post(connection: Connection, given: argparse.Namespace) -> int:
    cases = read_cases(given.paths)
    notes = Notes(notes_beside(given.paths), connection.address)
    done = post_all(connection, cases, notes, at_once=given.at_once, wait_for_them=not given.no_wait)
    return _tell(_with_bar(done, len(cases)), given.out)


def _wait(connection: Connection, given: argparse.Namespace) -> int:
    cases = read_cases(given.paths)
    notes = Notes(notes_beside(given.paths), connection.address)
    return _tell(_with_bar(wait_for_all(connection, cases, notes, at_once=given.at_once), len(cases)), given.out)


def _list(connection: Connection, given: argparse.Namespace) -> int:
    filters = {name: getattr(given, name) for name in ("priority", "status", "since", "person")}
    found = connection.visits(**{name: value for name, value in filters.items() if value is not None})
    _print(shown.rows_of_visits(visit for visit, _ in zip(found, range(given.most), strict=False)), given.out)
    return DONE


def _show(connection: Connection, given: argparse.Namespace) -> int:
    print(shown.text(connection.visit(given.id)))
    return DONE


def _report(connection: Connection, given: argparse.Namespace) -> int:
    given.to.mkdir(parents=True, exist_ok=True)
    for id_ in given.ids:
        path = given.to / f"{id_}.{given.format}"
        path.write_bytes(connection.report(id_, given.format))
        print(path)
    return DONE


# ---------------------------------------------------------------- what is printed
def _tell(outcomes: Iterable[Outcome], out: Path | None) -> int:
    """Print the table, and write it as CSV; also of what was done before a failure or Ctrl-C."""
    done: list[Outcome] = []
    try:
        done.extend(outcomes)
    finally:
        _print(shown.rows(sorted(done, key=lambda outcome: outcome.case.name)), out)
    bad = [each for each in done if each.visit is None or each.visit["status"] == "failed"]
    return REFUSED if bad else DONE


def _print(rows: list[dict[str, str]], out: Path | None) -> None:
    print(shown.table(rows))
    if out is not None:
        with out.open("w", encoding="utf-8", newline="") as file:
            shown.write_csv(rows, file)


def _with_bar(outcomes: Iterator[Outcome], total: int) -> Iterator[Outcome]:
    """The outcomes, with a progress bar on a terminal."""
    for number, outcome in enumerate(outcomes, 1):
        if sys.stderr.isatty():
            filled = "#" * (BAR * number // total)
            print(f"\r[{filled:.<{BAR}}] {number}/{total}", end="", file=sys.stderr, flush=True)
        yield outcome
    if sys.stderr.isatty():
        print(file=sys.stderr)


# ---------------------------------------------------------------- the command line
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="client", description="Post visits, wait for them, list, show, and fetch reports."
    )
    parser.add_argument("--server", default="http://127.0.0.1:8080", metavar="ADDRESS")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help=f"in the place of {KEY}")
    parser.add_argument("--language", choices=("vi", "fr", "en"), default=_language(), help="of the sentences")
    parser.add_argument("--patience", type=float, default=300, metavar="SECONDS", help="how long to try again")
    commands = parser.add_subparsers(required=True)

    post = commands.add_parser("post", help="post a folder, a table, or the files of one visit")
    post.add_argument("--no-wait", action="store_true", help="end when all are on the service's disk")
    post.set_defaults(command=_post)
    wait = commands.add_parser("wait", help="wait for what was posted with --no-wait")
    wait.set_defaults(command=_wait)
    for command in (post, wait):
        command.add_argument("paths", nargs="+", type=Path, metavar="PATH")
        command.add_argument("--at-once", type=int, default=4, choices=range(1, 33), metavar="N")

    listed = commands.add_parser("list", help="list visits, newest first")
    for name in ("priority", "status", "since", "person"):
        listed.add_argument(f"--{name}")
    listed.add_argument("--most", type=int, default=50, metavar="N")
    listed.set_defaults(command=_list)
    for command in (post, wait, listed):
        command.add_argument("--out", type=Path, metavar="CSV", help="write the table with all findings")

    show = commands.add_parser("show", help="show one visit")
    show.add_argument("id")
    show.set_defaults(command=_show)
    report = commands.add_parser("report", help="fetch reports")
    report.add_argument("ids", nargs="+", metavar="ID")
    report.add_argument("--format", default="pdf", help="pdf, html, fhir.json, hl7, …")
    report.add_argument("--to", type=Path, default=Path(), metavar="FOLDER")
    report.set_defaults(command=_report)
    return parser


def _language() -> str:
    spoken = os.environ.get("LANG", "")[:2].lower()
    return spoken if spoken in ("vi", "fr", "en") else "en"


if __name__ == "__main__":
    sys.exit(main())
