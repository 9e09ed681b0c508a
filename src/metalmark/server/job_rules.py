"""The configuration of jobs, as dispatch and deadlines take it."""

from __future__ import annotations

from metalmark.model import JobLimits
from metalmark.server.config import JobsSection
from metalmark.store import ClaimRules


def job_limits(config: JobsSection) -> JobLimits:
    """Return how long jobs and their leases last."""
    return JobLimits(
        heartbeat_timeout_s=config.heartbeat_timeout_s,
        grace_s=config.grace_s,
        start_allowance_s=config.allowance_s,
        max_pending_s=config.max_pending_s,
    )


def claim_rules(config: JobsSection) -> ClaimRules:
    """Return who gets which job, and for how long."""
    return ClaimRules(
        limits=job_limits(config),
        starvation_s=config.starvation_s,
        project_concurrency=config.project_concurrency,
        organization_concurrency=config.organization_concurrency,
        source_concurrency=config.source_concurrency,
    )
