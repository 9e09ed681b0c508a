"""The step of the tables' history that brings measured things."""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import Column, ForeignKeyConstraint, Integer, PrimaryKeyConstraint, UniqueConstraint, text

from metalmark.store.columns import Document, Identifier, Instant, Words


def upgrade(op: Operations) -> None:
    """Take the step."""
    _branches(op)
    _testbeds(op)
    _indexes_of_testbeds(op)
    _versions(op)
    _indexes_of_versions(op)
    _heads(op)
    _indexes_of_heads(op)
    _head_versions(op)
    _indexes_of_head_versions(op)
    _reports(op)
    _indexes_of_reports(op)


def _branches(op: Operations) -> None:
    op.create_table(
        "branches",
        Column("id", Identifier(), nullable=False),
        Column("project_id", Identifier(), nullable=False),
        Column("name", Words(), nullable=False),
        Column("slug", Words(), nullable=False),
        Column("created", Instant(), nullable=False),
        Column("modified", Instant(), nullable=False),
        Column("archived", Instant(), nullable=True),
        ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_branches_project_id", ondelete="CASCADE"),
        PrimaryKeyConstraint("id", name="pk_branches"),
        UniqueConstraint("project_id", "name", name="uq_branches_project_id_name"),
        UniqueConstraint("project_id", "slug", name="uq_branches_project_id_slug"),
    )


def _testbeds(op: Operations) -> None:
    op.create_table(
        "testbeds",
        Column("id", Identifier(), nullable=False),
        Column("project_id", Identifier(), nullable=False),
        Column("name", Words(), nullable=False),
        Column("slug", Words(), nullable=False),
        Column("spec_id", Identifier(), nullable=True),
        Column("created", Instant(), nullable=False),
        Column("modified", Instant(), nullable=False),
        Column("archived", Instant(), nullable=True),
        ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_testbeds_project_id", ondelete="CASCADE"),
        ForeignKeyConstraint(["spec_id"], ["specs.id"], name="fk_testbeds_spec_id", ondelete="SET NULL"),
        PrimaryKeyConstraint("id", name="pk_testbeds"),
        UniqueConstraint("project_id", "name", name="uq_testbeds_project_id_name"),
        UniqueConstraint("project_id", "slug", name="uq_testbeds_project_id_slug"),
    )


def _indexes_of_testbeds(op: Operations) -> None:
    op.create_index("ix_testbeds_of_spec", "testbeds", ["spec_id"], unique=False)


def _versions(op: Operations) -> None:
    op.create_table(
        "versions",
        Column("id", Identifier(), nullable=False),
        Column("project_id", Identifier(), nullable=False),
        Column("number", Integer(), nullable=False),
        Column("hash", Words(), nullable=True),
        ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_versions_project_id", ondelete="CASCADE"),
        PrimaryKeyConstraint("id", name="pk_versions"),
    )


def _indexes_of_versions(op: Operations) -> None:
    op.create_index("ix_versions_of_hash", "versions", ["project_id", "hash"], unique=False)


def _heads(op: Operations) -> None:
    op.create_table(
        "heads",
        Column("id", Identifier(), nullable=False),
        Column("branch_id", Identifier(), nullable=False),
        Column("start_head_id", Identifier(), nullable=True),
        Column("start_version_id", Identifier(), nullable=True),
        Column("created", Instant(), nullable=False),
        Column("replaced", Instant(), nullable=True),
        ForeignKeyConstraint(["branch_id"], ["branches.id"], name="fk_heads_branch_id", ondelete="CASCADE"),
        ForeignKeyConstraint(["start_head_id"], ["heads.id"], name="fk_heads_start_head_id", ondelete="SET NULL"),
        ForeignKeyConstraint(
            ["start_version_id"], ["versions.id"], name="fk_heads_start_version_id", ondelete="SET NULL"
        ),
        PrimaryKeyConstraint("id", name="pk_heads"),
    )


def _indexes_of_heads(op: Operations) -> None:
    op.create_index("ix_heads_of_branch", "heads", ["branch_id", "created"], unique=False)
    op.create_index("ix_heads_of_start_head", "heads", ["start_head_id"], unique=False)
    op.create_index("ix_heads_of_start_version", "heads", ["start_version_id"], unique=False)
    op.create_index(
        "uq_heads_current",
        "heads",
        ["branch_id"],
        unique=True,
        sqlite_where=text("replaced IS NULL"),
        postgresql_where=text("replaced IS NULL"),
    )


def _head_versions(op: Operations) -> None:
    op.create_table(
        "head_versions",
        Column("head_id", Identifier(), nullable=False),
        Column("version_id", Identifier(), nullable=False),
        ForeignKeyConstraint(["head_id"], ["heads.id"], name="fk_head_versions_head_id", ondelete="CASCADE"),
        ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_head_versions_version_id", ondelete="CASCADE"),
        PrimaryKeyConstraint("head_id", "version_id", name="pk_head_versions"),
    )


def _indexes_of_head_versions(op: Operations) -> None:
    op.create_index("ix_head_versions_of_version", "head_versions", ["version_id"], unique=False)


def _reports(op: Operations) -> None:
    op.create_table(
        "reports",
        Column("id", Identifier(), nullable=False),
        Column("project_id", Identifier(), nullable=False),
        Column("user_id", Identifier(), nullable=True),
        Column("idempotency_key", Identifier(), nullable=True),
        Column("head_id", Identifier(), nullable=False),
        Column("version_id", Identifier(), nullable=False),
        Column("testbed_id", Identifier(), nullable=False),
        Column("spec_id", Identifier(), nullable=True),
        Column("adapter", Words(), nullable=False),
        Column("settings", Document(), nullable=True),
        Column("start_time", Instant(), nullable=False),
        Column("end_time", Instant(), nullable=False),
        Column("results_key", Words(), nullable=True),
        Column("created", Instant(), nullable=False),
        ForeignKeyConstraint(["head_id"], ["heads.id"], name="fk_reports_head_id", ondelete="RESTRICT"),
        ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_reports_project_id", ondelete="CASCADE"),
        ForeignKeyConstraint(["spec_id"], ["specs.id"], name="fk_reports_spec_id", ondelete="SET NULL"),
        ForeignKeyConstraint(["testbed_id"], ["testbeds.id"], name="fk_reports_testbed_id", ondelete="RESTRICT"),
        ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_reports_user_id", ondelete="SET NULL"),
        ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_reports_version_id", ondelete="RESTRICT"),
        PrimaryKeyConstraint("id", name="pk_reports"),
        UniqueConstraint("project_id", "idempotency_key", name="uq_reports_project_id_idempotency_key"),
    )


def _indexes_of_reports(op: Operations) -> None:
    op.create_index(
        "ix_reports_by_time", "reports", ["project_id", "start_time", "end_time", "created", "id"], unique=False
    )
    op.create_index("ix_reports_of_head", "reports", ["head_id", "version_id"], unique=False)
    op.create_index("ix_reports_of_spec", "reports", ["spec_id"], unique=False)
    op.create_index("ix_reports_of_testbed", "reports", ["testbed_id", "start_time"], unique=False)
    op.create_index("ix_reports_of_user", "reports", ["user_id"], unique=False)
    op.create_index("ix_reports_of_version", "reports", ["version_id"], unique=False)
