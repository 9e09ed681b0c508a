"""Runs on the wire: results that were measured elsewhere, or a job that is to measure them."""

from __future__ import annotations

from metalmark.model import JobEnvironment, JobImage, JobPaths, JobPriority, JobWords, UnicodeText
from metalmark.wire.rest_branches import StartPointUpdate
from metalmark.wire.rest_reports import ReportSettings, ReportThresholds
from metalmark.wire.scalars import (
    U32,
    Body,
    BranchIdField,
    DateTimeField,
    Flag,
    GitHashField,
    NameIdField,
    PositiveI32,
    ResourceIdField,
    UuidField,
)

CONTEXT_PREFIX = "bencher.dev/v0"
"""What the keys of a run's context begin with."""


class NewRunJob(Body):
    """A job that is to be run on one of the server's runners."""

    image: JobImage
    """Reference of the image; without a registry, one in this server's."""
    spec: ResourceIdField | None = None
    entrypoint: JobWords | None = None
    cmd: JobWords | None = None
    env: JobEnvironment | None = None
    timeout: PositiveI32 | None = None
    """Limit of one iteration in seconds."""
    file_paths: JobPaths | None = None
    build_time: Flag | None = None
    file_size: Flag | None = None
    iter: U32 | None = None
    allow_failure: Flag | None = None
    backdate: DateTimeField | None = None
    priority: JobPriority | None = None
    """Higher goes first; 100 when there is none, and what is above needs the permission to manage the project."""
    retry: Flag | None = None
    """Whether a fault of the infrastructure before the benchmark began may put the job back into the queue, once."""


class NewRun(Body):
    """A run. Nearly everything has a default that comes from ``context``."""

    project: ResourceIdField | None = None
    idempotency_key: UuidField | None = None
    """A second run of the same key in the same project is answered with the report of the first."""
    branch: BranchIdField | None = None
    hash: GitHashField | None = None
    start_point: StartPointUpdate | None = None
    testbed: NameIdField | None = None
    spec_reset: Flag | None = None
    """Clear the spec that the testbed remembers; not for jobs."""
    thresholds: ReportThresholds | None = None
    start_time: DateTimeField
    end_time: DateTimeField
    results: tuple[UnicodeText, ...]
    """What the benchmark printed, one text an iteration; ignored when there is a job."""
    settings: ReportSettings | None = None
    context: dict[str, UnicodeText] | None = None
    """Where the run was submitted from: repository, branch, commit, machine. Nothing of it is stored."""
    job: NewRunJob | None = None
