"""Accounts, projects and keys on a running server, for tests of its registry."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from uuid import UUID

from metalmark.model import ApiKey, Email, KeyKind, OrganizationRole, ProjectRole, ResourceName, UserName, Visibility
from metalmark.server import ServerContext
from metalmark.store import (
    Connection,
    Holder,
    add_member,
    create_key,
    create_organization,
    create_project,
    create_user,
    give_project_role,
)
from metalmark.testing.running_server import RunningServer

_numbers = count(1)


@dataclass(frozen=True, kw_only=True)
class RegistryWorld:
    """A private and a public project with people around them, and a project that is nobody's."""

    public: str
    private: str
    private_id: UUID
    unclaimed: str
    keys: Mapping[str, str]
    """By holder: ``developer``, ``viewer``, ``stranger``, ``project`` (the private one's) and ``expired``."""


def basic(key: str, name: str = "anybody") -> dict[str, str]:
    """Return a header with a key as the password."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{key}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    """Return a header with a token or key."""
    return {"Authorization": f"Bearer {token}"}


def make_world(server: RunningServer) -> RegistryWorld:
    """Make one, with names of its own."""
    number = next(_numbers)

    async def make(context: ServerContext) -> RegistryWorld:
        return await context.store.write(lambda connection: _made(connection, context, number))

    return server.call(make)


async def _made(connection: Connection, context: ServerContext, number: int) -> RegistryWorld:
    now = context.clock.now()

    async def key_for(holder: Holder, owner: UUID, *, ttl: timedelta = timedelta(days=1)) -> str:
        key = ApiKey.new(KeyKind.PROJECT if holder is Holder.PROJECT else KeyKind.USER)
        await create_key(
            connection, holder, owner_id=owner, key=key, name=ResourceName("k"), now=now, expires=now + ttl
        )
        return key.text

    users = {}
    for role in ("developer", "viewer", "stranger"):
        users[role] = await create_user(
            connection,
            name=UserName(f"{role} {number}"),
            email=Email.parse(f"{role}{number}@example.com"),
            now=now,
            personal_organization=role == "stranger",
        )
    organization = await create_organization(connection, name=ResourceName(f"Org {number}"), now=now)
    nobodys = await create_organization(connection, name=ResourceName(f"Nobody {number}"), now=now)
    leader = await create_user(
        connection, name=UserName(f"leader {number}"), email=Email.parse(f"leader{number}@example.com"), now=now
    )
    await add_member(
        connection, organization_id=organization.id, user_id=leader.id, role=OrganizationRole.LEADER, now=now
    )
    projects = {
        visibility: await create_project(
            connection,
            organization_id=organization.id,
            name=ResourceName(f"{visibility.value} {number}"),
            now=now,
            visibility=visibility,
        )
        for visibility in Visibility
    }
    for project in projects.values():
        for role in (ProjectRole.DEVELOPER, ProjectRole.VIEWER):
            await give_project_role(connection, project_id=project.id, user_id=users[role.value].id, role=role, now=now)
    unclaimed = await create_project(
        connection, organization_id=nobodys.id, name=ResourceName(f"unclaimed {number}"), now=now
    )
    private = projects[Visibility.PRIVATE]
    keys = {role: await key_for(Holder.USER, user.id) for role, user in users.items()}
    keys["project"] = await key_for(Holder.PROJECT, private.id)
    keys["expired"] = await key_for(Holder.USER, users["developer"].id, ttl=timedelta(0))
    return RegistryWorld(
        public=projects[Visibility.PUBLIC].slug,
        private=private.slug,
        private_id=private.id,
        unclaimed=unclaimed.slug,
        keys=keys,
    )
