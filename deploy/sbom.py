"""``make sbom``: the bill of materials of what serves, as CycloneDX, and a table of its licences.

The packages are those of ``requirements/image.lock`` that are installed here; ``cyclonedx-py`` describes them.

References
----------
CycloneDX 1.6 (ECMA-424), JSON: https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "image.lock"
OUT = ROOT / "var" / "sbom.cdx.json"
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "Dual License": "Apache-2.0 OR BSD-3-Clause",
    "MIT License": "MIT",
    "OSI Approved :: Apache Software License": "Apache-2.0",
    "PSFL": "PSF-2.0",
}
"""What packages say of their licence in other words than SPDX's, and the expression their licence files bear out."""
BY_FILE = {
    "aiohappyeyeballs": "PSF-2.0",
    "jinja2": "BSD-3-Clause",
    "pydicom": "MIT",
    "pynetdicom": "MIT",
    "reportlab": "BSD-3-Clause",
    "scipy": "BSD-3-Clause",
}
"""Licences by the licence file, of packages whose fields name none, or only a class of licences."""
CARRIED = {
    "imagecodecs": "libgomp: GPL-3.0-or-later WITH GCC-exception-3.1",
    "numpy": "libgfortran: GPL-3.0-or-later WITH GCC-exception-3.1; libquadmath: LGPL-2.1-or-later",
    "psycopg-binary": "libkeyutils, libcrypt: LGPL-2.1-or-later",
    "scipy": "libgfortran: GPL-3.0-or-later WITH GCC-exception-3.1; libquadmath: LGPL-2.1-or-later",
    "soundfile": "libsndfile: LGPL-2.1-or-later",
}
"""Libraries under copyleft that wheels carry, each as a shared library of its own, which may be exchanged."""


def name_of(written: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", written).lower()


def locked() -> set[str]:
    """Names in the lock, those for other platforms among them."""
    return {name_of(name) for name in re.findall(r"^([\w.-]+)==", LOCK.read_text("utf-8"), re.MULTILINE)}


def bill() -> dict[str, Any]:
    """The bill: what is installed here and stands in the lock, without what else this environment has."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--spec-version", "1.6", "--output-reproducible"]
    done = subprocess.run([*command, sys.executable], capture_output=True, text=True, check=True)
    made: dict[str, Any] = json.loads(done.stdout)
    names = locked()
    made["components"] = [each for each in made["components"] if name_of(each["name"]) in names]
    kept = {each["bom-ref"] for each in made["components"]}
    made["dependencies"] = [
        {**each, "dependsOn": [ref for ref in each.get("dependsOn", ()) if ref in kept]}
        for each in made["dependencies"]
        if each["ref"] in kept
    ]
    return made


def licence_of(component: dict[str, Any]) -> str:
    """The licence of a component as an expression of SPDX.

    Raises
    ------
    ValueError
        Its fields name a licence in words that :data:`SPDX` does not have: look into its licence file.
    """
    name = name_of(component["name"])
    if name in BY_FILE:
        return BY_FILE[name]
    said = [_said(each) for each in component.get("licenses", ())]
    known = {SPDX.get(each, each) for each in said}
    if len(known) != 1 or not re.fullmatch(r"[\w.+-]+(?: (?:AND|OR|WITH) [\w.+-]+)*", expression := known.pop()):
        raise ValueError(f"{component['name']}: {said} is no licence that is known here")
    return expression


def _said(entry: dict[str, Any]) -> str:
    licence = entry.get("license", {})
    return str(entry.get("expression") or licence.get("id") or licence.get("name"))


def rows(made: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Package, licence, and what it carries under copyleft."""
    found = {name_of(each["name"]): licence_of(each) for each in made["components"]}
    return [(name, found[name], CARRIED.get(name, "")) for name in sorted(found)]


def main() -> None:
    """Write the bill, and print the table."""
    made = bill()
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", "utf-8")
    for row in rows(made):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
