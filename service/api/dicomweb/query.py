"""QIDO-RS: search for the objects that the service makes, by their headers.

The header is made as for the object itself (:func:`service.report.dicom.identity.new_dataset`). A study or series
matches if one of its objects does. Only finished visits that the key may see are searched, and none that its reader has
to read without the findings.

References
----------
DICOM PS3.18, section 10.6 (Search transaction; tables 10.6.3-3 to -5), annex F (DICOM JSON).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, true
from sqlalchemy.orm import Session

from data_specs.dicom.reference import DicomReference
from data_specs.dicom.uids import is_uid, names_something
from data_specs.visit.report import Report
from data_specs.vocabulary import LANGUAGES, Language
from service.api.dicomweb.matching import DAY, INSTANCE, SERIES, STUDY, Query, listed, matches, named_uid, value_range
from service.errors import NotFound
from service.keys import Key
from service.report.issue import issue
from service.state import Service
from service.storage.tables import InputRow, VisitRow
from service.visits.stored import seen_by, visible

if TYPE_CHECKING:
    from pydicom import Dataset

    from service.report.dicom.identity import MadeInstance

PAGE_STUDIES = 50
MAX_STUDIES = 500
"""Studies that one query searches, newest first; a warning says if there are more."""
MAX_MALFORMED = 20
"""Identifiers of one query that are looked for in the headers of all visits that the key may see."""
LAST_DAY = "99991231"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one visit's report, and its objects in one language."""

    report: Report
    language: Language
    instances: Sequence[MadeInstance]


# ---------------------------------------------------------------------- studies
async def made_studies(
    service: Service, key: Key, matching: dict[str, str], languages: Sequence[Language]
) -> AsyncIterator[list[Version]]:
    """Studies with their report versions, the study with the latest visit first, the newest version first in each.

    Parameters
    ----------
    matching
        Limits the visits that are read; the caller still has to match each object.
    """
    place = 0
    studies = _finished(select(VisitRow.study_uid), key).where(*_narrowing(matching)).group_by(VisitRow.study_uid)
    studies = studies.order_by(func.max(VisitRow.received_at).desc(), VisitRow.study_uid)
    while True:
        uids, rows = await service.database.read(partial(_page, key, studies.limit(PAGE_STUDIES).offset(place)))
        for uid in uids:
            own = [row for row in rows if row.study_uid == uid and not row.blind]
            yield [version for row in own for version in await _versions(service, row, languages)]
        if len(uids) < PAGE_STUDIES:
            return
        place += PAGE_STUDIES


def _page(key: Key, studies: Select[Any], session: Session) -> tuple[Sequence[str], Sequence[VisitRow]]:
    """Some studies with all their visits, also visits that the query's person or order does not match."""
    uids = session.scalars(studies).all()
    visits = _finished(select(VisitRow), key).where(VisitRow.study_uid.in_(uids))
    return uids, seen_by(session, key, visits.order_by(VisitRow.received_at.desc(), VisitRow.id))


async def _versions(service: Service, row: VisitRow, languages: Sequence[Language]) -> list[Version]:
    from service.report.dicom.identity import instances  # noqa: PLC0415

    reports = [await issue(service, row.id, version) for version in range(row.version, 0, -1)]
    return [Version(report, language, instances(report, language)) for report in reports for language in languages]


async def find_made(
    service: Service, key: Key, language: Language, study: str, series: str | None = None, instance: str | None = None
) -> list[tuple[Version, MadeInstance]]:
    """The objects at an address: of a study those in ``language``; a series or instance has a language of its own.

    Raises
    ------
    NotFound
        There is none that ``key`` may see.
    """
    languages = LANGUAGES if series else (language,)
    found = []
    wanted = await _with_made(service, key, {"StudyInstanceUID": named_uid(study)})
    async for versions in made_studies(service, key, wanted, languages):
        for version in versions:
            found += [
                (version, made)
                for made in version.instances
                if series in (None, made.series_instance_uid) and instance in (None, made.sop_instance_uid)
            ]
    if not found:
        raise NotFound
    return found


async def _with_made(service: Service, key: Key, matching: dict[str, str]) -> dict[str, str]:
    """The matching, with the studies that were made in place of those that no DICOM object may name.

    A hospital asks for its study by the identifier that it has for it.
    """
    asked = listed(matching.get("StudyInstanceUID", ""))
    malformed = [uid for uid in asked if names_something(uid) and not is_uid(uid)][:MAX_MALFORMED]
    if not malformed:
        return matching
    written = (f'"StudyInstanceUID":{json.dumps(uid, ensure_ascii=False)}' for uid in malformed)
    of_study = VisitRow.inputs.any(or_(*(InputRow.dicom.contains(each, autoescape=True) for each in written)))

    def find(session: Session) -> list[str | None]:
        visits = session.scalars(_finished(select(VisitRow), key).where(of_study)).all()
        return [visit.study_uid for visit in visits if any(is_of_them(each.dicom) for each in visit.inputs)]

    def is_of_them(dicom: str | None) -> bool:  # SQLite compares without case
        return dicom is not None and DicomReference.model_validate_json(dicom).StudyInstanceUID in malformed

    made = [uid for uid in await service.database.read(find) if uid]
    return {**matching, "StudyInstanceUID": ",".join((*asked, *made))}


def _finished(query: Select[Any], key: Key) -> Select[Any]:
    return visible(query, key).where(VisitRow.status == "complete", VisitRow.study_uid.is_not(None))


def _narrowing(matching: dict[str, str]) -> list[ColumnElement[bool]]:
    """The part of the matching that the database can do; it leaves out only visits that cannot match."""
    clauses: list[ColumnElement[bool]] = []
    if uids := listed(matching.get("StudyInstanceUID", "")):
        clauses.append(VisitRow.study_uid.in_(uids))
    for keyword, column in (("AccessionNumber", VisitRow.accession_number), ("PatientID", VisitRow.person_id)):
        value = matching.get(keyword, "")
        if value.isascii() and value and not set(value) & set("*?"):
            clauses.append(or_(column.contains(value, autoescape=True), _header_has(value)))
    if (date := matching.get("StudyDate", "")) and (ends := value_range(date, DAY)):
        clauses.append(_on_days(*ends))
    return clauses


def _on_days(low: str, high: str) -> ColumnElement[bool]:
    """Visits whose StudyDate may be in a range; the date is the header's, else the visit's, else the day of receipt."""
    prefix = os.path.commonprefix([low, high])  # noqa: RUF071  digits, not paths
    visited = "-".join(part for part in (prefix[:4], prefix[4:6], prefix[6:]) if part)
    came = [VisitRow.received_at >= _day(low)] if low else []
    if high and high < LAST_DAY:
        came.append(VisitRow.received_at < _day(high) + timedelta(days=1))
    return or_(
        VisitRow.inputs.any(InputRow.dicom.contains(f'"StudyDate":"{prefix}', autoescape=True)),
        VisitRow.context.contains(f'"visited_on":"{visited}', autoescape=True),
        and_(true(), *came),
    )


def _day(date: str) -> datetime:
    return datetime.strptime(date, "%Y%m%d").replace(tzinfo=UTC)


def _header_has(value: str) -> ColumnElement[bool]:
    written = json.dumps(value, ensure_ascii=False)[1:-1]
    return VisitRow.inputs.any(InputRow.dicom.contains(written, autoescape=True))


# ---------------------------------------------------------------------- the answer
@dataclass(slots=True)
class Answer:
    """Matches in DICOM JSON, and warnings."""

    items: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


async def search(service: Service, key: Key, language: Language, query: Query, root: str) -> Answer:
    """One page of matches.

    Parameters
    ----------
    root
        Address of this DICOMweb service.
    """
    answer = Answer(warnings=list(query.warnings))
    skipped, seen = 0, 0
    query = replace(query, matching=await _with_made(service, key, query.matching))
    async for versions in made_studies(service, key, query.matching, (language,)):
        seen += 1
        if seen > MAX_STUDIES:
            answer.warnings.append(f"Only the latest {MAX_STUDIES} studies were searched. Ask for a study or a person.")
            break
        for item in await asyncio.to_thread(_matches, versions, query, root):
            if skipped < query.offset:
                skipped += 1
            elif len(answer.items) < query.limit:
                answer.items.append(item)
            else:
                answer.warnings.append("There are additional results that can be requested.")
                return answer
    return answer


def _matches(versions: Sequence[Version], query: Query, root: str) -> list[dict[str, Any]]:
    """The matches in one study, at the level of the query."""
    headers = [_header(version, each) for version in versions for each in version.instances]
    modalities = sorted({header.Modality for header in headers})
    for header in headers:
        header.ModalitiesInStudy = modalities
    found = [header for header in headers if all(matches(header, *each) for each in query.matching.items())]
    if query.level == "instance":
        return [_instance(each, root) for each in found]
    name = "StudyInstanceUID" if query.level == "study" else "SeriesInstanceUID"
    firsts = {header[name].value: header for header in reversed(found)}
    made = []
    for uid in dict.fromkeys(header[name].value for header in found):
        own = [header for header in headers if header[name].value == uid]
        made.append((_study if query.level == "study" else _series)(firsts[uid], own, root))
    return made


def _header(version: Version, instance: MadeInstance) -> Dataset:
    from service.report.dicom.identity import new_dataset  # noqa: PLC0415

    return new_dataset(version.report, version.language, instance)


def _study(header: Dataset, own: Sequence[Dataset], root: str) -> dict[str, Any]:
    item = _picked(header, (*STUDY, "ModalitiesInStudy"))
    item.NumberOfStudyRelatedSeries = len({each.SeriesInstanceUID for each in own})
    item.NumberOfStudyRelatedInstances = len(own)
    return _written(item, f"{root}/studies/{header.StudyInstanceUID}")


def _series(header: Dataset, own: Sequence[Dataset], root: str) -> dict[str, Any]:
    item = _picked(header, (*STUDY, "ModalitiesInStudy", *SERIES))
    item.NumberOfSeriesRelatedInstances = len(own)
    return _written(item, f"{root}/studies/{header.StudyInstanceUID}/series/{header.SeriesInstanceUID}")


def _instance(header: Dataset, root: str) -> dict[str, Any]:
    item = _picked(header, (*STUDY, "ModalitiesInStudy", *SERIES, *INSTANCE))
    item.AvailableTransferSyntaxUID = header.file_meta.TransferSyntaxUID
    series = f"{root}/studies/{header.StudyInstanceUID}/series/{header.SeriesInstanceUID}"
    return _written(item, f"{series}/instances/{header.SOPInstanceUID}")


def _picked(header: Dataset, keywords: Sequence[str]) -> Dataset:
    from pydicom import Dataset  # noqa: PLC0415

    item = Dataset()
    for keyword in keywords:
        if keyword in header:
            item.add(header[keyword])
    return item


def _written(item: Dataset, address: str) -> dict[str, Any]:
    item.InstanceAvailability = "ONLINE"
    item.RetrieveURL = address
    document: dict[str, Any] = item.to_json_dict()
    return document
