"""DICOM objects as a clinic's devices send them, and a peer that sends them."""

from __future__ import annotations

import io

from pydicom import dcmread
from pydicom.uid import generate_uid

from tests.data_specs import cxr_made, ecg_made
from tests.service.serving import until

AE_TITLE, PEER, SITE = "SANGLOC", "CLINIC", "district-7"
PEERS = f"{PEER}@127.0.0.1={SITE}, ORTHANC@127.0.0.1={SITE}, OTHER@127.0.0.1=district-8"
# every Vietnamese letter that is none of ASCII's, in a name of the longest kind
LETTERS = "ĂÂĐÊÔƠƯăâđêôơưÀÁẢÃẠẰẮẲẴẶẦẤẨẪẬÈÉẺẼẸỀẾỂỄỆÌÍỈĨỊÒÓỎÕỌỒỐỔỖỘỜỚỞỠỢÙÚỦŨỤỪỨỬỮỰỲÝỶỸỴ"
NAME = "Người Được Khám^Thử Nghiệm"
_SMALL = cxr_made.phantom(rows=232, columns=228)


def film(values=_SMALL, syntax=cxr_made.EXPLICIT, **tags):
    """A chest film with an identity; ``tags`` are set last."""
    identity = {
        "SpecificCharacterSet": "ISO_IR 192",
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "SOPInstanceUID": generate_uid(),
        "PatientID": "P-17",
        "PatientName": NAME,
        "PatientBirthDate": "19700102",
        "PatientSex": "F",
        "ReferringPhysicianName": "Bác Sĩ^Thử",
    }
    return cxr_made.dicom(values, syntax, **{**identity, **tags})


def recording(**tags):
    """A twelve-lead ECG with an identity."""
    dataset = dcmread(io.BytesIO(ecg_made.dicom(ecg_made.counts())))
    identity = {
        "SpecificCharacterSet": "ISO_IR 192",
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "SOPInstanceUID": generate_uid(),
        "PatientID": "P-17",
    }
    cxr_made.set_tags(dataset, {**identity, **tags})
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID") or generate_uid()
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def associate(port, *objects, calling=PEER, called=AE_TITLE, contexts=None):
    """An association of pynetdicom with a presentation context for each of ``objects``."""
    from pynetdicom import AE

    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 200
    wanted = {(each.SOPClassUID, each.file_meta.TransferSyntaxUID) for each in map(parsed, objects)}
    for abstract, transfer in contexts or wanted or {("1.2.840.10008.1.1", cxr_made.IMPLICIT)}:
        entity.add_requested_context(abstract, transfer)
    return entity.associate("127.0.0.1", port, ae_title=called)


def send(port, *objects, **given):
    """Send the objects by C-STORE in one association; the status of each."""
    association = associate(port, *objects, **given)
    assert association.is_established
    statuses = [association.send_c_store(parsed(each)) for each in objects]
    association.release()
    return [each.get("Status") for each in statuses]


def raw_store(association, dataset, *, sop_class=None, stated=..., content=None):
    """A C-STORE whose command names another object than its data set; ``None`` as ``stated`` leaves it out."""
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.dsutils import encode

    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID = sop_class or dataset.SOPClassUID
    request._affected_sop_instance_uid = dataset.SOPInstanceUID if stated is ... else stated  # as it is, unchecked
    (context,) = association.accepted_contexts
    syntax = context.transfer_syntax[0]
    request.DataSet = io.BytesIO(content or encode(dataset, syntax.is_implicit_VR, syntax.is_little_endian))
    association._reactor_checkpoint.clear()  # else the association's own thread may take the answer
    until(lambda: association._is_paused, 5)
    association.dimse.send_msg(request, context.context_id)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return answer


def parsed(content):
    return content if hasattr(content, "SOPClassUID") else dcmread(io.BytesIO(content))


def visits(served, key=None):
    """All visits that a key may see, oldest first."""
    with served.client(key) if key else served.client() as client:
        listed = client.get("/v1/visits", params={"limit": 200}).json()["visits"]
        return [client.get(f"/v1/visits/{each['id']}").json() for each in reversed(listed)]
