"""The step of the tables' history that brings fleet."""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Integer,
    PrimaryKeyConstraint,
    UniqueConstraint,
    literal_column,
    text,
)

from metalmark.store.columns import Document, Identifier, Instant, Words


def upgrade(op: Operations) -> None:
    """Take the step."""
    _runners(op)
    _indexes_of_runners(op)
    _specs(op)
    _indexes_of_specs(op)
    _runner_capabilities(op)
    _runner_specs(op)
    _indexes_of_runner_specs(op)


def _runners(op: Operations) -> None:
    op.create_table(
        "runners",
        Column("id", Identifier(), nullable=False),
        Column("name", Words(), nullable=False),
        Column("slug", Words(), nullable=False),
        Column("key_hash", Words(), nullable=False),
        Column("key_created", Instant(), nullable=False),
        Column("last_heartbeat", Instant(), nullable=True),
        Column("created", Instant(), nullable=False),
        Column("modified", Instant(), nullable=False),
        Column("archived", Instant(), nullable=True),
        PrimaryKeyConstraint("id", name="pk_runners"),
        UniqueConstraint("key_hash", name="uq_runners_key_hash"),
        UniqueConstraint("slug", name="uq_runners_slug"),
    )


def _indexes_of_runners(op: Operations) -> None:
    op.create_index("ix_runners_by_creation", "runners", ["created", "id"], unique=False)
    op.create_index("ix_runners_by_name", "runners", ["name", "slug", "archived"], unique=False)


def _specs(op: Operations) -> None:
    op.create_table(
        "specs",
        Column("id", Identifier(), nullable=False),
        Column("name", Words(), nullable=False),
        Column("slug", Words(), nullable=False),
        Column("os", Words(), nullable=False),
        Column("architecture", Words(), nullable=False),
        Column("sandbox", Words(), nullable=True),
        Column("vcpus", Integer(), nullable=False),
        Column("memory_bytes", BigInteger(), nullable=False),
        Column("disk_bytes", BigInteger(), nullable=False),
        Column("network", Boolean(), nullable=False),
        Column("anonymous", Boolean(), nullable=False),
        Column("fallback", Instant(), nullable=True),
        Column("created", Instant(), nullable=False),
        Column("modified", Instant(), nullable=False),
        Column("archived", Instant(), nullable=True),
        PrimaryKeyConstraint("id", name="pk_specs"),
        UniqueConstraint("slug", name="uq_specs_slug"),
    )


def _indexes_of_specs(op: Operations) -> None:
    op.create_index("ix_specs_by_creation", "specs", ["created", "id"], unique=False)
    op.create_index("ix_specs_by_name", "specs", ["name", "slug", "archived"], unique=False)
    op.create_index(
        "uq_specs_fallback",
        "specs",
        [literal_column("(fallback IS NOT NULL)")],
        unique=True,
        sqlite_where=text("fallback IS NOT NULL"),
        postgresql_where=text("fallback IS NOT NULL"),
    )


def _runner_capabilities(op: Operations) -> None:
    op.create_table(
        "runner_capabilities",
        Column("runner_id", Identifier(), nullable=False),
        Column("proved", Instant(), nullable=False),
        Column("version", Words(), nullable=True),
        Column("protocol", Words(), nullable=True),
        Column("capabilities", Document(), nullable=False),
        Column("facts", Document(), nullable=True),
        ForeignKeyConstraint(
            ["runner_id"], ["runners.id"], name="fk_runner_capabilities_runner_id", ondelete="CASCADE"
        ),
        PrimaryKeyConstraint("runner_id", name="pk_runner_capabilities"),
    )


def _runner_specs(op: Operations) -> None:
    op.create_table(
        "runner_specs",
        Column("runner_id", Identifier(), nullable=False),
        Column("spec_id", Identifier(), nullable=False),
        Column("created", Instant(), nullable=False),
        ForeignKeyConstraint(["runner_id"], ["runners.id"], name="fk_runner_specs_runner_id", ondelete="CASCADE"),
        ForeignKeyConstraint(["spec_id"], ["specs.id"], name="fk_runner_specs_spec_id", ondelete="RESTRICT"),
        PrimaryKeyConstraint("runner_id", "spec_id", name="pk_runner_specs"),
    )


def _indexes_of_runner_specs(op: Operations) -> None:
    op.create_index("ix_runner_specs_of_spec", "runner_specs", ["spec_id"], unique=False)
