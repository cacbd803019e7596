"""The bundles of one run, which stay the same to its end, whatever is promoted meanwhile."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from inference.bundles.loading import NAMES, BundleError
from inference.bundles.registry import LOG, read_registry


def chosen(folder: Path, asked: Mapping[str, str]) -> dict[str, str]:
    """The version of each bundle: the one asked for, else the one in service.

    Raises
    ------
    BundleError
        It is not there, or nothing here serves a bundle of that name.
    """
    registry = read_registry(folder)
    if unknown := asked.keys() - set(NAMES):
        raise BundleError(f"{min(unknown)}: nothing here serves it; known: {', '.join(NAMES)}")
    versions = {name: asked.get(name) or registry.in_service(name) or "" for name in NAMES}
    for name, version in versions.items():
        if version not in registry.versions.get(name, ()):
            have = ", ".join(registry.versions.get(name, ())) or "none"
            raise BundleError(f"{folder}: no {name} {version}; there are: {have}")
    return versions


@contextmanager
def only(folder: Path, versions: Mapping[str, str]) -> Iterator[Path]:
    """A folder of links to these versions alone, with what the sites accepted of them."""
    registry = read_registry(folder)
    with tempfile.TemporaryDirectory(prefix="sangloc-bundles-") as made:
        for name, version in versions.items():
            Path(made, f"{name}-{version}").symlink_to(registry.folder_of(name, version).resolve())
        accepted = [entry for entry in registry.entries if entry.action == "accept"]
        lines = "".join(f"{entry.model_dump_json(by_alias=True)}\n" for entry in accepted)
        Path(made, LOG).write_text(lines, encoding="utf-8")
        yield Path(made)
