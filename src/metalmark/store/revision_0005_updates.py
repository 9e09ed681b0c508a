"""The step of the tables' history that brings updates."""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint

from metalmark.store.columns import Identifier, Instant, Words


def upgrade(op: Operations) -> None:
    """Take the step."""
    _updates(op)
    _indexes_of_updates(op)


def _updates(op: Operations) -> None:
    op.create_table(
        "updates",
        Column("id", Identifier(), nullable=False),
        Column("audience", Words(), nullable=False),
        Column("channel", Words(), nullable=False),
        Column("architecture", Words(), nullable=False),
        Column("version", Words(), nullable=False),
        Column("checksum", Words(), nullable=False),
        Column("size_bytes", BigInteger(), nullable=False),
        Column("created", Instant(), nullable=False),
        PrimaryKeyConstraint("id", name="pk_updates"),
    )


def _indexes_of_updates(op: Operations) -> None:
    op.create_index("ix_updates_by_checksum", "updates", ["checksum"], unique=False)
    op.create_index("uq_updates_of_target", "updates", ["audience", "channel", "architecture"], unique=True)
