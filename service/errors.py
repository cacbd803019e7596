"""The errors of the service, as one tree without HTTP in it; ``service.api.refusals`` maps them to status codes.

::

    ServiceError                     the base, never raised itself
    ├── Unauthorised                 no key, or an unknown one
    ├── Forbidden                    the key is known, and may not do this
    ├── SignInRefused                the provider's answer signs nobody in; why is one word
    ├── KeyOfProvider                a person who signs in by the provider has no secret and no name to change here
    ├── NotFound                     no such visit, input, evidence, key or session
    │   └── ModelUnknown             no model of this name and version is in service
    ├── MethodNotAllowed             the address exists, but not for this method
    ├── IdempotencyConflict          an idempotency key was used before with another body
    ├── NotFinished                  the visit is not assessed yet: nothing can be signed or asked about it
    ├── VersionChanged               an opinion was signed since the report was read
    ├── AlreadyAsked                 the same question is open
    ├── NoCaseNow                    nothing to learn from is left that fits, or it comes again later
    ├── CaseWasRead                  a trainee has signed what they say of the case already
    ├── VisitDiffers                 a node sends a visit again with other contents than it sent before
    ├── FileDiffers                  a node sends a file with other bytes than its visit announced
    ├── OffsetMismatch               a piece of an upload does not begin where the upload ends so far
    ├── UploadUnfinished             a visit of uploads that are not complete
    ├── UploadGone                   the upload has expired, was deleted, or is on another machine
    ├── TooManyUploads               this key has as many open uploads as it may
    ├── TusVersion                   a resumable upload in another version of the protocol
    ├── BodyTooLarge                 more bytes than the setting allows, announced or sent
    ├── BodyTooSlow                  the body did not arrive in time, or not at the least rate
    ├── NotAcceptable                the content does not exist in any of the accepted media types
    ├── UnsupportedMediaType         a body in a media type that is not read
    ├── InvalidRequest               fields that cannot be used: which, and why
    ├── TooManyWrongKeys             wrong keys from one address, faster than a mistake explains
    ├── QueueFull                    too many unfinished visits, or no turn to read a body came
    ├── Busy                         more connections, or look-ups of keys, than are worked on at a time
    ├── Unavailable                  starting or draining
    │   ├── ProviderUnavailable      the OpenID provider does not answer as it should: only signing in by it waits
    │   └── StorageUnavailable       the store of files cannot be used: an error of its disk, or it is not reachable
    │       ├── StorageFull          there is no room on a disk, or less than the settings reserve
    │       ├── UploadStopped        a piece of an upload could not be written; what came before it is kept
    │       ├── DatabaseUnavailable  the database cannot be reached, read or written; nothing was committed
    │       └── OutcomeUnknown       the database went away during a commit: it may have been made
    └── InternalFault                a fault of the service itself
        ├── ModelFault               the runtime failed on valid tensors
        ├── StoredFileMissing        a row names a file that the store does not have
        └── StoredFileDamaged        a stored file no longer has the SHA-256 that it is stored under

``code`` is the key of a sentence in ``data_specs/messages.toml``, which quotes ``found`` and ``expected``. Both are the
same in every language and never name a person.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from data_specs.problems import message
from data_specs.vocabulary import Language

OUTAGE_RETRY_AFTER_S = 10
"""When to try again after an outage: a database that restarts is back by then."""


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
        What the field accepts, in signs that are the same in every language.
    found
        What stood there: a number, a day or one short word (:func:`service.faults.quoted_value`), else nothing.
    hint
        Key of ``messages.toml``: one more sentence, on how to write the value.
    """

    field: str
    code: str
    expected: str = ""
    found: str = ""
    hint: str = ""

    def sentence(self, language: Language) -> str:
        """What is wrong, what was found, what is accepted; without a full stop."""
        key = self.code
        if self.code == "field_invalid" and self.found:
            key = "field_invalid_found"
        elif self.code == "field_unknown" and self.expected:
            key = "field_unknown_known"
        said = message(key, language, found=f"'{self.found}'", expected=self.expected)
        return f"{said}. {message(self.hint, language)}" if self.hint else said


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


class SignInRefused(ServiceError):
    """Nobody is signed in. ``found`` is the reason, which has a sentence of its own:

    ``not_begun``, ``denied``, ``not_verified``, ``claim_missing`` (``expected`` names it), ``no_role``, ``revoked``,
    ``needs_https``.
    """

    code = "sign_in_refused"


class KeyOfProvider(ServiceError):
    code = "key_of_provider"


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


class NoCaseNow(ServiceError):
    """``expected`` is the day on which the next case comes again, in UTC."""

    code = "no_case_now"


class CaseWasRead(ServiceError):
    code = "case_was_read"


class VisitDiffers(ServiceError):
    code = "visit_differs"


class FileDiffers(ServiceError):
    code = "file_differs"


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
    """At least one field cannot be used; ``faults`` lists them, and the sentence quotes the first."""

    code = "invalid_request"

    def __init__(self, *faults: FieldFault) -> None:
        super().__init__(faults[0].field, faults[0].expected)
        self.faults = faults


class TooManyWrongKeys(ServiceError):
    code = "too_many_wrong_keys"


class QueueFull(ServiceError):
    code = "queue_full"


class Busy(ServiceError):
    code = "busy"


class Unavailable(ServiceError):
    code = "unavailable"


class ProviderUnavailable(Unavailable):
    """``found`` is the cause as a code, for the log."""

    code = "provider_unavailable"

    def __init__(
        self, found: object = "", expected: object = "", *, retry_after_s: int | None = OUTAGE_RETRY_AFTER_S
    ) -> None:
        super().__init__(found, expected, retry_after_s=retry_after_s)


class StorageUnavailable(Unavailable):
    """Files or rows cannot be kept or read at the moment. ``found`` is the cause as a code, for the log.

    Of a request that gets this answer nothing was kept, except where a subclass says so.
    """

    code = "storage_unavailable"

    def __init__(
        self, found: object = "", expected: object = "", *, retry_after_s: int | None = OUTAGE_RETRY_AFTER_S
    ) -> None:
        super().__init__(found, expected, retry_after_s=retry_after_s)


class StorageFull(StorageUnavailable):
    code = "storage_full"


class UploadStopped(StorageUnavailable):
    code = "upload_stopped"


class DatabaseUnavailable(StorageUnavailable):
    code = "database_unavailable"


class OutcomeUnknown(StorageUnavailable):
    code = "outcome_unknown"


class InternalFault(ServiceError):
    code = "internal_error"


class ModelFault(InternalFault):
    code = "model_fault"


class StoredFileMissing(InternalFault):
    pass


class StoredFileDamaged(InternalFault):
    pass
