"""The DICOM listener: Verification and Storage SCP for the peers of ``SANGLOC_DICOM_PEERS``.

References
----------
DICOM PS3.4, Annex A (Verification), Annex B (Storage; B.2.3 statuses), PS3.8 section 9 (associations).
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import structlog

from data_specs.dicom.reference import ECG_CLASSES, FILM_CLASSES, WAVEFORM_SYNTAXES
from service.logs import where_it_failed
from service.protocols.peers import Callers, read_callers
from service.receive.dicom.arrivals import CANNOT_UNDERSTAND, Refusal, receive
from service.settings import PREFIX, Settings
from service.state import Service

if TYPE_CHECKING:
    from pydicom import Dataset
    from pynetdicom.transport import ThreadedAssociationServer

MAX_ASSOCIATIONS = 256
MAX_CONNECTIONS = MAX_ASSOCIATIONS + 64
"""A connection beyond the limit of associations is rejected by the protocol; beyond this limit it is closed unread."""
REQUEST_S = 10.0
"""A connection has to become an association within this time."""
SILENT_S = 60.0
"""An association that sends nothing for so long is aborted."""
NOT_AUTHORISED = 0x0124
"""PS3.7, section C.5."""

log = structlog.get_logger()


class Listener:
    """A listener that runs until it is closed.

    Parameters
    ----------
    server
        Already bound to its port; each of its associations runs in its own threads.
    """

    def __init__(self, server: ThreadedAssociationServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=self._serve, name="dicom-listener", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def _serve(self) -> None:
        self._server.serve_forever(poll_interval=0.1)

    async def aclose(self) -> None:
        """Accept no more associations, and abort those that are open."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        from pynetdicom.transport import AssociationServer  # noqa: PLC0415

        super(AssociationServer, self._server).shutdown()
        self._server.server_close()
        associations = self._server.active_associations
        for association in associations:
            association.dul.kill_dul()
        for association in associations:
            association.join(REQUEST_S)
        self._thread.join()


def start(service: Service, settings: Settings) -> Listener | None:
    """Listen on the port of the settings; ``None`` where it is 0. It loads pynetdicom: to be called from a thread.

    Raises
    ------
    OSError
        The port cannot be bound.
    """
    if settings.dicom_port == 0:
        return None
    callers = Callers(read_callers(settings.dicom_peers, with_ae_title=True))
    if not settings.dicom_peers.strip():
        log.warning("dicom_nobody_may_call", setting=f"{PREFIX}DICOM_PEERS")
    return Listener(_bound_server(service, settings, callers))


def _bound_server(service: Service, settings: Settings, callers: Callers) -> ThreadedAssociationServer:
    from pynetdicom import AE, _config, evt  # noqa: PLC0415  pynetdicom is loaded where a port is set
    from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # noqa: PLC0415
    from pynetdicom.transport import RequestHandler, ThreadedAssociationServer  # noqa: PLC0415

    from data_specs.cxr.pixels import DECODERS  # noqa: PLC0415
    from data_specs.dicom.quiet import be_quiet  # noqa: PLC0415
    from service.receive.dicom.association import MAX_PDU, BoundedAssociation  # noqa: PLC0415  loads pynetdicom

    be_quiet()
    # pynetdicom would end an association in which an identifier has more than 64 characters
    _config.VALIDATORS["UI"] = lambda _: (True, "")
    entity = AE(settings.dicom_ae_title)
    entity.require_called_aet = True
    entity.maximum_associations = MAX_ASSOCIATIONS
    entity.maximum_pdu_size = MAX_PDU
    entity.acse_timeout, entity.network_timeout, entity.dimse_timeout = REQUEST_S, SILENT_S, SILENT_S
    entity.add_supported_context(Verification)
    for sop_class in FILM_CLASSES:
        entity.add_supported_context(sop_class, list(DECODERS))
    for sop_class in ECG_CLASSES:
        entity.add_supported_context(sop_class, list(WAVEFORM_SYNTAXES))

    class Acceptance(RequestHandler):
        """Makes an association of a connection."""

        def _create_association(self) -> BoundedAssociation:
            association = BoundedAssociation(
                entity,
                self.request,
                service.store.drafts,
                settings.max_upload_bytes,
                settings.idle_seconds,
            )
            association._server = self.server
            association.name = "AcceptorThread dicom"  # pynetdicom finds associations by this word
            acceptor = association.acceptor
            acceptor.maximum_length = entity.maximum_pdu_size
            acceptor.ae_title = self.server.ae_title
            acceptor.address_info = self.local
            acceptor.implementation_class_uid = entity.implementation_class_uid
            acceptor.implementation_version_name = entity.implementation_version_name
            acceptor.supported_contexts = entity.supported_contexts
            association.requestor.address_info = self.remote
            association.bind(evt.EVT_REQUESTED, _admit, [callers])
            association.bind(evt.EVT_C_STORE, _store, [service])
            return association

    class Server(ThreadedAssociationServer):
        """Limits the number of connections, and logs no stack trace for one that breaks off."""

        request_queue_size = MAX_CONNECTIONS

        def verify_request(self, _request: Any, _address: Any) -> bool:
            return len(self.active_associations) < MAX_CONNECTIONS

        def handle_error(self, _request: Any, _address: Any) -> None:
            log.warning("dicom_connection_failed")

    return Server(
        entity,
        (settings.host, settings.dicom_port),
        settings.dicom_ae_title,
        entity.supported_contexts,
        request_handler=Acceptance,
    )


def _admit(event: Any, callers: Callers) -> None:
    """Accept the association if its caller is known; reject it otherwise, also after an error."""
    association = event.assoc
    try:
        caller = association.requestor
        association.site = callers.site_of(caller.address_info.address, caller.primitive.calling_ae_title.strip())
    except Exception as error:
        log.warning("dicom_caller_not_known", **where_it_failed(error))
    if association.site is None:
        log.info("dicom_association_refused")
        association.reject()


def _store(event: Any, service: Service) -> Dataset:
    """The answer to one C-STORE request: success once the object is on the disk."""
    association, request = event.assoc, event.request
    draft = association.dimse.take(request.DataSet)
    try:
        if association.site is None:
            return _answer(NOT_AUTHORISED, "forbidden")
        if draft is None:
            return _answer(CANNOT_UNDERSTAND, "unreadable")
        refusal = receive(
            service,
            association.site,
            association.requestor.ae_title.strip(),
            draft,
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID or ""),
        )
    except Exception as error:
        log.error("dicom_object_not_taken", **where_it_failed(error))
        refusal = Refusal("internal_error", CANNOT_UNDERSTAND)
    finally:
        if draft is not None:
            draft.remove()
    return _answer(refusal.status, refusal.code) if refusal else _answer(0x0000)


def _answer(status: int, code: str = "") -> Dataset:
    """A response with this status, and the code of the reason as ErrorComment (0000,0902)."""
    from pydicom import Dataset  # noqa: PLC0415

    answer = Dataset()
    answer.Status = status
    if code:
        answer.ErrorComment = code
    return answer
