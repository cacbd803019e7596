"""The tables of the database."""

from __future__ import annotations

from typing import cast

from sqlalchemy import Table

from service.storage.tables.access import BY_PROVIDER, KeyRow, SessionRow
from service.storage.tables.arrivals import ArrivalRow, OrderMessageRow, OrderRow, UploadPieceRow, UploadRow
from service.storage.tables.base import Base, UtcDateTime
from service.storage.tables.deliveries import DeliveryRow, DestinationRow
from service.storage.tables.drift import AlarmRow, CheckRow, FilmRow, NoticeRow, ReferenceRow, WeekRow
from service.storage.tables.exchange import THE_CENTRE, CentreRow, ExchangeRow, ExportRow, NodeRow
from service.storage.tables.followup import OpinionRow, OutcomeRow, ReferralRow
from service.storage.tables.learning import IS_CASE, CaseRow, ReadingRow
from service.storage.tables.normals import THE_KEY, CertificateRow, NormalRow, SampleKeyRow
from service.storage.tables.records import AuditRow, DeletionRow, IncidentRow
from service.storage.tables.visits import InputRow, PreviewRow, ReportRow, ShadowRow, VisitRow

NAMING_FILES = ("inputs", "arrivals", "previews")
"""Tables whose column ``sha256`` names a file of the store."""
VISITS = cast("Table", VisitRow.__table__)
"""The table itself, for statements that run for every visit and need no unit of work."""
EXCHANGES = cast("Table", ExchangeRow.__table__)
FILMS = cast("Table", FilmRow.__table__)

__all__ = [
    "BY_PROVIDER",
    "EXCHANGES",
    "FILMS",
    "IS_CASE",
    "NAMING_FILES",
    "THE_CENTRE",
    "THE_KEY",
    "VISITS",
    "AlarmRow",
    "ArrivalRow",
    "AuditRow",
    "Base",
    "CaseRow",
    "CentreRow",
    "CertificateRow",
    "CheckRow",
    "DeletionRow",
    "DeliveryRow",
    "DestinationRow",
    "ExchangeRow",
    "ExportRow",
    "FilmRow",
    "IncidentRow",
    "InputRow",
    "KeyRow",
    "NodeRow",
    "NormalRow",
    "NoticeRow",
    "OpinionRow",
    "OrderMessageRow",
    "OrderRow",
    "OutcomeRow",
    "PreviewRow",
    "ReadingRow",
    "ReferenceRow",
    "ReferralRow",
    "ReportRow",
    "SampleKeyRow",
    "SessionRow",
    "ShadowRow",
    "UploadPieceRow",
    "UploadRow",
    "UtcDateTime",
    "VisitRow",
    "WeekRow",
]
