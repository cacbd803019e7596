"""DICOM associations as they are accepted here: pynetdicom's, with limits on memory, disk and time.

pynetdicom reads a PDU of any length that a peer announces, and each of its associations has two threads that look for
work a thousand times a second. Here the length and the time of a PDU are limited, and the two threads sleep until there
is work.

An association has four parts, each a subclass of pynetdicom's: :class:`BoundedSocket` (the connection),
:class:`BoundedDul` (the thread that reads PDUs), :class:`service.receive.dicom.messages.BoundedDimse` (messages and
their data sets), :class:`BoundedAssociation` (the thread that answers messages).

This module loads pynetdicom: import it only where associations are accepted.

References
----------
DICOM PS3.8 (upper layer: sections 9.2, state machine, and 9.3, PDUs).
"""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Literal

import structlog
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationSocket

from service.logs import where_it_failed
from service.receive.dicom.messages import LOOK_S, BoundedDimse

if TYPE_CHECKING:
    from pathlib import Path

    from pynetdicom.ae import ApplicationEntity

MAX_PDU = 128 * 1024
"""Longest PDU of data that a peer is asked to send, in bytes (PS3.8, section D.1)."""
MAX_READ = 1024 * 1024
"""Longest PDU that is read: of an association request, and of a peer that does not respect :data:`MAX_PDU`."""

log = structlog.get_logger()


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
