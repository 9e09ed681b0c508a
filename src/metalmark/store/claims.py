"""Claims: pending jobs given to runners, each under a lease with a number of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from metalmark.store.specs import SpecRecord


@dataclass(frozen=True, kw_only=True)
class ClaimedJob:
    """A job that a runner was given, and the lease that it holds the job by."""

    job: UUID
    project: UUID
    runner: UUID
    lease: int
    """The fencing number: of all that was ever handed out for this job, only the last one moves it."""
    lease_expires: datetime
    """When the job is taken away again unless the runner gives a sign of life."""
    limit_expires: datetime
    """When the job as a whole has to be over; the pull token lives as long."""
    spec: SpecRecord
    config: Mapping[str, Any]
    """What the runner is told to do, as it was stored at submission: the wire's ``JobConfig``."""
    timeout_s: int
    """Limit of one iteration."""
    created: datetime
    claimed: datetime
