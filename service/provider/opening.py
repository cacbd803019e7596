"""The provider of the settings; opened at the start, where everything about it that can be wrong is said."""

from __future__ import annotations

from pathlib import Path

from service.provider.roles import BadTable, read_roles
from service.provider.sign_in import Provider
from service.settings import PREFIX, BadSettings, Settings

MAX_SECRET_BYTES = 10_000


def open_provider(settings: Settings) -> Provider | None:
    """The provider; ``None`` if the settings name none. It is not asked for anything yet.

    Raises
    ------
    BadSettings
        The table of roles, or the file of the secret, cannot be used.
    """
    if not settings.oidc_issuer or settings.oidc_roles is None:
        return None
    try:
        roles = read_roles(settings.oidc_roles)
    except BadTable as error:
        raise BadSettings(f"{PREFIX}OIDC_ROLES cannot be used: {error}") from None
    secret = settings.oidc_client_secret or _read_secret(settings.oidc_client_secret_file)
    return Provider(settings.oidc_issuer, settings.oidc_client_id, secret, roles)


def _read_secret(path: Path | None) -> str:
    try:
        with (path or Path()).open("rb") as file:
            secret = file.read(MAX_SECRET_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadSettings(f"{PREFIX}OIDC_CLIENT_SECRET_FILE cannot be used: {reason}") from None
    if not secret:
        raise BadSettings(f"{PREFIX}OIDC_CLIENT_SECRET_FILE cannot be used: it is empty")
    return secret
