"""``/v0/projects/{project}/testbeds``: where a project measures."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from metalmark.model import NotFound, Permission, ResourceId
from metalmark.server.caller import CurrentActor
from metalmark.server.context import CurrentContext
from metalmark.server.name_lists import ArchivedInstead, WantedNames
from metalmark.server.paging import RequestedPage, set_total
from metalmark.server.permission import project_for
from metalmark.server.report_bodies import testbed_body
from metalmark.server.routes_branches import refuse_renaming
from metalmark.store import (
    Connection,
    SpecRecord,
    TestbedChanges,
    TestbedRecord,
    create_testbed,
    delete_testbed,
    find_spec,
    find_testbed,
    list_testbeds,
    update_testbed,
)
from metalmark.wire import NewTestbed, ResourceIdField, TestbedBody, TestbedPatch, UuidField

router = APIRouter(tags=["testbeds"])


@router.get("/v0/projects/{project}/testbeds", operation_id="proj_testbeds_get")
async def get_testbeds(
    *,
    context: CurrentContext,
    actor: CurrentActor,
    response: Response,
    page: RequestedPage,
    project: ResourceIdField,
    wanted: WantedNames,
    archived: ArchivedInstead = "false",
) -> list[TestbedBody]:
    """List the testbeds of a project."""
    async with context.store.read() as connection:
        found = await project_for(connection, actor, project, Permission.VIEW)
        testbeds, total = await list_testbeds(
            connection, page=page, project_id=found.id, archived=archived == "true", wanted=wanted
        )
        used = {testbed.spec_id for testbed in testbeds if testbed.spec_id is not None}
        specs = {spec_id: await find_spec(connection, spec_id) for spec_id in used}
    set_total(response, total)
    return [testbed_body(testbed, specs.get(testbed.spec_id) if testbed.spec_id else None) for testbed in testbeds]


@router.post("/v0/projects/{project}/testbeds", operation_id="proj_testbed_post", status_code=201)
async def post_testbed(
    context: CurrentContext, actor: CurrentActor, project: ResourceIdField, body: NewTestbed
) -> TestbedBody:
    """Make a testbed."""
    now = context.clock.now()

    async def work(connection: Connection) -> TestbedBody:
        owner = await project_for(connection, actor, project, Permission.CREATE)
        spec = None if body.spec is None else await _active_spec(connection, body.spec)
        testbed = await create_testbed(
            connection,
            project_id=owner.id,
            name=body.name,
            slug=body.slug,
            spec_id=None if spec is None else spec.id,
            now=now,
        )
        return testbed_body(testbed, spec)

    return await context.store.write(work)


@router.get("/v0/projects/{project}/testbeds/{testbed}", operation_id="proj_testbed_get")
async def get_testbed(
    context: CurrentContext,
    actor: CurrentActor,
    project: ResourceIdField,
    testbed: ResourceIdField,
    spec: Annotated[UuidField | None, Query(description="The spec to be shown instead of its own.")] = None,
) -> TestbedBody:
    """View a testbed."""
    async with context.store.read() as connection:
        owner = await project_for(connection, actor, project, Permission.VIEW)
        found = await _named(connection, owner.id, testbed)
        if spec is None:
            return testbed_body(found, await _spec_of(connection, found))
        shown = await find_spec(connection, spec)
        if shown is None:
            raise NotFound("spec", spec)
        return testbed_body(found, shown)


@router.patch("/v0/projects/{project}/testbeds/{testbed}", operation_id="proj_testbed_patch")
async def patch_testbed(
    context: CurrentContext, actor: CurrentActor, project: ResourceIdField, testbed: ResourceIdField, body: TestbedPatch
) -> TestbedBody:
    """Change a testbed; a spec of null clears it."""
    now = context.clock.now()

    async def work(connection: Connection) -> TestbedBody:
        owner = await project_for(connection, actor, project, Permission.EDIT)
        refuse_renaming(actor, body.name, body.slug)
        found = await _named(connection, owner.id, testbed)
        spec = None if body.spec is None else await _active_spec(connection, body.spec)
        changes = TestbedChanges(
            name=body.name,
            slug=body.slug,
            spec_id=None if spec is None else spec.id,
            clear_spec=body.clears("spec"),
            archived=body.archived,
        )
        changed = await update_testbed(connection, testbed_id=found.id, changes=changes, now=now) or found
        return testbed_body(changed, await _spec_of(connection, changed))

    return await context.store.write(work)


@router.delete("/v0/projects/{project}/testbeds/{testbed}", operation_id="proj_testbed_delete", status_code=204)
async def delete_one_testbed(
    context: CurrentContext, actor: CurrentActor, project: ResourceIdField, testbed: ResourceIdField
) -> None:
    """Delete a testbed that has no reports."""

    async def work(connection: Connection) -> None:
        owner = await project_for(connection, actor, project, Permission.DELETE)
        found = await _named(connection, owner.id, testbed)
        await delete_testbed(connection, testbed_id=found.id)

    await context.store.write(work)


async def _named(connection: Connection, project_id: UUID, testbed: ResourceId) -> TestbedRecord:
    found = await find_testbed(connection, project_id=project_id, identifier=testbed)
    if found is None:
        raise NotFound("testbed", testbed)
    return found


async def _spec_of(connection: Connection, testbed: TestbedRecord) -> SpecRecord | None:
    return None if testbed.spec_id is None else await find_spec(connection, testbed.spec_id)


async def _active_spec(connection: Connection, spec: ResourceId) -> SpecRecord:
    found = await find_spec(connection, spec)
    if found is None or found.archived is not None:
        raise NotFound("spec", spec, hint="an archived spec takes no jobs")
    return found
