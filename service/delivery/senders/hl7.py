"""HL7 v2 messages over MLLP. A message that is sent again keeps its control id (MSH-10), so the receiver recognises it.

References
----------
HL7 v2.5.1, section 2.9.2 (acknowledgement), table 0008 (its codes), table 0357 (what was wrong).
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from service.delivery.message import Delivery, NotDelivered
from service.delivery.outside import outside_address
from service.protocols import mllp
from service.protocols.peers import read_host_and_port

MAY_PASS = frozenset({"", "206", "207"})
"""Errors that may not come again. Table 0357: 206, record locked; 207, internal error; and no code at all."""


async def send(delivery: Delivery, message: bytes, threads: Executor, *, timeout_s: float) -> None:
    """Send, and wait for the acknowledgement.

    Parameters
    ----------
    threads
        Where a name is looked up.

    Raises
    ------
    NotDelivered
    """
    try:
        host, port = read_host_and_port(delivery.address)
    except ValueError:
        raise NotDelivered("address", permanent=True) from None
    if not delivery.may_be_inside:
        host = await asyncio.get_running_loop().run_in_executor(threads, outside_address, host)
    try:
        answer = await mllp.send(host, port, message, timeout_s=timeout_s)
    except mllp.SendFailed as failed:
        raise NotDelivered(failed.code) from None
    if not answer.accepted:
        raise NotDelivered(f"hl7_{answer.code}_{answer.error[:6]}".rstrip("_"), answer.error not in MAY_PASS)
