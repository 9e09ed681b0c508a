"""A report in the making: what was sent, and what of it goes into the store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from metalmark.model import (
    BranchName,
    Forbidden,
    GitHash,
    Permission,
    ResourceName,
    Slug,
    Unauthenticated,
)
from metalmark.server.actor import Actor, Anonymous, UserActor
from metalmark.server.config import ServerConfig
from metalmark.server.job_image import FixedImage
from metalmark.server.permission import project_permissions
from metalmark.server.run_spec import JobPlace, place_job
from metalmark.store import (
    Connection,
    NewJob,
    NewReportRecord,
    ProjectRecord,
    ReportRecord,
    StartRequest,
    TestbedRecord,
    branch_for_run,
    find_report,
    find_report_by_key,
    insert_job,
    insert_report,
    testbed_for_run,
    version_for_report,
)
from metalmark.wire import (
    MAX_VERSIONS,
    JobConfig,
    NewReport,
    NewRun,
    NewRunJob,
    StartPointUpdate,
    adapter_of,
)

DEFAULT_PRIORITY = 100
ANONYMOUS_PRIORITY = 0


@dataclass(frozen=True, kw_only=True)
class ReportDraft:
    """What a run or a new report says, its defaults filled in."""

    id: UUID
    """The report's."""
    actor: Actor
    source: str
    """Address of the client."""
    body: NewRun | NewReport
    idempotency_key: UUID | None
    branch: UUID | Slug | BranchName
    hash: GitHash | None
    testbed: UUID | Slug | ResourceName
    testbed_named: bool
    """Whether the testbed was named, not taken from a default; a job has its own default."""
    spec_reset: bool
    job: NewRunJob | None
    image: FixedImage | None
    """The job's."""

    @property
    def results_key(self) -> str | None:
        """Where the raw results are among the blobs; None when there are none."""
        return None if self.job is not None or not self.body.results else f"results/{self.id}.json"

    def results(self) -> bytes:
        """Return the raw results as they are kept: a JSON array of texts."""
        return json.dumps(self.body.results).encode()


def start_request(update: StartPointUpdate | None) -> StartRequest | None:
    """Return the start point that a body asks for."""
    if update is None:
        return None
    return StartRequest(
        branch=update.branch,
        hash=update.hash,
        max_versions=MAX_VERSIONS if update.max_versions is None else update.max_versions,
        reset=update.reset or False,
    )


async def store_report(
    connection: Connection, draft: ReportDraft, project: ProjectRecord, config: ServerConfig, *, now: datetime
) -> ReportRecord:
    """Store a report with its job and whatever it needs, or find the one that was stored under its key before.

    Raises:
        NotFound: A branch, testbed or spec that is named by a UUID is not there, or the spec is archived.
        InputError: There is no spec for the job.
        Unauthenticated: Strangers may not do what the job asks for.
        Forbidden: The caller may not do it.
    """
    if draft.idempotency_key is not None:
        key = draft.idempotency_key
        before = await find_report_by_key(connection, project_id=project.id, idempotency_key=key)
        if before is not None:
            return before
    start = start_request(draft.body.start_point)
    branch = await branch_for_run(connection, project_id=project.id, identifier=draft.branch, start=start, now=now)
    place, testbed = await _place(connection, draft, project, now=now)
    version = await version_for_report(connection, project_id=project.id, head_id=branch.head.id, hash=draft.hash)
    report = NewReportRecord(
        id=draft.id,
        project_id=project.id,
        user_id=draft.actor.user.id if isinstance(draft.actor, UserActor) else None,
        idempotency_key=draft.idempotency_key,
        head_id=branch.head.id,
        version_id=version.id,
        testbed_id=testbed.id,
        spec_id=None if place is None else place.spec.id,
        adapter=adapter_of(None if draft.body.settings is None else draft.body.settings.adapter),
        settings=_settings(draft.body),
        start_time=draft.body.start_time,
        end_time=draft.body.end_time,
        results_key=draft.results_key,
    )
    await insert_report(connection, report, now=now)
    if place is not None:
        await insert_job(connection, await _job(connection, draft, project, place, config, now=now), now=now)
    stored = await find_report(connection, draft.id, project_id=project.id)
    assert stored is not None, "it was inserted in this transaction"
    return stored


async def _place(
    connection: Connection, draft: ReportDraft, project: ProjectRecord, *, now: datetime
) -> tuple[JobPlace | None, TestbedRecord]:
    if draft.job is not None:
        place = await place_job(
            connection,
            project_id=project.id,
            spec=draft.job.spec,
            testbed=draft.testbed if draft.testbed_named else None,
            anonymous=isinstance(draft.actor, Anonymous),
            now=now,
        )
        return place, place.testbed
    testbed = await testbed_for_run(
        connection, project_id=project.id, identifier=draft.testbed, clear_spec=draft.spec_reset, now=now
    )
    return None, testbed


def _settings(body: NewRun | NewReport) -> dict[str, Any]:
    # Thresholds are kept with what they came with, for when the results are read.
    settings = {} if body.settings is None else body.settings.model_dump(mode="json", exclude_none=True)
    if body.thresholds is not None:
        settings["thresholds"] = body.thresholds.model_dump(mode="json", exclude_none=True)
    return settings


async def _job(
    connection: Connection,
    draft: ReportDraft,
    project: ProjectRecord,
    place: JobPlace,
    config: ServerConfig,
    *,
    now: datetime,
) -> NewJob:
    job, image = draft.job, draft.image
    assert job is not None, "there is a place for it"
    assert image is not None, "its image was looked up before"
    return NewJob(
        report=draft.id,
        project=project.id,
        organization=project.organization_id,
        spec=place.spec.id,
        source=draft.source,
        anonymous=isinstance(draft.actor, Anonymous),
        own_image=image.own,
        config=_job_config(draft, job, image, project, config).model_dump(mode="json"),
        timeout_s=job.timeout or config.jobs.timeout_s,
        iterations=1 if job.iter is None else job.iter,
        priority=await _priority(connection, draft.actor, project, job.priority),
        retry_allowed=job.retry or False,
        pending_expires=now + timedelta(seconds=config.jobs.max_pending_s),
    )


def _job_config(
    draft: ReportDraft, job: NewRunJob, image: FixedImage, project: ProjectRecord, config: ServerConfig
) -> JobConfig:
    settings = draft.body.settings
    return JobConfig(
        registry=image.registry_url,
        project=project.id,
        digest=str(image.digest),
        timeout=job.timeout or config.jobs.timeout_s,
        image=job.image,
        repository=image.repository,
        entrypoint=job.entrypoint,
        cmd=job.cmd,
        env=job.env,
        file_paths=job.file_paths,
        build_time=job.build_time,
        file_size=job.file_size,
        iter=job.iter,
        allow_failure=job.allow_failure,
        average=None if settings is None else settings.average,
        fold=None if settings is None else settings.fold,
        backdate=job.backdate,
    )


async def _priority(connection: Connection, actor: Actor, project: ProjectRecord, wanted: int | None) -> int:
    if isinstance(actor, Anonymous):
        if wanted:
            raise Unauthenticated("there is no credential", why="jobs of strangers have the priority 0")
        return ANONYMOUS_PRIORITY
    if wanted is None:
        return DEFAULT_PRIORITY
    if wanted > DEFAULT_PRIORITY and Permission.MANAGE not in await project_permissions(connection, actor, project):
        raise Forbidden(
            f"a priority of {wanted} needs the permission to manage the project",
            hint=f"the most that everybody may ask for is {DEFAULT_PRIORITY}",
        )
    return wanted
