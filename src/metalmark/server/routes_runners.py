"""``/v0/runners``: the machines, as administrators of the server make and look after them."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from metalmark.model import ApiKey, KeyKind, NotFound, ResourceId
from metalmark.server.audit import act_of
from metalmark.server.caller import ServerAdmin
from metalmark.server.context import CurrentContext
from metalmark.server.fleet_bodies import runner_body, spec_body
from metalmark.server.name_lists import ArchivedFilter, WantedOfFleet
from metalmark.server.paging import RequestedPage, set_total
from metalmark.server.routes_specs import spec_named
from metalmark.store import (
    Connection,
    RunnerChanges,
    RunnerRecord,
    SpecRecord,
    add_runner_spec,
    create_runner,
    find_proof,
    find_runner,
    list_runner_specs,
    list_runners,
    record_act,
    remove_runner_spec,
    rotate_runner_key,
    update_runner,
)
from metalmark.wire import (
    NewRunnerBody,
    NewRunnerSpecBody,
    ResourceIdField,
    RunnerBody,
    RunnerKeyBody,
    SpecBody,
    UpdateRunnerBody,
)

router = APIRouter(tags=["runners"])


@router.get("/v0/runners", operation_id="runners_get")
async def get_runners(
    *,
    context: CurrentContext,
    _admin: ServerAdmin,
    response: Response,
    page: RequestedPage,
    wanted: WantedOfFleet,
    archived: ArchivedFilter = "false",
) -> list[RunnerBody]:
    """List runners."""
    async with context.store.read() as connection:
        runners, total = await list_runners(
            connection,
            page=page,
            wanted=wanted,
            archived=archived == "true",
        )
    set_total(response, total)
    return [runner_body(runner) for runner in runners]


@router.post("/v0/runners", operation_id="runners_post", status_code=201)
async def post_runner(
    context: CurrentContext, admin: ServerAdmin, request: Request, body: NewRunnerBody
) -> RunnerKeyBody:
    """Make a runner, and show its key once."""
    key = ApiKey.new(KeyKind.RUNNER)
    now = context.clock.now()

    async def work(connection: Connection) -> RunnerRecord:
        made = await create_runner(connection, name=body.name, slug=body.slug, key_digest=key.digest, now=now)
        act = act_of(request, admin, "runner.create", "runner", made.id, slug=made.slug)
        await record_act(connection, act, now=now)
        return made

    runner = await context.store.write(work)
    return RunnerKeyBody(uuid=runner.id, key=key.text)


@router.get("/v0/runners/{runner}", operation_id="runner_get")
async def get_runner(context: CurrentContext, _admin: ServerAdmin, runner: ResourceIdField) -> RunnerBody:
    """View a runner, and what it said of itself when it last connected."""
    async with context.store.read() as connection:
        found = await runner_named(connection, runner)
        return runner_body(found, await find_proof(connection, runner_id=found.id))


@router.patch("/v0/runners/{runner}", operation_id="runner_patch")
async def patch_runner(
    context: CurrentContext, admin: ServerAdmin, request: Request, runner: ResourceIdField, body: UpdateRunnerBody
) -> RunnerBody:
    """Change a runner. An archived one is in no list by default, and its channels are closed."""
    changes = RunnerChanges(name=body.name, slug=body.slug, archived=body.archived)
    now = context.clock.now()

    async def work(connection: Connection) -> RunnerRecord:
        found = await runner_named(connection, runner)
        changed = await update_runner(connection, runner_id=found.id, changes=changes, now=now)
        details = body.model_dump(exclude_none=True)
        act = act_of(request, admin, "runner.update", "runner", found.id, **details)
        await record_act(connection, act, now=now)
        return changed or found

    return runner_body(await context.store.write(work))


@router.post("/v0/runners/{runner}/key", operation_id="runner_key_post", status_code=201)
async def post_runner_key(
    context: CurrentContext, admin: ServerAdmin, request: Request, runner: ResourceIdField
) -> RunnerKeyBody:
    """Give a runner another key, and show it once. Channels that the old one opened are closed."""
    key = ApiKey.new(KeyKind.RUNNER)
    now = context.clock.now()

    async def work(connection: Connection) -> RunnerRecord:
        found = await runner_named(connection, runner)
        await rotate_runner_key(connection, runner_id=found.id, key_digest=key.digest, now=now)
        act = act_of(request, admin, "runner.rotate_key", "runner", found.id, slug=found.slug)
        await record_act(connection, act, now=now)
        return found

    rotated = await context.store.write(work)
    return RunnerKeyBody(uuid=rotated.id, key=key.text)


@router.get("/v0/runners/{runner}/specs", operation_id="runner_specs_get")
async def get_runner_specs(context: CurrentContext, _admin: ServerAdmin, runner: ResourceIdField) -> list[SpecBody]:
    """List all specs that a runner serves, archived ones too, in the order they were added."""
    async with context.store.read() as connection:
        found = await runner_named(connection, runner)
        return [spec_body(spec) for spec in await list_runner_specs(connection, runner_id=found.id)]


@router.post("/v0/runners/{runner}/specs", operation_id="runner_specs_post", status_code=201)
async def post_runner_spec(
    context: CurrentContext, admin: ServerAdmin, request: Request, runner: ResourceIdField, body: NewRunnerSpecBody
) -> SpecBody:
    """Have a runner serve a spec."""
    now = context.clock.now()

    async def work(connection: Connection) -> SpecRecord:
        found = await runner_named(connection, runner)
        spec = await spec_named(connection, body.spec)
        await add_runner_spec(connection, runner_id=found.id, spec_id=spec.id, now=now)
        act = act_of(request, admin, "runner.add_spec", "runner", found.id, spec=str(spec.id))
        await record_act(connection, act, now=now)
        return spec

    return spec_body(await context.store.write(work))


@router.delete("/v0/runners/{runner}/specs/{spec}", operation_id="runner_spec_delete", status_code=204)
async def delete_runner_spec(
    context: CurrentContext, admin: ServerAdmin, request: Request, runner: ResourceIdField, spec: ResourceIdField
) -> None:
    """Have a runner serve a spec no longer. A job that it has already goes on."""
    now = context.clock.now()

    async def work(connection: Connection) -> None:
        found = await runner_named(connection, runner)
        served = await spec_named(connection, spec)
        if not await remove_runner_spec(connection, runner_id=found.id, spec_id=served.id):
            raise NotFound("spec of this runner", spec)
        act = act_of(request, admin, "runner.remove_spec", "runner", found.id, spec=str(served.id))
        await record_act(connection, act, now=now)

    await context.store.write(work)


async def runner_named(connection: Connection, identifier: ResourceId) -> RunnerRecord:
    """Return the runner of a UUID or slug, archived ones too.

    Raises:
        NotFound: There is none.
    """
    found = await find_runner(connection, identifier)
    if found is None:
        raise NotFound("runner", identifier)
    return found
