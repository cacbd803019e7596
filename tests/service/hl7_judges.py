"""Judges of HL7 v2 messages that are not our own code: the hl7 library reads them, hl7apy validates them."""

from __future__ import annotations

import pytest

hl7_library = pytest.importorskip("hl7", reason="the hl7 library is not installed: no other code reads the messages")
hl7apy_parser = pytest.importorskip("hl7apy.parser", reason="hl7apy is not installed: no structure is validated")


def validated(message, level=None):
    """The message as hl7apy parses it; its structure, fields and data types are valid."""
    from hl7apy.consts import VALIDATION_LEVEL

    level = VALIDATION_LEVEL.TOLERANT if level is None else level
    parsed = hl7apy_parser.parse_message(message.decode(), validation_level=level, find_groups=True)
    assert parsed.validate()
    return parsed
