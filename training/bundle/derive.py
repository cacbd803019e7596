"""A new version of a bundle with the same weights and another manifest. Nothing here needs torch."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from data_specs.bundle import Ancestor, BundleManifest
from inference.bundles.loading import load_bundle
from training.bundle.card import card


def write_derived(
    parent: Path, manifest: BundleManifest, target: Path, *, change: str, draw: Callable[[Path], None] | None = None
) -> None:
    """Copy the bundle in ``parent``, write ``manifest`` and a new card, verify the bundle, and move it to ``target``.

    Parameters
    ----------
    change
        What has changed, for the changelog.
    draw
        Draws new plots into the given folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as partial:
        folder = Path(partial) / target.name
        shutil.copytree(parent, folder)
        docs, metadata_file = folder / "docs", folder / "configs" / "metadata.json"
        if draw is not None:
            draw(docs)
        metadata = json.loads(metadata_file.read_text())
        metadata["version"] = manifest.version
        metadata["changelog"] = {**metadata.get("changelog", {}), manifest.version: change}
        metadata_file.write_text(json.dumps(metadata, indent=1) + "\n")
        (folder / "screening.json").write_text(manifest.model_dump_json(indent=1) + "\n")
        (docs / "README.md").write_text(card(manifest, parity_difference=None, docs=docs))
        load_bundle(folder)
        folder.rename(target)


def ancestor(folder: Path, manifest: BundleManifest) -> Ancestor:
    """The bundle in ``folder``, for the chain of bundles that a new one was made from."""
    return Ancestor(
        name=manifest.name,
        version=manifest.version,
        sha256=hashlib.sha256((folder / "screening.json").read_bytes()).hexdigest(),
        weights_sha256=manifest.weights.sha256,
    )
