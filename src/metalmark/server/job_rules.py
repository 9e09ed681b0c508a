"""The configuration of jobs, as dispatch and deadlines take it."""

from __future__ import annotations

from metalmark.model import InputError, JobLimits, needed_s
from metalmark.server.config import JobsSection
from metalmark.store import ClaimRules


def job_limits(config: JobsSection) -> JobLimits:
    """Return how long jobs and their leases last."""
    return JobLimits(
        heartbeat_timeout_s=config.heartbeat_timeout_s,
        grace_s=config.grace_s,
        start_allowance_s=config.allowance_s,
        max_pending_s=config.max_pending_s,
        max_duration_s=config.max_duration_s,
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


def check_duration(config: JobsSection, *, timeout_s: int, iterations: int) -> None:
    """Refuse a job that would keep a runner for longer than the operator lets one.

    Args:
        config: The configuration of jobs.
        timeout_s: Time limit of an iteration.
        iterations: How many there are.

    Raises:
        InputError: It takes too long, by its time limit alone or by the number of its iterations.
    """
    limits = job_limits(config)
    if needed_s(limits, timeout_s=timeout_s, iterations=iterations) <= config.max_duration_s:
        return
    each_s = timeout_s + config.grace_s
    field, value = (
        ("job.timeout", timeout_s) if each_s > config.max_duration_s - config.allowance_s else ("job.iter", iterations)
    )
    raise InputError(
        field,
        value,
        f"all iterations may take {config.max_duration_s} s here, with {config.grace_s:g} s of grace each and"
        f" {config.allowance_s} s for pull and boot",
        hint="ask for less, or have the operator raise `jobs.max_duration_s`",
    )
