"""What the database holds of a person at a site.

Visits are the person's where their context has the identifier, or where it has none and a DICOM header has it. A visit
of another identifier that holds a file with this one is somebody's mistake: it is reported, and somebody has to look
whose it is.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, String, Text, and_, or_, select, tuple_
from sqlalchemy.orm import Session

from data_specs.dicom.reference import DicomReference
from data_specs.person import read_identifier
from service.retention.deletion import TABLES, Which, of_visits
from service.storage.folding import fold
from service.storage.tables import VISITS, Base

WORDS_AT_ONCE = 100
"""Words of one query; SQLite takes no more than 1,000 alternatives."""
SHORT = 5
"""Characters, below which a word is searched for more narrowly."""
ARRIVALS, INPUTS, ORDERS = TABLES["arrivals"], TABLES["inputs"], TABLES["orders"]


@dataclass(frozen=True)
class Found:
    """Rows of one person.

    Parameters
    ----------
    visits
        Their ids; everything that belongs to a visit is found by them.
    arrivals
        DICOM objects that are in no visit (yet): site, SOPInstanceUID, SHA-256.
    orders
        Orders sent ahead: site, accession number.
    numbers
        The person's identifier, and numbers that name nobody else: accession numbers, UIDs of DICOM objects.
    elsewhere
        Visits of other identifiers that hold a file with this one.
    """

    visits: tuple[str, ...]
    arrivals: tuple[tuple[str, str, str], ...]
    orders: tuple[tuple[str, str], ...]
    numbers: frozenset[str]
    elsewhere: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.visits or self.arrivals or self.orders)

    def rows(self, visits: Collection[str]) -> Which:
        """The rows of these of the visits, and those that belong to no visit."""
        return [*self.alone(), *of_visits(visits)]

    def alone(self) -> Which:
        """The rows that belong to no visit."""
        return [
            (ARRIVALS, tuple_(*ARRIVALS.primary_key).in_(self.arrivals)),
            (ORDERS, tuple_(*ORDERS.primary_key).in_(self.orders)),
        ]


def find(session: Session, site: str, identifier: str) -> Found:
    """All rows of the person with this identifier at this site."""
    of_site = VISITS.c.site == site
    own = set(session.scalars(select(VISITS.c.id).where(of_site, VISITS.c.person_id == identifier)))
    elsewhere: set[str] = set()
    joined = select(VISITS.c.id, VISITS.c.person_id, INPUTS.c.dicom).join(INPUTS, INPUTS.c.visit_id == VISITS.c.id)
    for visit_id, person_id, dicom in session.execute(joined.where(of_site, _holds(INPUTS.c.dicom, identifier))):
        if _is_of(dicom, identifier) and person_id != identifier:
            (elsewhere if person_id else own).add(visit_id)
    arrived = select(*ARRIVALS.primary_key, ARRIVALS.c.dicom).where(
        ARRIVALS.c.site == site, ARRIVALS.c.visit_id.is_(None), _holds(ARRIVALS.c.dicom, identifier)
    )
    arrivals = {
        (row.site, row.sop_uid, row.sha256) for row in session.execute(arrived) if _is_of(row.dicom, identifier)
    }
    numbers = {identifier, *_numbers(session, own)}
    accession = set(session.scalars(select(VISITS.c.accession_number).where(VISITS.c.id.in_(own)))) - {None}
    ordered = select(*ORDERS.primary_key, ORDERS.c.context).where(
        ORDERS.c.site == site,
        or_(_holds(ORDERS.c.context, identifier), ORDERS.c.accession_number.in_(accession)),
    )
    orders = set()
    for row in session.execute(ordered):
        person_id = (json.loads(row.context).get("person") or {}).get("id")
        if person_id == identifier or (not person_id and row.accession_number in accession):
            orders.add((row.site, row.accession_number))
    return Found(
        visits=tuple(sorted(own)),
        arrivals=tuple(sorted(arrivals)),
        orders=tuple(sorted(orders)),
        numbers=frozenset(numbers | accession | {number for _, number in orders} | {uid for _, uid, _ in arrivals}),
        elsewhere=tuple(sorted(elsewhere)),
    )


def remains(session: Session, site: str, words: Collection[str]) -> Counter[str]:
    """How many rows at this site still have one of the words, by ``table.column``; every column of text is read.

    A word counts where no letter or digit stands beside it; a short one only between quotation marks, spaces or the
    ends, since a short number stands in many texts that are not about the person.
    """
    counts: Counter[str] = Counter()
    wanted = sorted({form for word in words for form in (word, _in_json(word), fold(word)) if form})
    for start in range(0, len(wanted), WORDS_AT_ONCE):
        counts += _rows_with(session, site, wanted[start : start + WORDS_AT_ONCE])
    return counts


def _rows_with(session: Session, site: str, words: Sequence[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    pattern = re.compile(_pattern(words))
    for table in Base.metadata.sorted_tables:
        here: list[ColumnElement[bool]] = []
        if "site" in table.columns:
            here = [table.c.site == site]
        elif "visit_id" in table.columns:
            here = [table.c.visit_id.in_(select(VISITS.c.id).where(VISITS.c.site == site))]
        for column in table.columns:
            if isinstance(column.type, String | Text):
                holds = or_(*(column.contains(word, autoescape=True) for word in words))
                query = select(column).where(*here, holds).execution_options(yield_per=100)
                found = sum(pattern.search(text) is not None for text in session.scalars(query))
                counts[f"{table.name}.{column.name}"] += found
    return +counts


def _pattern(words: Sequence[str]) -> str:
    short = _any_of([word for word in words if len(word) < SHORT])
    longer = _any_of([word for word in words if len(word) >= SHORT])
    return rf"(?:^|[\s\"]){short}(?:[\s\"]|$)|(?<!\w){longer}(?!\w)"


def _any_of(words: Sequence[str]) -> str:
    """A pattern of any of the words; of no text where there are none."""
    return f"(?:{'|'.join(map(re.escape, words))})" if words else "(?!)"


def _numbers(session: Session, visits: Collection[str]) -> Iterator[str]:
    """UIDs of the visits' studies and of the DICOM objects in them."""
    yield from filter(None, session.scalars(select(VISITS.c.study_uid).where(VISITS.c.id.in_(visits))))
    headers = select(INPUTS.c.dicom).where(INPUTS.c.visit_id.in_(visits), INPUTS.c.dicom.is_not(None))
    for header in session.scalars(headers):
        found = DicomReference.model_validate_json(header)
        yield from filter(None, (found.SOPInstanceUID, found.StudyInstanceUID, found.AccessionNumber))


def _is_of(dicom: str, identifier: str) -> bool:
    number = DicomReference.model_validate_json(dicom).PatientID
    return identifier in (number, read_identifier(number))


def _holds(column: ColumnElement[str], identifier: str) -> ColumnElement[bool]:
    """Rows to look at more closely: their JSON has the identifier somewhere."""
    return and_(column.is_not(None), column.contains(_in_json(identifier), autoescape=True))


def _in_json(text: str) -> str:
    """A text as it stands in the JSON of the database."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
