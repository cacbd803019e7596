"""HL7 v2 messages over MLLP. A message sent again has the control id it had (MSH-10), and so is known.

References
----------
HL7 v2.5.1, section 2.9.2 (acknowledgement), table 0008 (its codes), table 0357 (what was wrong).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from service.delivery.message import Delivery, NotDelivered
from service.protocols import mllp

PASSES = frozenset({"", "206", "207"})
"""Table 0357: record locked, internal error; where none is given, the receiver gets the benefit of the doubt."""


async def send(delivery: Delivery, message: bytes, *, timeout_s: float) -> None:
    """Send, and wait for the acknowledgement.

    Raises
    ------
    NotDelivered
    """
    at = urlsplit(f"//{delivery.address}")
    if at.hostname is None or at.port is None:
        raise NotDelivered("address", permanent=True)
    try:
        answer = await mllp.send(at.hostname, at.port, message, timeout_s=timeout_s)
    except mllp.SendFailed as failed:
        raise NotDelivered(failed.code) from None
    if not answer.accepted:
        raise NotDelivered(f"hl7_{answer.code}_{answer.error[:6]}".rstrip("_"), answer.error not in PASSES)
