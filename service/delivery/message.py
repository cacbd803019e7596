"""What a delivery is: one version of a report for one destination, and why it was not delivered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from data_specs.visit.report import identifier
from data_specs.vocabulary import Language

Kind = Literal["webhook", "fhir", "dicom", "stow", "hl7"]
SENDINGS_AT_ONCE = 64
"""Of one process, to all destinations together."""


class NotDelivered(Exception):
    """A destination did not take what it was sent.

    Parameters
    ----------
    code
        What it said, in a word and without anybody's name: ``http_503``, ``unreachable``, ``timeout``, ``dicom_A700``.
    permanent
        Sending the same again cannot help.
    retry_after_s
        When the destination asked to be tried again, in seconds.
    """

    def __init__(self, code: str, permanent: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.permanent = permanent
        self.retry_after_s = retry_after_s


class Options(BaseModel):
    """What a destination may be told beyond its address.

    Parameters
    ----------
    allow_http
        Send without TLS, inside a network that is trusted with it.
    content
        Of a webhook: the report itself, or only where it is to be had.
    create
        Of a FHIR server: ``put`` under our own id, or ``post`` with ``If-None-Exist`` where it takes no ids of others.
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
    repeated
        It was sent before, or may have been: a process that died over it left no word.
    """

    visit_id: str
    version: int
    destination_id: str
    kind: Kind
    address: str
    language: Language
    secret: str | None
    options: Options
    repeated: bool = False

    @property
    def key(self) -> str:
        """The same however often it is sent: what a destination knows a repetition by."""
        return str(identifier(self.visit_id, self.version, "delivery", self.destination_id))
