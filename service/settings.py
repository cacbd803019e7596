"""Settings, read from environment variables that begin with ``SANGLOC_``.

With a name that is not a setting, or a value that cannot be used, the service does not start.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from data_specs.vocabulary import Language
from service.language.zone import Hours, machine_zone, zone_named
from service.protocols.peers import read_ae_address, read_callers
from service.protocols.public_keys import read_public_keys
from service.protocols.web_addresses import check_confidential

PREFIX = "SANGLOC_"
NOT_SETTINGS = frozenset({"SANGLOC_TEST_DATA", "SANGLOC_KEY"})
"""Names with the prefix that the server does not read: where the tests find real recordings, and the key of the client,
which may be set in the shell that starts the server."""
MIN_BOOTSTRAP_KEY = 20
"""Characters. Of random letters and digits they hold 119 bits, so that nobody guesses the key (NIST SP 800-63B-4,
section 3.1.2: 112 bits need no slow hash)."""


def _default_visits() -> int:
    return min(1000, 128 * (os.cpu_count() or 1))


class BadSettings(Exception):
    """A setting cannot be used; the message is one line that says which one and why."""


class Settings(BaseSettings):
    """What can be set.

    Parameters
    ----------
    store_url
        Where posted files go: a folder (``file:///…``) or any address that fsspec opens (``s3://bucket/prefix``).
    min_free_mb
        Room in megabytes, of 1,000,000 bytes, that has to be left on the disks of the data, the store and the database;
        with less, new visits are refused with 503 and the service is not ready.
    time_zone
        IANA name of the zone in which reports on paper and on pages show times; by default the machine's.
    lease_seconds
        How long a visit or a delivery stays with a process that does not extend its lease, before another takes it.
    max_queue
        Unfinished visits, beyond which a new one is refused with 429.
    max_infer_rows
        Rows that one request to ``/v2/models/…/infer`` may bring.
    concurrent_visits
        Visits that one process works on at a time, by default 128 for each core.
    concurrent_uploads
        Bodies that one process reads at a time, of one key at most half; others wait until they are read.
    body_seconds, idle_seconds
        A body has to arrive within the first, and may not pause for longer than the second.
    body_min_bytes_per_second
        What a body has to bring on average over ``idle_seconds``.
    connections_per_address
        Open HTTP connections of one IPv4 address, or of one IPv6 network of 64 bits.
    session
        The runtime and its precision. ``auto``: the fastest on this machine, measured at the first start. A bundle that
        does not allow the precision is run in fp32.
    coverage
        Share of those with a finding, and of those without it, who must not get the opposite verdict, in the long run;
        for persons in between the finding is undecided. ``none``: nothing is left undecided.
    dicom_port, hl7_port
        Ports of ``host`` for DICOM associations and HL7 v2 messages (MLLP); 0: do not listen.
    dicom_ae_title
        The application entity title of this service, when it is called and when it calls.
    dicom_peers, hl7_peers
        Who may call: ``AE_TITLE@HOST=SITE`` (or ``HOST=SITE``), separated by commas. What a peer sends belongs to SITE.
    dicom_gather_seconds
        A study becomes a visit when no object of it has arrived for this long.
    dicom_worklist
        ``AE_TITLE@HOST:PORT`` of a modality worklist, asked for the order of an AccessionNumber; empty: none.
    delivery_timeout_seconds
        How long a destination may take to answer for one report.
    delivery_retry_seconds, delivery_retry_max_seconds
        The longest wait after the first failed attempt. It doubles with each further attempt, up to the second.
    delivery_attempts
        After so many a delivery is given up until somebody asks for it; with the other defaults after about a day.
    next_steps
        A table of what to do next, used instead of that of a release and of ``data_specs/next_steps/next_steps.toml``.
    health_book
        A table of the national health book (:mod:`service.delivery.health_book.table`); without one, there is none.
    kfre_calibration
        Which calibration of the kidney failure risk equation readers see (Tangri et al., JAMA 2016;315:164, which gives
        one for North America and one for elsewhere); the other one is folded away.
    blind_reads
        Whether a specialist reads without the findings first, where the question does not say.
    drain_seconds
        How long a process that was asked to stop continues what it has begun.
    retention
        A table of what is deleted when, used instead of ``service/retention/retention.toml``.
    export_smallest_cell
        A smaller number of visits is not told in an export's table of counts (:mod:`service.export.tables`).
    drift_hours
        How often the films of each site are compared with those of before (:mod:`service.drift.checking`). The budget
        of false alarms holds for a year, however often that is.
    incident_deadlines
        A table of deadlines of incidents, used instead of ``service/incidents/deadlines.toml``.
    session_hours
        How long a person stays signed in on the pages.
    upstream, upstream_key
        Address of the centre that this node exchanges its visits with, and its key there, of the role ``node``.
    upstream_ask_seconds
        How often the centre is asked for what has changed there.
    upstream_signer
        Public keys, in base64 and separated by commas, of those whose releases this node takes; empty: none.
    upstream_hours
        Hours of the day, in ``time_zone``, in which the files of a release are fetched.
    oidc_issuer
        The OpenID provider by which persons sign in beside keys, as it names itself: an address with https (or http to
        this machine). Empty: keys only.
    oidc_client_id, oidc_client_secret, oidc_client_secret_file
        What this service is called at the provider, and its secret there: itself, or in a file.
    oidc_roles
        The table of roles (:mod:`service.provider.roles`).
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    data_dir: Path = Path("var")
    database_url: str = ""
    bundles: Path = Path("models/bundles")
    bootstrap_key: str | None = None
    max_upload_mb: Annotated[int, Field(ge=1, le=4096)] = 64
    store_url: str = ""
    min_free_mb: Annotated[int, Field(ge=0, le=1_000_000)] = 500
    device: Literal["auto", "cpu", "cuda"] = "auto"
    session: Literal[
        "auto", "onnxruntime:fp32", "onnxruntime:fp16", "openvino:fp32", "openvino:fp16", "openvino:bf16"
    ] = "auto"
    coverage: Literal["0.9", "0.95", "none"] = "0.9"
    language: Language = "en"
    time_zone: Annotated[str, Field(default_factory=machine_zone)]
    lease_seconds: Annotated[float, Field(gt=0, le=3600)] = 30
    max_queue: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    max_infer_rows: Annotated[int, Field(ge=1, le=100_000)] = 128
    concurrent_visits: Annotated[int, Field(ge=1, le=1000, default_factory=_default_visits)]
    concurrent_uploads: Annotated[int, Field(ge=1, le=1000)] = 64
    body_seconds: Annotated[float, Field(gt=0, le=3600)] = 300
    idle_seconds: Annotated[float, Field(gt=0, le=600)] = 30
    connections_per_address: Annotated[int, Field(ge=1, le=100_000)] = 200
    body_min_bytes_per_second: Annotated[float, Field(gt=0, le=1_000_000)] = 500
    dicom_port: Annotated[int, Field(ge=0, le=65535)] = 0
    dicom_ae_title: Annotated[str, Field(pattern=r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$")] = "SANGLOC"
    dicom_peers: str = ""
    dicom_gather_seconds: Annotated[float, Field(gt=0, le=3600)] = 5
    dicom_worklist: str = ""
    hl7_port: Annotated[int, Field(ge=0, le=65535)] = 0
    hl7_peers: Annotated[str, Field(validate_default=True)] = ""
    delivery_timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 30
    delivery_retry_seconds: Annotated[float, Field(gt=0, le=3600)] = 5
    delivery_retry_max_seconds: Annotated[float, Field(gt=0, le=86_400)] = 3600
    delivery_attempts: Annotated[int, Field(ge=1, le=1000)] = 57
    next_steps: Path | None = None
    retention: Path | None = None
    export_smallest_cell: Annotated[int, Field(ge=2, le=1000)] = 11
    drift_hours: Annotated[float, Field(gt=0, le=168)] = 24
    incident_deadlines: Path | None = None
    health_book: Path | None = None
    kfre_calibration: Literal["non_north_america", "north_america"] = "non_north_america"
    blind_reads: bool = False
    drain_seconds: Annotated[float, Field(ge=0, le=600)] = 10
    session_hours: Annotated[float, Field(gt=0, le=168)] = 12
    upstream: str = ""
    upstream_key: Annotated[str, Field(validate_default=True)] = ""
    upstream_ask_seconds: Annotated[float, Field(gt=0, le=86_400)] = 15
    upstream_signer: str = ""
    upstream_hours: str = "22-5"
    oidc_issuer: str = ""
    oidc_client_id: Annotated[str, Field(max_length=500, validate_default=True)] = ""
    oidc_client_secret: Annotated[str | None, Field(max_length=500)] = None
    oidc_client_secret_file: Annotated[Path | None, Field(validate_default=True)] = None
    oidc_roles: Annotated[Path | None, Field(validate_default=True)] = None

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str) -> str:
        if url and not url.startswith(("sqlite:///", "postgresql+psycopg://")):
            raise ValueError("it has to start with sqlite:/// or postgresql+psycopg://")
        return url

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        zone_named(name)
        return name

    @field_validator("hl7_peers")
    @classmethod
    def _known_hl7_callers(cls, text: str, info: ValidationInfo) -> str:
        if not read_callers(text, with_ae_title=False) and info.data.get("hl7_port", 0):
            raise ValueError("with an HL7 port, say who may call: HOST=SITE, separated by commas")
        return text

    @field_validator("bootstrap_key")
    @classmethod
    def _sendable_and_long(cls, key: str | None) -> str | None:
        if key is not None and not all("!" <= character <= "~" for character in key):
            raise ValueError("it has to consist of visible ASCII characters, so that it can be sent in a header")
        if key is not None and len(key) < MIN_BOOTSTRAP_KEY:
            raise ValueError(f"it has to have at least {MIN_BOOTSTRAP_KEY} characters, because it opens everything")
        return key

    @field_validator("upstream")
    @classmethod
    def _known_centre(cls, address: str) -> str:
        return check_confidential(address) if address else ""

    @field_validator("upstream_key")
    @classmethod
    def _has_a_key(cls, key: str, info: ValidationInfo) -> str:
        if info.data.get("upstream") and not key:
            raise ValueError("with SANGLOC_UPSTREAM, say the node's key at the centre")
        if not all("!" <= character <= "~" for character in key):
            raise ValueError("it has to consist of visible ASCII characters, so that it can be sent in a header")
        return key

    @field_validator("upstream_signer")
    @classmethod
    def _known_signers(cls, text: str) -> str:
        read_public_keys(text)
        return text

    @field_validator("upstream_hours")
    @classmethod
    def _known_hours(cls, text: str) -> str:
        Hours.of(text)
        return text

    @field_validator("dicom_peers")
    @classmethod
    def _known_dicom_callers(cls, text: str) -> str:
        read_callers(text, with_ae_title=True)
        return text

    @field_validator("dicom_worklist")
    @classmethod
    def _known_address(cls, text: str) -> str:
        if text:
            read_ae_address(text)
        return text

    @field_validator("oidc_issuer")
    @classmethod
    def _confidential_issuer(cls, issuer: str) -> str:
        if "?" in issuer:
            raise ValueError("it may not have a query")
        return check_confidential(issuer) if issuer else ""

    @field_validator("oidc_client_id", "oidc_roles")
    @classmethod
    def _needed_with_a_provider(cls, value: str | Path | None, info: ValidationInfo) -> str | Path | None:
        if info.data.get("oidc_issuer") and not value:
            raise ValueError(f"{PREFIX}OIDC_ISSUER is set, which needs it")
        return value

    @field_validator("oidc_client_secret_file")
    @classmethod
    def _one_secret(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if info.data.get("oidc_issuer") and (path is None) == (info.data.get("oidc_client_secret") is None):
            raise ValueError(f"{PREFIX}OIDC_ISSUER is set, which needs either it or {PREFIX}OIDC_CLIENT_SECRET")
        return path

    @property
    def max_upload_bytes(self) -> int:
        return self.max_upload_mb * 1_000_000

    @property
    def min_free_bytes(self) -> int:
        return self.min_free_mb * 1_000_000

    @property
    def database(self) -> str:
        """Address of the database: ``database_url``, or SQLite in the data folder."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute()}/sangloc.db"

    @property
    def store(self) -> str:
        """Address of the store: ``store_url``, or a folder in the data folder."""
        return self.store_url or self.data_dir.absolute().joinpath("files").as_uri()


def read_settings(environment: Mapping[str, str] | None = None, **given: Any) -> Settings:
    """Settings from the environment.

    Raises
    ------
    BadSettings
        A name with the prefix is not a setting, or a setting does not take its value. The message does not contain the
        value, which may be a secret.
    """
    environment = os.environ if environment is None else environment
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name in environment:
        if name.upper().startswith(PREFIX) and name.upper() not in known and name.upper() not in NOT_SETTINGS:
            names = [setting.removeprefix(PREFIX) for setting in known]
            near = difflib.get_close_matches(name.upper().removeprefix(PREFIX), names, 1)
            hint = f"did you mean {PREFIX}{near[0]}?" if near else f"known: {', '.join(known)}"
            raise BadSettings(f"{name} is not a setting; {hint}")
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = PREFIX + str(first["loc"][0]).upper()
        raise BadSettings(f"{name} cannot be used: {first['msg'].removeprefix('Value error, ')}") from None
