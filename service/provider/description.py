"""What the provider says of itself: the addresses that a sign-in uses, and how a client shows its secret.

References
----------
OpenID Connect Discovery 1.0, section 3 (metadata), 4.1 (address), 4.3 (the issuer has to be the one that was asked).
OpenID Connect RP-Initiated Logout 1.0, section 2.1 (``end_session_endpoint``).
RFC 8414, section 2 (``code_challenge_methods_supported``); RFC 9207, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.errors import ProviderUnavailable
from service.protocols.web_addresses import check_confidential

WELL_KNOWN = "/.well-known/openid-configuration"
BASIC, POST = "client_secret_basic", "client_secret_post"


@dataclass(frozen=True, slots=True)
class Description:
    """What a sign-in needs to know of the provider.

    Parameters
    ----------
    secret_in_header
        The client's secret is sent as ``Authorization: Basic``, else in the form.
    names_itself
        Every answer that a browser brings says which provider it is from.
    takes_claims
        It can be asked for single claims in the ID token.
    """

    issuer: str
    authorization: str
    token: str
    jwks: str
    end_session: str | None
    secret_in_header: bool
    names_itself: bool
    takes_claims: bool


def address_of(issuer: str) -> str:
    """Where the provider describes itself."""
    return issuer.removesuffix("/") + WELL_KNOWN


def read_description(document: Mapping[str, Any], issuer: str) -> Description:
    """The description of ``issuer``.

    Raises
    ------
    ProviderUnavailable
        It is another provider's, lacks an address, or names one that anybody on the way could read.
    """
    if document.get("issuer") != issuer:
        raise ProviderUnavailable("other_issuer")
    challenges = document.get("code_challenge_methods_supported")
    if isinstance(challenges, list) and "S256" not in challenges:
        raise ProviderUnavailable("no_pkce")
    methods = document.get("token_endpoint_auth_methods_supported", [BASIC])
    if not isinstance(methods, list) or not {BASIC, POST} & {each for each in methods if isinstance(each, str)}:
        raise ProviderUnavailable("no_client_secret")
    here = issuer.startswith("http://")

    def address(name: str) -> str:
        try:
            return check_confidential(document[name], may_be_http=here)
        except (KeyError, ValueError, TypeError, AttributeError):
            raise ProviderUnavailable(f"no_{name}") from None

    return Description(
        issuer=issuer,
        authorization=address("authorization_endpoint"),
        token=address("token_endpoint"),
        jwks=address("jwks_uri"),
        end_session=address("end_session_endpoint") if "end_session_endpoint" in document else None,
        secret_in_header=BASIC in methods,
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
        takes_claims=document.get("claims_parameter_supported") is True,
    )
