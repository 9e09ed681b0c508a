"""A claimed job as a runner is told of it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from metalmark.server.fleet_bodies import spec_body
from metalmark.server.signer import Audience, Pull
from metalmark.store import ClaimedJob
from metalmark.wire import JobConfig, JobMessage, LeasedJob

if TYPE_CHECKING:
    from metalmark.server.signer import Signer

_PULL_MIN_S = 60


def handed_over(claimed: ClaimedJob, signer: Signer, now: datetime) -> JobMessage:
    """Return the message for a public runner. Its token opens the project's images for as long as the job may take."""
    return JobMessage(
        uuid=claimed.job,
        spec=spec_body(claimed.spec),
        config=JobConfig.model_validate(dict(claimed.config)),
        oci_token=_pull_token(claimed, signer, now),
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
        oci_token=_pull_token(claimed, signer, now),
        timeout=claimed.timeout_s,
        created=claimed.created,
        expires=claimed.limit_expires,
    )


def _pull_token(claimed: ClaimedJob, signer: Signer, now: datetime) -> str:
    ttl_s = max(_PULL_MIN_S, int((claimed.limit_expires - now).total_seconds()))
    pull = Pull(repository=str(claimed.project), actions=("pull",))
    return signer.sign(Audience.RUNNER_PULL, str(claimed.runner), ttl_s=ttl_s, pull=pull).text
