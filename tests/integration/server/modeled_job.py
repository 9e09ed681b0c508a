"""A job as the model of its life has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from metalmark.model import Effect, JobEvent, JobStatus, transition


@dataclass(kw_only=True)
class Modeled:
    """A job as it has to be."""

    id: UUID
    spec: UUID
    retry_allowed: bool
    pending_expires: datetime
    status: JobStatus = JobStatus.PENDING
    runner: UUID | None = None
    lease: int = 0
    lease_expires: datetime | None = None
    limit_expires: datetime | None = None
    phase: str | None = None
    began: bool = False
    retries: int = 0
    history: list[JobStatus] = field(default_factory=lambda: [JobStatus.PENDING])

    @property
    def retries_left(self) -> int:
        return 1 - self.retries if self.retry_allowed and not self.retries else 0

    @property
    def may_have_begun(self) -> bool:
        return self.began or (self.status is JobStatus.RUNNING and self.phase is None)

    def apply(self, event: JobEvent) -> Effect:
        step = transition(self.status, event)
        if step.effect is Effect.MOVE:
            self.status = step.target
            self.history.append(step.target)
            if event is JobEvent.REQUEUE:
                self.retries += 1
            if step.target is JobStatus.PENDING:
                self.runner, self.phase, self.began = None, None, False
                self.lease_expires = self.limit_expires = None
            elif step.target.has_run:
                self.lease_expires = self.limit_expires = None
        return step.effect
