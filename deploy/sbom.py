"""``make sbom``: the bill of materials of the image, as CycloneDX, and a table of licences.

The Python packages are those of ``requirements/deploy.lock``, as they are installed here and described by
``cyclonedx-py``; the Debian packages are those of ``deploy/base.lock``.

References
----------
CycloneDX 1.6 (ECMA-424), JSON: https://cyclonedx.org/docs/1.6/json/
SPDX 2.3, annex D: licence expressions
Package URL: types ``pypi`` and ``deb``
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "deploy.lock"
BASE_LOCK = ROOT / "deploy" / "base.lock"
OUT = ROOT / "var" / "sbom.cdx.json"
CLASSES = {
    "License :: OSI Approved :: Apache Software License": {"Apache-2.0"},
    "License :: OSI Approved :: BSD License": {"BSD-2-Clause", "BSD-3-Clause"},
    "License :: OSI Approved :: MIT License": {"MIT"},
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": {"MPL-2.0"},
}
"""Which licences of SPDX a classifier of a package may mean."""
BY_FILE = {
    "aiohappyeyeballs": ("PSF-2.0", "LICENSE"),
    "defusedxml": ("PSF-2.0", "LICENSE"),
    "jinja2": ("BSD-3-Clause", "LICENSE.txt"),
    "protobuf": ("BSD-3-Clause", "LICENSE"),
    "python-dateutil": ("Apache-2.0 OR BSD-3-Clause", "LICENSE"),
    "reportlab": ("BSD-3-Clause", "LICENSE"),
    "s3fs": ("BSD-3-Clause", "LICENSE.txt"),
    "scipy": ("BSD-3-Clause", "LICENSE.txt"),
    "soundfile": ("BSD-3-Clause", "LICENSE"),
    "uvloop": ("MIT OR Apache-2.0", "LICENSE-APACHE"),
}
"""Packages whose fields name no licence, several, or a class of them: what their licence file says, and its name."""
GCC = "GPL-3.0-or-later WITH GCC-exception-3.1"
LGPL = "LGPL-2.1-or-later"
CARRIED = {
    "imagecodecs": {"libgomp": GCC},
    "numpy": {"libgfortran": GCC, "libquadmath": LGPL},
    "psycopg-binary": {"libcrypt": LGPL, "libkeyutils": LGPL},
    "scipy": {"libgfortran": GCC, "libquadmath": LGPL},
    "soundfile": {"libsndfile": LGPL},
}
"""Libraries under copyleft that packages carry, each as a shared library of its own, which may be exchanged."""
LINKED = {"lxml": {"libiconv": LGPL}}
"""Libraries under copyleft that are part of a package's own modules: exchanged by building that package again."""


def locked() -> dict[NormalizedName, str]:
    """Names and versions in the lock, of those that this platform needs."""
    lines = re.findall(r"^[\w.-]+==[^\\\n]*", LOCK.read_text("utf-8"), re.MULTILINE)
    needed = [each for each in map(Requirement, lines) if each.marker is None or each.marker.evaluate()]
    return {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in needed}


def bill() -> dict[str, Any]:
    """The bill: each package with its licence, as an expression, and the libraries under copyleft that it carries.

    Raises
    ------
    KeyError
        A package of the lock is not installed here.
    ValueError
        The licence of a package is not known.
    """
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--spec-version", "1.6", "--output-reproducible"]
    # what is written is not yet the bill, so that there is no need to validate it
    about = ["--no-validate", "--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "application"]
    done = subprocess.run([*command, *about, sys.executable], capture_output=True, text=True, check=True)
    made: dict[str, Any] = json.loads(done.stdout)
    packages = {canonicalize_name(each["name"]): each for each in made["components"]}
    made["components"] = [packages[name] for name in sorted(locked())]
    kept = {made["metadata"]["component"]["bom-ref"], *(each["bom-ref"] for each in made["components"])}
    made["dependencies"] = [
        {**each, "dependsOn": [ref for ref in each.get("dependsOn", ()) if ref in kept]}
        for each in made["dependencies"]
        if each["ref"] in kept
    ]
    for each in made["components"]:
        name = canonicalize_name(each["name"])
        known = "concluded" if name in BY_FILE else "declared"
        each["licenses"] = [{"expression": licence_of(each), "acknowledgement": known}]
        if held := {**CARRIED.get(name, {}), **LINKED.get(name, {})}:
            each["components"] = [_library(*item) for item in held.items()]
    made["components"] += map(_of_debian, BASE_LOCK.read_text("utf-8").split())
    return made


def licence_of(component: dict[str, Any]) -> str:
    """The licence of a component as an expression of SPDX: the one that all of its fields may mean.

    Raises
    ------
    ValueError
        There is no such licence, or more than one: look into its licence file, and add it to :data:`BY_FILE`.
    """
    name = canonicalize_name(component["name"])
    if name in BY_FILE:
        return BY_FILE[name][0]
    meant = [_meant(each) for each in component.get("licenses", ())]
    common = set.intersection(*meant) if meant else set()
    if len(common) != 1:
        raise ValueError(f"{name}: its fields name no licence, or no one licence: {component.get('licenses')}")
    return common.pop()


def _meant(entry: dict[str, Any]) -> set[str]:
    licence = entry.get("license", {})
    said = entry.get("expression") or licence.get("id")
    return {said} if said else CLASSES.get(licence.get("name"), set())


def _library(name: str, licence: str) -> dict[str, Any]:
    return {"type": "library", "name": name, "licenses": [{"expression": licence}]}


def _of_debian(pin: str) -> dict[str, Any]:
    name, version = pin.split("=")
    address = PackageURL("deb", "debian", name, version, {"distro": "bookworm"}).to_string()
    return {"type": "library", "bom-ref": address, "name": name, "version": version, "purl": address}


def rows(made: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Each Python package of the bill, its licence, and what it carries under copyleft."""
    return [
        (
            canonicalize_name(each["name"]),
            each["licenses"][0]["expression"],
            "; ".join(f"{of['name']}: {of['licenses'][0]['expression']}" for of in each.get("components", ())),
        )
        for each in made["components"]
        if each["purl"].startswith("pkg:pypi/")
    ]


def main() -> None:
    """Write the bill, and print the table."""
    made = bill()
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", "utf-8")
    for row in rows(made):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
