"""How the engines carry out what is asked most: every list, look-up and claim goes through an index on both.

The real functions run, their statements are caught, and each engine explains them. PostgreSQL is told to scan or sort
whole tables only where nothing else can be done, so that empty tables show what full ones would.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.integration.store.query_plans import Call, faults_of_call, faults_of_statement

from metalmark.model import Email, JobStatus, Slug, new_id
from metalmark.store import Connection, Holder, Page, Sight, Store
from metalmark.store.audit import list_acts
from metalmark.store.branches import find_branch, list_branches
from metalmark.store.claims import Claimant, ClaimRules, claim_job
from metalmark.store.heads import find_head, find_start_point
from metalmark.store.invites import find_open_invite
from metalmark.store.job_deadlines import due_jobs, next_job_deadline
from metalmark.store.job_events import list_events
from metalmark.store.jobs import find_job, list_jobs, pending_specs
from metalmark.store.keys import find_held_key, find_key_by_digest, list_keys
from metalmark.store.members import find_organization_role, list_members
from metalmark.store.organizations import find_organization, list_organizations
from metalmark.store.output import read_output
from metalmark.store.projects import find_project, find_project_with_roles, list_projects
from metalmark.store.reports import ReportFilter, find_report, find_report_by_key, list_reports
from metalmark.store.runners import find_proof, find_runner, find_runner_by_key, list_runner_specs, list_runners
from metalmark.store.selection import ListOrder, Selection
from metalmark.store.specs import delete_spec, find_fallback_spec, find_spec, list_specs
from metalmark.store.testbeds import find_testbed, list_testbeds
from metalmark.store.users import find_user, find_user_by_email, list_users

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 31, tzinfo=UTC)
PAGE = Page(limit=8)
BACKWARDS = Selection(descending=True)
ONE = new_id()
SLUG = Slug("a-slug")
LIMITED = ClaimRules(project_concurrency=1, organization_concurrency=1, source_concurrency=1)
CLAIMANT = Claimant(runner=ONE, specs=frozenset({new_id(), new_id()}))

CALLS: dict[str, Call] = {
    "acts": lambda c: list_acts(c, page=PAGE),
    "acts of an actor": lambda c: list_acts(c, page=PAGE, actor_id=ONE),
    "acts on a subject": lambda c: list_acts(c, page=PAGE, subject_id=ONE),
    "branch by name": lambda c: find_branch(c, project_id=ONE, identifier=SLUG),
    "branches": lambda c: list_branches(c, page=PAGE, project_id=ONE),
    "branches, search": lambda c: list_branches(
        c, page=PAGE, project_id=ONE, archived=True, wanted=Selection(search="a")
    ),
    "claim": lambda c: claim_job(c, CLAIMANT, ClaimRules(), now=NOW),
    "claim of a public runner, within limits": lambda c: claim_job(
        c, Claimant(runner=ONE, specs=CLAIMANT.specs, public=True), LIMITED, now=NOW
    ),
    "deadline of jobs": next_job_deadline,
    "due jobs": lambda c: due_jobs(c, now=NOW),
    "events of a job": lambda c: list_events(c, ONE),
    "fallback": find_fallback_spec,
    "head": lambda c: find_head(c, branch_id=ONE),
    "invite": lambda c: find_open_invite(c, invite_id=ONE, email=Email("a@example.com"), now=NOW),
    "job": lambda c: find_job(c, ONE, project=ONE),
    "jobs": lambda c: list_jobs(c, project=ONE, page=PAGE),
    "jobs by status": lambda c: list_jobs(c, project=ONE, page=PAGE, status=JobStatus.PENDING, ascending=True),
    "key by digest": lambda c: find_key_by_digest(c, Holder.USER, "digest"),
    "key of a token": lambda c: find_held_key(c, Holder.USER, owner_id=ONE, key_id=ONE),
    "key of a project's token": lambda c: find_held_key(c, Holder.PROJECT, owner_id=ONE, key_id=ONE),
    "keys of a project": lambda c: list_keys(c, Holder.PROJECT, owner_id=ONE, page=PAGE),
    "keys of a user": lambda c: list_keys(c, Holder.USER, owner_id=ONE, page=PAGE, revoked=True, wanted=BACKWARDS),
    "members": lambda c: list_members(c, organization_id=ONE, page=PAGE),
    "organization": lambda c: find_organization(c, SLUG),
    "organization role": lambda c: find_organization_role(c, organization_id=ONE, user_id=ONE),
    "organizations": lambda c: list_organizations(c, page=PAGE),
    "organizations of a member": lambda c: list_organizations(c, page=PAGE, member_id=ONE),
    "output": lambda c: read_output(c, job=ONE, offset=7),
    "pending specs": pending_specs,
    "project": lambda c: find_project(c, SLUG),
    "project with roles": lambda c: find_project_with_roles(c, SLUG, user_id=ONE),
    "projects for strangers": lambda c: list_projects(c, page=PAGE, sight=Sight()),
    "projects of an organization": lambda c: list_projects(
        c, page=PAGE, sight=Sight(everything=True), organization_id=ONE
    ),
    "projects of a user": lambda c: list_projects(c, page=PAGE, sight=Sight(user_id=ONE), wanted=BACKWARDS),
    "proof": lambda c: find_proof(c, runner_id=ONE),
    "report": lambda c: find_report(c, ONE, project_id=ONE),
    "report by idempotency key": lambda c: find_report_by_key(c, project_id=ONE, idempotency_key=ONE),
    "reports": lambda c: list_reports(c, page=PAGE, project_id=ONE, wanted=ReportFilter()),
    "reports of a branch and testbed": lambda c: list_reports(
        c, page=PAGE, project_id=ONE, wanted=ReportFilter(branch=SLUG, testbed=ONE, archived=True)
    ),
    "reports of a time": lambda c: list_reports(
        c, page=PAGE, project_id=ONE, wanted=ReportFilter(not_before=NOW, not_after=NOW), descending=False
    ),
    "runner": lambda c: find_runner(c, SLUG),
    "runner by key": lambda c: find_runner_by_key(c, "digest"),
    "runners": lambda c: list_runners(c, page=PAGE, archived=True),
    "runners by creation": lambda c: list_runners(
        c, page=PAGE, wanted=Selection(order=ListOrder.CREATED, descending=True)
    ),
    "runners, search": lambda c: list_runners(c, page=PAGE, wanted=Selection(search="a", name="b")),
    "spec": lambda c: find_spec(c, ONE),
    "specs": lambda c: list_specs(c, page=PAGE),
    "specs by creation": lambda c: list_specs(c, page=PAGE, wanted=Selection(order=ListOrder.CREATED)),
    "specs of a runner": lambda c: list_runner_specs(c, runner_id=ONE),
    "start point": lambda c: find_start_point(c, branch_id=ONE),
    "testbed by name": lambda c: find_testbed(c, project_id=ONE, identifier=SLUG),
    "testbeds": lambda c: list_testbeds(c, page=PAGE, project_id=ONE),
    "use of a spec": lambda c: delete_spec(c, spec_id=ONE),
    "user": lambda c: find_user(c, SLUG),
    "user by address": lambda c: find_user_by_email(c, Email("a@example.com")),
    "users": lambda c: list_users(c, page=PAGE),
    "users backwards, search": lambda c: list_users(c, page=PAGE, wanted=Selection(descending=True, search="a")),
}
SORTED_AFTERWARDS = {
    # A runner serves a few specs, an organization has a few members, a user sees few organizations. A claim compares
    # the first of each of a runner's specs.
    "claim",
    "claim of a public runner, within limits",
    "specs of a runner",
    "members",
    "organizations of a member",
    "start point",
    "runners",
    "runners by creation",
    "runners, search",
    "runner",
    "runner by key",
}


async def faults_of(connection: Connection, name: str) -> dict[str, list[str]]:
    # To count what contains a text, or what a user may see, every row has to be looked at.
    looks_at_all = "search" in name or name == "projects of a user"
    return await faults_of_call(connection, CALLS[name], sorts=name in SORTED_AFTERWARDS, counts=not looks_at_all)


async def test_an_index_serves_each_list_look_up_and_claim(store: Store) -> None:
    async def work(connection: Connection) -> dict[str, dict[str, list[str]]]:
        return {name: await faults_of(connection, name) for name in CALLS}

    found = await store.write(work)
    assert {name: faults for name, faults in found.items() if faults} == {}


async def test_a_scan_is_noticed(store: Store) -> None:
    async def work(connection: Connection) -> list[str]:
        # PostgreSQL could still make a filter of any index; no index has this column at all.
        return await faults_of_statement(connection, "SELECT * FROM jobs ORDER BY error", (), sorts=False)

    assert await store.write(work) != []
