"""Reports: what was submitted for a version of a branch on a testbed, and the job that measures it, if one does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, and_, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import BranchName, ResourceName, Slug, UserName, new_id, status_of
from metalmark.store.branches import BranchRecord
from metalmark.store.heads import HEAD_COLUMNS, HEADS, VersionRecord, drop_unused_version, head_of, version_of
from metalmark.store.notices import Notice, NoticeKind, announce
from metalmark.store.page import Page, rows_of
from metalmark.store.selection import is_called
from metalmark.store.specs import SpecRecord, spec_of
from metalmark.store.tables import branches, heads, jobs, reports, specs, testbeds, users, versions
from metalmark.store.testbeds import TestbedRecord


@dataclass(frozen=True, kw_only=True)
class ReportUser:
    """Who submitted a report, as everybody may know."""

    id: UUID
    name: UserName
    slug: Slug


@dataclass(frozen=True, kw_only=True)
class NewReportRecord:
    """A report as it is submitted."""

    id: UUID
    project_id: UUID
    user_id: UUID | None
    idempotency_key: UUID | None
    head_id: UUID
    version_id: UUID
    testbed_id: UUID
    spec_id: UUID | None
    """That of its job."""
    adapter: str
    settings: Mapping[str, Any]
    start_time: datetime
    end_time: datetime
    results_key: str | None
    """Where its raw results are among the blobs."""


@dataclass(frozen=True, kw_only=True)
class ReportRecord:
    """A report with what it is of."""

    id: UUID
    project_id: UUID
    user: ReportUser | None
    """None for a key's or a stranger's."""
    branch: BranchRecord
    """With the head that the report is on."""
    version: VersionRecord
    testbed: TestbedRecord
    spec: SpecRecord | None
    adapter: str
    settings: Mapping[str, Any]
    start_time: datetime
    end_time: datetime
    results_key: str | None
    job_id: UUID | None
    created: datetime


@dataclass(frozen=True, kw_only=True)
class ReportFilter:
    """Which reports of a project are wanted; None lets all through."""

    branch: UUID | Slug | BranchName | None = None
    testbed: UUID | Slug | ResourceName | None = None
    not_before: datetime | None = None
    """They start at this time or later."""
    not_after: datetime | None = None
    """They end at this time or earlier."""
    archived: bool = False
    """Those whose branch or testbed is archived, and otherwise those of which neither is."""


async def insert_report(connection: AsyncConnection, new: NewReportRecord, *, now: datetime) -> None:
    """Store a report. Its version belongs to its head."""
    fields = {name: getattr(new, name) for name in new.__dataclass_fields__}
    await connection.execute(insert(reports).values(**{**fields, "settings": dict(new.settings)}, created=now))


def new_report_id() -> UUID:
    """Return the identifier that a report will have, so that its raw results can be stored before it."""
    return new_id()


def _labelled(table: Any, prefix: str) -> list[ColumnElement[Any]]:  # noqa: ANN401  a Table or an alias
    return [column.label(f"{prefix}{column.name}") for column in table.c]


_report_versions = versions.alias("report_versions")
_columns = (
    *_labelled(reports, "report_"),
    *branches.c,
    *HEAD_COLUMNS,
    _report_versions.c.number.label("version_number"),
    _report_versions.c.hash.label("version_hash"),
    *_labelled(testbeds, "testbed_"),
    *_labelled(specs, "spec_"),
    users.c.id.label("user_id"),
    users.c.name.label("user_name"),
    users.c.slug.label("user_slug"),
    jobs.c.id.label("job_id"),
)
_joined = (
    reports.join(HEADS, heads.c.id == reports.c.head_id)
    .join(branches, branches.c.id == heads.c.branch_id)
    .join(_report_versions, _report_versions.c.id == reports.c.version_id)
    .join(testbeds, testbeds.c.id == reports.c.testbed_id)
    .outerjoin(specs, specs.c.id == reports.c.spec_id)
    .outerjoin(users, users.c.id == reports.c.user_id)
    .outerjoin(jobs, jobs.c.report_id == reports.c.id)
)


class _Part:
    """The columns of one table in a row of several, under their own names."""

    def __init__(self, row: Row[Any], prefix: str) -> None:
        self._row = row
        self._prefix = prefix

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the column holds
        return getattr(self._row, f"{self._prefix}{name}")


def _report(row: Row[Any]) -> ReportRecord:
    branch = BranchRecord(
        id=row.id,
        project_id=row.project_id,
        name=BranchName(row.name),
        slug=Slug(row.slug),
        head=head_of(row),
        created=row.created,
        modified=row.modified,
        archived=row.archived,
    )
    testbed = TestbedRecord(
        id=row.testbed_id,
        project_id=row.testbed_project_id,
        name=ResourceName(row.testbed_name),
        slug=Slug(row.testbed_slug),
        spec_id=row.testbed_spec_id,
        created=row.testbed_created,
        modified=row.testbed_modified,
        archived=row.testbed_archived,
    )
    user = None
    if row.user_id is not None:
        user = ReportUser(id=row.user_id, name=UserName(row.user_name), slug=Slug(row.user_slug))
    spec: Any = _Part(row, "spec_")
    return ReportRecord(
        id=row.report_id,
        project_id=row.report_project_id,
        user=user,
        branch=branch,
        version=version_of(row.report_version_id, row.version_number, row.version_hash),
        testbed=testbed,
        spec=None if row.spec_id is None else spec_of(spec),
        adapter=row.report_adapter,
        settings=row.report_settings or {},
        start_time=row.report_start_time,
        end_time=row.report_end_time,
        results_key=row.report_results_key,
        job_id=row.job_id,
        created=row.report_created,
    )


async def find_report(connection: AsyncConnection, report_id: UUID, *, project_id: UUID) -> ReportRecord | None:
    """Return a report of a project."""
    named = and_(reports.c.id == report_id, reports.c.project_id == project_id)
    row = (await connection.execute(select(*_columns).select_from(_joined).where(named))).one_or_none()
    return None if row is None else _report(row)


async def find_report_by_key(
    connection: AsyncConnection, *, project_id: UUID, idempotency_key: UUID
) -> ReportRecord | None:
    """Return the report that was submitted to a project under an idempotency key."""
    named = and_(reports.c.project_id == project_id, reports.c.idempotency_key == idempotency_key)
    row = (await connection.execute(select(*_columns).select_from(_joined).where(named))).one_or_none()
    return None if row is None else _report(row)


def reports_query(*, project_id: UUID, wanted: ReportFilter, descending: bool = True) -> Select[Any]:
    """The query of a list of a project's reports, by start, end and creation."""
    archived = or_(branches.c.archived.is_not(None), testbeds.c.archived.is_not(None))
    present = and_(branches.c.archived.is_(None), testbeds.c.archived.is_(None))
    query = select(*_columns).select_from(_joined).where(reports.c.project_id == project_id)
    query = query.where(archived if wanted.archived else present)
    if wanted.branch is not None:
        query = query.where(is_called(branches, wanted.branch))
    if wanted.testbed is not None:
        query = query.where(is_called(testbeds, wanted.testbed))
    if wanted.not_before is not None:
        query = query.where(reports.c.start_time >= wanted.not_before)
    if wanted.not_after is not None:
        query = query.where(reports.c.end_time <= wanted.not_after)
    order = (reports.c.start_time, reports.c.end_time, reports.c.created, reports.c.id)
    return query.order_by(*(column.desc() if descending else column for column in order))


async def list_reports(
    connection: AsyncConnection, *, page: Page, project_id: UUID, wanted: ReportFilter, descending: bool = True
) -> tuple[tuple[ReportRecord, ...], int]:
    """Return a page of a project's reports by time, and how many match."""
    query = reports_query(project_id=project_id, wanted=wanted, descending=descending)
    rows, total = await rows_of(connection, query, page)
    return tuple(_report(row) for row in rows), total


async def set_report_times(connection: AsyncConnection, report_id: UUID, *, start: datetime, end: datetime) -> None:
    """Set when a report's benchmark ran, once its job has."""
    await connection.execute(update(reports).where(reports.c.id == report_id).values(start_time=start, end_time=end))


async def delete_report(connection: AsyncConnection, *, project_id: UUID, report_id: UUID) -> tuple[str, ...] | None:
    """Delete a report with its job, and its version when no other report has that.

    Returns:
        Keys of the blobs that nothing refers to any more, which go once this is committed; None when there is no such
        report.
    """
    found = await find_report(connection, report_id, project_id=project_id)
    if found is None:
        return None
    of_it = select(jobs.c.id, jobs.c.output_key, jobs.c.status).where(jobs.c.report_id == report_id)
    keys = [found.results_key]
    for job in (await connection.execute(of_it)).all():
        keys.append(job.output_key)
        if status_of(job.status).is_active:
            # Whoever runs it learns that it is gone.
            announce(connection, Notice(kind=NoticeKind.JOB_CHANGED, subject=job.id))
    await connection.execute(delete(reports).where(reports.c.id == report_id))
    await drop_unused_version(connection, found.version)
    return tuple(key for key in keys if key is not None)
