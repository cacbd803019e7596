"""DICOM associations as they are accepted here: pynetdicom's, with limits on memory, disk and time.

pynetdicom keeps a data set in memory, or in a file that an aborted transfer leaves behind. It reads a PDU of any length
that a peer announces. Each of its associations has two threads that look for work a thousand times a second. Here a
data set is written to a draft on the store's disk as it comes, the length and the time of a PDU are limited, and the
two threads sleep until there is work.

An association has four parts, each a subclass of pynetdicom's: :class:`BoundedSocket` (the connection),
:class:`BoundedDul` (the thread that reads PDUs), :class:`BoundedDimse` (messages and their data sets),
:class:`BoundedAssociation` (the thread that answers messages).

This module loads pynetdicom: import it only where associations are accepted.

References
----------
DICOM PS3.8 (upper layer: sections 9.2, state machine, and 9.3, PDUs), PS3.7 (sections 9.3.1, C-STORE, and 6.3.1,
command sets), PS3.10 section 7.1 (file meta information).
"""

from __future__ import annotations

import contextlib
import io
import queue
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Literal

import structlog
from pydicom.filewriter import write_file_meta_info
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import create_file_meta
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_ABORT
from pynetdicom.transport import AssociationSocket

from service.logs import where_it_failed
from service.receive.dicom.arrivals import OUT_OF_RESOURCES
from service.report.dicom.identity import IMPLEMENTATION_UID
from service.storage.drafts import Draft

if TYPE_CHECKING:
    from pathlib import Path

    from pynetdicom.ae import ApplicationEntity
    from pynetdicom.pdu_primitives import P_DATA

MAX_PDU = 128 * 1024
"""Longest PDU of data that a peer is asked to send, in bytes (PS3.8, section D.1)."""
MAX_READ = 1024 * 1024
"""Longest PDU that is read: of an association request, and of a peer that does not respect :data:`MAX_PDU`."""
MAX_COMMAND = 64 * 1024
"""Longest command set of one message, in bytes."""
MAX_WAITING = 2
"""Objects that an association may have sent without an answer: one that is stored, and one that comes meanwhile."""
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
        except Exception as error:  # pynetdicom raises anything for damaged bytes; or the disk is full
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
            sop_instance_uid=command.AffectedSOPInstanceUID,
            transfer_syntax=context.transfer_syntax[0],
            implementation_uid=IMPLEMENTATION_UID,  # type: ignore[arg-type]
            implementation_version="SANGLOC",
        )
        start = io.BytesIO()
        start.write(bytes(128) + b"DICM")
        write_file_meta_info(start, meta)  # type: ignore[arg-type]  # any file
        draft = Draft(self._folder)
        with self._lock:
            if self._over or len(self._drafts) >= MAX_WAITING:
                raise TooLarge
            self._drafts.append(draft)
        draft.write(start.getvalue())
        return draft

    def _refuse(self) -> None:
        """Answer the message that is coming with a failure, keep nothing of it, and end the association."""
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
            return self.msg_queue.get(timeout=self.dimse_timeout if block else LOOK_S)
        except queue.Empty:
            return None, None

    def wake(self) -> None:
        """Wake the loop that waits for a message, so that it looks for a release or an abort."""
        self.msg_queue.put((None, None))


class _WakingQueue(queue.Queue[Any]):
    """Events of the upper layer for the association; each wakes its thread."""

    def __init__(self, dimse: BoundedDimse) -> None:
        super().__init__()
        self._dimse = dimse

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._dimse.wake()


class BoundedSocket(AssociationSocket):
    """A connection that is read in limited pieces and time. Its thread sleeps while there is nothing to read."""

    def __init__(self, assoc: Association, client_socket: socket.socket, pdu_seconds: float) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._pdu_seconds = pdu_seconds
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._poll = select.poll()  # select() takes no descriptor above 1023
        self._poll.register(client_socket, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)

    @property
    def ready(self) -> bool:
        """Whether there is something to read. It waits up to :data:`LOOK_S`, but not where an event is in a queue."""
        connection = self.socket
        if connection is None or not self._is_connected:
            return False
        wait_s = 0.0 if not self.event_queue.empty() or not self.provider_queue.empty() else LOOK_S
        try:
            found = {descriptor for descriptor, _ in self._poll.poll(1000 * wait_s)}
            if self._woken.fileno() in found:
                self._woken.recv(4096)
            return connection.fileno() in found
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False

    def wake(self) -> None:
        try:
            self._waker.send(b"\0")
        except OSError:  # the buffer is full, so the thread is awake; or the socket is closed
            return

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes`` bytes, or fewer where the peer closes the connection or the time is over.

        Raises
        ------
        OSError
            They are more than :data:`MAX_READ`, or nothing came in time.
        """
        connection = self.socket
        if connection is None or nr_bytes > MAX_READ:
            raise OSError
        end = time.monotonic() + self._pdu_seconds
        read = bytearray()
        while len(read) < nr_bytes and (left_s := end - time.monotonic()) > 0:
            connection.settimeout(left_s)
            if not (piece := connection.recv(min(nr_bytes - len(read), MAX_PDU))):
                break
            read += piece
        connection.settimeout(self._pdu_seconds)  # for sending
        return read

    def _shutdown_socket(self) -> None:
        """Close the connection; pynetdicom leaves it open where the peer has closed its side."""
        if (connection := self.socket) is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def close_waker(self) -> None:
        self._woken.close()
        self._waker.close()


class BoundedDul(DULServiceProvider):
    """The thread that reads PDUs. When it ends, for any reason, drafts of unfinished transfers are removed."""

    def __init__(self, assoc: Association, dimse: BoundedDimse) -> None:
        super().__init__(assoc)
        self.name = "dicom-connection"
        self.daemon = True
        self._dimse = dimse
        self._run_loop_delay = 0.0
        self.to_user_queue: queue.Queue[Any] = _WakingQueue(dimse)  # None: no more events

    def send_pdu(self, primitive: Any) -> None:
        super().send_pdu(primitive)
        self._wake()

    def kill_dul(self) -> None:
        super().kill_dul()
        self._wake()

    def stop_dul(self) -> Literal[True] | bool:
        stopped = self.state_machine.current_state == "Sta1"
        if stopped:
            self.kill_dul()
            if threading.current_thread() is not self:
                self.join()
        return stopped

    def _wake(self) -> None:
        if isinstance(self.socket, BoundedSocket):
            self.socket.wake()

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        except Exception as error:  # an event that its state does not allow: the peer breaks the protocol
            log.warning("dicom_association_ended", **where_it_failed(error))
        finally:
            self._kill_thread = True
            self._dimse.end()
            self.to_user_queue.put(None)  # ends the waiting for a request or a release
            if isinstance(self.socket, BoundedSocket):
                self.socket._shutdown_socket()
                self.socket.close_waker()


class BoundedAssociation(Association):
    """One accepted association of one site, and the thread that answers its messages.

    Parameters
    ----------
    folder, max_bytes
        As :class:`BoundedDimse`.
    pdu_seconds
        One PDU has to be received, or sent, within this time.
    """

    site: str | None = None
    """The site of the caller; ``None`` until the caller is known."""

    def __init__(
        self, ae: ApplicationEntity, connection: socket.socket, folder: Path, max_bytes: int, pdu_seconds: float
    ) -> None:
        super().__init__(ae, "acceptor")
        self.daemon = True
        dimse = BoundedDimse(self, folder, max_bytes)
        self.dimse = dimse
        self.dul = BoundedDul(self, dimse)
        # they set timers of the upper layer, which was replaced just now
        self.acse_timeout, self.network_timeout = ae.acse_timeout, ae.network_timeout
        self.set_socket(BoundedSocket(self, connection, pdu_seconds))

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        except Exception as error:
            log.warning("dicom_association_ended", **where_it_failed(error))
            self.dul.kill_dul()

    def kill(self) -> None:
        """End both threads. pynetdicom would ask a hundred times a second whether the other thread has ended."""
        self._reactor_checkpoint.set()
        self._kill = True
        self.is_established = False
        self._is_paused = True
        while self.dul.is_alive() and not self.dul.stop_dul():
            self.dul.join(0.01)

    def reject(self) -> None:
        """Reject an unknown caller (PS3.8, table 9-21: calling AE title not recognised)."""
        self.acse.send_reject(0x01, 0x01, 0x03)
        evt.trigger(self, evt.EVT_REJECTED, {})
        self.is_rejected = True
        self.kill()
