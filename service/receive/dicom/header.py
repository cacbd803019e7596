"""The header of a DICOM object that arrives, read by a reader before the object is put in the store."""

from __future__ import annotations

from data_specs.dicom.reference import MAGIC_BYTES, START_BYTES, DicomReference, is_dicom
from data_specs.problems import Refused
from inference.readers.header import read_dicom_reference
from inference.readers.pool import Readers, ReadersFailed
from service.errors import Unavailable
from service.storage.drafts import Draft


def read_reference(readers: Readers, draft: Draft) -> DicomReference | None:
    """Which study, series and person the header names. It blocks: call it in a thread.

    ``None`` where the file is no DICOM object, or its header cannot be read: the reader of the whole file then says
    what is wrong with it.

    Raises
    ------
    Unavailable
        No reader could be kept running.
    """
    with draft.open() as file:
        if not is_dicom(file.read(MAGIC_BYTES)):
            return None
    for n_bytes in (START_BYTES, None):  # the header of a film is nearly always within the first part
        try:
            return readers.submit(read_dicom_reference, [lambda n=n_bytes: draft.handed(n)]).result().document  # type: ignore[misc]
        except Refused:
            if draft.n_bytes <= START_BYTES:
                return None
        except ReadersFailed:
            raise Unavailable from None
    return None
