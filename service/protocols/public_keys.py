"""Public keys of Ed25519 as text.

References
----------
RFC 8032, section 5.1.5: a public key has 32 bytes. RFC 4648, section 4 (base64).
"""

from __future__ import annotations

import base64

N_BYTES = 32


def read_public_keys(text: str) -> tuple[bytes, ...]:
    """Keys in base64, separated by commas; none in an empty text.

    Raises
    ------
    ValueError
        One is no key.
    """
    keys = []
    for each in filter(None, (part.strip() for part in text.split(","))):
        try:
            key = base64.b64decode(each, validate=True)
        except ValueError:
            key = b""
        if len(key) != N_BYTES:
            raise ValueError("it has to be public keys of 32 bytes in base64, separated by commas")
        keys.append(key)
    return tuple(keys)
