"""The ID token: who signed it, for whom, when, and in answer to what.

References
----------
OpenID Connect Core 1.0, section 3.1.3.7 (validation), section 2 (claims); RFC 7515, section 4 (header parameters that
are not understood are ignored); RFC 8725, section 3.1 (the algorithms are the verifier's choice, never the token's).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc import jwt
from joserfc.errors import ClaimError, InvalidKeyIdError, JoseError
from joserfc.jwk import JWKRegistry, Key, KeySet
from joserfc.jws import JWSRegistry

from service.errors import ProviderUnavailable, SignInRefused

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "Ed25519", "EdDSA"),
)
"""Signatures with a private key. ``none`` is none, and with an HMAC the public key would be the secret."""
ASYMMETRIC = frozenset({"RSA", "EC", "OKP"})
"""Kinds of keys that have a public half (RFC 7518, section 6.1; RFC 8037, section 2)."""
MAX_KEYS = 100
LEEWAY_S = 60
"""How far the two clocks may be apart."""
MAX_SUBJECT = 255
"""OpenID Connect Core 1.0, section 2: ``sub`` has at most 255 ASCII characters."""
_MALFORMED = (JoseError, UnsupportedAlgorithm, ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What a token or a key that is not well formed ends in."""

log = structlog.get_logger()


class KeyUnknown(Exception):
    """The token names a key that is not in the set: perhaps a new one."""


def read_keys(document: dict[str, Any]) -> KeySet:
    """The provider's public keys; one that cannot be used is left out (RFC 7517, section 5).

    Raises
    ------
    ProviderUnavailable
        There is none.
    """
    listed = document.get("keys")
    keys: list[Key] = []
    for each in listed[:MAX_KEYS] if isinstance(listed, list) else ():
        if isinstance(each, dict) and each.get("kty") in ASYMMETRIC:
            with suppress(*_MALFORMED):
                keys.append(JWKRegistry.import_key(each))
    if not keys:
        raise ProviderUnavailable("no_keys")
    return KeySet(keys)


def verify(token: str, keys: KeySet, *, issuer: str, client_id: str, nonce: str) -> dict[str, Any]:
    """The claims of an ID token that answers our own request of this moment.

    Raises
    ------
    KeyUnknown
    SignInRefused
        ``not_verified``; the log says why, by the name of the check or of the claim.
    """
    try:
        registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
        claims = jwt.decode(token, keys, registry=registry).claims
        jwt.JWTClaimsRegistry(
            leeway=LEEWAY_S,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        ).validate(claims)
    except InvalidKeyIdError:
        raise KeyUnknown from None
    except _MALFORMED as error:
        raise not_verified(type(error).__name__, error.claim if isinstance(error, ClaimError) else "") from None
    subject, audience = claims["sub"], claims["aud"]
    if not isinstance(subject, str) or not subject.isascii() or len(subject) > MAX_SUBJECT:
        raise not_verified("subject", "sub")
    if not isinstance(claims["nonce"], str):
        raise not_verified("nonce", "nonce")
    is_shared = isinstance(audience, list) and audience != [client_id]
    if claims.get("azp", None if is_shared else client_id) != client_id:
        raise not_verified("authorized_party", "azp")
    return claims


def not_verified(reason: str, claim: str = "") -> SignInRefused:
    """The refusal of an answer that could not be verified, with a line in the log."""
    log.warning("provider_answer_not_verified", reason=reason, claim=claim)
    return SignInRefused("not_verified")
