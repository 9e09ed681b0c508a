"""What values of a configuration have to do with each other and with files that they name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from metalmark.server.config import ServerConfig

_REGISTRY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?", re.ASCII)
_DATABASES = ("sqlite", "postgresql", "postgres")
_STORAGES = ("", "file", "s3")


def split_bind(bind: str) -> tuple[str, int]:
    """Return host and port of an address to listen on; the host of an IPv6 one without its brackets.

    Raises:
        ValueError: It has no port, or one that is none.
    """
    host, colon, port = bind.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65_535 or not host:
        raise ValueError(f"{bind!r} is not ADDRESS:PORT")
    if host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
        raise ValueError(f"{bind!r}: an IPv6 address is written in brackets")
    return host.strip("[]"), int(port)


def _unreadable(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            stream.read(1)
    except (OSError, ValueError) as error:
        return f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
    return ""


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme.partition("+")[0]
    except ValueError:
        return "?"


def _files(config: ServerConfig) -> Iterator[tuple[str, str]]:
    named = {
        "tls.certificate_file": config.tls.certificate_file,
        "tls.key_file": config.tls.key_file,
        "smtp.password_file": config.smtp.password_file,
    }
    for name, path in named.items():
        if path is not None and (why := _unreadable(path)):
            yield name, why


def _places(config: ServerConfig) -> Iterator[tuple[str, str]]:
    try:
        split_bind(config.server.bind)
    except ValueError as error:
        yield "server.bind", str(error)
    if config.database is not None and _scheme(config.database) not in _DATABASES:
        yield "database", "this is not a URL of SQLite (sqlite:///PATH) or PostgreSQL (postgresql://…)"
    if config.storage is not None and _scheme(config.storage) not in _STORAGES:
        yield "storage", "this is neither a folder nor s3://BUCKET/PREFIX"
    for name in config.registry.allowed:
        if not _REGISTRY.fullmatch(name):
            yield "registry.allowed", f"{name!r} is not HOST or HOST:PORT"


def rule_faults(config: ServerConfig) -> Iterator[tuple[str, str]]:
    """Yield key and reason of everything that is wrong with a configuration whose single values are right."""
    yield from _places(config)
    yield from _files(config)
    if (config.tls.certificate_file is None) != (config.tls.key_file is None):
        yield "tls", "certificate_file and key_file go together"
    if config.smtp.hostname is not None and config.smtp.from_email is None:
        yield "smtp.from_email", "this is needed with smtp.hostname"
    if config.smtp.password_file is not None and config.smtp.username is None:
        yield "smtp.username", "this is needed with smtp.password_file"
    jobs = config.jobs
    if jobs.timeout_s + jobs.grace_s + jobs.allowance_s > jobs.max_duration_s:
        yield "jobs.max_duration_s", "this is less than one iteration of jobs.timeout_s takes with grace and allowance"
    if config.server.message_max_bytes < config.server.request_body_max_bytes:
        yield "server.message_max_bytes", "this is less than server.request_body_max_bytes"
