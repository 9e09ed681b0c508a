"""How long the store waits for what, and how much it keeps apart."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Isolation(StrEnum):
    """How much concurrent writes may see of each other. SQLite keeps them apart completely, always."""

    SERIALIZABLE = "SERIALIZABLE"
    """As if one came after the other: for a write that decides by what it read."""
    READ_COMMITTED = "READ COMMITTED"
    """Each statement sees what is committed: for single statements that say themselves what has to be true."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Deadlines and sizes of a store."""

    connections: int = 8
    """Connections that read (SQLite), or read and write (PostgreSQL), of this process at the same time."""
    lock_s: float = 5.0
    """The longest wait for a lock, or for a free connection."""
    write_s: float = 30.0
    """The longest that a write may take, waiting for its turn included."""
    read_s: float = 30.0
    """The longest that a read may take."""
    connect_s: float = 5.0
    """The longest that making a connection may take."""
    tries: int = 10
    """How often a write is tried that other writes get in the way of."""
