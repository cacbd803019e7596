"""Why the service does not do what it was asked. One tree, no HTTP in it; ``service.api.refusals`` maps it to statuses.

::

    ServiceError                     nothing raises this itself
    ├── Unauthorised                 no key, or one that is not known
    ├── Forbidden                    the key is known and may not do that
    ├── NotFound                     no such visit, input, evidence or key
    │   └── ModelUnknown             no model of that name and version is in service
    ├── MethodNotAllowed             the address exists, the method does not
    ├── IdempotencyConflict          the key of an earlier request came back with another body
    ├── NotFinished                  the visit is still worked on: there is nothing to sign or to ask about yet
    ├── VersionChanged               somebody signed in the meantime: what was read is not what would be signed
    ├── AlreadyAsked                 the same question is open
    ├── OffsetMismatch               a piece of an upload that does not go on where the upload has ended so far
    ├── UploadUnfinished             a visit asked of uploads that have not come in whole
    ├── UploadGone                   the upload expired, was taken back, or lies on another machine
    ├── TooManyUploads               this key has as many open as it may
    ├── TusVersion                   a resumable upload in another version of the protocol
    ├── BodyTooLarge                 more bytes than the setting allows, declared or sent
    ├── BodyTooSlow                  the body did not arrive in time
    ├── NotAcceptable                what is asked for cannot be had in any of the asked media types
    ├── UnsupportedMediaType         not ``multipart/form-data``
    ├── InvalidRequest               a field that cannot be used: which, and why
    ├── QueueFull                    as many unfinished visits as the service takes on
    ├── Unavailable                  starting or draining
    └── InternalFault                the service failed on its own account
        ├── ModelFault               the runtime failed on tensors that are what the model takes
        ├── StoredFileMissing        a row names a content that the store does not have
        └── StoredFileDamaged        a stored content no longer has its own SHA-256

``code`` is the key of the sentence in ``data_specs/messages.toml``; ``found`` and ``expected`` are what it quotes
(neutral as to language, never anything that names a person).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class FieldFault:
    """One field that cannot be used.

    Parameters
    ----------
    field
        Path of the field, e.g. ``context.person.age_years`` or ``image``.
    code
        Key of ``messages.toml``.
    expected
        What the field accepts, neutral as to language.
    """

    field: str
    code: str
    expected: str = ""


class ServiceError(Exception):
    code: ClassVar[str]

    def __init__(self, found: object = "", expected: object = "", *, retry_after_s: int | None = None) -> None:
        super().__init__(self.code)
        self.found = str(found)
        self.expected = str(expected)
        self.retry_after_s = retry_after_s


class Unauthorised(ServiceError):
    code = "unauthorised"


class Forbidden(ServiceError):
    code = "forbidden"


class NotFound(ServiceError):
    code = "not_found"


class ModelUnknown(NotFound):
    code = "model_unknown"


class MethodNotAllowed(ServiceError):
    code = "method_not_allowed"


class IdempotencyConflict(ServiceError):
    code = "idempotency_conflict"


class NotFinished(ServiceError):
    code = "not_finished"


class VersionChanged(ServiceError):
    code = "version_changed"


class AlreadyAsked(ServiceError):
    code = "already_asked"


class OffsetMismatch(ServiceError):
    code = "upload_offset"


class UploadUnfinished(ServiceError):
    code = "upload_unfinished"


class UploadGone(ServiceError):
    code = "upload_gone"


class TooManyUploads(ServiceError):
    code = "too_many_uploads"


class TusVersion(ServiceError):
    code = "tus_version"


class BodyTooLarge(ServiceError):
    code = "body_too_large"


class BodyTooSlow(ServiceError):
    code = "body_too_slow"


class NotAcceptable(ServiceError):
    code = "not_acceptable"


class UnsupportedMediaType(ServiceError):
    code = "unsupported_media_type"


class InvalidRequest(ServiceError):
    """At least one field cannot be used; ``faults`` lists them all, the first of them is the one quoted."""

    code = "invalid_request"

    def __init__(self, *faults: FieldFault) -> None:
        super().__init__(faults[0].field, faults[0].expected)
        self.faults = faults


class QueueFull(ServiceError):
    code = "queue_full"


class Unavailable(ServiceError):
    code = "unavailable"


class InternalFault(ServiceError):
    code = "internal_error"


class ModelFault(InternalFault):
    code = "model_fault"


class StoredFileMissing(InternalFault):
    pass


class StoredFileDamaged(InternalFault):
    pass


MAX_FAULTS = 20
MAX_NAME = 60

_EXPECTED = {
    "greater_than_equal": "≥ {ge}",
    "greater_than": "> {gt}",
    "less_than_equal": "≤ {le}",
    "less_than": "< {lt}",
    "string_too_long": "≤ {max_length} × U+",
    "string_too_short": "≥ {min_length} × U+",
    "too_long": "≤ {max_length}",
    "literal_error": "{expected}",
    "finite_number": "-∞ < x < ∞",
    "string_type": '"…"',
    "string_unicode": "UTF-8",
    "float_type": "0.0",
    "float_parsing": "0.0",
    "int_type": "0",
    "int_parsing": "0",
    "tuple_type": "[…]",
    "list_type": "[…]",
    "model_type": "{{…}}",
    "date_type": "YYYY-MM-DD",
    "date_parsing": "YYYY-MM-DD",
    "date_from_datetime_parsing": "YYYY-MM-DD",
    "datetime_type": "YYYY-MM-DDThh:mm:ssZ",
    "datetime_parsing": "YYYY-MM-DDThh:mm:ssZ",
    "datetime_from_date_parsing": "YYYY-MM-DDThh:mm:ssZ",
    "json_invalid": "JSON",
}
"""What a field accepts, by pydantic's type of error, in signs that need no translation."""

_CODES = {"extra_forbidden": "field_unknown", "missing": "field_missing", "too_long": "field_too_many"}


def field_faults(found: Sequence[Mapping[str, Any]], prefix: str = "") -> list[FieldFault]:
    """Pydantic's list of errors as those of the contract: which field, and what it accepts, never what was sent.

    At most ``MAX_FAULTS`` of them.
    """
    return [_fault(each, prefix) for each in found[:MAX_FAULTS]]


def _fault(error: Mapping[str, Any], prefix: str) -> FieldFault:
    kind = str(error["type"])
    path = ".".join(
        [prefix, *(quoted_name(part) for part in error["loc"])] if prefix else map(quoted_name, error["loc"])
    )
    code = _CODES.get(kind, "field_invalid")
    expected = ""
    if kind in _EXPECTED:
        expected = _EXPECTED[kind].format(**{"expected": "", **error.get("ctx", {})}).replace("'", "")
        expected = expected.replace(" or ", ", ")
    return FieldFault(path or "body", code, expected)


def quoted_name(part: object) -> str:
    """A field's name as it may be quoted: what the client called it, cut short, printable characters only."""
    return "".join(each for each in str(part) if each.isprintable())[:MAX_NAME] or "?"
