"""``python -m inference.archive SOURCE… --out DIR``: score folders, buckets, tables and archives, into Parquet.

``python -m inference.archive recall DIR --bundle NAME --old VERSION --new VERSION``: whom another version would recall.

Exit codes: 0 all is done; 1 something was not reached, and the next run tries it again; 2 the input or the command
cannot be used; 130 stopped by Ctrl-C or SIGTERM, with what was scored written.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from inference.archive.cases import Source
    from inference.archive.run import Run, Scoring

DONE, NOT_REACHED, CANNOT, STOPPED = 0, 1, 2, 130
BUNDLES = Path("models/bundles")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one command; its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # There are as many readers as cores: more threads inside numpy, which reads this when it is loaded, cost time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.umask(0o077)
    try:
        import pyarrow  # type: ignore[import-untyped]  # noqa: F401, PLC0415
    except ImportError:
        return _say("pyarrow is not installed (the extra 'archive')", CANNOT)
    if given[:1] == ["recall"]:
        from inference.archive.recall import main as look_back  # noqa: PLC0415

        return look_back(given[1:])
    return _score(_parser().parse_args(given))


def _score(given: argparse.Namespace) -> int:
    from inference.archive.cases import BadSource  # noqa: PLC0415  loads pyarrow, which may not be there
    from inference.archive.parts import Archive, BadArchive  # noqa: PLC0415
    from inference.archive.rows import versions_of  # noqa: PLC0415
    from inference.archive.run import Run  # noqa: PLC0415
    from inference.archive.scoring import Options  # noqa: PLC0415
    from inference.archive.versions import chosen  # noqa: PLC0415
    from inference.bundles.loading import BundleError  # noqa: PLC0415
    from inference.runtime.session import DeviceError  # noqa: PLC0415

    signal.signal(signal.SIGTERM, _stop)
    began = time.monotonic()
    try:
        versions = chosen(given.bundles, dict(given.bundle))
        sources = list(_sources(given))
        with Archive(given.out, versions_of(versions), given.key) as archive:
            options = Options(
                bundles=given.bundles.resolve(), versions=versions, key=archive.key, device=given.device,
                session=given.session, workers=given.workers, keep_identifiers=given.keep_identifiers,
                ecg_unit=given.ecg_unit,
            )  # fmt: skip
            run = Run(archive, sources, options, given.language, given.limit, given.every)
            try:
                run.do(_scorers(given, run))
            finally:
                print(f"{run.counts}; {time.monotonic() - began:.0f} s", file=sys.stderr)
    except (BadSource, BadArchive, BundleError, DeviceError) as error:
        return _say(str(error), CANNOT)
    except OSError as error:
        return _say(f"{error.filename or ''}: {error.strerror or error}", CANNOT)
    except KeyboardInterrupt:
        return _say("stopped; run the command again to go on from here", STOPPED)
    return NOT_REACHED if run.counts.failed else DONE


@contextmanager
def _scorers(given: argparse.Namespace, run: Run) -> Iterator[Scoring]:
    """One scorer in this process, or those of a cluster."""
    from inference.archive.on_ray import Cluster, scoring_by_ray  # noqa: PLC0415
    from inference.archive.scoring import Scorer  # noqa: PLC0415

    done = run.archive.done
    if given.ray is not None:
        with scoring_by_ray(run.sources, run.options, done, Cluster(given.ray, given.workers, given.gpus)) as scoring:
            yield scoring
    else:
        with Scorer(run.sources, run.options, done) as scorer:
            yield lambda cases: scorer.scored(iter(cases))


def _sources(given: argparse.Namespace) -> Iterator[Source]:
    """Each source of the command line; its place there is its number."""
    from inference.archive.cases import BadSource  # noqa: PLC0415
    from inference.archive.dicomweb import DicomWeb  # noqa: PLC0415
    from inference.archive.files import Files  # noqa: PLC0415
    from inference.archive.move import Address, Pacs  # noqa: PLC0415
    from inference.archive.tables import NAMES, Table, lines_of  # noqa: PLC0415

    columns = dict(given.columns)
    if unknown := columns.keys() - set(NAMES):
        raise BadSource(f"--columns: {min(unknown)} is none of {', '.join(NAMES)}")
    for number, address in enumerate(given.sources):
        table = Path(address)
        if table.suffix.lower() != ".csv" or "://" in address:
            if "://" not in address and not Path(address).is_dir():
                raise BadSource(f"{address}: neither a folder nor a table (.csv)")
            yield Files(address, number, given.site, given.max_mb)
            continue
        for _ in lines_of(table, "study" if given.dicomweb or given.pacs else "file", columns):
            pass  # a table with a fault is refused before anything is scored
        if given.dicomweb:
            authorization = given.authorization_file.read_text("ascii").strip() if given.authorization_file else ""
            root = given.dicomweb.rstrip("/")
            if urlsplit(root).scheme not in ("http", "https") or "@" in urlsplit(root).netloc:
                raise BadSource("--dicomweb: it has to be http(s)://HOST/…; a password goes into --authorization-file")
            yield DicomWeb(table, root, columns, authorization, number, given.site, given.max_mb)
        elif given.pacs:
            if given.ray or not given.receive:
                raise BadSource("--pacs needs --receive, and goes without --ray: an archive sends to one port")
            called, receiver = Address.of(given.pacs), Address.of(given.receive)
            yield Pacs(table, called, receiver, columns, number, given.site, given.max_mb)
        else:
            root = given.files or str(table.parent)
            yield Table(table, Files(root, number, given.site, given.max_mb), columns)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def _say(sentence: str, code: int) -> int:
    print(f"archive: {sentence}", file=sys.stderr)
    return code


def _pair(text: str) -> tuple[str, str]:
    name, is_one, value = text.partition("=")
    if not (name and is_one and value):
        raise argparse.ArgumentTypeError("it has to be NAME=VALUE")
    return name, value


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000_000:
        raise argparse.ArgumentTypeError("it has to be a number from 1 on")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m inference.archive",
        description="Score films and recordings of an archive. With recall as first word: whom another version would "
        "recall.",
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="folder, s3://BUCKET/PREFIX, or table (.csv)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the rows; run again to go on")
    what = parser.add_argument_group("what the sources say")
    what.add_argument("--site", default="", help="where all cases come from, unless a table says it")
    what.add_argument("--columns", nargs="+", type=_pair, default=[], metavar="NAME=COLUMN", help="of the tables")
    what.add_argument("--files", metavar="ROOT", help="folder or s3://… that a table's paths start from")
    what.add_argument("--dicomweb", metavar="ROOT", help="archive from which a table's studies are fetched")
    what.add_argument("--authorization-file", type=Path, metavar="FILE", help="content of the header Authorization")
    what.add_argument("--pacs", metavar="AE@HOST:PORT", help="archive that sends a table's studies by C-MOVE")
    what.add_argument("--receive", metavar="AE@HOST:PORT", help="where it sends them: this machine, as it knows it")
    what.add_argument("--ecg-unit", choices=("uV", "mV"), help="of recordings that do not state it")
    what.add_argument("--max-mb", type=_at_least_one, default=64, metavar="N", help="largest file (%(default)s)")
    how = parser.add_argument_group("how they are scored")
    how.add_argument("--bundles", type=Path, default=BUNDLES, metavar="DIR", help="folder of the bundles (%(default)s)")
    how.add_argument(
        "--bundle", action="append", type=_pair, default=[], metavar="NAME=VERSION", help="in place of that in service"
    )
    how.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    how.add_argument("--session", default="auto", help="as SANGLOC_SESSION")
    how.add_argument("--workers", type=_at_least_one, default=os.cpu_count() or 1, metavar="N", help="cores, or actors")
    how.add_argument("--ray", nargs="?", const="local", metavar="ADDRESS", help="by Ray, here or in a cluster")
    how.add_argument("--gpus", type=float, default=0.0, metavar="SHARE", help="of a GPU for each actor")
    how.add_argument("--limit", type=_at_least_one, metavar="N", help="score at most so many")
    how.add_argument("--every", type=float, default=60.0, metavar="SECONDS", help="write what was scored (%(default)g)")
    names = parser.add_argument_group("who is named")
    names.add_argument("--key", type=Path, metavar="FILE", help="key of the pseudonyms (DIR/key)")
    names.add_argument("--keep-identifiers", action="store_true", help="write identifiers and places as they are")
    names.add_argument("--language", choices=("vi", "fr", "en"), default="en", help="of failed.csv")
    return parser


if __name__ == "__main__":
    sys.exit(main())
