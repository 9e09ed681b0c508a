"""Migrations: the tables of a database, from whatever revision they have to the one that this program knows.

Each revision is a module ``revision_NNNN_<what>.py`` of this package with a function ``upgrade(operations)`` that uses
Alembic's operations. A released one is never edited, so it repeats what the tables in code and the revisions before it
say rather than share any of it: what they shared would change under it. ``scripts/write-revision`` writes the next from
the difference between the tables in code and those that the revisions make.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Column, Connection, Table, insert, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

import metalmark.store
from metalmark.model import StableError
from metalmark.store.columns import Instant, Words, metadata

_PREFIX = "revision_"
# Any number will do, as long as it stays the same: two servers that start at once migrate one after the other.
_LOCK = 7236417

schema_revisions = Table(
    "schema_revisions",
    metadata,
    Column("name", Words, primary_key=True),
    Column("applied", Instant, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Revision:
    """One step of the tables' history."""

    name: str
    """``NNNN_<what>``; the steps are in the order of their names."""
    upgrade: Callable[[Operations], None]


class NewerDatabase(StableError):
    """The database was changed by a newer version of this program."""


def revisions() -> tuple[Revision, ...]:
    """Return all steps, the first first."""
    found = [
        module.name for module in pkgutil.iter_modules(metalmark.store.__path__) if module.name.startswith(_PREFIX)
    ]
    return tuple(
        Revision(name=name.removeprefix(_PREFIX), upgrade=importlib.import_module(f"metalmark.store.{name}").upgrade)
        for name in sorted(found)
    )


async def migrate(connection: AsyncConnection, *, now: datetime, until: str | None = None) -> tuple[str, ...]:
    """Take the steps that a database has not taken yet, and return their names. All are taken, or none.

    Args:
        connection: Of a write.
        now: The time to keep beside the steps.
        until: The last step to take; None for all.

    Raises:
        NewerDatabase: It has taken steps that this program does not know.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT set_config('statement_timeout', '0', true)"))
        await connection.execute(text("SELECT set_config('lock_timeout', '0', true)"))
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    return await connection.run_sync(take_steps, now, until)


def _applied(connection: Connection) -> tuple[str, ...]:
    if not inspect(connection).has_table(schema_revisions.name):
        return ()
    return tuple(connection.execute(select(schema_revisions.c.name).order_by(schema_revisions.c.name)).scalars())


def take_steps(connection: Connection, now: datetime, until: str | None = None) -> tuple[str, ...]:
    """Do what `migrate` does, over a connection that is not asynchronous and that nobody else migrates.

    Raises:
        NewerDatabase: It has taken steps that this program does not know.
    """
    known = revisions()
    taken = _applied(connection)
    unknown = set(taken) - {revision.name for revision in known}
    if unknown:
        raise NewerDatabase(
            f"the database has the revision {max(unknown)}",
            why="this version of Metalmark does not know it",
            hint="start the version that made it, or a newer one",
        )
    schema_revisions.create(connection, checkfirst=True)
    operations = Operations(MigrationContext.configure(connection))
    steps = [step for step in known if step.name not in taken and (until is None or step.name <= until)]
    for step in steps:
        step.upgrade(operations)
        connection.execute(insert(schema_revisions).values(name=step.name, applied=now))
    return tuple(step.name for step in steps)
