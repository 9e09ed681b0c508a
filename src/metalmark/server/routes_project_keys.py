"""Keys of projects: the credential of whatever submits runs for one project and does nothing else."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from fastapi import APIRouter, Request, Response

from metalmark.model import ApiKey, KeyKind, NotFound, Permission
from metalmark.server.account_bodies import created_project_key_body, project_key_body
from metalmark.server.audit import act_of
from metalmark.server.caller import CurrentUser
from metalmark.server.context import CurrentContext
from metalmark.server.name_lists import RevokedFilter, WantedNames
from metalmark.server.paging import RequestedPage, set_total
from metalmark.server.permission import project_for
from metalmark.store import (
    Connection,
    Holder,
    KeyRecord,
    create_key,
    find_key,
    list_keys,
    record_act,
    rename_key,
    revoke_key,
)
from metalmark.wire import (
    FOREVER_S,
    ChangeKeyBody,
    CreatedProjectKeyBody,
    NewKeyBody,
    ProjectKeyBody,
    ResourceIdField,
    UuidField,
)

router = APIRouter(prefix="/v0/projects/{project}/keys", tags=["project keys"])


async def _key(connection: Connection, project: UUID, key: UUID) -> KeyRecord:
    record = await find_key(connection, Holder.PROJECT, owner_id=project, key_id=key)
    if record is None:
        raise NotFound("key", key)
    return record


@router.get("", operation_id="proj_keys_get", summary="List keys of a project", response_model_exclude_none=True)
async def get_project_keys(
    *,
    project: ResourceIdField,
    actor: CurrentUser,
    context: CurrentContext,
    response: Response,
    page: RequestedPage,
    wanted: WantedNames,
    revoked: RevokedFilter = "false",
) -> list[ProjectKeyBody]:
    """List keys of a project."""
    async with context.store.read() as connection:
        found = await project_for(connection, actor, project, Permission.MANAGE)
        keys, total = await list_keys(
            connection, Holder.PROJECT, page=page, owner_id=found.id, revoked=revoked == "true", wanted=wanted
        )
    set_total(response, total)
    return [project_key_body(key) for key in keys]


@router.post("", operation_id="proj_key_post", status_code=201, summary="Make a key of a project")
async def post_project_key(
    project: ResourceIdField, body: NewKeyBody, actor: CurrentUser, request: Request, context: CurrentContext
) -> CreatedProjectKeyBody:
    """Make a key; the answer is the only one that has its text."""
    key = ApiKey.new(KeyKind.PROJECT)

    async def work(connection: Connection) -> KeyRecord:
        found = await project_for(connection, actor, project, Permission.MANAGE)
        now = context.clock.now()
        record = await create_key(
            connection,
            Holder.PROJECT,
            owner_id=found.id,
            key=key,
            name=body.name,
            now=now,
            expires=now + timedelta(seconds=body.ttl or FOREVER_S),
            creator_id=actor.user.id,
        )
        act = act_of(request, actor, "project_key.create", "project", found.id, key=str(record.id), name=record.name)
        await record_act(connection, act, now=now)
        return record

    return created_project_key_body(await context.store.write(work), key)


@router.get("/{key}", operation_id="proj_key_get", summary="View a key", response_model_exclude_none=True)
async def get_project_key(
    project: ResourceIdField, key: UuidField, actor: CurrentUser, context: CurrentContext
) -> ProjectKeyBody:
    """View a key of a project."""
    async with context.store.read() as connection:
        found = await project_for(connection, actor, project, Permission.MANAGE)
        return project_key_body(await _key(connection, found.id, key))


@router.patch("/{key}", operation_id="proj_key_patch", summary="Rename a key", response_model_exclude_none=True)
async def patch_project_key(
    project: ResourceIdField, key: UuidField, body: ChangeKeyBody, actor: CurrentUser, context: CurrentContext
) -> ProjectKeyBody:
    """Rename a key of a project."""

    async def work(connection: Connection) -> KeyRecord:
        owner = await project_for(connection, actor, project, Permission.MANAGE)
        found = await _key(connection, owner.id, key)
        if body.name is None:
            return found
        now = context.clock.now()
        renamed = await rename_key(connection, Holder.PROJECT, owner_id=owner.id, key_id=key, name=body.name, now=now)
        return renamed or found

    return project_key_body(await context.store.write(work))


@router.delete("/{key}", operation_id="proj_key_delete", status_code=204, summary="Revoke a key")
async def delete_project_key(
    project: ResourceIdField, key: UuidField, actor: CurrentUser, request: Request, context: CurrentContext
) -> None:
    """Revoke a key of a project, for ever."""

    async def work(connection: Connection) -> None:
        owner = await project_for(connection, actor, project, Permission.MANAGE)
        found = await _key(connection, owner.id, key)
        now = context.clock.now()
        await revoke_key(connection, Holder.PROJECT, owner_id=owner.id, key_id=found.id, now=now)
        act = act_of(request, actor, "project_key.revoke", "project", owner.id, key=str(key), name=found.name)
        await record_act(connection, act, now=now)

    await context.store.write(work)
