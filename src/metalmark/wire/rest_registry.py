"""Bodies of the registry's token service."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel


class RegistryTokenBody(BaseModel):
    """A token for the registry, under both names that clients look for."""

    token: str
    access_token: str
    expires_in: int
    """Seconds."""
    issued_at: datetime
    scope: str | None = None
    """As it was asked for."""
