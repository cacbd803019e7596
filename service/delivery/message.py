"""A delivery: one version of a report for one destination, and the error that says why it was not delivered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from data_specs.visit.followup import DeliveryAnswer, DeliveryStage
from data_specs.visit.report import identifier
from data_specs.vocabulary import Language

HEALTH_BOOK = "health_book"
"""The kind of a national health book: it takes signed versions only, and says more than yes and no."""
SENDINGS_AT_ONCE = 64
"""Deliveries that one process sends at a time, to all destinations together."""
ALARM = "alarm"
"""The kind of destination that gets alarms (``service.drift.notices``) and no reports."""
INSIDE = "inside"
"""Code of a delivery whose destination is inside our own network and may not be."""
NO_ANSWER = frozenset(
    {INSIDE, "unreachable", "timeout", "tls", "broken_off", "closed", "dicom_no_association", "dicom_aborted"}
)
"""Codes of deliveries to which no answer came. A site learns ``unreachable`` in place of all of them: the differences
between them would show what is in the network that we send from."""


class NotDelivered(Exception):
    """A destination did not take a delivery.

    Parameters
    ----------
    code
        The reason as one word without any name in it: ``http_503``, ``unreachable``, ``timeout``, ``dicom_A700``.
    permanent
        Whether sending the same again cannot help.
    retry_after_s
        After how many seconds the destination asked to be tried again.
    answer
        What is kept of a destination that says more than yes and no.
    may_have_arrived
        Whether the destination may have taken it all the same: a health book is then told that the next version
        replaces this one.
    """

    def __init__(
        self,
        code: str,
        permanent: bool = False,
        retry_after_s: float | None = None,
        answer: DeliveryAnswer | None = None,
        may_have_arrived: bool = False,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.permanent = permanent
        self.retry_after_s = retry_after_s
        self.answer = answer
        self.may_have_arrived = may_have_arrived


class Options(BaseModel):
    """Settings of one destination.

    Parameters
    ----------
    allow_http
        Send without TLS, inside a network that is trusted.
    content
        Of a webhook: the report itself, or only a link to it.
    create
        Of a FHIR server: ``put`` under our own id, or ``post`` with ``If-None-Exist`` if it does not accept the ids of
        clients.
    """

    model_config = ConfigDict(frozen=True)

    allow_http: bool = False
    content: Literal["report", "link"] = "report"
    create: Literal["put", "post"] = "put"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One version of one report for one destination.

    Parameters
    ----------
    kind
        Kind of the destination: a key of :data:`service.delivery.senders.dispatch.KINDS`.
    may_be_inside
        Whether the destination may be inside our own network: an admin named it.
    repeated
        Whether it was sent before, or may have been: a process can stop after sending and before it writes that down.
    """

    visit_id: str
    version: int
    destination_id: str
    kind: str
    address: str
    language: Language
    secret: str | None
    options: Options
    may_be_inside: bool
    repeated: bool = False

    @property
    def key(self) -> str:
        """The same for every attempt, so that the destination recognises a repetition."""
        return str(identifier(self.visit_id, self.version, "delivery", self.destination_id))


TIMED_OUT = frozenset({"timeout", "http_408", "http_504"})


def stage_of(state: str, problem: str | None, answer: DeliveryAnswer | None) -> DeliveryStage:
    """How far a delivery to a health book has come, as its row says it."""
    if answer is not None and (state == "delivered" or problem is not None):
        return answer.stage
    if problem in TIMED_OUT:
        return "timeout"
    return "refused" if state == "dead" else "queued"


def read_kept(kept: str | None) -> DeliveryAnswer | None:
    """The answer that a delivery's row keeps."""
    return None if kept is None else DeliveryAnswer.model_validate_json(kept)
