"""Tables of what a project measures on and of: branches with their heads and versions, testbeds, reports."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, Table, UniqueConstraint, text

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

branches = Table(
    "branches",
    metadata,
    id_column(),
    Column("project_id", Identifier, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("name", Words, nullable=False),
    Column("slug", Words, nullable=False),
    created_column(),
    modified_column(),
    Column("archived", Instant),
    UniqueConstraint("project_id", "name"),
    UniqueConstraint("project_id", "slug"),
)

heads = Table(
    "heads",
    metadata,
    id_column(),
    Column("branch_id", Identifier, ForeignKey("branches.id", ondelete="CASCADE"), nullable=False),
    Column("start_head_id", Identifier, ForeignKey("heads.id", ondelete="SET NULL")),
    Column("start_version_id", Identifier, ForeignKey("versions.id", ondelete="SET NULL")),
    created_column(),
    Column("replaced", Instant),
    Index("ix_heads_of_branch", "branch_id", "created"),
    Index("ix_heads_of_start_head", "start_head_id"),
    Index("ix_heads_of_start_version", "start_version_id"),
    # A branch has one head that is current.
    Index(
        "uq_heads_current",
        "branch_id",
        unique=True,
        sqlite_where=text("replaced IS NULL"),
        postgresql_where=text("replaced IS NULL"),
    ),
)

versions = Table(
    "versions",
    metadata,
    id_column(),
    Column("project_id", Identifier, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("hash", Words),
    Index("ix_versions_of_hash", "project_id", "hash"),
)

head_versions = Table(
    "head_versions",
    metadata,
    Column("head_id", Identifier, ForeignKey("heads.id", ondelete="CASCADE"), primary_key=True),
    Column("version_id", Identifier, ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True),
    Index("ix_head_versions_of_version", "version_id"),
)

testbeds = Table(
    "testbeds",
    metadata,
    id_column(),
    Column("project_id", Identifier, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("name", Words, nullable=False),
    Column("slug", Words, nullable=False),
    Column("spec_id", Identifier, ForeignKey("specs.id", ondelete="SET NULL")),
    created_column(),
    modified_column(),
    Column("archived", Instant),
    UniqueConstraint("project_id", "name"),
    UniqueConstraint("project_id", "slug"),
    Index("ix_testbeds_of_spec", "spec_id"),
)

reports = Table(
    "reports",
    metadata,
    id_column(),
    Column("project_id", Identifier, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("user_id", Identifier, ForeignKey("users.id", ondelete="SET NULL")),
    Column("idempotency_key", Identifier),
    # A branch or testbed with reports is not deleted: the reports go first.
    Column("head_id", Identifier, ForeignKey("heads.id", ondelete="RESTRICT"), nullable=False),
    Column("version_id", Identifier, ForeignKey("versions.id", ondelete="RESTRICT"), nullable=False),
    Column("testbed_id", Identifier, ForeignKey("testbeds.id", ondelete="RESTRICT"), nullable=False),
    # That of the report's job; none for runs without a job.
    Column("spec_id", Identifier, ForeignKey("specs.id", ondelete="SET NULL")),
    Column("adapter", Words, nullable=False),
    Column("settings", Document),
    Column("start_time", Instant, nullable=False),
    Column("end_time", Instant, nullable=False),
    # Where the raw results are among the blobs, and how many there are.
    Column("results_key", Words),
    created_column(),
    UniqueConstraint("project_id", "idempotency_key"),
    Index("ix_reports_by_time", "project_id", "start_time", "end_time", "created", "id"),
    Index("ix_reports_of_head", "head_id", "version_id"),
    Index("ix_reports_of_version", "version_id"),
    Index("ix_reports_of_testbed", "testbed_id", "start_time"),
    Index("ix_reports_of_spec", "spec_id"),
    Index("ix_reports_of_user", "user_id"),
)
