"""Bodies of the registry: tokens, and the images of a project."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from metalmark.wire.scalars import Body, DateTimeField


class RegistryTokenBody(BaseModel):
    """A token for the registry, under both names that clients look for."""

    token: str
    access_token: str
    expires_in: int
    """Seconds."""
    issued_at: datetime
    scope: str | None = None
    """As it was asked for."""


class ImageBody(Body):
    """A tag in the server's registry with the image that it stands for."""

    name: str
    """As `docker pull` and `metalmark run` take it, without the registry: ``PROJECT[/NAME]:TAG``."""
    repository: str
    tag: str
    digest: str
    media_type: str
    size: int
    """Bytes of its configuration and layers; of an index, of those of all its images."""
    pushed: DateTimeField
