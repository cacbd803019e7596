"""pynetdicom and pydicom, kept from telling what they see: AE titles, addresses, data sets with their names."""

from __future__ import annotations

import logging
import warnings


def be_quiet() -> None:
    """Silence the loggers and warnings of both libraries; to be called before either sees an object."""
    from pynetdicom import _config  # noqa: PLC0415  a protocol stack, for who speaks DICOM

    import data_specs.dicom.header  # noqa: F401, PLC0415  sets how pydicom reads what does not conform

    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"pydicom|pynetdicom")  # they quote the values that they warn of
