"""Passwords that are not shown."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

HIDDEN = "********"


def without_password(url: str) -> str:
    """Return a URL with asterisks for the password in it."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:{HIDDEN}@{host}"))
