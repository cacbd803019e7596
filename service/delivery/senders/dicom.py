"""DICOM files sent out: by C-STORE to an archive's listener, by STOW-RS to its web interface. Both block.

What is sent carries SOPInstanceUIDs that are made from visit and version, so that a repetition after a crash brings the
same objects again, and an archive that has them says so or takes them for what they are.

References
----------
DICOM PS3.4, section B.2.3 and PS3.7, annex C (status of C-STORE); PS3.18, section 10.5 and annex I.2 (STOW-RS, its
response); PS3.8, section 9.3.4 (A-ASSOCIATE-RJ); RFC 2387 (multipart/related); RFC 9110, section 10.2.3 (Retry-After).
"""

from __future__ import annotations

import io
import json
import ssl
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from service.delivery.message import NotDelivered
from service.protocols.peers import read_ae_address

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset
    from pynetdicom.association import Association

MAX_CONTEXTS = 128
"""Presentation contexts of one association (PS3.8, section 9.3.2.2: odd numbers from 1 to 255)."""
DUPLICATE = 0x0111
"""PS3.7, section C.5.6: the archive holds an object of this SOPInstanceUID already, and ours are never changed."""
PERMANENT = frozenset({0x0105, 0x0106, 0x0112, 0x0115, 0x0117, 0x0118, 0x0119, 0x0122, 0x0211})
"""PS3.7, annex C: what an archive would say of the same object again. 0110H (processing failure) is not among them."""
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
"""PS3.4, section C.6.2: Study Root Query/Retrieve Information Model - FIND."""
MAX_ANSWER_BYTES = 1_000_000


# ---------------------------------------------------------------------- C-STORE
def c_store(address: str, ae_title: str, files: Sequence[bytes], *, timeout_s: float) -> None:
    """Send DICOM files over one association.

    Parameters
    ----------
    address
        ``AE_TITLE@HOST:PORT`` of the archive.
    ae_title
        What we call ourselves.
    timeout_s
        For the connection, and for each answer.

    Raises
    ------
    NotDelivered
        At least one was not taken. All may be sent again.
    """
    objects = [_read(each) for each in files]
    association = _associate(address, ae_title, _contexts(objects), timeout_s)
    try:
        for each in objects:
            _send(association, each)
    finally:
        _leave(association)


def already_there(address: str, ae_title: str, file: bytes, *, timeout_s: float) -> bool | None:
    """Whether the archive says that it holds this object; ``None`` where it does not answer such questions.

    References
    ----------
    DICOM PS3.4, section C.6.2 (Study Root, with the keys of the levels above).
    """
    from pydicom.dataset import Dataset  # noqa: PLC0415  only who sends DICOM needs it

    sent = _read(file)
    wanted = Dataset()
    wanted.QueryRetrieveLevel = "IMAGE"
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(wanted, name, sent[name].value)
    try:
        association = _associate(address, ae_title, [(STUDY_ROOT_FIND, None)], timeout_s)
    except NotDelivered:
        return None
    try:
        found = False
        for status, match in association.send_c_find(wanted, STUDY_ROOT_FIND):
            code = status.get("Status")
            if code in (0xFF00, 0xFF01):
                found |= match is not None and match.get("SOPInstanceUID") == wanted.SOPInstanceUID
            elif code != 0:
                return None
        return found
    finally:
        _leave(association)


def _read(file: bytes) -> FileDataset:
    from pydicom import dcmread  # noqa: PLC0415  only who sends DICOM needs it

    return dcmread(io.BytesIO(file))


def _contexts(objects: Sequence[FileDataset]) -> list[tuple[str, str | None]]:
    """Each SOP class in each transfer syntax that its files are written in."""
    return sorted({(str(each.SOPClassUID), str(each.file_meta.TransferSyntaxUID)) for each in objects})


def _associate(address: str, ae_title: str, wanted: Sequence[tuple[str, str | None]], timeout_s: float) -> Association:
    """An association for these SOP classes; without a transfer syntax, in the uncompressed ones."""
    from pynetdicom import AE  # noqa: PLC0415  a protocol stack, for who sends

    try:
        peer = read_ae_address(address)
    except ValueError:
        raise NotDelivered("address", permanent=True) from None
    entity = AE(ae_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = timeout_s
    for sop_class, syntax in wanted[:MAX_CONTEXTS]:
        entity.add_requested_context(sop_class, *([syntax] if syntax else []))
    try:
        association = entity.associate(peer.host, peer.port, ae_title=peer.ae_title)
    except OSError:  # its name leads nowhere
        raise NotDelivered("unreachable") from None
    if association.is_established:
        return association
    entity.shutdown()
    if association.is_rejected:
        raise NotDelivered("dicom_rejected")
    if association.rejected_contexts:
        raise NotDelivered("dicom_no_context", permanent=True)
    raise NotDelivered("dicom_no_association")


def _send(association: Association, file: FileDataset) -> None:
    try:
        status = association.send_c_store(file)
    except ValueError:  # no accepted context for its class in its transfer syntax
        raise NotDelivered("dicom_no_context", permanent=True) from None
    except RuntimeError:  # the association ended under us
        raise NotDelivered("dicom_aborted") from None
    if "Status" not in status:  # aborted, or no answer in time
        raise NotDelivered("dicom_aborted")
    _check(int(status.Status))


def _leave(association: Association) -> None:
    if association.is_established:
        association.release()
    association.ae.shutdown()


def _check(status: int) -> None:
    """Success and warnings (``Bxxx``, and 0001H, 0107H, 0116H) are delivered; failures of the object are permanent."""
    if status in (0x0000, 0x0001, 0x0107, 0x0116, DUPLICATE) or status >> 12 == 0xB:
        return
    raise NotDelivered(f"dicom_{status:04X}", permanent=_is_permanent(status))


def _is_permanent(status: int) -> bool:
    """``A9xx`` (does not match its class) and ``Cxxx`` (not understood) are; ``A7xx`` (no room) is not."""
    return status >> 8 == 0xA9 or status >> 12 == 0xC or status in PERMANENT


# ---------------------------------------------------------------------- STOW-RS
def stow(url: str, files: Sequence[bytes], *, secret: str | None, timeout_s: float) -> None:
    """Post DICOM files to a DICOMweb server.

    Parameters
    ----------
    url
        The service's root (``https://archive.example/dicom-web``) or its ``…/studies``.
    secret
        A bearer token, or a whole ``Authorization`` (``Basic …``).

    Raises
    ------
    NotDelivered
        The server did not answer, did not want them, or lists one as failed.
    """
    import httpx  # noqa: PLC0415  only who sends needs a client, and what belongs to it

    from service.delivery.senders.http import expect_success  # noqa: PLC0415

    boundary = f"sangloc-{uuid.uuid4().hex}"
    headers = {
        "Accept": "application/dicom+json",
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Content-Length": str(sum(map(len, _pieces(files, boundary)))),
    }
    if secret:
        headers["Authorization"] = secret if " " in secret else f"Bearer {secret}"
    address = url.rstrip("/")
    address = address if address.endswith("/studies") else f"{address}/studies"
    ends = time.monotonic() + timeout_s
    try:
        with (
            httpx.Client(timeout=timeout_s, verify=ssl.create_default_context(), trust_env=False) as client,
            client.stream("POST", address, content=_pieces(files, boundary), headers=headers) as answer,
        ):
            body = _bounded(answer.iter_bytes(), ends)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
        raise NotDelivered("address", permanent=True) from None
    except httpx.TimeoutException:
        raise NotDelivered("timeout") from None
    except (httpx.ConnectError, OSError):
        raise NotDelivered("unreachable") from None
    except httpx.HTTPError:
        raise NotDelivered("broken_off") from None
    if answer.status_code != 409:  # of which the answer says more
        expect_success(answer.status_code, answer.headers)
    _check_response(body, answer.status_code)


def _pieces(files: Sequence[bytes], boundary: str) -> Iterator[bytes]:
    for each in files:
        yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        yield each
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _bounded(pieces: Iterator[bytes], ends: float) -> bytes:
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise NotDelivered("answer_too_large")
        if time.monotonic() > ends:
            raise NotDelivered("timeout")
    return bytes(body)


def _check_response(body: bytes, status: int) -> None:
    """The Store Instances Response: every failure counts, but an object that is there already is none.

    References
    ----------
    DICOM PS3.18, section I.2.2 (FailedSOPSequence, OtherFailuresSequence); PS3.18, annex F (its JSON).
    """
    failed, others = _failure_reasons(body, "00081198"), _failure_reasons(body, "0008119A")
    for reason in (*failed, *others):
        if reason is None:
            raise NotDelivered("stow_failed")
        _check(reason)
    if status == 409 and not (failed or others):  # refused as a whole, and not said why
        raise NotDelivered("http_409", permanent=True)


def _failure_reasons(body: bytes, sequence: str) -> list[int | None]:
    if not body.strip():
        return []
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise NotDelivered("answer_unreadable") from None
    document = found[0] if isinstance(found, list) and found else found
    element = document.get(sequence) if isinstance(document, dict) else None
    items = element.get("Value") if isinstance(element, dict) else None
    return [_reason(item) for item in items] if isinstance(items, list) else []


def _reason(item: Any) -> int | None:
    """FailureReason (0008,1197) of one item."""
    element = item.get("00081197") if isinstance(item, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    if isinstance(values, list) and values and isinstance(values[0], int) and 0 <= values[0] <= 0xFFFF:
        return values[0]
    return None
