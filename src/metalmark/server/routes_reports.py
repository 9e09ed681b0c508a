"""``/v0/projects/{project}/reports``: what was measured, run by run."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BeforeValidator, Field

from metalmark.model import NotFound, Permission
from metalmark.server.caller import CurrentActor
from metalmark.server.context import CurrentContext
from metalmark.server.paging import Direction, Flag, RequestedPage, SortDirection, set_total
from metalmark.server.permission import project_for
from metalmark.server.report_bodies import report_body
from metalmark.server.run_submission import Submitter, submit_report
from metalmark.store import Connection, ReportFilter, delete_report, find_report, list_reports
from metalmark.wire import BranchIdField, NameIdField, NewReport, ReportBody, ResourceIdField, UuidField

router = APIRouter(tags=["reports"])

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INTEGER = re.compile(r"-?[0-9]{1,16}", re.ASCII)
# From the year 1 to the year 9999: what a time can be.
_EARLIEST_MS, _LATEST_MS = -62_135_596_800_000, 253_402_300_799_999


class ReportOrder(StrEnum):
    """What reports can be sorted by."""

    DATE_TIME = "date_time"


def _integer(value: object) -> object:
    if isinstance(value, str) and not _INTEGER.fullmatch(value):
        raise ValueError("this is not a whole number of milliseconds")
    return value


Milliseconds = Annotated[int, BeforeValidator(_integer), Field(ge=_EARLIEST_MS, le=_LATEST_MS)]


@router.get("/v0/projects/{project}/reports", operation_id="proj_reports_get")
async def get_reports(
    *,
    context: CurrentContext,
    actor: CurrentActor,
    response: Response,
    page: RequestedPage,
    project: ResourceIdField,
    sort: Annotated[ReportOrder, Query(description="What to sort by.")] = ReportOrder.DATE_TIME,  # noqa: ARG001  there is one
    direction: SortDirection = None,
    branch: Annotated[BranchIdField | None, Query(description="Only those on this branch.")] = None,
    testbed: Annotated[NameIdField | None, Query(description="Only those on this testbed.")] = None,
    start_time: Annotated[Milliseconds | None, Query(description="Only those that start then or later.")] = None,
    end_time: Annotated[Milliseconds | None, Query(description="Only those that end then or earlier.")] = None,
    archived: Annotated[Flag, Query(description="Those of archived branches or testbeds, not the others.")] = "false",
    expand: Annotated[Flag, Query(description="Whether results and alerts are in the answer.")] = "false",
) -> list[ReportBody]:
    """List the reports of a project, the latest first."""
    wanted = ReportFilter(
        branch=branch,
        testbed=testbed,
        not_before=_instant(start_time),
        not_after=_instant(end_time),
        archived=archived == "true",
    )
    async with context.store.read() as connection:
        found = await project_for(connection, actor, project, Permission.VIEW)
        descending = direction is not Direction.ASCENDING
        reports, total = await list_reports(
            connection, page=page, project_id=found.id, wanted=wanted, descending=descending
        )
    set_total(response, total)
    return [report_body(report, found, expanded=expand == "true") for report in reports]


@router.post("/v0/projects/{project}/reports", operation_id="proj_report_post", status_code=201)
async def post_report(
    context: CurrentContext, actor: CurrentActor, request: Request, project: ResourceIdField, body: NewReport
) -> ReportBody:
    """Make a report of results that were measured elsewhere."""
    submitter = Submitter(context=context, request=request, actor=actor)
    submitted = await submit_report(submitter, project, body)
    return report_body(submitted.report, submitted.project)


@router.get("/v0/projects/{project}/reports/{report}", operation_id="proj_report_get")
async def get_report(
    context: CurrentContext, actor: CurrentActor, project: ResourceIdField, report: UuidField
) -> ReportBody:
    """View a report."""
    async with context.store.read() as connection:
        owner = await project_for(connection, actor, project, Permission.VIEW)
        found = await find_report(connection, report, project_id=owner.id)
    if found is None:
        raise NotFound("report", report)
    return report_body(found, owner)


@router.delete("/v0/projects/{project}/reports/{report}", operation_id="proj_report_delete", status_code=204)
async def delete_one_report(
    context: CurrentContext, actor: CurrentActor, project: ResourceIdField, report: UuidField
) -> None:
    """Delete a report, with its job and its results."""

    async def work(connection: Connection) -> tuple[str, ...]:
        owner = await project_for(connection, actor, project, Permission.DELETE)
        return await _deleted(connection, owner.id, report)

    await context.blobs.delete(*await context.store.write(work))


async def _deleted(connection: Connection, project_id: UUID, report: UUID) -> tuple[str, ...]:
    keys = await delete_report(connection, project_id=project_id, report_id=report)
    if keys is None:
        raise NotFound("report", report)
    return keys


def _instant(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else _EPOCH + timedelta(milliseconds=milliseconds)
