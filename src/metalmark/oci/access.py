"""How a registry may be spoken to: credentials, transport security and patience, all chosen by the caller."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Deadlines and retries of registry requests. All times in seconds."""

    connect_s: float = 10.0
    idle_s: float = 30.0
    """The longest silence while an answer is read."""
    attempts: int = 5
    """Tries in a row without a byte of progress before the registry counts as unavailable."""
    first_wait_s: float = 0.5
    """Pause after the first failure; doubled after each further one."""
    longest_wait_s: float = 20.0
    """Bound of a pause, also of one that the registry asks for with Retry-After."""
    slowest_bytes_per_s: int = 16 * 1024
    """A blob that comes slower than this over its whole length, after a minute, is given up."""


@dataclass(frozen=True, kw_only=True)
class RegistryAccess:
    """Credentials and transport for the registry that a reference names."""

    token: str = field(default="", repr=False)
    """A bearer token, used as that of ``token_file`` is, and before it."""
    token_file: Path | None = None
    """A file that holds a bearer token, sent as it is to the registry and to nobody else."""
    authfile: Path | None = None
    """A Docker ``config.json`` or containers ``auth.json``; None looks in the usual places."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Where HOME, DOCKER_CONFIG, REGISTRY_AUTH_FILE, proxies and SSL_CERT_FILE are read, and what helpers inherit."""
    plain_http: bool | None = None
    """True: http. False: https. None: https, and http for a loopback registry that does not speak TLS."""
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    """How certificates are checked; None trusts what the system trusts and ``certs_folders`` hold."""
    certs_folders: tuple[Path, ...] = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))
    """Folders with ``HOST[:PORT]/*.crt`` of authorities that are trusted for that registry."""
    login_hint: str = ""
    """What to do when the registry says no, where that is not to sign in as Docker does."""
    patience: Patience = field(default_factory=Patience)
    parallel: int = 4
    """Layers that are fetched or pushed at the same time."""
    cached_for_all: bool = True
    """Whether an image that is asked for by digest and is in the cache may be had without asking the registry. False:
    only if it was pulled under the same reference before, so that nobody has an image for knowing its digest."""
