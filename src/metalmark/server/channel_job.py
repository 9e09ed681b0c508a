"""A claimed job as a runner is told of it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from metalmark.server.fleet_bodies import spec_body
from metalmark.server.pull_token import pull_token
from metalmark.store import ClaimedJob
from metalmark.wire import JobConfig, JobMessage, LeasedJob

if TYPE_CHECKING:
    from metalmark.server.signer import Signer


def handed_over(claimed: ClaimedJob, signer: Signer, now: datetime) -> JobMessage:
    """Return the message for a public runner. Its token opens the project's images while the lease lasts."""
    return JobMessage(
        uuid=claimed.job,
        spec=spec_body(claimed.spec),
        config=JobConfig.model_validate(dict(claimed.config)),
        oci_token=pull_token(claimed, signer, now),
        timeout=claimed.timeout_s,
        created=claimed.created,
    )


def leased(claimed: ClaimedJob, signer: Signer, now: datetime) -> LeasedJob:
    """Return the message for one of our own runners."""
    return LeasedJob(
        job=claimed.job,
        lease=claimed.lease,
        spec=spec_body(claimed.spec),
        config=JobConfig.model_validate(dict(claimed.config)),
        oci_token=pull_token(claimed, signer, now),
        timeout=claimed.timeout_s,
        created=claimed.created,
        expires=claimed.limit_expires,
    )
