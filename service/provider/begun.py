"""A sign-in that was begun and waits for the provider's answer; the browser keeps it, in a cookie.

References
----------
RFC 6749, section 10.12 (state); OpenID Connect Core 1.0, section 15.5.2 (nonce); RFC 7636, section 4.1 (verifier of at
least 256 bits).
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from urllib.parse import quote, unquote

MAX_ONWARD = 2000


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in that was begun: what its answer has to fit, and where it leads.

    Parameters
    ----------
    state, nonce, verifier
        Random: of the browser's answer, of the ID token, and of PKCE.
    onward
        A path of this service.
    """

    state: str
    nonce: str
    verifier: str
    onward: str

    @classmethod
    def new(cls, onward: str) -> Begun:
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        return cls(state, nonce, verifier, onward if len(onward) <= MAX_ONWARD else "/")

    @classmethod
    def of_cookie(cls, cookie: str) -> Begun | None:
        """What :meth:`cookie` wrote; ``None`` if it did not."""
        parts = cookie.split(".", 3)
        if len(parts) != 4 or not all(parts):
            return None
        state, nonce, verifier, onward = parts
        return cls(state, nonce, verifier, unquote(onward))

    @property
    def cookie(self) -> str:
        return ".".join((self.state, self.nonce, self.verifier, quote(self.onward, safe="")))


def is_answer_to(begun: Begun | None, state: str) -> bool:
    """Whether a browser's answer is to the sign-in that it began itself."""
    return begun is not None and hmac.compare_digest(begun.state.encode(), state.encode())
