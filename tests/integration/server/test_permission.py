"""Who may do what with which project and organization: every caller, every act."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import pytest

from metalmark.model import (
    Email,
    Forbidden,
    NotFound,
    OrganizationRole,
    Permission,
    ProjectRole,
    ResourceName,
    Unauthenticated,
    UserName,
    Visibility,
    new_id,
)
from metalmark.server.actor import Actor, Anonymous, ProjectKeyActor, UserActor, Via
from metalmark.server.permission import organization_for, project_for
from metalmark.store import (
    Connection,
    OrganizationRecord,
    ProjectRecord,
    Store,
    UserRecord,
    add_member,
    create_organization,
    create_project,
    create_user,
    give_project_role,
    hide_project,
)

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 31, tzinfo=UTC)
SEE = {Permission.VIEW, Permission.VIEW_ROLE}
WORK = SEE | {Permission.CREATE, Permission.EDIT, Permission.DELETE}
ALL = set(Permission)


@dataclass
class World:
    organization: OrganizationRecord
    public: ProjectRecord
    private: ProjectRecord
    callers: dict[str, Actor]


async def _world(connection: Connection) -> World:
    users: dict[str, UserRecord] = {}
    for name in ("admin", "leader", "member", "maintainer", "developer", "viewer", "stranger"):
        email = Email.parse(f"{name}@example.com")
        users[name] = await create_user(
            connection, name=UserName(name), email=email, now=NOW, admin=name == "admin", personal_organization=False
        )
    organization = await create_organization(
        connection, name=ResourceName("Acme"), now=NOW, leader_id=users["leader"].id
    )
    await add_member(
        connection,
        organization_id=organization.id,
        user_id=users["member"].id,
        role=OrganizationRole.MEMBER,
        now=NOW,
    )
    projects = [
        await create_project(
            connection, organization_id=organization.id, name=ResourceName(kind.value), now=NOW, visibility=kind
        )
        for kind in (Visibility.PUBLIC, Visibility.PRIVATE)
    ]
    for project in projects:
        for role in ProjectRole:
            user_id = users[role.value].id
            await give_project_role(connection, project_id=project.id, user_id=user_id, role=role, now=NOW)
    callers: dict[str, Actor] = {
        name: UserActor(user=user, via=Via.KEY, key_id=new_id()) for name, user in users.items()
    }
    callers["nobody"] = Anonymous()
    callers["own key"] = ProjectKeyActor(project_id=projects[1].id, key_id=new_id())
    callers["other key"] = ProjectKeyActor(project_id=new_id(), key_id=new_id())
    return World(organization=organization, public=projects[0], private=projects[1], callers=callers)


@pytest.fixture
async def world(store: Store) -> World:
    return await store.write(_world)


async def outcome(connection: Connection, actor: Actor, project: UUID, permission: Permission) -> str:
    try:
        found = await project_for(connection, actor, project, permission)
    except (NotFound, Forbidden, Unauthenticated) as error:
        return type(error).__name__
    assert found.id == project
    return "yes"


async def test_what_each_caller_may_do_with_a_private_project(store: Store, world: World) -> None:
    may = {
        "admin": ALL,
        "leader": ALL,
        "maintainer": ALL,
        "developer": WORK,
        "viewer": SEE,
        "own key": SEE | {Permission.CREATE, Permission.EDIT},
    }
    async with store.read() as connection:
        for name, actor in world.callers.items():
            for permission in Permission:
                expected = "yes" if permission in may.get(name, set()) else "NotFound"
                found = await outcome(connection, actor, world.private.id, permission)
                assert found == expected, (name, permission)


async def test_what_each_caller_may_do_with_a_public_project(store: Store, world: World) -> None:
    may = {"admin": ALL, "leader": ALL, "maintainer": ALL, "developer": WORK, "viewer": SEE}
    async with store.read() as connection:
        for name, actor in world.callers.items():
            for permission in Permission:
                refusal = "Unauthenticated" if name == "nobody" else "Forbidden"
                expected = "yes" if permission in may.get(name, set()) | {Permission.VIEW} else refusal
                found = await outcome(connection, actor, world.public.id, permission)
                assert found == expected, (name, permission)


async def test_what_is_hidden_and_what_is_not_there_look_the_same(store: Store, world: World) -> None:
    stranger = world.callers["stranger"]
    async with store.read() as connection:
        texts = []
        for identifier in (world.private.id, new_id()):
            with pytest.raises(NotFound) as refused:
                await project_for(connection, stranger, identifier, Permission.VIEW)
            texts.append(str(refused.value).replace(str(identifier), "X"))
    assert texts[0] == texts[1]


async def test_a_removed_project_is_gone_for_everyone(store: Store, world: World) -> None:
    await store.write(lambda connection: hide_project(connection, project_id=world.public.id, now=NOW))
    async with store.read() as connection:
        for actor in world.callers.values():
            assert await outcome(connection, actor, world.public.id, Permission.VIEW) == "NotFound"


async def test_what_each_caller_may_do_with_an_organization(store: Store, world: World) -> None:
    may = {"admin": ALL, "leader": ALL, "member": SEE}
    async with store.read() as connection:
        for name, actor in world.callers.items():
            if not isinstance(actor, UserActor):
                continue
            for permission in Permission:
                try:
                    await organization_for(connection, actor, world.organization.slug, permission)
                    found = "yes"
                except (NotFound, Forbidden) as error:
                    found = type(error).__name__
                refusal = "Forbidden" if name == "member" else "NotFound"
                assert found == ("yes" if permission in may.get(name, set()) else refusal), (name, permission)
