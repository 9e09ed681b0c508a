"""Tables of the work: jobs, what happened to each, who held them, and what they print while they run.

A job's status is the number of `metalmark.model.job_life`: 0 pending, 1 claimed, 2 running, then those that have run.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, LargeBinary, SmallInteger, Table, text

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

_PENDING = text("status = 0")
_ACTIVE = text("status IN (1, 2)")
_UNREAD = text("status = 3")

jobs = Table(
    "jobs",
    metadata,
    id_column(),
    Column("report_id", Identifier, ForeignKey("reports.id", ondelete="CASCADE"), nullable=False),
    Column("project_id", Identifier, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    # The project's, repeated here because a claim counts by it.
    Column("organization_id", Identifier, ForeignKey("organizations.id", ondelete="CASCADE"), nullable=False),
    Column("spec_id", Identifier, ForeignKey("specs.id", ondelete="RESTRICT"), nullable=False),
    # The address that submitted it, as the concurrency limits tell strangers apart.
    Column("source", Words, nullable=False),
    Column("anonymous", Boolean, nullable=False),
    Column("own_image", Boolean, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("config", Document, nullable=False),
    Column("timeout_s", Integer, nullable=False),
    Column("iterations", BigInteger, nullable=False),
    Column("retry_allowed", Boolean, nullable=False),
    Column("retries", Integer, nullable=False, server_default=text("0")),
    Column("retry_of", Identifier, ForeignKey("jobs.id", ondelete="SET NULL")),
    # When it has waited too long, if it still waits then.
    Column("pending_expires", Instant),
    # The lease: its number goes up by one with every claim, and only its holder moves the job.
    Column("lease", Integer, nullable=False, server_default=text("0")),
    Column("runner_id", Identifier, ForeignKey("runners.id", ondelete="SET NULL")),
    Column("lease_expires", Instant),
    Column("limit_expires", Instant),
    Column("last_heartbeat", Instant),
    Column("phase", Words),
    # Of the phase; 0 before the first, and nothing when the runner does not tell.
    Column("phase_iteration", BigInteger),
    Column("claimed", Instant),
    Column("started", Instant),
    # When the benchmark itself first ran, as far as the runner told: from then on a lost runner is no reason to retry.
    Column("began", Instant),
    Column("completed", Instant),
    Column("end_reason", Words),
    Column("error", Words),
    Column("output_key", Words),
    Column("output_bytes", BigInteger),
    Column("output_digest", Words),
    # A list of the wire's ``IterationEnd``: small, where the output may be too large to be looked into.
    Column("iteration_ends", Document),
    created_column(),
    modified_column(),
    Index("ix_jobs_of_report", "report_id"),
    Index("ix_jobs_of_runner", "runner_id", "status"),
    Index("ix_jobs_of_spec", "spec_id"),
    Index("ix_jobs_of_retried", "retry_of"),
    Index("ix_jobs_of_organization", "organization_id"),
    Index("ix_jobs_by_creation", "project_id", "created", "id"),
    Index("ix_jobs_by_status", "project_id", "status", "created", "id"),
    Index(
        "ix_jobs_pending",
        "spec_id",
        text("priority DESC"),
        "created",
        "id",
        sqlite_where=_PENDING,
        postgresql_where=_PENDING,
    ),
    Index("ix_jobs_pending_age", "spec_id", "created", "id", sqlite_where=_PENDING, postgresql_where=_PENDING),
    Index("ix_jobs_pending_expiry", "pending_expires", sqlite_where=_PENDING, postgresql_where=_PENDING),
    Index("ix_jobs_active_lease", "lease_expires", sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
    Index("ix_jobs_active_limit", "limit_expires", sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
    Index("ix_jobs_active_project", "project_id", sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
    Index("ix_jobs_active_organization", "organization_id", sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
    Index("ix_jobs_active_source", "source", sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
    Index("ix_jobs_unread", "id", sqlite_where=_UNREAD, postgresql_where=_UNREAD),
)

job_events = Table(
    "job_events",
    metadata,
    id_column(),
    Column("job_id", Identifier, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("at", Instant, nullable=False),
    Column("event", Words, nullable=False),
    Column("status_before", SmallInteger),
    Column("status_after", SmallInteger, nullable=False),
    Column("lease", Integer, nullable=False),
    Column("runner_id", Identifier),
    Column("reason", Words),
    Column("details", Document),
    Index("ix_job_events_of_job", "job_id", "lease", "id"),
)

job_output_chunks = Table(
    "job_output_chunks",
    metadata,
    Column("job_id", Identifier, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("lease", Integer, nullable=False),
    Column("iteration", BigInteger, nullable=False),
    # 1 standard output, 2 standard error.
    Column("stream", SmallInteger, nullable=False),
    Column("at", Instant, nullable=False),
    Column("content", LargeBinary, nullable=False),
)
