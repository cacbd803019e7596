"""``python -m models catalog`` and ``fetch``: from a network that others trained to a candidate bundle.

``fetch`` brings the file here and hands it to ``python -m training import`` in a process of its own: conversion,
parity, export and precisions are made there, and the bundle lands uncalibrated, under a version of 0.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from math import isnan
from pathlib import Path
from typing import Any

from inference.bundles.deciding import NotDone
from models.catalog import CATALOG, Source, describe, read_catalog, size_of
from models.fetch import CannotFetch, Limits, fetch

DOWNLOADS = Path("var/weights")
Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def add_commands(command: Callable[[str, object, str], argparse.ArgumentParser], table: Table) -> None:
    """Add ``catalog`` and ``fetch`` to ``python -m models``, whose tables are made by ``table``."""
    listing = command("catalog", lambda given: _list(given, table), "networks that others trained")
    listing.add_argument("name", nargs="?", help="the whole entry of one of them")
    fetching = command("fetch", _fetch, "bring one of the catalog here, as an uncalibrated candidate")
    fetching.add_argument("name")
    for added in (listing, fetching):
        added.add_argument("--catalog", type=Path, default=CATALOG, help="another catalog")
    fetching.add_argument("--from", dest="origin", metavar="PATH|URL", help="a file at hand, or a mirror")
    fetching.add_argument("--out", type=Path, help="folder of bundles (default: --bundles)")
    fetching.add_argument("--version", help="MAJOR.MINOR.PATCH (default: the next free 0.MINOR.0)")
    fetching.add_argument("--downloads", type=Path, default=DOWNLOADS, help="where the files are kept, with their lock")
    fetching.add_argument("--sha256", help="digest that the file has to have")
    fetching.add_argument("--minutes", type=float, default=60.0, help="how long the download may take")
    fetching.add_argument("--cases", type=Path, help="folder of real films or recordings, to compare on")
    fetching.add_argument(
        "--parity-python", type=Path, help="interpreter of an environment with the source's own class"
    )
    fetching.add_argument(
        "--terms-read", action="store_true", help="the terms that stand against its use have been read"
    )


def _list(given: argparse.Namespace, table: Table) -> None:
    catalog = read_catalog(given.catalog)
    if given.name:
        print(describe(_named(catalog, given.name)))
        return
    rows = [
        (s.name, s.bundle, s.takes, size_of(s), _short(s.licence), "yes" if s.forbids else "", s.state)
        for s in catalog.values()
    ]
    print(table(("name", "for", "takes", "size", "licence", "restricted", "can be had"), rows))
    print("\npython -m models catalog NAME shows an entry with its terms; python -m models fetch NAME brings it here.")


def _short(text: str, most: int = 40) -> str:
    first = re.split(r"[.;,:(] ?(?=\s|$)|\s\(", text)[0]
    return first if len(first) <= most else first[: most - 1] + "…"


def _named(catalog: dict[str, Source], name: str) -> Source:
    if name not in catalog:
        raise NotDone(f"{name} is not in the catalog; there are: {', '.join(catalog)}")
    return catalog[name]


def _fetch(given: argparse.Namespace) -> None:
    source = _named(read_catalog(given.catalog), given.name)
    if source.cannot:
        raise NotDone(f"{source.name} cannot be imported: {source.cannot}")
    print(f"{source.title}\nlicence: {source.licence}")
    if source.forbids:
        print(f"AGAINST ITS USE: {source.forbids}")
        if not given.terms_read:
            raise NotDone("nothing was fetched: read the terms above, and say so with --terms-read")
    sys.stdout.flush()
    try:
        limits = Limits(60 * given.minutes, given.sha256)
        weights, said = fetch(source, given.downloads, origin=given.origin, limits=limits)
    except CannotFetch as refusal:
        raise NotDone(str(refusal)) from None
    except KeyboardInterrupt:
        raise NotDone("stopped; what was received is kept, and the same command goes on from there") from None
    print(said, flush=True)
    spec = given.downloads / f"{source.name}.spec.json"
    spec.write_text(json.dumps(_spec_of(source)))
    bundles = given.out or given.bundles
    version = given.version or next_version(bundles, source.bundle)
    command = [sys.executable, "-m", "training", "import", weights, "--spec", spec, "--out", bundles]
    command += ["--name", source.bundle, "--version", version, "--licence", source.licence]
    command += ["--cases", given.cases] if given.cases else []
    command += ["--parity-python", given.parity_python] if given.parity_python else []
    if subprocess.run(list(map(str, command)), check=False).returncode:
        raise NotDone(f"{source.name} was fetched to {weights} and could not be imported; the reason is above")
    made = f"{bundles}/{source.bundle}-{version}"
    print(
        f"written: {made}, an uncalibrated candidate. Go on with\n  python -m training recalibrate --bundle {made} "
        f"--cohort cohort.yaml --out {bundles} --version MAJOR.MINOR.PATCH\n  python -m models promote {source.bundle} "
        "MAJOR.MINOR.PATCH --who NAME --why REASON"
    )


def _spec_of(source: Source) -> dict[str, Any]:
    """The YAML of the import; TOML has no word for 'none' but a number that is none."""
    spec = {"trained_on": source.trained_on, "citation": source.citation, **source.spec}
    if "op_threshs" in spec:
        spec["op_threshs"] = [None if isnan(threshold) else threshold for threshold in spec["op_threshs"]]
    return spec


def next_version(bundles: Path, name: str) -> str:
    """The next free version below 1.0.0: candidates never come into service by being the highest."""
    taken = [int(m[1]) for p in bundles.glob(f"{name}-0.*") if (m := re.fullmatch(rf"{name}-0\.(\d+)\.\d+", p.name))]
    return f"0.{max(taken, default=0) + 1}.0"
