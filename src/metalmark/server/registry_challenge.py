"""The challenge with which the registry sends clients to its token service."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from metalmark.server.config import ServerConfig
from metalmark.server.registry_scope import RepositoryScope

TOKEN_PATH = "/v0/auth/oci/token"  # noqa: S105  an address, not a secret
_HOST = re.compile(r"(?:[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?", re.ASCII)


def remember_scope(connection: HTTPConnection, scope: RepositoryScope, *, narrow: bool = False) -> None:
    """Note what a request needs, for the challenge that it may be answered with.

    Args:
        connection: The request.
        scope: What it needs.
        narrow: Whether it came with a token that does not reach that far.
    """
    connection.scope["state"].update(registry_scope=scope, registry_scope_narrow=narrow)


def wants_wider_token(connection: HTTPConnection) -> bool:
    """Whether a request was refused for its token alone, so that another one may do."""
    return bool(connection.scope.get("state", {}).get("registry_scope_narrow"))


def registry_challenge(connection: HTTPConnection, config: ServerConfig) -> str:
    """Return the value of ``WWW-Authenticate`` for a request that was refused for want of a credential."""
    url = registry_address(connection, config)
    state = connection.scope.get("state", {})
    parts = [f'realm="{url}{TOKEN_PATH.removeprefix("/")}"', f'service="{urlsplit(url).hostname or ""}"']
    scope = state.get("registry_scope")
    if scope is not None:
        parts.append(f'scope="{scope}"')
    if state.get("registry_scope_narrow"):
        parts.append('error="insufficient_scope"')
    return f"Bearer {','.join(parts)}"


def registry_address(connection: HTTPConnection, config: ServerConfig) -> str:
    """Return the registry's address, with a slash at its end.

    One on loopback is good on this machine alone, and it is what a server without ``server.url`` has: then the client
    is told the address that it used itself.
    """
    if config.registry.url is not None or not _is_loopback(urlsplit(config.registry_url).hostname or ""):
        return config.registry_url
    host = connection.headers.get("host", "")
    return f"{connection.scope['scheme']}://{host}/" if _HOST.fullmatch(host) else config.registry_url


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
