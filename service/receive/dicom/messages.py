"""The messages of a DICOM association: the data set of each C-STORE request is written to a draft as it comes.

pynetdicom keeps a data set in memory, or in a file that an aborted transfer leaves behind.

This module loads pynetdicom: import it only where associations are accepted.

References
----------
DICOM PS3.7, sections 9.3.1 (C-STORE) and 6.3.1 (command sets); PS3.10, section 7.1 (file meta information).
"""

from __future__ import annotations

import io
import queue
import threading
from typing import TYPE_CHECKING, Any

import structlog
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import create_file_meta
from pynetdicom.pdu_primitives import A_ABORT

from service.errors import StorageUnavailable
from service.logs import where_it_failed
from service.receive.dicom.arrivals import OUT_OF_RESOURCES
from service.report.dicom.identity import IMPLEMENTATION_UID
from service.storage.drafts import Draft

if TYPE_CHECKING:
    from pathlib import Path

    from pynetdicom.pdu_primitives import P_DATA

MAX_COMMAND = 64 * 1024
"""Longest command set of one message, in bytes."""
MAX_WAITING = 2
"""Objects that an association may have sent without an answer: one that is stored, and one that comes meanwhile."""
STORE_KEYWORDS = tuple(keyword for keyword in C_STORE.REQUEST_KEYWORDS if keyword != "AffectedSOPInstanceUID")
"""What a C-STORE request has to state. pynetdicom leaves a request unanswered that names no object."""
LOOK_S = 0.5
"""A thread of an association sleeps no longer than this. An event wakes it earlier."""

log = structlog.get_logger()


class TooLarge(Exception):
    """A peer has sent more than it may."""


class ReceivedDataSet(io.BytesIO):
    """The data set of one C-STORE request, written to a draft as a DICOM file. pynetdicom expects a ``BytesIO``."""

    def __init__(self, dimse: BoundedDimse) -> None:
        super().__init__()
        self._dimse = dimse
        self.draft: Draft | None = None

    def write(self, piece: Any, /) -> int:
        if self.draft is None:
            self.draft = self._dimse.new_draft()
        if self.draft.n_bytes + len(piece) > self._dimse.max_bytes:
            raise TooLarge
        self.draft.write(piece)
        return len(piece)


class BoundedDimse(DIMSEServiceProvider):
    """The messages of one association, and the drafts of their data sets.

    A draft is removed when the association ends, unless :meth:`take` has handed it over before.

    Parameters
    ----------
    folder
        Where drafts are written.
    max_bytes
        Of one data set.
    """

    def __init__(self, assoc: Association, folder: Path, max_bytes: int) -> None:
        super().__init__(assoc)
        self.max_bytes = max_bytes
        self._folder = folder
        self._drafts: list[Draft] = []
        self._command_bytes = 0
        self._over = False
        self._lock = threading.Lock()

    # ------------------------------------------------------------------ called by the thread that reads
    def receive_primitive(self, primitive: P_DATA) -> None:
        """Read one P-DATA; one that cannot be read ends the association."""
        if self._over:  # the association was refused: data that still come are dropped
            return
        try:
            self._count_commands(primitive)
            if self.message is None:
                self.message = DIMSEMessage()
                self.message.data_set = ReceivedDataSet(self)
            super().receive_primitive(primitive)
            if self.message is None:
                self._command_bytes = 0
        except TooLarge:
            self._refuse()
        except StorageUnavailable as outage:
            self._refuse(outage.code)
        except Exception as error:  # pynetdicom raises anything for damaged bytes
            log.warning("dicom_message_not_read", **where_it_failed(error))
            self._refuse()

    def _count_commands(self, primitive: P_DATA) -> None:
        for _, data in primitive.presentation_data_value_list:
            if data[0] & 1:
                self._command_bytes += len(data)
        if self._command_bytes > MAX_COMMAND:
            raise TooLarge

    def new_draft(self) -> Draft:
        """A draft that begins as a DICOM file. The same object always gets the same file meta information."""
        message, association = self.message, self.assoc
        if not isinstance(message, C_STORE_RQ):
            raise TooLarge  # no other accepted request has a data set
        command = message.command_set
        context = association._accepted_cx[message.context_id or 0]
        meta = create_file_meta(
            sop_class_uid=command.AffectedSOPClassUID,
            sop_instance_uid=command.get("AffectedSOPInstanceUID") or UID(""),
            transfer_syntax=context.transfer_syntax[0],
            implementation_uid=IMPLEMENTATION_UID,  # type: ignore[arg-type]
            implementation_version="SANGLOC",
        )
        start = io.BytesIO()
        start.write(bytes(128) + b"DICM")
        write_file_meta_info(start, meta, enforce_standard=False)  # type: ignore[arg-type]  # any file
        draft = Draft(self._folder)
        with self._lock:
            if self._over or len(self._drafts) >= MAX_WAITING:
                raise TooLarge
            self._drafts.append(draft)
        draft.write(start.getvalue())
        return draft

    def _refuse(self, code: str = "") -> None:
        """Answer the message that is coming with a failure, keep nothing of it, and end the association.

        Parameters
        ----------
        code
            Of the reason, for ErrorComment (0000,0902).
        """
        message = self.message
        self.message = None
        self.end()
        if isinstance(message, C_STORE_RQ) and message.context_id is not None:
            answer = C_STORE()
            command = message.command_set
            answer.MessageIDBeingRespondedTo = command.get("MessageID", 0)
            answer.AffectedSOPClassUID = command.get("AffectedSOPClassUID")
            answer.AffectedSOPInstanceUID = command.get("AffectedSOPInstanceUID")
            answer.Status = OUT_OF_RESOURCES
            answer.ErrorComment = code or None  # type: ignore[assignment]  # a text, or none
            self.send_msg(answer, message.context_id)
        abort = A_ABORT()
        abort.abort_source = 0x00
        self.dul.send_pdu(abort)

    def end(self) -> None:
        """Remove the drafts that were not taken; no more are made."""
        with self._lock:
            self._over = True
            drafts, self._drafts = self._drafts, []
        for draft in drafts:
            draft.remove()

    # ------------------------------------------------------------------ called by the thread that answers
    def take(self, data_set: Any) -> Draft | None:
        """The draft of a whole data set, which the caller removes; ``None`` where the association has ended."""
        draft = data_set.draft if isinstance(data_set, ReceivedDataSet) else None
        with self._lock:
            if draft is None or draft not in self._drafts:
                return None
            self._drafts.remove(draft)
        return draft

    def get_msg(self, block: bool = False) -> Any:
        """The next message. It waits for one even where pynetdicom's loop does not ask for that, so that it sleeps."""
        try:
            context_id, message = self.msg_queue.get(timeout=self.dimse_timeout if block else LOOK_S)
        except queue.Empty:
            return None, None
        if isinstance(message, C_STORE):
            message.REQUEST_KEYWORDS = STORE_KEYWORDS  # type: ignore[assignment]  # a shorter tuple
        return context_id, message

    def wake(self) -> None:
        """Wake the loop that waits for a message, so that it looks for a release or an abort."""
        self.msg_queue.put((None, None))
