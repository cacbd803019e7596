"""What a node and its centre tell each other of a visit, as JSON.

What was posted and assessed never changes. What was done since, each thing with an identity, is only added to, and an
open question is closed. So either side may send its whole state at any time, and again.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from data_specs.dicom.reference import DicomReference
from data_specs.visit.assessment import Assessment
from data_specs.visit.context import Context
from data_specs.visit.followup import RecordedOutcome
from data_specs.visit.opinion import Author, Opinion

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MAX_FILES = 100
MAX_EACH = 1000
"""Opinions, questions and outcomes of one visit."""


def _is_context(text: str) -> str:
    Context.model_validate_json(text)
    return text


def _is_assessment(text: str) -> str:
    Assessment.model_validate_json(text)
    return text


class Exchanged(BaseModel):
    """The base of what is exchanged. A member that only a newer release knows is left out by an older one."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class OpinionRecord(Exchanged):
    """A signed opinion; its number and its question's answer follow from the order in which opinions are listed."""

    uid: Id
    opinion: Opinion


class ReferralRecord(Exchanged):
    """A question; ``answered_by`` is the ``uid`` of the opinion that answers it."""

    id: Id
    to_site: Annotated[str, Field(max_length=100)] | None
    asked_by: Author
    asked_at: datetime
    question: Annotated[str, Field(max_length=2000)]
    blind: bool
    answered_by: Id | None
    closed_at: datetime | None


class OutcomeRecord(Exchanged):
    """What became of a finding."""

    id: Id
    outcome: RecordedOutcome


class Followup(Exchanged):
    """What was done since the visit was assessed, opinions in order."""

    opinions: Annotated[tuple[OpinionRecord, ...], Field(max_length=MAX_EACH)] = ()
    referrals: Annotated[tuple[ReferralRecord, ...], Field(max_length=MAX_EACH)] = ()
    outcomes: Annotated[tuple[OutcomeRecord, ...], Field(max_length=MAX_EACH)] = ()


class FileRecord(Exchanged):
    """A posted file."""

    index: Annotated[int, Field(ge=0, lt=MAX_FILES)]
    field: Literal["image", "ecg"]
    filename: Annotated[str, Field(max_length=200)]
    sha256: Digest
    n_bytes: Annotated[int, Field(ge=0)]
    dicom: DicomReference | None


class VisitRecord(Exchanged):
    """A finished visit.

    Parameters
    ----------
    context, assessment
        As they are stored, so that both sides have the same bytes.
    """

    received_at: datetime
    started_at: datetime | None
    completed_at: datetime
    status: Literal["complete", "failed"]
    context: Annotated[str, AfterValidator(_is_context)]
    assessment: Annotated[str, AfterValidator(_is_assessment)]
    study_uid: Annotated[str, Field(max_length=64)] | None
    accession_number: Annotated[str, Field(max_length=64)] | None
    body_hash: Digest
    files: Annotated[tuple[FileRecord, ...], Field(max_length=MAX_FILES)]
    followup: Followup


class Answer(Exchanged):
    """What the centre has of a visit after it took a record.

    Parameters
    ----------
    missing
        Indices of the files that it does not have.
    without_preview
        Of these, the films of which it has no preview either.
    """

    followup: Followup
    missing: tuple[int, ...] = ()
    without_preview: tuple[int, ...] = ()


class News(Exchanged):
    """What a node asks its centre for now and then.

    Parameters
    ----------
    now
        The centre's clock.
    visits
        Visits of this node that have changed at the centre since they were exchanged; where they are many, some.
    specialists
        Hospitals that can be asked, each with the names of its specialists.
    release
        Number of the release that the centre offers; ``None`` where it offers none.
    """

    now: datetime
    visits: tuple[Id, ...] = ()
    specialists: dict[str, tuple[str, ...]] = {}
    release: int | None = None


class NodeState(Exchanged):
    """What a node says of itself when it asks for the release.

    Parameters
    ----------
    number, since
        The release that it has, and when that came into force there; ``None`` where it has none.
    refused
        Why it has refused the release that is offered, as one word.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: Annotated[int, Field(ge=1, le=999_999_999)] | None = None
    since: AwareDatetime | None = None
    refused: Annotated[str, Field(pattern=r"^[a-z_]{1,60}$")] | None = None
