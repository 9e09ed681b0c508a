"""Organizations, their members, invitations and projects, on both engines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import anyio
import pytest

from metalmark.model import (
    Conflict,
    Email,
    OrganizationRole,
    ProjectRole,
    ResourceName,
    Slug,
    UserName,
    Visibility,
    new_id,
)
from metalmark.store import (
    Connection,
    OrganizationRecord,
    Page,
    ProjectChanges,
    ProjectRecord,
    Sight,
    Store,
    UserRecord,
    accept_invite,
    add_member,
    create_invite,
    create_organization,
    create_project,
    create_user,
    erase_organization,
    erase_project,
    find_member,
    find_open_invite,
    find_organization,
    find_project,
    find_project_with_roles,
    give_project_role,
    hide_organization,
    hide_project,
    list_members,
    list_organizations,
    list_projects,
    remove_member,
    update_member,
    update_organization,
    update_project,
)
from metalmark.store.selection import Selection

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 31, 9, 15, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
ALL = Page(limit=100)


async def user(store: Store, name: str) -> UserRecord:
    email = Email(f"{name.lower()}@example.com")
    return await store.write(lambda connection: create_user(connection, name=UserName(name), email=email, now=NOW))


async def organization(store: Store, name: str, leader: UserRecord | None = None) -> OrganizationRecord:
    leader_id = leader.id if leader else None
    return await store.write(
        lambda connection: create_organization(connection, name=ResourceName(name), leader_id=leader_id, now=NOW)
    )


async def project(store: Store, owner: OrganizationRecord, name: str, **more: Any) -> ProjectRecord:
    return await store.write(
        lambda connection: create_project(
            connection, organization_id=owner.id, name=ResourceName(name), now=NOW, **more
        )
    )


async def test_an_organization_is_claimed_since_its_first_member(store: Store) -> None:
    ada = await user(store, "Ada")
    acme = await organization(store, "Acme")
    assert acme.claimed is None

    async def join(connection: Connection) -> OrganizationRecord | None:
        role = OrganizationRole.LEADER
        await add_member(connection, organization_id=acme.id, user_id=ada.id, role=role, now=LATER)
        return await find_organization(connection, Slug("acme"))

    claimed = await store.write(join)
    assert claimed is not None
    assert claimed.claimed == LATER


async def test_members_see_their_organizations_and_no_others(store: Store) -> None:
    ada, bob = await user(store, "Ada"), await user(store, "Bob")
    await organization(store, "Acme", ada)
    async with store.read() as connection:
        mine, total = await list_organizations(connection, page=ALL, member_id=ada.id)
        assert ([found.slug for found in mine], total) == (["acme", "ada"], 2)
        theirs, _ = await list_organizations(connection, page=ALL, member_id=bob.id)
        assert [found.slug for found in theirs] == ["bob"]
        everything, total = await list_organizations(connection, page=Page(limit=1), wanted=Selection(descending=True))
        assert ([found.slug for found in everything], total) == (["bob"], 3)
        assert (await list_organizations(connection, page=ALL, wanted=Selection(search="CM")))[0] == mine[:1]


async def test_the_last_leader_neither_goes_nor_steps_down(store: Store) -> None:
    ada, bob = await user(store, "Ada"), await user(store, "Bob")
    acme = await organization(store, "Acme", ada)

    async def go(connection: Connection, who: UserRecord) -> bool:
        return await remove_member(connection, organization_id=acme.id, user_id=who.id)

    async def step_down(connection: Connection, who: UserRecord) -> None:
        role = OrganizationRole.MEMBER
        await update_member(connection, organization_id=acme.id, user_id=who.id, role=role, now=LATER)

    async def join(connection: Connection, role: OrganizationRole) -> None:
        await add_member(connection, organization_id=acme.id, user_id=bob.id, role=role, now=LATER)

    await store.write(lambda connection: join(connection, OrganizationRole.MEMBER))
    for act in (go, step_down):
        with pytest.raises(Conflict, match="only leader"):
            await store.write(lambda connection, act=act: act(connection, ada))
    await store.write(lambda connection: join(connection, OrganizationRole.LEADER))
    await store.write(lambda connection: join(connection, OrganizationRole.MEMBER))
    refused = []

    async def leave(who: UserRecord) -> None:
        try:
            await store.write(lambda connection: go(connection, who))
        except Conflict as conflict:
            refused.append(conflict)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave, ada)
        tasks.start_soon(leave, bob)
    assert len(refused) == 1
    async with store.read() as connection:
        assert (await list_members(connection, organization_id=acme.id, page=ALL))[1] == 1


async def test_members_are_listed_by_name(store: Store) -> None:
    ada = await user(store, "Ada")
    acme = await organization(store, "Acme", ada)
    for name in ("Zoe", "Bob"):
        other = await user(store, name)
        await store.write(
            lambda connection, other=other: add_member(
                connection, organization_id=acme.id, user_id=other.id, role=OrganizationRole.MEMBER, now=LATER
            )
        )
    async with store.read() as connection:
        members, total = await list_members(connection, organization_id=acme.id, page=ALL)
        assert ([member.name for member in members], total) == (["Ada", "Bob", "Zoe"], 3)
        assert (members[1].role, members[1].created) == (OrganizationRole.MEMBER, LATER)
        assert await find_member(connection, organization_id=acme.id, user_id=members[2].user_id) == members[2]
        found, _ = await list_members(connection, organization_id=acme.id, page=ALL, wanted=Selection(search="oe"))
        assert found == members[2:]


async def test_an_invitation_is_accepted_once_by_its_address_and_in_time(store: Store) -> None:
    ada = await user(store, "Ada")
    acme = await organization(store, "Acme", ada)
    bob = Email("bob@example.com")

    async def work(connection: Connection) -> UUID:
        invite = await create_invite(
            connection,
            organization_id=acme.id,
            inviter_id=ada.id,
            email=bob,
            role=OrganizationRole.MEMBER,
            now=NOW,
            expires=LATER,
        )
        assert await find_open_invite(connection, invite_id=invite.id, email=bob, now=NOW) == invite
        assert await find_open_invite(connection, invite_id=invite.id, email=bob, now=LATER) is None
        assert await find_open_invite(connection, invite_id=invite.id, email=ada.email, now=NOW) is None
        return invite.id

    invite_id = await store.write(work)
    for expected in (True, False):
        accepted = await store.write(lambda connection: accept_invite(connection, invite_id=invite_id, now=NOW))
        assert accepted is expected
    async with store.read() as connection:
        assert await find_open_invite(connection, invite_id=invite_id, email=bob, now=NOW) is None


async def test_everybody_sees_the_projects_that_are_theirs_to_see(store: Store) -> None:
    ada, bob, eve = [await user(store, name) for name in ("Ada", "Bob", "Eve")]
    acme = await organization(store, "Acme", ada)
    public = await project(store, acme, "Public")
    hidden = await project(store, acme, "Hidden", visibility=Visibility.PRIVATE)
    role = ProjectRole.VIEWER

    async def give(connection: Connection) -> None:
        await give_project_role(connection, project_id=hidden.id, user_id=bob.id, role=role, now=NOW)
        await give_project_role(connection, project_id=hidden.id, user_id=bob.id, role=ProjectRole.DEVELOPER, now=NOW)
        await add_member(connection, organization_id=acme.id, user_id=eve.id, role=OrganizationRole.MEMBER, now=NOW)

    await store.write(give)
    sights = {
        Sight(): [public.id],
        Sight(user_id=ada.id): [hidden.id, public.id],
        Sight(user_id=bob.id): [hidden.id, public.id],
        Sight(user_id=eve.id): [public.id],
        Sight(key_project_id=hidden.id): [hidden.id],
        Sight(everything=True): [hidden.id, public.id],
    }
    async with store.read() as connection:
        for sight, wanted in sights.items():
            found, total = await list_projects(connection, page=ALL, sight=sight)
            assert ([one.id for one in found], total) == (wanted, len(wanted)), sight
        found = await find_project_with_roles(connection, hidden.id, user_id=bob.id)
        assert found is not None
        assert (found.project.id, found.role, found.organization_role) == (hidden.id, ProjectRole.DEVELOPER, None)
        none, _ = await list_projects(connection, page=ALL, sight=Sight(everything=True), organization_id=new_id())
        assert none == ()


async def test_a_name_is_free_in_another_organization_and_not_in_its_own(store: Store) -> None:
    ada = await user(store, "Ada")
    acme, other = await organization(store, "Acme", ada), await organization(store, "Other", ada)
    first = await project(store, acme, "Adder", maintainer_id=ada.id)
    second = await project(store, other, "Adder")
    assert (first.slug, second.slug[:6], first.claimed) == ("adder", "adder-", NOW)
    with pytest.raises(Conflict) as caught:
        await project(store, acme, "Adder")
    assert caught.value.field == "name"
    async with store.read() as connection:
        found = await find_project_with_roles(connection, first.slug, user_id=ada.id)
        assert found is not None
        assert found.role is ProjectRole.MAINTAINER
        assert await find_project_with_roles(connection, new_id(), user_id=ada.id) is None


async def test_a_projects_changes(store: Store) -> None:
    acme = await organization(store, "Acme")
    adder = await project(store, acme, "Adder", url="https://example.com")
    await project(store, acme, "Taken")

    async def change(changes: ProjectChanges) -> ProjectRecord | None:
        return await store.write(
            lambda connection: update_project(connection, project_id=adder.id, changes=changes, now=LATER)
        )

    changed = await change(ProjectChanges(visibility=Visibility.PRIVATE, slug=Slug("new")))
    assert changed is not None
    assert (changed.visibility, changed.slug, changed.url) == (Visibility.PRIVATE, "new", "https://example.com")
    assert (changed.modified, changed.created) == (LATER, NOW)
    cleared = await change(ProjectChanges(clear_url=True))
    assert cleared is not None
    assert cleared.url is None
    for wrong in (ProjectChanges(name=ResourceName("Taken")), ProjectChanges(slug=Slug("taken"))):
        with pytest.raises(Conflict):
            await change(wrong)


async def test_what_is_deleted_softly_is_not_found_and_frees_its_names(store: Store) -> None:
    acme = await organization(store, "Acme")
    adder = await project(store, acme, "Adder")
    for expected in (True, False):
        done = await store.write(lambda connection: hide_project(connection, project_id=adder.id, now=LATER))
        assert done is expected
    again = await project(store, acme, "Adder")
    assert again.slug == "adder"
    await store.write(lambda connection: hide_organization(connection, organization_id=acme.id, now=LATER))
    async with store.read() as connection:
        assert await find_organization(connection, acme.id) is None
        assert await find_project(connection, again.id) is None
        assert await find_project(connection, Slug(f"deleted-{again.id}")) is None
    revived = await store.write(
        lambda connection: update_organization(connection, organization_id=acme.id, name=ResourceName("x"), now=LATER)
    )
    assert revived is None
    assert (await organization(store, "Acme")).slug == "acme"


async def test_what_is_deleted_for_good_takes_its_projects_along(store: Store) -> None:
    acme = await organization(store, "Acme")
    adder = await project(store, acme, "Adder")

    async def work(connection: Connection) -> bool:
        assert await erase_project(connection, project_id=adder.id, now=NOW) == ()
        return await erase_organization(connection, organization_id=acme.id)

    assert await store.write(work)
    async with store.read() as connection:
        assert await find_organization(connection, acme.id) is None
        assert await find_project(connection, adder.id) is None
