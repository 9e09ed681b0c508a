"""Submitting: from the body of a run, or of a report, to what is stored of it.

The store changes in one write, last: a run that is refused, whatever for, leaves nothing behind. What takes time comes
before that, and only for callers that may submit: the registry is asked for the image, and raw results become a blob.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from starlette.requests import HTTPConnection

from metalmark.model import JobStatus, MetalmarkError, Permission, ResourceId, StoreFull, StoreUnavailable
from metalmark.server.actor import Actor, caller_of
from metalmark.server.client_address import address_group
from metalmark.server.context import ServerContext
from metalmark.server.image_reference import ForeignImage, OwnImage, parse_image
from metalmark.server.job_image import FixedImage, fix_foreign_image, fix_own_image
from metalmark.server.job_rules import check_duration
from metalmark.server.permission import project_for
from metalmark.server.rate_limits import Limited
from metalmark.server.report_draft import ReportDraft, store_report
from metalmark.server.run_context import RunContext
from metalmark.server.run_project import RunTarget, find_target, open_target
from metalmark.store import Connection, ProjectRecord, ReportRecord, find_project, find_report_by_key, new_report_id
from metalmark.wire import NewReport, NewRun

Opened: TypeAlias = Callable[[Connection], Awaitable[ProjectRecord]]


@dataclass(frozen=True, kw_only=True)
class Submitter:
    """Who submits, and where."""

    context: ServerContext
    request: HTTPConnection
    actor: Actor

    @property
    def address(self) -> str:
        """The client's."""
        return str(self.request.scope["state"]["client_address"])

    def count(self) -> None:
        """Count one run of the caller.

        Raises:
            TooManyRequests: There were too many.
        """
        self.context.limits.spend(Limited.RUNS, caller_of(self.actor, address_group(self.address)))


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """What a submission became."""

    project: ProjectRecord
    report: ReportRecord


async def submit_run(submitter: Submitter, run: NewRun) -> Submitted:
    """Store a run: a report, and a job that measures for it if the run asks for one.

    Raises:
        MetalmarkError: It cannot be taken; nothing was stored.
    """
    submitter.count()
    config = submitter.context.config
    parsed = None
    if run.job is not None:
        parsed = parse_image(run.job.image, registry_url=config.registry_url, allowed=config.registry.allowed)
    said = RunContext.read(run.context or {})
    target = RunTarget(
        request=submitter.request,
        actor=submitter.actor,
        project=run.project,
        image_project=await _image_project(submitter, run, parsed) if isinstance(parsed, OwnImage) else None,
        context=None if run.context is None else said,
    )
    known = await _look(submitter, target, run, parsed)
    if known.before is not None:
        return known.before
    if run.job is not None:
        timeout_s, iterations = run.job.timeout or config.jobs.timeout_s, 1 if run.job.iter is None else run.job.iter
        check_duration(config.jobs, timeout_s=timeout_s, iterations=iterations)
    draft = ReportDraft(
        id=new_report_id(),
        actor=submitter.actor,
        source=submitter.address,
        body=run,
        idempotency_key=run.idempotency_key,
        branch=run.branch if run.branch is not None else said.branch_id,
        hash=run.hash if run.hash is not None else said.hash,
        testbed=run.testbed if run.testbed is not None else said.testbed_id,
        testbed_named=run.testbed is not None,
        spec_reset=run.spec_reset or False,
        job=run.job,
        image=await fix_foreign_image(parsed) if isinstance(parsed, ForeignImage) else known.image,
    )
    now = submitter.context.clock.now()

    async def opened(connection: Connection) -> ProjectRecord:
        return await open_target(connection, target, anonymous=config.auth.anonymous, now=now)

    return await _store(submitter, draft, opened)


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What the store knows of a run before it is taken."""

    before: Submitted | None = None
    """The run, where it is one that came before."""
    image: FixedImage | None = None
    """Its image, where that is in this server's registry."""


async def _image_project(submitter: Submitter, run: NewRun, image: OwnImage) -> ResourceId | None:
    if image.project is not None or run.project is not None:
        return image.project
    # `PROJECT/NAME` is a repository of a project that is there; of any other name nothing follows.
    named = image.possible_project
    async with submitter.context.store.read() as connection:
        return named if named is not None and await find_project(connection, named) is not None else None


async def _look(submitter: Submitter, target: RunTarget, run: NewRun, image: OwnImage | ForeignImage | None) -> _Known:
    # Refuses whoever may not submit, before anything is done for them.
    config, key = submitter.context.config, run.idempotency_key
    async with submitter.context.store.read() as connection:
        project = await find_target(connection, target, anonymous=config.auth.anonymous)
        if project is not None and key is not None:
            report = await find_report_by_key(connection, project_id=project.id, idempotency_key=key)
            if report is not None:
                return _Known(before=Submitted(project=project, report=report))
        if not isinstance(image, OwnImage):
            return _Known()
        return _Known(image=await fix_own_image(connection, image, project, config))


async def submit_report(submitter: Submitter, identifier: ResourceId, body: NewReport) -> Submitted:
    """Store a report of a project that is there.

    Raises:
        MetalmarkError: It cannot be taken; nothing was stored.
    """
    submitter.count()

    async def opened(connection: Connection) -> ProjectRecord:
        return await project_for(connection, submitter.actor, identifier, Permission.CREATE)

    async with submitter.context.store.read() as connection:
        await opened(connection)
    draft = ReportDraft(
        id=new_report_id(),
        actor=submitter.actor,
        source=submitter.address,
        body=body,
        idempotency_key=None,
        branch=body.branch,
        hash=body.hash,
        testbed=body.testbed,
        testbed_named=True,
        spec_reset=False,
        job=None,
        image=None,
    )
    return await _store(submitter, draft, opened)


async def _store(submitter: Submitter, draft: ReportDraft, opened: Opened) -> Submitted:
    context, key = submitter.context, draft.results_key
    if key is not None:
        await context.blobs.put(key, draft.results())
    now = context.clock.now()

    async def work(connection: Connection) -> Submitted:
        project = await opened(connection)
        report = await store_report(connection, draft, project, context.config, now=now)
        # What the run made of the project (a claim) is to be seen in its answer.
        return Submitted(project=await find_project(connection, project.id) or project, report=report)

    try:
        submitted = await context.store.write(work)
    except MetalmarkError as error:
        # A connection that breaks in a commit leaves open whether there is a report that refers to the blob.
        if isinstance(error, StoreFull) or not isinstance(error, StoreUnavailable):
            await _forget(context, key)
        raise
    if submitted.report.id != draft.id:
        await _forget(context, key)
    elif draft.job is not None:
        context.metrics.job_moved(JobStatus.PENDING)
    return submitted


async def _forget(context: ServerContext, key: str | None) -> None:
    if key is not None:
        await context.blobs.delete(key)
