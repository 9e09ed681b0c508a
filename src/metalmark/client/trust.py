"""TLS of a session: the system's authorities, those that the user named, and the user's own certificate."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from metalmark.client.settings import Trust
from metalmark.model import InputError


def tls_context(trust: Trust, environment: Mapping[str, str]) -> ssl.SSLContext:
    """Return the context of a session's connections. Blocking: reads files.

    Args:
        trust: What the user said.
        environment: Where ``SSL_CERT_FILE`` is read, as OpenSSL does.

    Raises:
        InputError: A file cannot be read, or is not PEM.
    """
    context = ssl.create_default_context()
    if trust.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif not _system_has_authorities() and not environment.get("SSL_CERT_FILE"):
        import certifi  # noqa: PLC0415 - only where the system has no store

        context.load_verify_locations(certifi.where())
    if trust.ca_file is not None:
        try:
            context.load_verify_locations(trust.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise InputError("--ca-file", str(trust.ca_file), _reason(error)) from None
    if trust.client_certificate is not None:
        try:
            # Without a password given here OpenSSL would ask for one on the terminal.
            context.load_cert_chain(trust.client_certificate, password=b"")
        except (OSError, ssl.SSLError) as error:
            raise InputError(
                "client certificate",
                str(trust.client_certificate),
                _reason(error),
                hint="one PEM file with the certificate and its private key, without a password",
            ) from None
    return context


def tls_failure(error: BaseException) -> ssl.SSLError | None:
    """Return the TLS error behind an error of the HTTP library, or None."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _system_has_authorities() -> bool:
    paths = ssl.get_default_verify_paths()
    return bool(paths.cafile) or (bool(paths.capath) and any(Path(paths.capath).iterdir()))


def _reason(error: OSError | ssl.SSLError) -> str:
    return "it is not such a PEM file" if isinstance(error, ssl.SSLError) else error.strerror or "it cannot be read"
