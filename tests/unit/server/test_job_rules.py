from __future__ import annotations

import re

import pytest

from metalmark.model import InputError, JobLimits
from metalmark.server.config import JobsSection
from metalmark.server.job_rules import check_duration, claim_rules, job_limits


def test_each_limit_comes_from_the_key_of_its_name() -> None:
    config = JobsSection(heartbeat_timeout_s=11, grace_s=12, allowance_s=13, max_pending_s=14, max_duration_s=15)
    assert job_limits(config) == JobLimits(
        heartbeat_timeout_s=11, grace_s=12, start_allowance_s=13, max_pending_s=14, max_duration_s=15
    )


@pytest.mark.parametrize(
    ("timeout_s", "iterations", "field", "value"),
    [
        (89, 1, None, 0),
        (90, 1, "job.timeout", 90),
        (29, 2, None, 0),
        (45, 2, "job.iter", 2),
        (1, 2**32 - 1, "job.iter", 2**32 - 1),
    ],
)
def test_a_job_that_takes_too_long_is_refused_by_the_field_that_is_to_blame(
    timeout_s: int, iterations: int, field: str | None, value: int
) -> None:
    config = JobsSection(grace_s=1, allowance_s=10, max_duration_s=100)
    if field is None:
        check_duration(config, timeout_s=timeout_s, iterations=iterations)
        return
    with pytest.raises(InputError, match=rf"^{re.escape(field)} is {value}: .*100 s"):
        check_duration(config, timeout_s=timeout_s, iterations=iterations)


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
