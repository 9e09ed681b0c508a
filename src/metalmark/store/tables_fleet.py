"""Tables of the machines: specs, runners, what a runner serves and has proved, and updates of its program."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, Table, text

from metalmark.store.columns import (
    Document,
    Identifier,
    Instant,
    Words,
    created_column,
    id_column,
    metadata,
    modified_column,
)

specs = Table(
    "specs",
    metadata,
    id_column(),
    Column("name", Words, nullable=False),
    Column("slug", Words, nullable=False, unique=True),
    Column("os", Words, nullable=False),
    Column("architecture", Words, nullable=False),
    Column("sandbox", Words),
    Column("vcpus", Integer, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("disk_bytes", BigInteger, nullable=False),
    Column("network", Boolean, nullable=False),
    # Whether jobs of strangers may run on it, where the server lets strangers submit at all.
    Column("anonymous", Boolean, nullable=False),
    Column("fallback", Instant),
    created_column(),
    modified_column(),
    Column("archived", Instant),
    # The last column lets those that are not archived be counted without looking at them.
    Index("ix_specs_by_name", "name", "slug", "archived"),
    Index("ix_specs_by_creation", "created", "id"),
    # Every row of this index has the same key, so the engine itself keeps the fallback to one.
    Index(
        "uq_specs_fallback",
        text("(fallback IS NOT NULL)"),
        unique=True,
        sqlite_where=text("fallback IS NOT NULL"),
        postgresql_where=text("fallback IS NOT NULL"),
    ),
)

runners = Table(
    "runners",
    metadata,
    id_column(),
    Column("name", Words, nullable=False),
    Column("slug", Words, nullable=False, unique=True),
    Column("key_hash", Words, nullable=False, unique=True),
    Column("key_created", Instant, nullable=False),
    Column("last_heartbeat", Instant),
    created_column(),
    modified_column(),
    Column("archived", Instant),
    Index("ix_runners_by_name", "name", "slug", "archived"),
    Index("ix_runners_by_creation", "created", "id"),
)

runner_specs = Table(
    "runner_specs",
    metadata,
    Column("runner_id", Identifier, ForeignKey("runners.id", ondelete="CASCADE"), primary_key=True),
    Column("spec_id", Identifier, ForeignKey("specs.id", ondelete="RESTRICT"), primary_key=True),
    created_column(),
    Index("ix_runner_specs_of_spec", "spec_id"),
)

runner_capabilities = Table(
    "runner_capabilities",
    metadata,
    Column("runner_id", Identifier, ForeignKey("runners.id", ondelete="CASCADE"), primary_key=True),
    Column("proved", Instant, nullable=False),
    Column("version", Words),
    Column("protocol", Words),
    # The fields of model.capabilities, and whatever else the runner says of its host.
    Column("capabilities", Document, nullable=False),
    Column("facts", Document),
)

updates = Table(
    "updates",
    metadata,
    id_column(),
    # Whom it is for: our own runners, or public ones.
    Column("audience", Words, nullable=False),
    # stable or canary; our own runners know one.
    Column("channel", Words, nullable=False),
    Column("architecture", Words, nullable=False),
    Column("version", Words, nullable=False),
    Column("checksum", Words, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    created_column(),
    Index("uq_updates_of_target", "audience", "channel", "architecture", unique=True),
    Index("ix_updates_by_checksum", "checksum"),
)
