"""A job that a server gave to this runner, whichever messages it speaks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from metalmark.wire import JobConfig, JobMessage, LeasedJob, SpecBody


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One job under one lease. The token is in no ``repr``."""

    job: UUID
    lease: int
    """Number under which the server knows the claim; 0 from a server that speaks the public messages only."""
    spec: SpecBody
    config: JobConfig
    token: str = field(repr=False)
    """Opens the image at the registry."""
    timeout_s: int
    """Limit of one iteration."""
    created: datetime
    """When the job was submitted."""
    expires: datetime | None = None
    """When the token ends; None where that was not said."""

    @classmethod
    def of_lease(cls, message: LeasedJob) -> Assignment:
        """Return what a server of ours sent."""
        return cls(
            job=message.job,
            lease=message.lease,
            spec=message.spec,
            config=message.config,
            token=message.oci_token,
            timeout_s=message.timeout,
            created=message.created,
            expires=message.expires,
        )

    @classmethod
    def of_public(cls, message: JobMessage) -> Assignment:
        """Return what a server sent that speaks the public messages only."""
        return cls(
            job=message.uuid,
            lease=0,
            spec=message.spec,
            config=message.config,
            token=message.oci_token,
            timeout_s=message.timeout,
            created=message.created,
        )
