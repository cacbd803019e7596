"""DICOM objects to an archive, by C-STORE or STOW-RS. An object sent again has the SOPInstanceUID it had."""

from __future__ import annotations

from collections.abc import Sequence

from service.delivery.message import Delivery
from service.delivery.senders import dicom as scu


def send(delivery: Delivery, files: Sequence[bytes], ae_title: str, timeout_s: float) -> None:
    """Send, and wait for the answers; this blocks.

    Raises
    ------
    NotDelivered
    """
    if delivery.kind == "stow":
        scu.stow(delivery.address, files, secret=delivery.secret, timeout_s=timeout_s)
        return
    if delivery.repeated:
        files = _missing(delivery.address, files, ae_title, timeout_s)
    if files:
        scu.c_store(delivery.address, ae_title, files, timeout_s=timeout_s)


def _missing(address: str, files: Sequence[bytes], ae_title: str, timeout_s: float) -> list[bytes]:
    """What the archive does not say that it has; everything, where it answers no such questions."""
    for index, each in enumerate(files):
        there = scu.already_there(address, ae_title, each, timeout_s=timeout_s)
        if there is None:
            return list(files)
        if not there:  # they are sent in order
            return list(files[index:])
    return []
