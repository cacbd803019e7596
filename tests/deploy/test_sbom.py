"""The bill of materials of what serves: complete, described by the page of licences, and without GPL or AGPL."""

from __future__ import annotations

import importlib.util
import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs/reference/licences.md").read_text("utf-8")
LGPL = {"psycopg", "psycopg-binary"}
"""Imported as they are, and exchangeable: what the LGPL asks of a work that uses a library."""


@pytest.fixture(scope="module")
def sbom():
    pytest.importorskip("cyclonedx_py", reason="cyclonedx-bom is not installed: no bill of materials in this run")
    specification = importlib.util.spec_from_file_location("sbom", ROOT / "deploy/sbom.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bill(sbom):
    return sbom.bill()


def test_the_bill_is_cyclonedx(bill):
    validation = pytest.importorskip("cyclonedx.validation.json")
    import json

    from cyclonedx.schema import SchemaVersion

    validator = validation.JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(bill)) is None
    assert validator.validate_str(json.dumps({**bill, "components": [{"name": "x"}]})) is not None


def test_the_bill_has_each_package_that_is_locked_for_this_machine(sbom, bill):
    text = sbom.LOCK.read_text("utf-8")
    from packaging.requirements import Requirement

    wanted = {}
    for line in re.findall(r"^[\w.-]+==[^\\\n]*", text, re.MULTILINE):
        requirement = Requirement(line.strip())
        if requirement.marker is None or requirement.marker.evaluate():
            wanted[sbom.name_of(requirement.name)] = str(requirement.specifier).removeprefix("==")
    assert {sbom.name_of(each["name"]): each["version"] for each in bill["components"]} == wanted


def test_the_page_of_licences_is_what_the_bill_says(sbom, bill):
    told = re.findall(r"^\| ([a-z0-9-]+) \| ([^|]+) \| ([^|]*) \|$", PAGE, re.MULTILINE)
    assert [tuple(cell.strip() for cell in row) for row in told] == sbom.rows(bill)


def test_nothing_that_serves_is_under_gpl_or_agpl(sbom, bill):
    licences = {name: licence for name, licence, _ in sbom.rows(bill)}
    assert {name for name, licence in licences.items() if "GPL" in licence} == LGPL
    assert {licences[name] for name in LGPL} == {"LGPL-3.0-only"}
    for name, _, carried in sbom.rows(bill):
        for licence in re.findall(r": ([^;]+)", carried):
            assert licence in ("LGPL-2.1-or-later", "GPL-3.0-or-later WITH GCC-exception-3.1"), name


def test_what_is_not_known_is_not_guessed(sbom):
    for said in (
        [],
        [{"license": {"name": "Proprietary, ask us"}}],
        [{"license": {"id": "MIT"}}, {"expression": "GPL-3.0-only"}],
    ):
        with pytest.raises(ValueError, match="new-package"):
            sbom.licence_of({"name": "new-package", "licenses": said})


def test_the_image_has_what_the_service_imports():
    """The lock of the image is that of serving with the extras for PostgreSQL and S3."""
    serving, image = ((ROOT / f"requirements/{name}.lock").read_text("utf-8") for name in ("serve", "image"))
    pins = re.compile(r"^[\w.-]+==[^\s;]+", re.MULTILINE)
    assert set(pins.findall(serving)) <= set(pins.findall(image))
    assert {"psycopg", "s3fs"} <= {pin.partition("==")[0] for pin in pins.findall(image)}
    assert "torch" not in {pin.partition("==")[0] for pin in pins.findall(image)}
