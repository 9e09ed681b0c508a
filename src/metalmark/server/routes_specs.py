"""``/v0/specs``: what hardware jobs may ask for, as administrators of the server set it."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from metalmark.model import Demand, NotFound, ResourceId
from metalmark.server.audit import act_of
from metalmark.server.caller import ServerAdmin
from metalmark.server.context import CurrentContext
from metalmark.server.fleet_bodies import spec_body
from metalmark.server.name_lists import ArchivedFilter, WantedOfFleet
from metalmark.server.paging import RequestedPage, set_total
from metalmark.store import (
    Connection,
    SpecChanges,
    SpecRecord,
    create_spec,
    delete_spec,
    find_spec,
    list_specs,
    record_act,
    update_spec,
)
from metalmark.wire import NewSpecBody, ResourceIdField, SpecBody, UpdateSpecBody

router = APIRouter(tags=["specs"])


@router.get("/v0/specs", operation_id="specs_get")
async def get_specs(
    *,
    context: CurrentContext,
    _admin: ServerAdmin,
    response: Response,
    page: RequestedPage,
    wanted: WantedOfFleet,
    archived: ArchivedFilter = "false",
) -> list[SpecBody]:
    """List specs."""
    async with context.store.read() as connection:
        specs, total = await list_specs(
            connection,
            page=page,
            wanted=wanted,
            archived=archived == "true",
        )
    set_total(response, total)
    return [spec_body(spec) for spec in specs]


@router.post("/v0/specs", operation_id="specs_post", status_code=201)
async def post_spec(context: CurrentContext, admin: ServerAdmin, request: Request, body: NewSpecBody) -> SpecBody:
    """Make a spec. As the fallback it takes the place of another."""
    demand = Demand(
        os=body.os,
        architecture=body.architecture,
        sandbox=body.sandbox,
        vcpus=body.cpu,
        memory_bytes=body.memory,
        disk_bytes=body.disk,
        network=body.network,
    )
    now = context.clock.now()

    async def work(connection: Connection) -> SpecRecord:
        spec = await create_spec(
            connection,
            name=body.name,
            slug=body.slug,
            demand=demand,
            fallback=body.fallback,
            anonymous=body.anonymous,
            now=now,
        )
        act = act_of(request, admin, "spec.create", "spec", spec.id, slug=spec.slug)
        await record_act(connection, act, now=now)
        return spec

    return spec_body(await context.store.write(work))


@router.get("/v0/specs/{spec}", operation_id="spec_get")
async def get_spec(context: CurrentContext, _admin: ServerAdmin, spec: ResourceIdField) -> SpecBody:
    """View a spec."""
    async with context.store.read() as connection:
        return spec_body(await spec_named(connection, spec))


@router.patch("/v0/specs/{spec}", operation_id="spec_patch")
async def patch_spec(
    context: CurrentContext, admin: ServerAdmin, request: Request, spec: ResourceIdField, body: UpdateSpecBody
) -> SpecBody:
    """Change a spec. Archiving takes it off every testbed, and ends its being the fallback."""
    changes = SpecChanges(
        name=body.name, slug=body.slug, fallback=body.fallback, anonymous=body.anonymous, archived=body.archived
    )
    now = context.clock.now()

    async def work(connection: Connection) -> SpecRecord:
        found = await spec_named(connection, spec)
        changed = await update_spec(connection, spec_id=found.id, changes=changes, now=now)
        details = body.model_dump(exclude_none=True)
        await record_act(connection, act_of(request, admin, "spec.update", "spec", found.id, **details), now=now)
        return changed or found

    return spec_body(await context.store.write(work))


@router.delete("/v0/specs/{spec}", operation_id="spec_delete", status_code=204)
async def delete_one_spec(context: CurrentContext, admin: ServerAdmin, request: Request, spec: ResourceIdField) -> None:
    """Delete a spec that no runner serves and no job asks for."""
    now = context.clock.now()

    async def work(connection: Connection) -> None:
        found = await spec_named(connection, spec)
        await delete_spec(connection, spec_id=found.id)
        act = act_of(request, admin, "spec.delete", "spec", found.id, slug=found.slug)
        await record_act(connection, act, now=now)

    await context.store.write(work)


async def spec_named(connection: Connection, identifier: ResourceId) -> SpecRecord:
    """Return the spec of a UUID or slug, archived ones too.

    Raises:
        NotFound: There is none.
    """
    found = await find_spec(connection, identifier)
    if found is None:
        raise NotFound("spec", identifier)
    return found
