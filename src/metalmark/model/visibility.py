"""Who may see a project."""

from __future__ import annotations

from enum import StrEnum


class Visibility(StrEnum):
    """Who may see a project."""

    PUBLIC = "public"
    """Everybody."""
    PRIVATE = "private"
    """Those with a role in it; to everybody else it does not exist."""
