"""XML recordings: which reader a root element belongs to."""

from __future__ import annotations

import re

from data_specs.ecg.formats import aecg as ecg_aecg
from data_specs.ecg.formats import ge as ecg_ge
from data_specs.ecg.formats import philips as ecg_philips
from data_specs.ecg.formats.xml import parse
from data_specs.ecg.recording import Recording, VoltageUnit
from data_specs.problems import Refused

ROOTS = ("AnnotatedECG", "RestingECG", "CardiologyXML", "restingecgdata")


def read(content: bytes, *, ecg_unit: VoltageUnit | None) -> Recording:
    """HL7 aECG, GE MUSE, GE CardioSoft or Philips XML.

    Raises
    ------
    Refused
        ``unreadable`` (not well-formed, entities), ``unsupported_format`` (another root), and what the readers refuse.
    """
    root = parse(content)
    try:
        match root.tag:
            case "AnnotatedECG":
                return ecg_aecg.read(root, ecg_unit=ecg_unit)
            case "RestingECG":
                return ecg_ge.read_muse(root, ecg_unit=ecg_unit)
            case "CardiologyXML":
                return ecg_ge.read_cardiosoft(root, ecg_unit=ecg_unit)
            case "restingecgdata":
                return ecg_philips.read(root)
    except (ValueError, OverflowError) as error:  # a number that is none, wherever a reader met it
        raise Refused("unreadable", found=f"XML {root.tag}", expected="0-9") from error
    quotable = re.sub(r"[^\w.:-]", "", root.tag)[:32]
    raise Refused("unsupported_format", found=f"XML <{quotable}>", expected=", ".join(ROOTS))
