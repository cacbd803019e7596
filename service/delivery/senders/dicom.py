"""C-STORE: DICOM files to an archive's listener. All of it blocks.

The SOPInstanceUIDs are made from visit and version, so that sending again after a crash sends the same objects, which
the archive recognises.

References
----------
DICOM PS3.4, section B.2.3 and PS3.7, annex C (status of C-STORE); PS3.8, section 9.3.4 (A-ASSOCIATE-RJ).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from service.delivery.message import Delivery, NotDelivered
from service.delivery.outside import outside_address
from service.protocols.peers import AEAddress, read_ae_address

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset
    from pynetdicom.association import Association

MAX_CONTEXTS = 128
"""Presentation contexts of one association (PS3.8, section 9.3.2.2: odd numbers from 1 to 255)."""
DUPLICATE = 0x0111
"""PS3.7, section C.5.6: the archive has an object with this SOPInstanceUID, and ours never change."""
PERMANENT = frozenset({0x0105, 0x0106, 0x0112, 0x0115, 0x0117, 0x0118, 0x0119, 0x0122, 0x0211})
"""PS3.7, annex C: statuses that the same object would get again. 0110H (processing failure) is not one of them."""
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
"""PS3.4, section C.6.2: Study Root Query/Retrieve Information Model - FIND."""


def send(delivery: Delivery, files: Sequence[bytes], ae_title: str, *, timeout_s: float) -> None:
    """Send the DICOM files of one report; of a repeated delivery only those that the archive does not have.

    Parameters
    ----------
    ae_title
        Our own AE title.
    timeout_s
        For the connection, and for each answer.

    Raises
    ------
    NotDelivered
    """
    address = delivery.address if delivery.may_be_inside else _checked(delivery.address)
    if delivery.repeated:
        files = _missing(address, files, ae_title, timeout_s)
    if files:
        c_store(address, ae_title, files, timeout_s=timeout_s)


def _checked(address: str) -> str:
    """``AE_TITLE@HOST:PORT`` with a checked IP address as host."""
    peer = _peer(address)
    return f"{peer.ae_title}@[{outside_address(peer.host)}]:{peer.port}"


def _peer(address: str) -> AEAddress:
    try:
        return read_ae_address(address)
    except ValueError:
        raise NotDelivered("address", permanent=True) from None


def _missing(address: str, files: Sequence[bytes], ae_title: str, timeout_s: float) -> Sequence[bytes]:
    """The files that the archive does not have; all of them if it cannot be asked."""
    for index, file in enumerate(files):
        is_there = already_there(address, ae_title, file, timeout_s=timeout_s)
        if is_there is None:
            return files
        if not is_there:  # files are sent in order, so the later ones are missing too
            return files[index:]
    return []


def c_store(address: str, ae_title: str, files: Sequence[bytes], *, timeout_s: float) -> None:
    """Send DICOM files over one association.

    Parameters
    ----------
    address
        ``AE_TITLE@HOST:PORT`` of the archive.
    ae_title
        Our own AE title.
    timeout_s
        For the connection, and for each answer.

    Raises
    ------
    NotDelivered
        The archive did not take at least one file. All may be sent again.
    """
    objects = [_read(file) for file in files]
    association = _associate(address, ae_title, _contexts(objects), timeout_s)
    try:
        for item in objects:
            _send(association, item)
    finally:
        _leave(association)


def already_there(address: str, ae_title: str, file: bytes, *, timeout_s: float) -> bool | None:
    """Whether the archive says that it has this object; ``None`` if it does not answer such queries.

    References
    ----------
    DICOM PS3.4, section C.6.2 (Study Root, with the keys of the levels above).
    """
    from pydicom.dataset import Dataset  # noqa: PLC0415  stow.py needs this module without pydicom

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
    from pydicom import dcmread  # noqa: PLC0415  stow.py needs this module without pydicom

    from data_specs.dicom.quiet import be_quiet  # noqa: PLC0415  it imports pynetdicom

    be_quiet()
    return dcmread(io.BytesIO(file))


def _contexts(objects: Sequence[FileDataset]) -> list[tuple[str, str | None]]:
    """Each SOP class with each transfer syntax of its files."""
    return sorted({(str(each.SOPClassUID), str(each.file_meta.TransferSyntaxUID)) for each in objects})


def _associate(address: str, ae_title: str, wanted: Sequence[tuple[str, str | None]], timeout_s: float) -> Association:
    """An association for these SOP classes; ``None`` as transfer syntax stands for the uncompressed ones."""
    from pynetdicom import AE  # noqa: PLC0415  stow.py needs this module without pynetdicom

    peer = _peer(address)
    entity = AE(ae_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = timeout_s
    for sop_class, syntax in wanted[:MAX_CONTEXTS]:
        entity.add_requested_context(sop_class, *([syntax] if syntax else []))
    try:
        association = entity.associate(peer.host, peer.port, ae_title=peer.ae_title)
    except OSError:  # no such host
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
    except RuntimeError:  # the association has ended
        raise NotDelivered("dicom_aborted") from None
    if "Status" not in status:  # aborted, or no answer in time
        raise NotDelivered("dicom_aborted")
    check_status(int(status.Status))


def _leave(association: Association) -> None:
    if association.is_established:
        association.release()
    association.ae.shutdown()


def check_status(status: int) -> None:
    """Check the status of one object; success, and warnings (``Bxxx``, and 0001H, 0107H, 0116H), are delivered.

    Raises
    ------
    NotDelivered
        Any other status.
    """
    if status in (0x0000, 0x0001, 0x0107, 0x0116, DUPLICATE) or status >> 12 == 0xB:
        return
    raise NotDelivered(f"dicom_{status:04X}", permanent=_is_permanent(status))


def _is_permanent(status: int) -> bool:
    """Whether the same object would fail again: ``A9xx`` (not of its class) and ``Cxxx`` (not understood) would.

    ``A7xx`` (out of resources) may pass.
    """
    return status >> 8 == 0xA9 or status >> 12 == 0xC or status in PERMANENT
