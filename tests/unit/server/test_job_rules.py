from __future__ import annotations

from metalmark.server.config import JobsSection
from metalmark.server.job_rules import claim_rules, job_limits


def test_each_limit_comes_from_the_key_of_its_name() -> None:
    config = JobsSection(heartbeat_timeout_s=11, grace_s=12, allowance_s=13, max_pending_s=14)
    limits = job_limits(config)
    assert (limits.heartbeat_timeout_s, limits.grace_s, limits.start_allowance_s, limits.max_pending_s) == (
        11,
        12,
        13,
        14,
    )


def test_each_number_of_jobs_at_once_comes_from_the_key_of_its_name() -> None:
    config = JobsSection(starvation_s=21, project_concurrency=22, organization_concurrency=23, source_concurrency=24)
    rules = claim_rules(config)
    assert (rules.starvation_s, rules.limits) == (21, job_limits(config))
    assert (rules.project_concurrency, rules.organization_concurrency, rules.source_concurrency) == (22, 23, 24)
    assert rules.limits_concurrency


def test_without_a_configuration_nothing_is_limited_but_time() -> None:
    rules = claim_rules(JobsSection())
    assert not rules.limits_concurrency
    assert rules.limits.max_pending_s == 7 * 86_400
