"""The step of the tables' history that brings jobs."""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    literal_column,
    text,
)

from metalmark.store.columns import Document, Identifier, Instant, Words


def upgrade(op: Operations) -> None:
    """Take the step."""
    _jobs(op)
    _indexes_of_jobs(op)
    _job_events(op)
    _indexes_of_job_events(op)
    _job_output_chunks(op)


def _jobs(op: Operations) -> None:
    op.create_table(
        "jobs",
        Column("id", Identifier(), nullable=False),
        Column("report_id", Identifier(), nullable=False),
        Column("project_id", Identifier(), nullable=False),
        Column("organization_id", Identifier(), nullable=False),
        Column("spec_id", Identifier(), nullable=False),
        Column("source", Words(), nullable=False),
        Column("anonymous", Boolean(), nullable=False),
        Column("own_image", Boolean(), nullable=False),
        Column("status", SmallInteger(), nullable=False),
        Column("priority", Integer(), nullable=False),
        Column("config", Document(), nullable=False),
        Column("timeout_s", Integer(), nullable=False),
        Column("iterations", BigInteger(), nullable=False),
        Column("retry_allowed", Boolean(), nullable=False),
        Column("retries", Integer(), server_default=text("0"), nullable=False),
        Column("retry_of", Identifier(), nullable=True),
        Column("pending_expires", Instant(), nullable=True),
        Column("lease", Integer(), server_default=text("0"), nullable=False),
        Column("runner_id", Identifier(), nullable=True),
        Column("lease_expires", Instant(), nullable=True),
        Column("limit_expires", Instant(), nullable=True),
        Column("last_heartbeat", Instant(), nullable=True),
        Column("phase", Words(), nullable=True),
        Column("phase_iteration", BigInteger(), nullable=True),
        Column("claimed", Instant(), nullable=True),
        Column("started", Instant(), nullable=True),
        Column("began", Instant(), nullable=True),
        Column("completed", Instant(), nullable=True),
        Column("end_reason", Words(), nullable=True),
        Column("error", Words(), nullable=True),
        Column("output_key", Words(), nullable=True),
        Column("output_bytes", BigInteger(), nullable=True),
        Column("output_digest", Words(), nullable=True),
        Column("iteration_ends", Document(), nullable=True),
        Column("created", Instant(), nullable=False),
        Column("modified", Instant(), nullable=False),
        ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_jobs_organization_id", ondelete="CASCADE"
        ),
        ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_jobs_project_id", ondelete="CASCADE"),
        ForeignKeyConstraint(["report_id"], ["reports.id"], name="fk_jobs_report_id", ondelete="CASCADE"),
        ForeignKeyConstraint(["retry_of"], ["jobs.id"], name="fk_jobs_retry_of", ondelete="SET NULL"),
        ForeignKeyConstraint(["runner_id"], ["runners.id"], name="fk_jobs_runner_id", ondelete="SET NULL"),
        ForeignKeyConstraint(["spec_id"], ["specs.id"], name="fk_jobs_spec_id", ondelete="RESTRICT"),
        PrimaryKeyConstraint("id", name="pk_jobs"),
    )


def _indexes_of_jobs(op: Operations) -> None:
    op.create_index(
        "ix_jobs_active_lease",
        "jobs",
        ["lease_expires"],
        unique=False,
        sqlite_where=text("status IN (1, 2)"),
        postgresql_where=text("status IN (1, 2)"),
    )
    op.create_index(
        "ix_jobs_active_limit",
        "jobs",
        ["limit_expires"],
        unique=False,
        sqlite_where=text("status IN (1, 2)"),
        postgresql_where=text("status IN (1, 2)"),
    )
    op.create_index(
        "ix_jobs_active_organization",
        "jobs",
        ["organization_id"],
        unique=False,
        sqlite_where=text("status IN (1, 2)"),
        postgresql_where=text("status IN (1, 2)"),
    )
    op.create_index(
        "ix_jobs_active_project",
        "jobs",
        ["project_id"],
        unique=False,
        sqlite_where=text("status IN (1, 2)"),
        postgresql_where=text("status IN (1, 2)"),
    )
    op.create_index(
        "ix_jobs_active_source",
        "jobs",
        ["source"],
        unique=False,
        sqlite_where=text("status IN (1, 2)"),
        postgresql_where=text("status IN (1, 2)"),
    )
    op.create_index("ix_jobs_by_creation", "jobs", ["project_id", "created", "id"], unique=False)
    op.create_index("ix_jobs_by_status", "jobs", ["project_id", "status", "created", "id"], unique=False)
    op.create_index("ix_jobs_of_organization", "jobs", ["organization_id"], unique=False)
    op.create_index("ix_jobs_of_report", "jobs", ["report_id"], unique=False)
    op.create_index("ix_jobs_of_retried", "jobs", ["retry_of"], unique=False)
    op.create_index("ix_jobs_of_runner", "jobs", ["runner_id", "status"], unique=False)
    op.create_index("ix_jobs_of_spec", "jobs", ["spec_id"], unique=False)
    op.create_index(
        "ix_jobs_pending_age",
        "jobs",
        ["spec_id", "created", "id"],
        unique=False,
        sqlite_where=text("status = 0"),
        postgresql_where=text("status = 0"),
    )
    op.create_index(
        "ix_jobs_pending_expiry",
        "jobs",
        ["pending_expires"],
        unique=False,
        sqlite_where=text("status = 0"),
        postgresql_where=text("status = 0"),
    )
    op.create_index(
        "ix_jobs_unread",
        "jobs",
        ["id"],
        unique=False,
        sqlite_where=text("status = 3"),
        postgresql_where=text("status = 3"),
    )
    op.create_index(
        "ix_jobs_pending",
        "jobs",
        ["spec_id", literal_column("priority DESC"), "created", "id"],
        unique=False,
        sqlite_where=text("status = 0"),
        postgresql_where=text("status = 0"),
    )


def _job_events(op: Operations) -> None:
    op.create_table(
        "job_events",
        Column("id", Identifier(), nullable=False),
        Column("job_id", Identifier(), nullable=False),
        Column("at", Instant(), nullable=False),
        Column("event", Words(), nullable=False),
        Column("status_before", SmallInteger(), nullable=True),
        Column("status_after", SmallInteger(), nullable=False),
        Column("lease", Integer(), nullable=False),
        Column("runner_id", Identifier(), nullable=True),
        Column("reason", Words(), nullable=True),
        Column("details", Document(), nullable=True),
        ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_events_job_id", ondelete="CASCADE"),
        PrimaryKeyConstraint("id", name="pk_job_events"),
    )


def _indexes_of_job_events(op: Operations) -> None:
    op.create_index("ix_job_events_of_job", "job_events", ["job_id", "lease", "id"], unique=False)


def _job_output_chunks(op: Operations) -> None:
    op.create_table(
        "job_output_chunks",
        Column("job_id", Identifier(), nullable=False),
        Column("sequence", BigInteger(), autoincrement=False, nullable=False),
        Column("lease", Integer(), nullable=False),
        Column("iteration", BigInteger(), nullable=False),
        Column("stream", SmallInteger(), nullable=False),
        Column("at", Instant(), nullable=False),
        Column("content", LargeBinary(), nullable=False),
        ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_output_chunks_job_id", ondelete="CASCADE"),
        PrimaryKeyConstraint("job_id", "sequence", name="pk_job_output_chunks"),
    )
