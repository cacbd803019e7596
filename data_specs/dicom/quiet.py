"""Logs and warnings of pynetdicom and pydicom, which name patients, AE titles and addresses: silenced."""

from __future__ import annotations

import logging
import warnings


def be_quiet() -> None:
    """Silence the loggers and warnings of both libraries; call it before either reads an object."""
    from pynetdicom import _config  # noqa: PLC0415  large, and needed for DICOM only

    import data_specs.dicom.header  # noqa: F401, PLC0415  sets how pydicom reads values that do not conform

    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"pydicom|pynetdicom")  # their warnings quote values
