"""Signing in by the provider: the address that a browser is sent to, and what its answer is worth.

The authorization code flow with PKCE. What has to be remembered meanwhile is in a cookie of the browser that began, so
that nothing is kept for whoever begins and does not come back.

References
----------
OpenID Connect Core 1.0, sections 3.1 and 5.5 (``claims``); RFC 6749, sections 2.3.1 (the client's secret) and 4.1;
RFC 7636, section 4 (PKCE); RFC 9207 (``iss`` of the answer); RFC 9700, section 2.1 (state, nonce and PKCE together).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus, urlencode

from joserfc.jwk import KeySet

from service.errors import Busy, ProviderUnavailable, SignInRefused
from service.places import Places
from service.provider.answers import Kept, ask, new_client
from service.provider.begun import Begun
from service.provider.description import Description, address_of, read_description
from service.provider.id_token import KeyUnknown, not_verified, read_keys, verify
from service.provider.roles import Roles

EXCHANGES_AT_ONCE = 8
"""Codes that are changed for tokens at a time, of one network at most half: each is a request to the provider."""
EXCHANGE_WAIT_S = 5.0
MAX_CODE = 4000


class Provider:
    """The OpenID provider of the settings.

    Parameters
    ----------
    roles
        Who has which role here.
    """

    def __init__(self, issuer: str, client_id: str, client_secret: str, roles: Roles) -> None:
        self.issuer, self.roles = issuer, roles
        self._client_id, self._client_secret = client_id, client_secret
        self._http = new_client()
        self._description = Kept(self._describe)
        self._keys = Kept(self._fetch_keys)
        self._exchanges = Places(EXCHANGES_AT_ONCE)

    async def begin(self, begun: Begun, redirect_uri: str) -> str:
        """The address at the provider where the person signs in.

        Raises
        ------
        ProviderUnavailable
        """
        described = await self._description.get()
        digest = hashlib.sha256(begun.verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self.roles.scopes),
            "state": begun.state,
            "nonce": begun.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        if described.takes_claims:  # otherwise it may keep them for its userinfo address (OpenID Connect Core 1.0, 5.4)
            asked["claims"] = json.dumps({"id_token": dict.fromkeys(self.roles.claims)})
        return _with_query(described.authorization, asked)

    async def finish(self, answer: Mapping[str, str], begun: Begun, redirect_uri: str, network: str) -> dict[str, Any]:
        """The claims of the person whom the provider signed in.

        Parameters
        ----------
        answer
            The query that the browser brought back.
        network
            Where it comes from.

        Raises
        ------
        SignInRefused
            ``denied``, ``not_verified``
        ProviderUnavailable, Busy
        """
        described = await self._description.get()
        named = answer.get("iss", "" if described.names_itself else self.issuer)
        if named != self.issuer:
            raise not_verified("other_issuer", "iss")
        code = answer.get("code", "")
        if "error" in answer or not 0 < len(code) <= MAX_CODE:
            raise SignInRefused("denied")
        try:
            await self._exchanges.take(network, EXCHANGE_WAIT_S)
        except TimeoutError:
            raise Busy("", f"{EXCHANGE_WAIT_S:g} s", retry_after_s=round(EXCHANGE_WAIT_S)) from None
        try:
            token = await self._exchange(described, code, begun.verifier, redirect_uri)
            return await self._verified(token, begun.nonce)
        finally:
            self._exchanges.give(network)

    @property
    def end_session(self) -> str | None:
        """Where a person ends their session at the provider, as far as it is known without asking."""
        described = self._description.value
        if described is None or described.end_session is None:
            return None
        return _with_query(described.end_session, {"client_id": self._client_id})

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _describe(self) -> Description:
        status, document = await ask(self._http, address_of(self.issuer))
        if status != 200:
            raise ProviderUnavailable(f"http_{status}")
        return read_description(document, self.issuer)

    async def _fetch_keys(self) -> KeySet:
        status, document = await ask(self._http, (await self._description.get()).jwks)
        if status != 200:
            raise ProviderUnavailable(f"http_{status}")
        return await asyncio.to_thread(read_keys, document)

    async def _exchange(self, described: Description, code: str, verifier: str, redirect_uri: str) -> str:
        """The ID token for a code."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        authorization = None
        if described.secret_in_header:  # both as form fields first (RFC 6749, section 2.3.1)
            authorization = (quote_plus(self._client_id), quote_plus(self._client_secret))
        else:
            form |= {"client_id": self._client_id, "client_secret": self._client_secret}
        status, answer = await ask(self._http, described.token, form, authorization)
        if status == 400 and answer.get("error") == "invalid_grant":
            raise not_verified("code")
        if status != 200:  # our own settings, or the provider
            raise ProviderUnavailable("invalid_client" if answer.get("error") == "invalid_client" else f"http_{status}")
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise not_verified("no_id_token")
        return token

    async def _verified(self, token: str, nonce: str) -> dict[str, Any]:
        for anew in (False, True):
            keys = await self._keys.get(anew=anew)
            try:
                return await asyncio.to_thread(
                    verify, token, keys, issuer=self.issuer, client_id=self._client_id, nonce=nonce
                )
            except KeyUnknown:  # once more with the keys of now, unless these are
                continue
        raise not_verified("key_unknown")


def _with_query(address: str, asked: Mapping[str, str]) -> str:
    return f"{address}{'&' if '?' in address else '?'}{urlencode(asked)}"
