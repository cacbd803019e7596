"""The films and recordings of a list of studies, from an archive that is asked by C-FIND and sends by C-MOVE.

Each object is asked for alone and waited for, so only as many are in memory as are asked for at a time; nothing is kept
on disk. The archive has to know the AE title and the port at which it is received.

References
----------
DICOM PS3.4, annex C (Query/Retrieve): C.6.2.1 (Study Root, levels and unique keys), C.4.2 (C-MOVE; table C.4-2,
statuses).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from data_specs.dicom.quiet import be_quiet
from data_specs.dicom.reference import ECG_CLASSES, FILM_CLASSES, WAVEFORM_SYNTAXES
from data_specs.problems import Refused
from inference.archive.cases import MAX_FILE_MB, BadSource, Case, SourceFile
from inference.archive.files import within
from inference.archive.tables import Line, lines_of

if TYPE_CHECKING:
    from pydicom import Dataset
    from pynetdicom.association import Association
    from pynetdicom.events import Event

PENDING = (0xFF00, 0xFF01)
SUCCESS, NOT_WANTED, TOO_LARGE, CANNOT_READ = 0x0000, 0x0124, 0xA700, 0xC000
"""Statuses of C-FIND and C-MOVE (PS3.4, tables C.4-1 and C.4-2), and of C-STORE (PS3.7, section C.5; PS3.4, B.2.3)."""
MOVED_AT_ONCE = 2
CONNECT_S, ANSWER_S = 10.0, 60.0
ARRIVED_S = 5.0
"""How long an object is waited for after its C-MOVE has ended: most archives send it before."""
STUDY, SERIES, INSTANCE = "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"


class Address(NamedTuple):
    """A DICOM application entity."""

    ae_title: str
    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Address:
        """``AE_TITLE@HOST:PORT``.

        Raises
        ------
        BadSource
            It has another form.
        """
        ae_title, _, place = text.partition("@")
        host, _, port = place.rpartition(":")
        if not (0 < len(ae_title) <= 16 and host and port.isdecimal() and 0 < int(port) < 65536):
            raise BadSource(f"{text}: it has to be AE_TITLE@HOST:PORT")
        return cls(ae_title, host.strip("[]"), int(port))


class NotAnswered(Exception):
    """The archive refused, or did not answer: ``str()`` is a word for the table of failures."""


@dataclass(frozen=True)
class Pacs:
    """Each film and each recording of the studies in the column ``study`` of a table is a case.

    Parameters
    ----------
    called, receiver
        The archive; and where it sends to: this machine, under the AE title and port that the archive knows.
    """

    path: Path
    called: Address
    receiver: Address
    columns: Mapping[str, str]
    number: int = 0
    site: str = ""
    max_mb: int = MAX_FILE_MB

    @property
    def address(self) -> str:
        return f"{self.called.ae_title}@{self.called.host}:{self.called.port}"

    def cases(self) -> Iterator[Case]:
        try:
            self._arrivals  # noqa: B018  listens before anything is asked for
        except OSError as error:
            raise BadSource(f"--receive: the port cannot be used ({error.strerror})") from None
        for line in lines_of(self.path, "study", self.columns, self.site):
            yield from self._of_study(line)

    def read(self, file: SourceFile) -> bytes:
        study, _, rest = file.place.partition("/")
        series, _, name = rest.partition("/")
        if not name:  # the list of the study was not given
            raise Refused("not_reached", file.mark)
        with self._arrivals.turn:
            arrived = self._arrivals.expect(name)
            try:
                self._move({STUDY: study, SERIES: series, INSTANCE: name})
                return within(arrived.result(ARRIVED_S), self.max_mb)
            except (NotAnswered, TimeoutError) as error:
                raise Refused("not_reached", str(error) or "C-STORE") from None
            finally:
                self._arrivals.forget(name)

    def _of_study(self, line: Line) -> Iterator[Case]:
        """The study itself is a case that cannot be read where it is not listed, or has neither film nor recording."""
        places: list[str] = []
        unread = ""
        try:
            with self._association() as association:
                for series in _found(association, "SERIES", {STUDY: line.wanted, SERIES: ""}):
                    of_series = {STUDY: line.wanted, SERIES: str(series.SeriesInstanceUID)}
                    for found in _found(association, "IMAGE", {**of_series, INSTANCE: "", "SOPClassUID": ""}):
                        if str(found.get("SOPClassUID") or FILM_CLASSES[0]) in (*FILM_CLASSES, *ECG_CLASSES):
                            places.append(f"{line.wanted}/{of_series[SERIES]}/{found.SOPInstanceUID}")
        except NotAnswered as error:
            unread = str(error)
        except AttributeError:  # an answer without a key that it has to have
            unread = "C-FIND"
        for place in places:
            yield line.case((SourceFile(place.rpartition("/")[2], place),), self.number)
        if unread or not places:
            mark = unread or "0 × CR, DX, SC, ECG"
            yield line.case((SourceFile(line.wanted, line.wanted, mark),), self.number)

    def _move(self, keys: Mapping[str, str]) -> None:
        from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # noqa: PLC0415
            StudyRootQueryRetrieveInformationModelMove as Move,
        )

        with self._association() as association:
            for status, _ in association.send_c_move(_query("IMAGE", keys), self.receiver.ae_title, Move):
                code = status.get("Status") if status else None
                if code not in (*PENDING, SUCCESS):
                    raise NotAnswered(f"C-MOVE {code:04X}" if isinstance(code, int) else "C-MOVE")

    @contextmanager
    def _association(self) -> Iterator[Association]:
        from pynetdicom import AE  # noqa: PLC0415
        from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # noqa: PLC0415
            StudyRootQueryRetrieveInformationModelFind,
            StudyRootQueryRetrieveInformationModelMove,
        )

        be_quiet()
        entity = AE(self.receiver.ae_title)
        entity.connection_timeout, entity.acse_timeout = CONNECT_S, CONNECT_S
        entity.dimse_timeout = entity.network_timeout = ANSWER_S
        entity.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
        entity.add_requested_context(StudyRootQueryRetrieveInformationModelMove)
        association = entity.associate(self.called.host, self.called.port, ae_title=self.called.ae_title)
        if not association.is_established:
            raise NotAnswered("A-ASSOCIATE")
        try:
            yield association
        finally:
            association.release()

    @cached_property
    def _arrivals(self) -> Arrivals:
        return Arrivals(self.receiver, self.called.ae_title, self.max_mb)

    def __getstate__(self) -> dict[str, Any]:
        """Without the open port, which belongs to its process."""
        return {name: value for name, value in vars(self).items() if name != "_arrivals"}


class Arrivals:
    """Listens for objects that were asked for; any other is refused.

    Parameters
    ----------
    sender
        AE title that may call.

    Raises
    ------
    OSError
        The port cannot be bound.
    """

    def __init__(self, receiver: Address, sender: str, max_mb: int) -> None:
        from pynetdicom import AE, evt  # noqa: PLC0415

        from data_specs.cxr.pixels import DECODERS  # noqa: PLC0415

        be_quiet()
        self.turn = threading.Semaphore(MOVED_AT_ONCE)
        self._max_bytes = max_mb * 1_000_000
        self._expected: dict[str, Future[bytes]] = {}
        entity = AE(receiver.ae_title)
        entity.require_called_aet, entity.require_calling_aet = True, [sender]
        entity.maximum_associations = MOVED_AT_ONCE + 2
        entity.acse_timeout, entity.dimse_timeout, entity.network_timeout = CONNECT_S, ANSWER_S, ANSWER_S
        for sop_class in FILM_CLASSES:
            entity.add_supported_context(sop_class, list(DECODERS))
        for sop_class in ECG_CLASSES:
            entity.add_supported_context(sop_class, list(WAVEFORM_SYNTAXES))
        entity.start_server((receiver.host, receiver.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])

    def expect(self, name: str) -> Future[bytes]:
        """Wait for the object of this SOPInstanceUID from now on."""
        return self._expected.setdefault(name, Future())

    def forget(self, name: str) -> None:
        self._expected.pop(name, None)

    def _store(self, event: Event) -> int:
        expected = self._expected.get(str(getattr(event.request, "AffectedSOPInstanceUID", "")))
        if expected is None or expected.done():
            return NOT_WANTED
        try:
            content = event.encoded_dataset(include_meta=True)
        except Exception:  # pynetdicom raises many types
            return CANNOT_READ
        expected.set_result(content)  # whoever waits for it refuses one that is too large
        return SUCCESS if len(content) <= self._max_bytes else TOO_LARGE


def _found(association: Association, level: str, keys: Mapping[str, str]) -> list[Dataset]:
    """All answers: an association takes one question at a time."""
    from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # noqa: PLC0415
        StudyRootQueryRetrieveInformationModelFind as Find,
    )

    found = []
    for status, answer in association.send_c_find(_query(level, keys), Find):
        code = status.get("Status") if status else None
        if code not in (*PENDING, SUCCESS):
            raise NotAnswered(f"C-FIND {code:04X}" if isinstance(code, int) else "C-FIND")
        if answer is not None:
            found.append(answer)
    return found


def _query(level: str, keys: Mapping[str, str]) -> Dataset:
    from pydicom import Dataset  # noqa: PLC0415

    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query
