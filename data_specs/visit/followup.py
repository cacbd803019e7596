"""What happens after a visit was assessed: questions to specialists, outcomes of its findings, deliveries."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from data_specs.problems import Problem
from data_specs.schema import Schema
from data_specs.visit.opinion import Author, FindingName, Opinion

Outcome = Literal["confirmed", "refuted", "lost"]
OUTCOMES: tuple[Outcome, ...] = ("confirmed", "refuted", "lost")
_WITHOUT_NUL = r"^[^\x00]*$"
"""PostgreSQL cannot store U+0000 in a text."""
_Text = Annotated[str, Field(max_length=2000, pattern=_WITHOUT_NUL)]


class NewReferral(Schema):
    """A question to the specialists of ``to_site``, or of any hospital where it is left out.

    ``blind``: they read first without the findings; left out, as the programme has set it.
    """

    question: _Text = ""
    to_site: Annotated[str, Field(min_length=1, max_length=100, pattern=_WITHOUT_NUL)] | None = None
    blind: bool | None = None


class Referral(Schema):
    """``answered_by`` is the number of the opinion that answers it; closed without one, it was withdrawn."""

    id: str
    question: str
    to_site: str | None
    blind: bool
    asked_by: Author
    asked_at: datetime
    answered_by: int | None
    closed_at: datetime | None


class NewOutcome(Schema):
    """What became of a finding, and how that is known (``source``: culture, CT, later visit …)."""

    finding: FindingName
    outcome: Outcome
    source: Annotated[str, Field(max_length=200, pattern=_WITHOUT_NUL)] = ""


class RecordedOutcome(NewOutcome):
    """An outcome, and when it was recorded."""

    recorded_at: datetime


DeliveryStage = Literal[
    "unsigned",
    "unsealed",
    "queued",
    "sent",
    "verified",
    "saved",
    "validation",
    "signature",
    "login",
    "refused",
    "timeout",
]
"""How far a delivery to a national health book has come: it waits for a doctor's signature (``unsigned``), for the
facility's (``unsealed``), or for its turn; how far it came at the gateway; or the kind of error that keeps it."""


class DeliveryAnswer(Schema):
    """What became of the last attempt at a destination that says more than yes and no.

    Parameters
    ----------
    codes
        Result codes of the destination, in the order of its answer.
    reasons
        Why the visit cannot be sent as it is.
    body
        What the destination answered, cut off where it is long. It is kept, and shown to nobody.
    """

    stage: DeliveryStage
    codes: tuple[str, ...] = ()
    reasons: tuple[Problem, ...] = ()
    body: str = ""


class DeliveryState(Schema):
    """Delivery of one version of the report to one destination; ``problem`` is why the last attempt failed.

    ``stage``, ``codes``, ``reasons`` and ``deadline`` are of a national health book, and of no other destination.
    """

    version: int
    destination: str
    kind: str
    state: Literal["waiting", "delivered", "dead"]
    attempts: int
    problem: str | None
    due_at: datetime
    delivered_at: datetime | None
    stage: DeliveryStage | None = None
    codes: tuple[str, ...] = ()
    reasons: tuple[Problem, ...] = ()
    deadline: datetime | None = None
    late: bool = False


class History(Schema):
    """Opinions in order, referrals, outcomes (the latest of each finding counts), deliveries."""

    opinions: tuple[Opinion, ...] = ()
    referrals: tuple[Referral, ...] = ()
    outcomes: tuple[RecordedOutcome, ...] = ()
    deliveries: tuple[DeliveryState, ...] = ()
