"""Users on both engines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from metalmark.model import Conflict, Email, OrganizationRole, ResourceName, Slug, UserName, new_id
from metalmark.store import (
    Connection,
    Page,
    Store,
    UserChanges,
    UserRecord,
    create_personal_organization,
    create_user,
    find_organization,
    find_organization_role,
    find_user,
    find_user_by_email,
    hide_organization,
    list_users,
    update_user,
)
from metalmark.store.selection import Selection

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 31, 9, 15, 0, 123456, tzinfo=UTC)
ALL = Page(limit=100)


async def made(store: Store, name: str = "Ada", email: str = "ada@example.com", **more: Any) -> UserRecord:
    async def work(connection: Connection) -> UserRecord:
        return await create_user(connection, name=UserName(name), email=Email(email), now=NOW, **more)

    return await store.write(work)


async def test_a_user_is_found_as_it_was_made(store: Store) -> None:
    user = await made(store)
    assert (user.name, user.slug, user.created, user.locked) == ("Ada", "ada", NOW, False)
    async with store.read() as connection:
        for found in (
            await find_user(connection, user.id),
            await find_user(connection, Slug("ada")),
            await find_user_by_email(connection, Email("ada@example.com")),
        ):
            assert found == user
        assert await find_user(connection, new_id()) is None
        assert await find_user_by_email(connection, Email("grace@example.com")) is None


async def test_a_user_leads_an_organization_of_the_same_identifier(store: Store) -> None:
    user = await made(store)
    async with store.read() as connection:
        organization = await find_organization(connection, user.id)
        assert organization is not None
        assert (organization.slug, organization.name, organization.claimed) == ("ada", "Ada", NOW)
        role = await find_organization_role(connection, organization_id=user.id, user_id=user.id)
    assert role is OrganizationRole.LEADER


async def test_the_first_user_administers_the_server_and_the_next_does_not(store: Store) -> None:
    users: list[UserRecord] = []

    async def sign_up(number: int) -> None:
        users.append(await made(store, email=f"u{number}@example.com"))

    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(sign_up, number)
    assert sorted(user.admin for user in users) == [False, False, False, True]
    assert len({user.slug for user in users}) == 4


async def test_an_address_has_one_account(store: Store) -> None:
    await made(store)
    with pytest.raises(Conflict) as caught:
        await made(store, name="Grace")
    assert caught.value.field == "email"
    async with store.read() as connection:
        assert (await list_users(connection, page=ALL))[1] == 1


async def test_a_slug_that_is_taken_gets_a_suffix_also_when_it_was_asked_for(store: Store) -> None:
    await made(store)
    second = await made(store, email="b@example.com")
    third = await made(store, email="c@example.com", slug=Slug("ada"))
    for user in (second, third):
        assert user.slug.startswith("ada-")
        assert len(user.slug) == 12


async def test_changes_keep_what_they_do_not_name(store: Store) -> None:
    await made(store, name="Root", email="root@example.com")
    user = await made(store)
    later = NOW + timedelta(hours=1)

    async def work(connection: Connection) -> UserRecord | None:
        changes = UserChanges(email=Email("new@example.com"), admin=True)
        return await update_user(connection, user_id=user.id, changes=changes, now=later)

    changed = await store.write(work)
    assert changed is not None
    assert (changed.email, changed.admin, changed.name, changed.slug) == ("new@example.com", True, "Ada", "ada")
    assert (changed.created, changed.modified) == (NOW, later)


@pytest.mark.parametrize("changes", [UserChanges(slug=Slug("root")), UserChanges(email=Email("root@example.com"))])
async def test_what_another_has_cannot_be_taken(store: Store, changes: UserChanges) -> None:
    await made(store, name="Root", email="root@example.com")
    user = await made(store)
    with pytest.raises(Conflict) as caught:
        await store.write(lambda connection: update_user(connection, user_id=user.id, changes=changes, now=NOW))
    assert caught.value.field == ("slug" if changes.slug else "email")


@pytest.mark.parametrize("changes", [UserChanges(admin=False), UserChanges(locked=True)])
async def test_the_last_administrator_stays_one(store: Store, changes: UserChanges) -> None:
    root = await made(store, name="Root", email="root@example.com")
    with pytest.raises(Conflict, match="only administrator"):
        await store.write(lambda connection: update_user(connection, user_id=root.id, changes=changes, now=NOW))
    await made(store, admin=True)
    changed = await store.write(lambda connection: update_user(connection, user_id=root.id, changes=changes, now=NOW))
    assert changed is not None
    assert not changed.admin or changed.locked


async def test_two_administrators_do_not_remove_each_other(store: Store) -> None:
    users = [await made(store, email=f"u{number}@example.com", admin=True) for number in range(2)]
    refused: list[Conflict] = []

    async def step_down(user: UserRecord) -> None:
        try:
            await store.write(
                lambda connection: update_user(connection, user_id=user.id, changes=UserChanges(admin=False), now=NOW)
            )
        except Conflict as conflict:
            refused.append(conflict)

    async with anyio.create_task_group() as tasks:
        for user in users:
            tasks.start_soon(step_down, user)
    assert len(refused) == 1


async def test_lists_are_by_name_and_then_slug(store: Store) -> None:
    for number, name in enumerate(["Zoe", "Ada", "Ada", "Bob"]):
        await made(store, name=name, email=f"u{number}@example.com")
    async with store.read() as connection:
        users, total = await list_users(connection, page=ALL)
        names = [(user.name, user.slug) for user in users]
        assert (total, names) == (4, sorted(names))
        backwards, _ = await list_users(connection, page=ALL, wanted=Selection(descending=True))
        assert backwards == users[::-1]
        assert (await list_users(connection, page=Page(limit=1, offset=1)))[0] == users[1:2]
        assert (await list_users(connection, page=Page(limit=0)))[1] == 4
        assert (await list_users(connection, page=ALL, wanted=Selection(name="Ada")))[1] == 2
        zoe, _ = await list_users(connection, page=ALL, wanted=Selection(search="ZO"))
        assert [user.name for user in zoe] == ["Zoe"]
        found, _ = await list_users(connection, page=ALL, wanted=Selection(search=str(users[0].id).upper()))
        assert found == users[:1]


@pytest.mark.parametrize("search", ["'", "\\", "\x00", "x' OR '1'='1", "é", "a" * 60_000])
async def test_odd_searches_find_nothing_and_break_nothing(store: Store, search: str) -> None:
    await made(store)
    async with store.read() as connection:
        assert await list_users(connection, page=ALL, wanted=Selection(search=search)) == ((), 0)


async def test_a_personal_organization_that_was_deleted_comes_back(store: Store) -> None:
    user = await made(store)

    async def work(connection: Connection) -> None:
        await hide_organization(connection, organization_id=user.id, now=NOW)
        assert await find_organization(connection, user.id) is None
        await create_personal_organization(connection, user=user, now=NOW)

    await store.write(work)
    async with store.read() as connection:
        organization = await find_organization(connection, user.id)
        assert organization is not None
        assert organization.name == ResourceName("Ada")
