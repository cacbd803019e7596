"""``python -m training measure``: tables of an organ beyond the evaluation, in a new version with the same weights.

Which tables: ``MEASUREMENTS`` of the organ. A bundle that has some already gets all of them anew.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from data_specs.bundle import MeasuredTable
from inference.bundles.loading import Bundle, BundleError, load_bundle
from training.bundle.derive import ancestor, write_derived


def add_tables(
    bundle: Bundle, folder: Path, tables: Sequence[MeasuredTable], *, out: Path, version: str, change: str = ""
) -> Path:
    """Write ``NAME-VERSION/`` under ``out``: the bundle in ``folder`` with these tables in its manifest and card.

    Parameters
    ----------
    change
        What has changed, for the changelog; left out, that these were measured.

    Raises
    ------
    FileExistsError
        This version exists; a bundle is never replaced.
    """
    manifest = bundle.manifest
    target = out / f"{manifest.name}-{version}"
    if target.exists():
        raise FileExistsError(f"{target.name} exists; a bundle is never replaced")
    titles = [table.title for table in tables]
    kept = [table for table in manifest.measured if table.title not in titles]
    new = manifest.model_copy(
        update={
            "version": version,
            "measured": (*kept, *tables),
            "from_bundle": (*manifest.from_bundle, ancestor(folder, manifest)),
        }
    )
    write_derived(folder, new, target, change=change or f"measured: {', '.join(titles)}; same weights")
    return target


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training measure",
        description="Measure a bundle beyond its evaluation, and write a new version with the tables in its card.",
    )
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the shipped cohorts' folder")
    parser.add_argument("--out", type=Path, default=Path("models/bundles"), help="where the new version is written")
    parser.add_argument("--version", required=True, help="of the new bundle, for example 1.2.0")
    arguments = parser.parse_args(argv)
    try:
        bundle = load_bundle(arguments.bundle)
        organ = importlib.import_module(f"training.organs.{bundle.manifest.name}")
        measurements = getattr(organ, "MEASUREMENTS", ())
        if not measurements:
            raise ValueError(f"{bundle.manifest.name}: nothing is measured beyond the evaluation")
        tables = [measure(bundle, arguments.data) for measure in measurements]
        folder = add_tables(bundle, arguments.bundle, tables, out=arguments.out, version=arguments.version)
    except (ValueError, ImportError, BundleError, FileExistsError, FileNotFoundError) as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 2
    print(f"written: {folder}")
    return 0
