"""What a reader process does with the header of a DICOM object that arrives."""

from __future__ import annotations

from collections.abc import Sequence

from data_specs.dicom.reference import DicomReference, reference_in
from inference.readers.job import Read, job


@job
def read_dicom_reference(files: Sequence[bytes]) -> Read[DicomReference | None]:
    """Which study, series and person the beginning of a DICOM object names; ``None`` for any other file.

    Raises
    ------
    Refused
        The header cannot be read: it may be longer than the part that was given.
    """
    (content,) = files
    return Read(reference_in(content))
