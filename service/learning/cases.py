"""Cases come as a package of visits without names and with what became known of them, into a teaching site."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from data_specs.problems import Refused
from data_specs.visit.contract import VISIBLE
from data_specs.visit.teaching import Case
from data_specs.vocabulary import Language
from inference.readers.pool import Readers
from service.export.importing import import_package
from service.export.visit import SharedVisit
from service.storage.database import Database
from service.storage.store import Store
from service.storage.tables import CaseRow, VisitRow


def take_cases(
    database: Database,
    store: Store,
    readers: Readers,
    folder: Path,
    digest: str,
    *,
    site: str,
    who: str,
    language: Language,
    max_queue: int,
) -> int:
    """Take a package as cases of a teaching site; how many came, 0 where it was taken before. It blocks.

    Raises
    ------
    Refused
        As :func:`service.export.importing.import_package`; ``learning_no_truth``: of a visit nothing is known.
    StorageUnavailable, Unavailable, OSError
        Nothing came.
    """
    return import_package(
        database,
        store,
        readers,
        folder,
        digest,
        site=site,
        who=who,
        language=language,
        max_queue=max_queue,
        case=partial(_case, digest),
    )


def _case(digest: str, row: VisitRow, visit: SharedVisit) -> CaseRow:
    if visit.truth is None:
        raise Refused("learning_no_truth", visit.visit)
    machine = {
        each.name: each.probability for each in visit.findings if each.name in VISIBLE and each.probability is not None
    }
    case = Case(outcomes=visit.truth.outcomes, specialists=visit.truth.specialists, machine=machine)
    return CaseRow(visit_id=row.id, set_digest=digest, known=case.model_dump_json())
