"""The flags that every command has that asks a server, and what they and the environment add up to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from metalmark.client import ConnectionSettings

_FILE = {"metavar": "FILE", "show_default": False}


def _connection(  # noqa: PLR0917  # the signature is the table of flags, all given by name
    host: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The server. Else METALMARK_HOST, client.toml, http://localhost:6610."),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(**_FILE, help="File with a user's or project's key; - reads it. Else METALMARK_API_KEY[_FILE]."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="The key itself; others on this machine can see it: use --key-file."),
    ] = None,
    token: Annotated[
        str | None, typer.Option(metavar="JWT", help="The token of a sign-in, as METALMARK_API_TOKEN. Seen by others.")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(**_FILE, help="Authorities (PEM) to trust beside the system's.")
    ] = None,
    insecure_host: Annotated[
        bool, typer.Option("--insecure-host", help="Accept any certificate, also that of somebody in between.")
    ] = False,
    native_tls: Annotated[
        bool, typer.Option("--native-tls", help="Accepted for compatibility: the system's authorities always count.")
    ] = False,
    timeout: Annotated[
        int, typer.Option(metavar="SECONDS", min=1, max=900, help="Limit of connecting, each time.")
    ] = 15,
    attempts: Annotated[int, typer.Option(metavar="COUNT", min=1, max=65535, help="Tries in all.")] = 8,
    retry_after: Annotated[
        int, typer.Option(metavar="SECONDS", min=1, max=900, help="First pause between tries; then doubled.")
    ] = 1,
    max_retry_after: Annotated[
        int, typer.Option(metavar="SECONDS", min=1, max=900, help="Longest pause between tries.")
    ] = 30,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail when an answer lacks a field that the reference promises.")
    ] = False,
) -> None:
    """Declare the flags; never called."""


def connection_parameters() -> list[Parameter]:
    """Return the flags as keyword-only parameters of a function."""
    return _resolved(_connection)


def _resolved(function: Callable[..., None]) -> list[Parameter]:
    import inspect
    import typing

    hints = typing.get_type_hints(function, include_extras=True)
    return [
        parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(function).parameters.items()
    ]


CONNECTION_FLAGS = frozenset(parameter.name for parameter in connection_parameters())
"""Names of the parameters; help shows them apart from a command's own."""


def connection_settings(
    given: Mapping[str, Any], *, environment: Mapping[str, str], warn: Callable[[str], None]
) -> ConnectionSettings:
    """Return the settings that flags, environment and ``client.toml`` add up to. Blocking: reads files.

    Args:
        given: Values of the flags, by the names in `CONNECTION_FLAGS`.
        environment: The process's.
        warn: Is told what works and should not be done, one line each.

    Raises:
        InputError: One of them cannot be used.
    """
    from metalmark.client import (
        CONFIGURATION_NAME,
        ConnectionSettings,
        Patience,
        Trust,
        find_address,
        find_credential,
        proxies_of,
        read_configuration,
    )
    from metalmark.system import folders

    configured = read_configuration(folders(environment).config / CONFIGURATION_NAME)
    address = find_address(host=given["host"], environment=environment, configured=configured.host)
    credential = find_credential(
        key=given["key"],
        token=given["token"],
        key_file=given["key_file"],
        environment=environment,
        configured=configured.key_file,
    )
    if credential is not None and credential.exposed:
        warn(credential.exposed)
    if credential is not None and address.scheme == "http" and not address.is_local:
        warn(f"the key goes to {address} without encryption; use https://")
    if given["insecure_host"]:
        warn("the server's certificate is not checked (--insecure-host)")
    client_certificate = environment.get("SSL_CLIENT_CERT")
    return ConnectionSettings(
        address=address,
        credential=credential,
        trust=Trust(
            insecure=given["insecure_host"],
            ca_file=given["ca_file"] or configured.ca_file,
            client_certificate=Path(client_certificate) if client_certificate else configured.client_certificate,
        ),
        patience=Patience(
            connect_s=given["timeout"],
            attempts=given["attempts"],
            first_wait_s=given["retry_after"],
            longest_wait_s=given["max_retry_after"],
        ),
        proxies=proxies_of(environment),
    )
