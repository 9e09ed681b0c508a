"""Where a server is."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import quote, urlsplit

from metalmark.model import InputError

DEFAULT_ADDRESS = "http://localhost:6610"
"""Used when nobody names a server. It is this machine: no command has a remote default."""


@dataclass(frozen=True, kw_only=True)
class ServerAddress:
    """The address of a server, and of what it serves."""

    scheme: str
    """``http`` or ``https``."""
    host: str
    """A name or an IP address, without brackets."""
    port: int
    path: str = ""
    """Prefix of every path, without a slash at its end, for servers behind a proxy; usually empty."""

    @classmethod
    def parse(cls, text: str, *, field: str = "--host") -> ServerAddress:
        """Read an address such as ``https://bench.example.com`` or ``http://localhost:6610``.

        Args:
            text: The address. A password, a query or a fragment does not belong into it.
            field: Where it was given, for the error.

        Raises:
            InputError: It is not the address of a server.
        """
        hint = "use http:// or https://, a host and perhaps a port, as in https://bench.example.com"
        try:
            parts = urlsplit(text.strip())
            port = parts.port
        except ValueError as error:
            raise InputError(field, text, str(error), hint=hint) from None
        if parts.username is not None or parts.password is not None:
            # The text is not repeated: it holds a password.
            raise InputError(field, "***", "an address holds no credential", hint="give the key with --key-file")
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise InputError(field, text, "it is not the address of a server", hint=hint)
        if parts.query or parts.fragment or any(char.isspace() for char in parts.netloc + parts.path):
            raise InputError(field, text, "it holds more than an address", hint=hint)
        return cls(
            scheme=parts.scheme,
            host=parts.hostname,
            port=port or (443 if parts.scheme == "https" else 80),
            path=parts.path.rstrip("/"),
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port == (443 if self.scheme == "https" else 80)
        return f"{self.scheme}://{host}{'' if usual else f':{self.port}'}{self.path}"

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine by its very name."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def url(self, *segments: str) -> str:
        """Return the URL of a path below ``/v0``; each segment is quoted, so that none can become two.

        Raises:
            InputError: A segment is empty, ``.`` or ``..``, which would name another path than was meant.
        """
        for segment in segments:
            if segment in ("", ".", ".."):
                raise InputError("a name", segment, "nothing is called that", hint="give a slug or UUID")
        return "/".join((str(self), "v0", *(quote(segment, safe="") for segment in segments)))
