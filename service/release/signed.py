"""A release as a file: what it names, and the signature of the person who promotes.

::

    {"manifest": "{\\"number\\": 17, \\"bundles\\": [...], \\"tables\\": {...}}", "signature": "base64"}

The manifest is a string, so that what is verified are the bytes that were signed, however JSON is written. It has the
text of each table, and of each file of a bundle the path, the size and the digest.

References
----------
RFC 8032, section 5.1 (Ed25519); RFC 4648, section 4 (base64).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNED_FOR = b"sangloc release\n"
"""Stands before the manifest in what is signed, so that no signature over something else can be one of a release."""
MAX_BYTES = 4_000_000
"""Of the file of a release."""
MAX_FILES_BYTES = 500_000_000
"""Of all files that a release names."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"


Refusal = Literal[
    "signer", "signature", "number", "format", "too_large", "table", "bundle", "version_differs", "file_differs",
    "file_missing", "room", "folder",
]  # fmt: skip
"""Why a release is refused; pages have a sentence for each. ``signer``: no public key is set."""
REFUSALS: tuple[Refusal, ...] = get_args(Refusal)


class NotTaken(Exception):
    """A release is refused, and nothing has changed.

    Parameters
    ----------
    detail
        Which file and why, for an administrator. It is about the operator's own files and names no person.
    """

    def __init__(self, code: Refusal, detail: str = "") -> None:
        super().__init__(code)
        self.code: Refusal = code
        self.detail = " ".join(detail.split())[:300]


class _Signed(BaseModel):
    """The base of what a manifest has. A member that only a newer release of the software knows is left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ReleasedFile(_Signed):
    """One file of a bundle; ``path`` is relative to the bundle's folder."""

    path: Annotated[str, Field(pattern=rf"^{_PART}(/{_PART}){{0,5}}$", max_length=200)]
    n_bytes: Annotated[int, Field(ge=1)]
    sha256: Digest


class ReleasedBundle(_Signed):
    """One version of a bundle, which the release puts in service."""

    organ: Annotated[str, Field(max_length=60)] | None
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")]
    version: Annotated[str, Field(pattern=r"^\d{1,6}\.\d{1,6}\.\d{1,6}$")]
    files: Annotated[tuple[ReleasedFile, ...], Field(min_length=1, max_length=100)]

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.version}"


class Release(_Signed):
    """What a person has signed.

    Parameters
    ----------
    number
        It only grows: nodes refuse one that is not higher than what they have.
    who, why
        For the registry's log of each node.
    tables
        Text of each programme table by its name, which is that of its setting: ``next_steps``.
    """

    format: Literal[1] = 1
    number: Annotated[int, Field(ge=1, le=999_999_999)]
    signed_at: AwareDatetime
    who: Annotated[str, Field(min_length=1, max_length=200)]
    why: Annotated[str, Field(min_length=1, max_length=1000)]
    bundles: Annotated[tuple[ReleasedBundle, ...], Field(max_length=50)]
    tables: Annotated[dict[str, str], Field(max_length=20)] = {}

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        names = [bundle.name for bundle in self.bundles]
        if len(set(names)) < len(names):
            raise ValueError("a release names each bundle once")
        for bundle in self.bundles:
            if len({file.path for file in bundle.files}) < len(bundle.files):
                raise ValueError("a bundle has each file once")
        return self

    def files(self) -> Iterator[tuple[ReleasedBundle, ReleasedFile]]:
        """Every file with its bundle."""
        return ((bundle, file) for bundle in self.bundles for file in bundle.files)

    def said_of_tables(self) -> dict[str, str]:
        """SHA-256 of each table by its name."""
        return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in self.tables.items()}


class SignedRelease(_Signed):
    """The file: a manifest as text, and its signature in base64."""

    manifest: Annotated[str, Field(max_length=MAX_BYTES)]
    signature: Annotated[str, Field(max_length=100)]

    @property
    def sha256(self) -> str:
        """Digest of the manifest."""
        return hashlib.sha256(self.manifest.encode()).hexdigest()

    def release(self) -> Release:
        """What the manifest says, whoever signed it.

        Raises
        ------
        NotTaken
            ``format``: it cannot be read; perhaps newer software made it. ``too_large``.
        """
        try:
            release = Release.model_validate_json(self.manifest)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise NotTaken("format", f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        if sum(file.n_bytes for _, file in release.files()) > MAX_FILES_BYTES:
            raise NotTaken("too_large", f"at most {MAX_FILES_BYTES // 1_000_000} MB")
        return release

    def verified(self, public_keys: Sequence[bytes]) -> Release:
        """What the manifest says, if one of the keys has signed it.

        Parameters
        ----------
        public_keys
            32 bytes each.

        Raises
        ------
        NotTaken
            ``signer``, ``signature``, and as :meth:`release`.
        """
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  only nodes and two commands need it
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415  as above

        if not public_keys:
            raise NotTaken("signer")
        try:
            signature = base64.b64decode(self.signature, validate=True)
        except ValueError:
            raise NotTaken("signature") from None
        for public_key in public_keys:
            try:
                Ed25519PublicKey.from_public_bytes(public_key).verify(signature, SIGNED_FOR + self.manifest.encode())
            except InvalidSignature:
                continue
            return self.release()
        raise NotTaken("signature")


def sign(release: Release, key: Ed25519PrivateKey) -> SignedRelease:
    """The release as a file."""
    manifest = release.model_dump_json()
    signature = key.sign(SIGNED_FOR + manifest.encode())
    return SignedRelease(manifest=manifest, signature=base64.b64encode(signature).decode())


def read_signed(content: bytes) -> SignedRelease:
    """The file of a release, not verified.

    Raises
    ------
    NotTaken
        ``format`` or ``too_large``.
    """
    if len(content) > MAX_BYTES:
        raise NotTaken("too_large", f"at most {MAX_BYTES // 1_000_000} MB")
    try:
        return SignedRelease.model_validate_json(content)
    except ValidationError:
        raise NotTaken("format", "a manifest and its signature are expected") from None
