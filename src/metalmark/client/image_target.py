"""Images in a server's own registry: their names, and how the registry is spoken to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from metalmark.client.settings import ConnectionSettings
from metalmark.client.trust import tls_context
from metalmark.model import InputError
from metalmark.oci import Patience, Reference, RegistryAccess

_LOGIN = "name a key that may with --key-file or METALMARK_API_KEY"


def image_target(settings: ConnectionSettings, text: str) -> Reference:
    """Read the name of an image: ``PROJECT[/NAME][:TAG]`` in the server's registry, or one that names its registry.

    Raises:
        InputError: It is malformed.
    """
    first, slash, _ = text.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return Reference.parse(text, field="TARGET")
    return Reference.parse(f"{own_registry(settings)}/{text}", field="TARGET")


def own_registry(settings: ConnectionSettings) -> str:
    """Return ``host:port`` of the server, which is where its registry is."""
    address = settings.address
    host = f"[{address.host}]" if ":" in address.host else address.host
    named = "." in host or ":" in host or host == "localhost"
    usual = address.port == (443 if address.scheme == "https" else 80)
    return host if usual and named else f"{host}:{address.port}"


def image_access(
    settings: ConnectionSettings,
    target: Reference,
    environment: Mapping[str, str],
    *,
    authfile: Path | None = None,
    plain_http: bool = False,
) -> RegistryAccess:
    """Return how an image's registry is spoken to: the server's own with the server's key, others as Docker does.

    Blocking: reads the authorities that were named.

    Args:
        settings: Of the server.
        target: The image.
        environment: The process's.
        authfile: Credentials for other registries.
        plain_http: Speak http to another registry.

    Raises:
        InputError: An authority's file cannot be used.
    """
    patience = settings.patience
    waits = Patience(
        connect_s=patience.connect_s,
        attempts=patience.attempts,
        first_wait_s=patience.first_wait_s,
        longest_wait_s=patience.longest_wait_s,
    )
    if target.registry != own_registry(settings).lower():
        return RegistryAccess(
            authfile=authfile, environment=environment, plain_http=True if plain_http else None, patience=waits
        )
    if settings.address.path:
        raise InputError("--host", str(settings.address), "a registry is at the top of its host, below no path")
    secret = settings.credential.secret if settings.credential is not None else ""
    return RegistryAccess(
        token=secret,
        environment={**environment, **settings.proxies},
        plain_http=settings.address.scheme == "http",
        tls=tls_context(settings.trust, environment),
        patience=waits,
        login_hint=_LOGIN,
    )
