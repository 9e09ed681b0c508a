"""Branches, testbeds and reports as answers show them."""

from __future__ import annotations

from metalmark.server.account_bodies import project_body
from metalmark.server.fleet_bodies import spec_body
from metalmark.store import (
    BranchRecord,
    HeadRecord,
    ProjectRecord,
    ReportRecord,
    SpecRecord,
    TestbedRecord,
    VersionRecord,
)
from metalmark.wire import (
    BranchBody,
    BranchVersionBody,
    HeadBody,
    PublicUserBody,
    ReportBody,
    ReportCounts,
    StartPointBody,
    TestbedBody,
    read_adapter,
)


def version_body(version: VersionRecord) -> BranchVersionBody:
    """Return a version."""
    return BranchVersionBody(number=version.number, hash=version.hash)


def head_body(head: HeadRecord, version: VersionRecord | None = None) -> HeadBody:
    """Return a head; with a version where a report is shown."""
    start = head.start_point
    return HeadBody(
        uuid=head.id,
        start_point=None
        if start is None
        else StartPointBody(branch=start.branch_id, head=start.head_id, version=version_body(start.version)),
        version=None if version is None else version_body(version),
        created=head.created,
        replaced=head.replaced,
    )


def branch_body(branch: BranchRecord, version: VersionRecord | None = None) -> BranchBody:
    """Return a branch with its head; with a version where a report is shown."""
    return BranchBody(
        uuid=branch.id,
        project=branch.project_id,
        name=branch.name,
        slug=branch.slug,
        head=head_body(branch.head, version),
        created=branch.created,
        modified=branch.modified,
        archived=branch.archived,
    )


def testbed_body(testbed: TestbedRecord, spec: SpecRecord | None) -> TestbedBody:
    """Return a testbed with the spec to be shown: its own, a report's, or one that was asked for."""
    return TestbedBody(
        uuid=testbed.id,
        project=testbed.project_id,
        name=testbed.name,
        slug=testbed.slug,
        spec=None if spec is None else spec_body(spec),
        created=testbed.created,
        modified=testbed.modified,
        archived=testbed.archived,
    )


def report_body(report: ReportRecord, project: ProjectRecord, *, expanded: bool = True) -> ReportBody:
    """Return a report; in lists that are not expanded without its results and alerts."""
    user = report.user
    return ReportBody(
        uuid=report.id,
        user=None if user is None else PublicUserBody(uuid=user.id, name=user.name, slug=user.slug),
        project=project_body(project),
        branch=branch_body(report.branch, report.version),
        testbed=testbed_body(report.testbed, report.spec),
        start_time=report.start_time,
        end_time=report.end_time,
        adapter=read_adapter(report.adapter),
        results=() if expanded else None,
        alerts=() if expanded else None,
        counts=ReportCounts(),
        job=report.job_id,
        created=report.created,
    )
