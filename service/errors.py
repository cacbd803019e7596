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

from dataclasses import dataclass
from typing import ClassVar


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
