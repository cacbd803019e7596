"""The bill of materials of the image: complete, described by the page of licences, and without GPL or AGPL."""

from __future__ import annotations

import importlib.util
import json
import re
from importlib.metadata import distribution, files

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.licenses import canonicalize_license_expression
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PAGE = (ROOT / "docs/reference/licences.md").read_text("utf-8")
LGPL = {"psycopg", "psycopg-binary"}
"""Imported as they are, and exchangeable: what the LGPL asks of a work that uses a library."""
COPYLEFT = re.compile(
    r"^(lib(?:crypt|gfortran|gomp|quadmath|keyutils|sndfile|mp3lame|mpg123|readline|gdbm|heif|de265|x264|x265"
    r"|lzo2|gsl|fftw3|iconv|intl|unistring|gmp|avcodec|raw))(?:[-_.][^/]*)?\.so"
)
"""Names of shared libraries under the LGPL or the GPL that packages for pictures, numbers and sound often carry."""


@pytest.fixture(scope="module")
def sbom():
    specification = importlib.util.spec_from_file_location("sbom", ROOT / "deploy/sbom.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bill(sbom):
    return sbom.bill()


def test_the_bill_is_cyclonedx(bill):
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(bill)) is None
    assert validator.validate_str(json.dumps({**bill, "dependencies": [], "components": [{"name": "x"}]})) is not None
    for each in bill["components"]:
        for told in each.get("licenses", ()):
            assert canonicalize_license_expression(told["expression"])
    (ours,) = bill["metadata"]["component"]["licenses"]
    assert (bill["metadata"]["component"]["name"], ours["license"]["id"]) == ("sangloc", "Apache-2.0")


def of_kind(bill, kind):
    return {each["name"]: each["version"] for each in bill["components"] if each["purl"].startswith(f"pkg:{kind}/")}


def test_the_bill_has_each_package_at_its_locked_version_and_no_other(sbom, bill):
    installed = {canonicalize_name(name): version for name, version in of_kind(bill, "pypi").items()}
    assert installed == sbom.locked()
    pins = (line.split("=") for line in (ROOT / "deploy/base.lock").read_text("utf-8").split())
    assert of_kind(bill, "deb") == dict(pins)


def test_the_image_has_what_the_service_imports_with_postgresql_and_s3():
    serving, deploy = (
        set(re.findall(r"^[\w.-]+==[^\s;]+", (ROOT / f"requirements/{name}.lock").read_text("utf-8"), re.MULTILINE))
        for name in ("serve", "deploy")
    )
    assert serving <= deploy
    more = {pin.partition("==")[0] for pin in deploy - serving}
    assert {"psycopg", "psycopg-binary", "s3fs"} <= more
    assert not {"torch", "monai", "ray", "pyarrow"} & more


def test_the_image_is_made_of_nothing_that_is_not_locked():
    """The base is given by the Makefile, which compares its packages with ``deploy/base.lock``."""
    steps = (ROOT / "deploy/Containerfile").read_text("utf-8")
    assert set(re.findall(r"^FROM (\S+)", steps, re.MULTILINE)) == {"${BASE}"}
    (installed,) = re.findall(r"pip install [^&]*", steps)
    assert "--require-hashes -r /tmp/deploy.lock" in installed
    assert not re.search(r"apt-get|curl|wget|ADD ", steps)


def test_the_page_of_licences_is_what_the_bill_says(sbom, bill):
    told = re.findall(r"^\| ([a-z0-9-]+) \| ([^|]+) \| ([^|]*) \|$", PAGE, re.MULTILINE)
    assert [tuple(cell.strip() for cell in row) for row in told if row[0] not in ("package", "---")] == sbom.rows(bill)


def test_nothing_that_serves_is_under_gpl_or_agpl(sbom, bill):
    licences = {name: licence for name, licence, _ in sbom.rows(bill)}
    assert {name for name, licence in licences.items() if "GPL" in licence} == LGPL
    assert {licences[name] for name in LGPL} == {"LGPL-3.0-only"}
    for libraries in (*sbom.CARRIED.values(), *sbom.LINKED.values()):
        assert set(libraries.values()) <= {"LGPL-2.1-or-later", "GPL-3.0-or-later WITH GCC-exception-3.1"}


def test_the_libraries_under_copyleft_are_those_that_the_packages_carry(sbom):
    carried = {}
    for name in sbom.locked():
        found = {match[1] for file in files(name) if (match := COPYLEFT.match(file.name))}
        if found:
            carried[name] = found
    assert carried == {name: set(libraries) for name, libraries in sbom.CARRIED.items()}


def test_the_library_that_lxml_links_is_in_its_module_and_its_licences_say_so(sbom):
    """GNU libiconv names itself by a symbol."""
    etree = next(file for file in files("lxml") if re.match(r"etree\..*so$", file.name))
    assert b"_libiconv_version" in etree.locate().read_bytes()
    (licences,) = (each.read_text("utf-8") for each in files("lxml") if each.name == "LICENSES.txt")
    assert "**iconv**: LGPL 2.1" in licences
    assert sbom.LINKED == {"lxml": {"libiconv": "LGPL-2.1-or-later"}}


def test_each_answer_that_was_looked_up_has_its_file(sbom):
    signs = {"BSD-3-Clause": "Neither the name", "PSF-2.0": "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2"}
    for name, (licence, file) in sbom.BY_FILE.items():
        (text,) = (each.read_text("utf-8") for each in distribution(name).files if each.name == file)
        sign = "Apache License" if "Apache-2.0" in licence else signs[licence]
        assert sign in text, name


def test_what_is_not_known_is_not_guessed(sbom):
    classifier = "License :: OSI Approved :: {}"
    bsd, apache = (classifier.format(each) for each in ("BSD License", "Apache Software License"))
    for said in (
        [],
        [{"license": {"name": "Proprietary, ask us"}}],
        [{"license": {"name": bsd}}],
        [{"license": {"id": "MIT"}}, {"license": {"name": apache}}],
        [{"license": {"id": "MIT"}}, {"expression": "GPL-3.0-only"}],
    ):
        with pytest.raises(ValueError, match="new-package"):
            sbom.licence_of({"name": "new-package", "licenses": said})
    both = [{"license": {"id": "BSD-3-Clause"}}, {"license": {"name": bsd}}]
    assert sbom.licence_of({"name": "new-package", "licenses": both}) == "BSD-3-Clause"
