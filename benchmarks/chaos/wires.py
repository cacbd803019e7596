"""What an archive and a hospital's system send over their own protocols, as bytes that can be damaged.

References
----------
DICOM PS3.8 section 9.3 (PDUs), PS3.7 section 9.3.1 (C-STORE); HL7 v2 Transport Specification: MLLP, Release 1.
"""

from __future__ import annotations

import io
import socket
from typing import Any, Protocol

from tests.service.receive.hl7.made import order

CALLING, CALLED = "CHAOS", "SANGLOC"
MLLP_START, MLLP_END = b"\x0b", b"\x1c\r"
ANSWER_S = 3.0
RELEASE = b"\x05\0\0\0\0\4\0\0\0\0"
"""A-RELEASE-RQ."""
DX, EXPLICIT = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.1.2.1"


class _Pdu(Protocol):
    def from_primitive(self, primitive: Any) -> None: ...

    def encode(self) -> bytes: ...


def order_frame(control: str = "1") -> bytes:
    """An order message in its frame."""
    made: bytes = order(control, accession=f"ACC-{control}")
    return MLLP_START + made + MLLP_END


def store_conversation(dataset: bytes, uid: str = "1.2.3.4.5.6") -> list[bytes]:
    """What a modality sends to store one film: the association, the object in pieces, the release.

    Parameters
    ----------
    dataset
        Explicit little endian, without preamble and file meta information.
    """
    from pynetdicom import AE  # noqa: PLC0415  it takes long to load
    from pynetdicom.dimse_messages import C_STORE_RQ  # noqa: PLC0415
    from pynetdicom.dimse_primitives import C_STORE  # noqa: PLC0415
    from pynetdicom.pdu import A_ASSOCIATE_RQ, P_DATA_TF  # noqa: PLC0415
    from pynetdicom.pdu_primitives import (  # noqa: PLC0415
        A_ASSOCIATE,
        ImplementationClassUIDNotification,
        MaximumLengthNotification,
    )

    def encoded(pdu: _Pdu, primitive: Any) -> bytes:
        pdu.from_primitive(primitive)
        return pdu.encode()

    entity = AE(CALLING)
    entity.add_requested_context(DX, EXPLICIT)
    context = entity.requested_contexts[0]
    context.context_id = 1
    ask = A_ASSOCIATE()
    ask.application_context_name = "1.2.840.10008.3.1.1.1"
    ask.calling_ae_title, ask.called_ae_title = CALLING, CALLED
    ask.presentation_context_definition_list = [context]
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16382
    implementation.implementation_class_uid = entity.implementation_class_uid
    ask.user_information = [length, implementation]

    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = DX, uid
    request.DataSet = io.BytesIO(dataset)
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    pieces = [encoded(P_DATA_TF(), each) for each in message.encode_msg(1, 16382)]
    return [encoded(A_ASSOCIATE_RQ(), ask), b"".join(pieces), RELEASE]


def say(port: int, parts: list[bytes], end: bytes = b"") -> bytes:
    """Send parts on a new connection, each after an answer to the one before; what came back.

    Parameters
    ----------
    end
        With which a whole answer ends; empty: any answer will do.
    """
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S) as connection:
        for part in parts:
            try:
                connection.sendall(part)
                piece = connection.recv(65536)
                while piece and end and not piece.endswith(end):
                    more = connection.recv(65536)
                    piece += more
                    if not more:
                        break
            except OSError:  # closed, or silent: the other side may do both with what is damaged
                return got
            got += piece
    return got
