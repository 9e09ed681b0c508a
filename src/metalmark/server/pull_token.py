"""The token that a runner pulls a job's image with: good for as long as the runner holds the job, and no longer."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from metalmark.model import Unauthenticated
from metalmark.server.signer import Audience, Claims, Pull, PullLease, Signer
from metalmark.store import ClaimedJob, Connection, find_job

if TYPE_CHECKING:
    from metalmark.server.context import ServerContext

_MIN_S = 60


def pull_token(claimed: ClaimedJob, signer: Signer, now: datetime) -> str:
    """Return the token for a claim.

    It says until when the job has to be over: a lease may be extended until then, and its end is read from the store.
    """
    ttl_s = max(_MIN_S, int((claimed.limit_expires - now).total_seconds()))
    lease = PullLease(job=claimed.job, number=claimed.lease)
    pull = Pull(repository=str(claimed.project), actions=("pull",), lease=lease)
    return signer.sign(Audience.RUNNER_PULL, str(claimed.runner), ttl_s=ttl_s, pull=pull).text


async def pull_of(context: ServerContext, connection: Connection, claims: Claims) -> Pull:
    """Return what a runner's token allows just now.

    Args:
        context: The server.
        connection: Of a read.
        claims: Of the token that came with a request to the registry.

    Raises:
        Unauthenticated: Its job is not held under its lease any more.
        StoreUnavailable: The store cannot be asked.
    """
    pull = claims.pull
    if pull is None or pull.lease is None:
        raise Unauthenticated("this token is not complete", why="it names no job")
    job = await find_job(connection, pull.lease.job)
    held: tuple[UUID, int] | None = None
    if job is not None and job.status.is_active and job.runner is not None and job.lease_expires is not None:
        held = (job.runner, job.lease) if context.clock.now() < job.lease_expires else None
    if held != (claims.subject_id, pull.lease.number):
        raise Unauthenticated(
            "this token is over", why="its runner does not hold the job any more", hint="drop the job"
        )
    return pull
