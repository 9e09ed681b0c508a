"""Jobs on the wire, as people and the programs that wait for them read them."""

from __future__ import annotations

from typing import Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from metalmark.wire.iteration_output import IterationEnds, JobOutput
from metalmark.wire.rest_specs import SpecBody
from metalmark.wire.scalars import Body, DateTimeField, Text, UuidField

JobStatusName = Literal["pending", "claimed", "running", "completed", "processed", "failed", "canceled"]


class PendingReasonBody(Body):
    """Why a job is still pending."""

    cause: Literal["spec_archived", "no_runner", "not_capable", "foreign_image", "runners_away", "limited", "waiting"]
    text: Text
    position: int | None = None
    """Place among the jobs that wait for the same spec, from 1 on; null from 1001 on."""


class JobEventBody(Body):
    """Something that happened to a job."""

    at: DateTimeField
    event: Text
    before: JobStatusName | None
    after: JobStatusName
    lease: int
    """Number of the lease that it happened under; 0 before the first."""
    runner: UuidField | None
    """Who held it then."""
    reason: Text | None


class JobBody(Body):
    """A job. ``output`` is left out until there is one that the caller may see, and in lists."""

    uuid: UuidField
    status: JobStatusName
    spec: SpecBody
    runner: UuidField | None = None
    claimed: DateTimeField | None = None
    started: DateTimeField | None = None
    completed: DateTimeField | None = None
    created: DateTimeField
    modified: DateTimeField
    report: UuidField
    priority: int
    phase: Text | None = None
    """How far the runner is, when it tells."""
    phase_iteration: int | None = None
    """Which iteration the phase is of, 0 before the first; null when the runner does not tell."""
    lease: int
    """Number of the last lease; 0 before the first claim."""
    retries: int
    """How often the job went back into the queue after a fault of the infrastructure."""
    retry_of: UuidField | None = None
    """The job that this one does once more."""
    end_reason: Text | None = None
    """Why it ended as it did; null while it has not."""
    error: Text | None = None
    pending: PendingReasonBody | None = None
    """Why it is still pending; null in lists and for jobs that are not."""
    iterations: IterationEnds | None = None
    """How each iteration ended, also when the output is too large for an answer; null in lists and without any."""
    events: tuple[JobEventBody, ...] | None = None
    """What happened to it, first things first; null in lists and after changes."""
    output: JobOutput | None = None

    @model_serializer(mode="wrap")
    def _leave_out_output(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in handler(self).items() if name != "output" or value is not None}
