"""Bundles read from disk and checked against their hashes and golden cases."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import ValidationError

from data_specs.bundle import BundleManifest, CxrInput, EcgInput, TabularInput
from data_specs.visit.contract import ModelUsed
from data_specs.vocabulary import terms
from inference.bundles.registry import Registry, read_registry
from inference.runtime.choice import ChosenSession, Disagrees, choose
from inference.runtime.session import ONE_THREAD, Array, DeviceError, Machine, Session

InputT = TypeVar("InputT", CxrInput, EcgInput, TabularInput)

NEEDED: dict[str, tuple[str, int]] = {
    "cxr_gate": ("cxr", 3),
    "lung": ("cxr", 1),
    "cardiac": ("ecg", 2),
    "kidney": ("labs", 1),
}
"""The bundles that the engine needs: the modality that each takes, and how many outputs are read from it."""
NAMES = tuple(NEEDED)


class BundleError(RuntimeError):
    """A bundle is missing, damaged or misses its golden cases; the service must not start with it."""


@dataclass(frozen=True)
class Bundle:
    manifest: BundleManifest
    folder: Path
    chosen: ChosenSession
    card: str

    @property
    def session(self) -> Session:
        return self.chosen.session

    def named(self, outputs: Sequence[Array]) -> dict[str, Array]:
        """What a run gave, by the names in the manifest."""
        return dict(zip(self.manifest.outputs, outputs, strict=True))

    def input_as(self, kind: type[InputT]) -> InputT:
        """The input contract, which must be of ``kind``.

        Raises
        ------
        BundleError
            The bundle takes another kind of input.
        """
        if not isinstance(self.manifest.input, kind):
            raise BundleError(f"{self.folder.name}: input is '{self.manifest.input.modality}'")
        return self.manifest.input

    @property
    def used(self) -> ModelUsed:
        m = self.manifest
        return ModelUsed(name=m.name, version=m.version, sha256=m.weights.sha256)


def load_bundles(folder: Path, machine: Machine) -> dict[str, Bundle]:
    """Every needed bundle under ``folder`` in the version that is in service, verified.

    Raises
    ------
    BundleError
        One is missing or fails a check; the message says which and why.
    """
    registry = read_registry(folder)
    return {name: load_in_service(registry, name, machine) for name in NAMES}


def load_in_service(registry: Registry, name: str, machine: Machine) -> Bundle:
    """The version of ``name`` that the registry says is in service, verified."""
    version = registry.in_service(name)
    if version is None:
        raise BundleError(f"{registry.folder}: expected a bundle '{name}', found none")
    return load_version(registry.folder, name, version, machine)


def load_version(folder: Path, name: str, version: str, machine: Machine = ONE_THREAD) -> Bundle:
    """One version, verified, and fit for the pipeline that reads it.

    Raises
    ------
    BundleError
        It is not there, fails a check, or takes or gives something else than the engine needs under this name.
    """
    bundle = load_bundle(folder / f"{name}-{version}", machine)
    m = bundle.manifest
    if name not in NEEDED:
        raise BundleError(f"{name}: nothing here serves it; known: {', '.join(NAMES)}")
    modality, n_outputs = NEEDED[name]
    if (m.name, m.version) != (name, version):
        raise BundleError(f"{name}-{version}: the manifest in it is that of {m.name} {m.version}")
    if (m.input.modality, min(len(m.outputs), n_outputs)) != (modality, n_outputs):
        raise BundleError(f"{name}-{version}: takes {m.input.modality}, gives {len(m.outputs)} outputs")
    if unknown := sorted({f.name for f in m.findings if m.organ is not None} - terms().keys()):
        raise BundleError(f"{name}-{version}: findings without a term: {', '.join(unknown)}")
    return bundle


@dataclass(frozen=True)
class BundleFiles:
    """What a bundle's folder holds, compared with the hashes in its manifest.

    Parameters
    ----------
    golden
        ``input`` and the outputs that belong to it.
    """

    manifest: BundleManifest
    card: str
    model: Path
    golden: dict[str, Array]


def read_bundle(folder: Path) -> BundleFiles:
    """Read one bundle and compare its hashes.

    Raises
    ------
    BundleError
        It is not there or fails a check.
    """
    try:
        manifest = BundleManifest.model_validate_json((folder / "screening.json").read_bytes())
    except (OSError, ValidationError) as error:
        raise BundleError(f"{folder.name}: screening.json cannot be used: {error}") from error
    unknown = [finding.name for finding in manifest.findings if manifest.organ and finding.name not in terms()]
    if unknown:
        raise BundleError(f"{folder.name}: not in the vocabulary: {', '.join(unknown)}")
    try:
        card = (folder / "docs" / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder.name}: docs/README.md cannot be read") from error
    model, golden = folder / manifest.weights.path, folder / manifest.golden.path
    for path, expected in ((model, manifest.weights.sha256), (golden, manifest.golden.sha256)):
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise BundleError(f"{folder.name}: {path.name} is not the file that the manifest names")
    try:
        with np.load(golden, allow_pickle=False) as arrays:
            cases = {name: arrays[name] for name in ("input", *manifest.outputs)}
    except Exception as error:  # numpy raises many types
        raise BundleError(f"{folder.name}: {golden.name} cannot be read: {type(error).__name__}") from error
    return BundleFiles(manifest, card, model, cases)


def load_bundle(folder: Path, machine: Machine = ONE_THREAD) -> Bundle:
    """Read one bundle, compare its hashes, open its session and run its golden cases.

    Raises
    ------
    BundleError
        It is not there or fails a check.
    DeviceError
        The device or the runtime that ``machine`` asks for is not there.
    """
    files = read_bundle(folder)
    try:
        chosen = choose(files.model, files.manifest, files.golden, machine)
    except DeviceError:
        raise
    except Disagrees as error:
        raise BundleError(f"{folder.name}: {error}") from error
    except Exception as error:  # runtimes raise many types where a graph is wrong
        raise BundleError(f"{folder.name}: cannot be run: {type(error).__name__}") from error
    return Bundle(files.manifest, folder, chosen, files.card)
