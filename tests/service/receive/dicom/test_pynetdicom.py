"""What the listener takes from inside pynetdicom: private names, and methods that it overrides.

``pyproject.toml`` holds pynetdicom to one minor version. A version that changes one of these fails here by its name,
before an association fails.
"""

from __future__ import annotations

import inspect

import pynetdicom
import pytest
from pynetdicom import _config
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import DIMSEPrimitive
from pynetdicom.dsutils import create_file_meta
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler
from pynetdicom.utils import set_uid

PRIVATE = [
    # what an identifier in a request may be, and what a request has to state
    (set_uid, '_config.VALIDATORS["UI"](value)'),
    (DIMSEPrimitive.is_valid_request.fget, "for keyword in self.REQUEST_KEYWORDS:"),
    (Association._serve_request, "if not msg.is_valid_request:"),
    # whose accepted presentation contexts are looked up by their id
    (Association.__init__, "self._accepted_cx: dict[int, PresentationContext]"),
    # what ends the loop of an association, in the order of BoundedAssociation.kill
    (Association.kill, "self._reactor_checkpoint.set()"),
    (Association.kill, "self._kill = True"),
    (Association.kill, "self.is_established = False"),
    (Association.kill, "self._is_paused = True"),
    (Association.kill, "while self.dul.is_alive() and not self.dul.stop_dul():"),
    (Association._run_reactor, "while not self._kill:"),
    # the parts that BoundedAssociation puts in place of the first ones, before it starts
    (Association.__init__, "self.dul: DULServiceProvider = DULServiceProvider(self)"),
    (Association.__init__, "self.dimse: DIMSEServiceProvider = DIMSEServiceProvider(self)"),
    (Association.run_reactor, "self.dul.start()"),
    (Association.run_reactor, "self._server.shutdown_request(sock.socket)"),
    (Association.acse_timeout.fset, "self.dul.artim_timer.timeout = value"),
    (Association.set_socket, "self.dul.socket = socket"),
    # the reading thread: its pause, its end, its queue for the association, and where it waits for bytes
    (DULServiceProvider.run_reactor, "time.sleep(self._run_loop_delay)"),
    (DULServiceProvider.run_reactor, "if self._kill_thread:"),
    (DULServiceProvider.kill_dul, "self._kill_thread = True"),
    (DULServiceProvider.stop_dul, 'self.state_machine.current_state == "Sta1"'),
    (DULServiceProvider.receive_pdu, "self.to_user_queue.get(block=wait, timeout=timeout)"),
    (DULServiceProvider.send_pdu, "self.to_provider_queue.put(primitive)"),
    (DULServiceProvider._is_transport_event, "if self.socket and self.socket.ready:"),
    (DULServiceProvider._read_pdu_data, "self.socket.recv(6)"),
    (DULServiceProvider._read_pdu_data, "self.socket.recv(pdu_length)"),
    # the socket
    (AssociationSocket.__init__, "self._is_connected = True"),
    (AssociationSocket.close, "self._shutdown_socket()"),
    (AssociationSocket.ready.fget, 'self.event_queue.put("Evt17")'),
    (AssociationSocket.event_queue.fget, "self.assoc.dul.event_queue"),
    (AssociationSocket.provider_queue.fget, "self.assoc.dul.to_provider_queue"),
    # a message while it comes: its data set is an open file object that is written to
    (DIMSEServiceProvider.receive_primitive, "if self.message is None:"),
    (DIMSEServiceProvider.receive_primitive, "self.message.decode_msg(primitive, self.assoc)"),
    (DIMSEServiceProvider.receive_primitive, "self.msg_queue.put((context_id, "),
    (DIMSEServiceProvider.get_msg, "self.msg_queue.get(block=block, timeout=self.dimse_timeout)"),
    (DIMSEMessage.decode_msg, "cast(BytesIO, self.data_set).write(data[1:])"),
    (DIMSEMessage.message_to_primitive, "setattr(primitive, dataset_keyword, self.data_set)"),
    # the server: how a connection becomes an association, and how it is found again
    (RequestHandler.handle, "self._create_association()"),
    (RequestHandler._create_association, "assoc._server = self.server"),
    (RequestHandler._create_association, "assoc.acceptor.supported_contexts = "),
    (RequestHandler._create_association, "assoc.requestor.address_info = self.remote"),
    (AssociationServer.active_associations.fget, '"AcceptorThread" in tt.name'),
]
"""Function of pynetdicom, and a piece of its source that the listener depends on."""

SIGNATURES = {
    Association.__init__: ["self", "ae", "mode"],
    Association.run_reactor: ["self"],
    Association.kill: ["self"],
    DULServiceProvider.__init__: ["self", "assoc"],
    DULServiceProvider.run_reactor: ["self"],
    DULServiceProvider.send_pdu: ["self", "primitive"],
    DULServiceProvider.kill_dul: ["self"],
    DULServiceProvider.stop_dul: ["self"],
    AssociationSocket.__init__: ["self", "assoc", "client_socket", "address"],
    AssociationSocket.recv: ["self", "nr_bytes"],
    AssociationSocket._shutdown_socket: ["self"],
    DIMSEServiceProvider.__init__: ["self", "assoc"],
    DIMSEServiceProvider.receive_primitive: ["self", "primitive"],
    DIMSEServiceProvider.get_msg: ["self", "block"],
    DIMSEServiceProvider.send_msg: ["self", "primitive", "context_id"],
    RequestHandler._create_association: ["self"],
    ACSE.send_reject: ["self", "result", "source", "diagnostic"],
    create_file_meta: [
        "sop_class_uid",
        "sop_instance_uid",
        "transfer_syntax",
        "implementation_uid",
        "implementation_version",
    ],
}
"""Functions of pynetdicom that are overridden or called, with the names of their parameters."""


def change(function: object, expected: object) -> str:
    name = getattr(function, "__qualname__", function)
    return (
        f"pynetdicom {pynetdicom.__version__} changed {name}: expected {expected!r}. "
        "service/receive/dicom/association.py and listener.py depend on it: compare them with the new version before "
        "the limit in pyproject.toml is raised."
    )


def name_of(value: object) -> str:
    return getattr(value, "__qualname__", "")


@pytest.mark.parametrize(("function", "piece"), PRIVATE, ids=name_of)
def test_the_private_parts_are_what_the_listener_expects(function, piece):
    source = " ".join(inspect.getsource(function).split())
    assert " ".join(piece.split()) in source, change(function, piece)


@pytest.mark.parametrize(("function", "parameters"), SIGNATURES.items(), ids=name_of)
def test_overridden_functions_take_what_the_listener_gives(function, parameters):
    assert list(inspect.signature(function).parameters) == parameters, change(function, parameters)


def test_the_log_level_is_where_it_is_silenced():
    assert isinstance(_config.LOG_HANDLER_LEVEL, str), change("_config.LOG_HANDLER_LEVEL", "a string")


def test_pynetdicom_is_of_the_minor_version_that_was_read():
    assert pynetdicom.__version__.startswith("3.0."), change("its minor version", "3.0")
