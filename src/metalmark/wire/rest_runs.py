"""Runs on the wire: results that were measured elsewhere, or a job that is to measure them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from metalmark.wire.job_config import ARGUMENTS_MAX, ENTRIES_MAX
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
    UnicodeText,
    UuidField,
)

CONTEXT_PREFIX = "bencher.dev/v0"
"""What the keys of a run's context begin with."""
PRIORITY_MAX = 1000


def _no_nul(words: tuple[str, ...]) -> tuple[str, ...]:
    # No program can be given such an argument: it ends at the NUL.
    if any("\0" in word for word in words):
        raise ValueError("an argument or path holds no NUL")
    return words


Words = Annotated[tuple[UnicodeText, ...], Field(max_length=ARGUMENTS_MAX), AfterValidator(_no_nul)]
Paths = Annotated[tuple[UnicodeText, ...], Field(max_length=ENTRIES_MAX), AfterValidator(_no_nul)]
Environment = Annotated[dict[UnicodeText, UnicodeText], Field(max_length=ENTRIES_MAX)]
ImageText = Annotated[str, Field(strict=True, min_length=1, max_length=4096)]
JobPriority = Annotated[int, Field(strict=True, ge=0, le=PRIORITY_MAX)]


class NewRunJob(Body):
    """A job that is to be run on one of the server's runners."""

    image: ImageText
    """Reference of the image; without a registry, one in this server's."""
    spec: ResourceIdField | None = None
    entrypoint: Words | None = None
    cmd: Words | None = None
    env: Environment | None = None
    timeout: PositiveI32 | None = None
    """Limit of one iteration in seconds."""
    file_paths: Paths | None = None
    build_time: Flag | None = None
    file_size: Flag | None = None
    iter: U32 | None = None
    allow_failure: Flag | None = None
    backdate: DateTimeField | None = None
    priority: JobPriority | None = None
    """Higher goes first; 100 when there is none, and what is above needs the permission to manage the project."""
    retry: Flag | None = None
    """Whether a fault of the infrastructure before the benchmark began may put the job back into the queue, once."""

    @field_validator("env")
    @classmethod
    def _variables(cls, env: dict[str, str] | None) -> dict[str, str] | None:
        for name, value in (env or {}).items():
            if not name or "=" in name or "\0" in name or "\0" in value:
                raise ValueError("a variable has a name without '=', and neither it nor its value holds NUL")
        return env


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
