"""A QIDO-RS query: its parameters are checked, and headers are matched with it.

References
----------
DICOM PS3.18, section 8.3.4 (query parameters), section 10.6 (Search transaction; tables 10.6.1-5 and 10.6.3-3 to -5);
PS3.4, section C.2.2.2 (matching).
"""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from data_specs.dicom.uids import kept_uid, names_something
from service.errors import FieldFault, InvalidRequest, NotFound
from service.faults import BETWEEN, quoted_name, quoted_value

if TYPE_CHECKING:
    from pydicom import Dataset

Level = Literal["study", "series", "instance"]
DAY, TIME = r"\d{8}", r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"
"""DA and TM (PS3.5, table 6.2-1)."""
LIMIT, MAX_LIMIT = 100, 1000
MAX_OFFSET = 1_000_000
MAX_VALUE = 1000

STUDY = (
    "SpecificCharacterSet",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "TimezoneOffsetFromUTC",
    "StudyDescription",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
)
SERIES = (
    "Modality",
    "SeriesDate",
    "SeriesTime",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SeriesNumber",
)
INSTANCE = ("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "InstanceCreationDate", "InstanceCreationTime")
MATCHED = frozenset({*STUDY[1:], *SERIES, *INSTANCE, "ModalitiesInStudy"})
"""Keywords of the attributes that a query may match: all that it returns."""
_UID = re.compile(r"[0-9.]{1,64}")
_TAG = re.compile(r"[0-9A-Fa-f]{8}")


@dataclass(frozen=True, slots=True)
class Query:
    """A checked query.

    Parameters
    ----------
    matching
        Values by keyword; an empty one matches everything.
    """

    level: Level
    matching: dict[str, str] = field(default_factory=dict)
    limit: int = LIMIT
    offset: int = 0
    warnings: tuple[str, ...] = ()


def read_query(level: Level, parameters: Sequence[tuple[str, str]], **path: str | None) -> Query:
    """Check the parameters of a query; ``path`` has the UIDs of its address.

    Raises
    ------
    InvalidRequest
        A parameter is unknown, is repeated, or has a value that its type does not allow.
    NotFound
        A part of the address is not a UID.
    """
    matching: dict[str, str] = {}
    numbers = {"limit": LIMIT, "offset": 0}
    warnings = []
    for name, value in parameters:
        if name in numbers:
            numbers[name] = _number(name, value)
        elif name == "fuzzymatching":
            if value not in ("true", "false"):
                raise InvalidRequest(
                    FieldFault("query.fuzzymatching", "field_invalid", "true | false", quoted_value(value))
                )
            if value == "true":
                warnings.append(
                    "The fuzzymatching parameter is not supported. Only literal matching has been performed."
                )
        elif name != "includefield":  # all known attributes are always returned
            keyword = _keyword(name)
            if keyword in matching:
                raise InvalidRequest(FieldFault(f"query.{keyword}", "field_repeated"))
            matching[keyword] = _value(keyword, value)
    for keyword, uid in path.items():
        if uid is not None:
            matching[keyword] = (named_uid if keyword == "StudyInstanceUID" else known_uid)(uid)
    if numbers["limit"] > MAX_LIMIT:
        warnings.append(
            "The number of results exceeded the maximum supported by the server. Additional results can be requested."
        )
    return Query(level, matching, min(numbers["limit"], MAX_LIMIT), numbers["offset"], tuple(warnings))


def known_uid(text: str) -> str:
    """A UID from an address, of what the service made.

    Raises
    ------
    NotFound
        It is not a UID.
    """
    if not _UID.fullmatch(text):
        raise NotFound
    return text


def named_uid(text: str) -> str:
    """A StudyInstanceUID from an address: the hospital's, which may break the rules of DICOM.

    Raises
    ------
    NotFound
        No such identifier is kept.
    """
    if not names_something(uid := kept_uid(text)):
        raise NotFound
    return uid


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value) <= MAX_OFFSET):
        raise InvalidRequest(FieldFault(f"query.{name}", "field_invalid", f"0 … {MAX_OFFSET}", quoted_value(value)))
    return int(value)


def _keyword(name: str) -> str:
    from pydicom.datadict import keyword_for_tag  # noqa: PLC0415  pydicom is loaded for DICOM only

    keyword = keyword_for_tag(int(name, 16)) if _TAG.fullmatch(name) else name
    if keyword not in MATCHED:
        known = BETWEEN.join(("limit", "offset", "fuzzymatching", "includefield", *sorted(MATCHED)))
        raise InvalidRequest(FieldFault(f"query.{quoted_name(name)}", "field_unknown", known))
    return keyword


def _value(keyword: str, value: str) -> str:
    kind, value = _vr(keyword), value.strip()
    if len(value) > MAX_VALUE or not all(each.isprintable() for each in value):
        raise InvalidRequest(FieldFault(f"query.{keyword}", "field_invalid", f"0 … {MAX_VALUE}"))
    if kind == "DA" and value and not _are_days(value):
        raise InvalidRequest(FieldFault(f"query.{keyword}", "field_invalid", "YYYYMMDD, YYYYMMDD-YYYYMMDD"))
    if kind == "TM" and value and value_range(value, TIME) is None:
        raise InvalidRequest(FieldFault(f"query.{keyword}", "field_invalid", "HHMMSS, HHMMSS-HHMMSS"))
    return value


def _are_days(value: str) -> bool:
    ends = value_range(value, DAY)
    try:
        return ends is not None and all(datetime.strptime(each, "%Y%m%d") for each in ends if each)
    except ValueError:
        return False


def _vr(keyword: str) -> str:
    from pydicom.datadict import dictionary_VR  # noqa: PLC0415

    return dictionary_VR(keyword)


def value_range(value: str, point: str) -> tuple[str, str] | None:
    """Both ends of a range, ``""`` for an open end; a single value is both ends; ``None`` if it is neither."""
    if re.fullmatch(point, value, re.ASCII):
        return value, value
    low, dash, high = value.partition("-")
    ends = [each for each in (low, high) if each]
    return (low, high) if dash and ends and all(re.fullmatch(point, each, re.ASCII) for each in ends) else None


def matches(header: Dataset, keyword: str, wanted: str) -> bool:
    """Match one attribute with one value, by its VR: list of UIDs or codes, range, wildcard or single value.

    References
    ----------
    DICOM PS3.4, sections C.2.2.2.1 to C.2.2.2.5; names match without regard to case (section C.2.2.2.1.1 allows both).
    """
    value = header.get(keyword)
    if not wanted:
        return True
    if value is None or value == "":
        return False
    kind = _vr(keyword)
    values = [str(each) for each in (value if isinstance(value, MutableSequence) else [value])]
    if kind == "UI":
        return not set(listed(wanted)).isdisjoint(values)
    if kind in ("DA", "TM"):
        ends = value_range(wanted, r"[0-9.]+")
        return ends is not None and _within(values[0], *ends)
    if kind == "PN":
        values, wanted = [each.casefold() for each in values], wanted.casefold()
    return any(_any_matches(values, each) for each in (listed(wanted) if kind == "CS" else [wanted]))


def _any_matches(values: Sequence[str], wanted: str) -> bool:
    """Whether one value matches ``wanted``, in which ``*`` is any text and ``?`` any one character."""
    # takes linear time, because the patterns of fnmatch do not backtrack
    pattern = re.compile(fnmatch.translate(unicodedata.normalize("NFC", wanted).replace("[", "[[]")))
    return any(pattern.match(unicodedata.normalize("NFC", each)) for each in values)


def _within(value: str, low: str, high: str) -> bool:
    return (not low or value >= low) and (not high or value <= high or value.startswith(high))


def listed(value: str) -> list[str]:
    """A list of UIDs or codes, separated by commas, or by backslashes as in DICOM files."""
    return [each.strip() for each in re.split(r"[,\\]", value) if each.strip()]
