"""The keys of a facility or a doctor, and what is signed with them: XML, and the checksum of a request.

A key is read when it is used, so that a renewed one counts at once. Nothing of it is in a log or in an error.

References
----------
W3C XML Signature Syntax and Processing Version 1.1 (enveloped signature); Canonical XML Version 1.1; RFC 8017, section
8.2 (RSASSA-PKCS1-v1_5: the same text has the same signature); FIPS 180-4 (SHA-256).
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from service.delivery.health_book.table import Keys

MAX_KEY_BYTES = 100_000
MIN_KEY_BITS = 2048
"""NIST SP 800-131A revision 2, section 3: shorter RSA keys sign nothing."""
Element = Any
"""An element of lxml, which has no types."""
DS = "http://www.w3.org/2000/09/xmldsig#"


class KeyUnusable(Exception):
    """A key or a secret cannot be used now; the message is one word that says why, without the file's content."""


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key with its certificates, the signer's first."""

    key: RSAPrivateKey
    certificates: tuple[x509.Certificate, ...]

    def signed(self, root: Element, place: Element) -> Element:
        """The document with a signature in ``place``, which is part of it."""
        from lxml.etree import SubElement  # type: ignore[import-untyped]  # noqa: PLC0415  of the extra
        from signxml.signer import XMLSigner  # noqa: PLC0415

        SubElement(place, f"{{{DS}}}Signature", {"Id": "placeholder"}, {"ds": DS})
        return XMLSigner().sign(root, key=self.key, cert=list(self.certificates))

    def checksum(self, header: bytes, data: bytes) -> str:
        """RSA-SHA256 over ``A.B``, where A and B are the SHA-256 of header and data in capital hexadecimal digits."""
        hashes = ".".join(hashlib.sha256(part).hexdigest().upper() for part in (header, data))
        return base64.b64encode(self.key.sign(hashes.encode("ascii"), PKCS1v15(), SHA256())).decode("ascii")


def read_signer(keys: Keys) -> Signer:
    """The key of these files.

    Raises
    ------
    KeyUnusable
    """
    passphrase = read_secret(keys.passphrase_file).encode() if keys.passphrase_file else None
    content = _read_private(keys.key_file)
    try:
        key = load_pem_private_key(content, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyUnusable("key_unreadable") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < MIN_KEY_BITS:
        raise KeyUnusable("key_not_rsa")
    try:
        certificates = x509.load_pem_x509_certificates(_read(keys.certificate_file))
    except ValueError:
        raise KeyUnusable("certificate_unreadable") from None
    if certificates[0].public_key() != key.public_key():
        raise KeyUnusable("certificate_of_another_key")
    return Signer(key, tuple(certificates))


def read_secret(path: Path) -> str:
    """A name or a password from a file of its own, without the blanks and line ends around it.

    Raises
    ------
    KeyUnusable
    """
    try:
        secret = _read_private(path).decode().strip()
    except UnicodeDecodeError:
        raise KeyUnusable("secret_unreadable") from None
    if not secret:
        raise KeyUnusable("secret_empty")
    return secret


def _read_private(path: Path) -> bytes:
    """The content of a file that only this process's user, or the administrator's group, may read."""
    return _read(path, forbidden=stat.S_IWGRP | stat.S_IRWXO)


def _read(path: Path, forbidden: int = 0) -> bytes:
    try:
        # a pipe without a writer would hold up the thread that opens it
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise KeyUnusable("file_unreadable")
            if mode & forbidden:
                raise KeyUnusable("file_open_to_others")
            content = file.read(MAX_KEY_BYTES + 1)
    except OSError:
        raise KeyUnusable("file_unreadable") from None
    if len(content) > MAX_KEY_BYTES:
        raise KeyUnusable("file_unreadable")
    return content
