"""How a server is spoken to: its address, the credential, whom to trust, and how long to be patient."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from metalmark.client.address import DEFAULT_ADDRESS, ServerAddress
from metalmark.client.credential import Credential
from metalmark.model import InputError

CONFIGURATION_NAME = "client.toml"
"""File name of the configuration in the folder of configurations."""

_LONGEST = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Deadlines and retries of requests. All times in seconds."""

    connect_s: float = 15.0
    """For a TCP and TLS connection to stand."""
    answer_s: float = 120.0
    """For one whole answer, from the first byte sent to the last byte read."""
    attempts: int = 8
    """Tries in all."""
    first_wait_s: float = 1.0
    """Pause after the first failure; doubled after each further one."""
    longest_wait_s: float = 30.0
    """Bound of a pause, also of one that the server asks for."""

    def wait_s(self, failures: int, *, asked_s: float | None = None) -> float:
        """Return how long to wait after so many failures in a row.

        Args:
            failures: At least 1.
            asked_s: What the server asked for with ``Retry-After``; it can lengthen the wait up to the bound.
        """
        # The exponent is bounded, for 2.0 ** 1100 is no number.
        doubled = self.first_wait_s * 2.0 ** min(failures - 1, 32)
        return min(max(doubled, asked_s or 0.0), max(self.longest_wait_s, 0.0))


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Whose certificates count, and which one is shown."""

    insecure: bool = False
    """Accept any certificate."""
    ca_file: Path | None = None
    """Authorities that are trusted beside the system's, as PEM."""
    client_certificate: Path | None = None
    """Certificate and private key that are shown to the server, as one PEM file."""


@dataclass(frozen=True, kw_only=True)
class ConnectionSettings:
    """All that a session needs to know."""

    address: ServerAddress
    credential: Credential | None = None
    trust: Trust = field(default_factory=Trust)
    patience: Patience = field(default_factory=Patience)
    proxies: Mapping[str, str] = field(default_factory=dict)
    """The environment's ``http_proxy``, ``https_proxy``, ``all_proxy`` and ``no_proxy``, by lower-case name."""

    @property
    def why_unproved(self) -> str:
        """Why somebody on the way could speak in the server's place, in words; empty when nobody can."""
        if self.address.scheme == "https":
            return "its certificate is not checked (--insecure-host)" if self.trust.insecure else ""
        return "" if self.address.is_local else "it is reached over plain http://"


@dataclass(frozen=True, kw_only=True)
class ClientConfiguration:
    """The file ``client.toml``: what need not be said with every command."""

    host: str | None = None
    key_file: Path | None = None
    ca_file: Path | None = None
    client_certificate: Path | None = None


def read_configuration(path: Path) -> ClientConfiguration:
    """Read a configuration; a file that does not exist is an empty one. Blocking.

    Raises:
        InputError: It is not TOML, names what there is not, or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            found = tomllib.loads(stream.read(_LONGEST).decode("utf-8"))
    except FileNotFoundError:
        return ClientConfiguration()
    except OSError as error:
        raise InputError("configuration", str(path), error.strerror or "it cannot be read") from None
    except ValueError as error:
        raise InputError("configuration", str(path), f"it is not TOML: {error}") from None
    values: dict[str, str] = {}
    for name, value in found.items():
        if name not in ClientConfiguration.__dataclass_fields__:
            known = ", ".join(ClientConfiguration.__dataclass_fields__)
            raise InputError(f"{path}: {name}", value, "there is no such setting", hint=f"there are {known}")
        if not isinstance(value, str) or not value:
            raise InputError(f"{path}: {name}", value, "a text is needed")
        values[name] = value

    def beside(name: str) -> Path | None:
        # A relative path is meant relative to the file that names it, whatever the current folder is.
        return path.parent / Path(values[name]).expanduser() if name in values else None

    return ClientConfiguration(
        host=values.get("host"),
        key_file=beside("key_file"),
        ca_file=beside("ca_file"),
        client_certificate=beside("client_certificate"),
    )


def find_address(
    *, host: str | None = None, environment: Mapping[str, str], configured: str | None = None
) -> ServerAddress:
    """Return the server that the flag, the environment or the configuration names, in this order; else this machine's.

    Raises:
        InputError: What counts is no address.
    """
    for field_name, text in (
        ("--host", host),
        ("METALMARK_HOST", environment.get("METALMARK_HOST")),
        ("BENCHER_HOST", environment.get("BENCHER_HOST")),
        ("host", configured),
    ):
        if text:
            return ServerAddress.parse(text, field=field_name)
    return ServerAddress.parse(DEFAULT_ADDRESS)


def proxies_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the proxy variables of an environment; a lower-case name beats its upper-case twin."""
    found: dict[str, str] = {}
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        # HTTP_PROXY in capitals is what a web server's CGI makes of a request header named Proxy.
        capitals = "" if name == "http_proxy" else environment.get(name.upper(), "")
        if value := environment.get(name) or capitals:
            found[name] = value
    return found
