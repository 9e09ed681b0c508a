"""Keys of users and projects, and what the server signs with, on both engines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import anyio
import pytest
from sqlalchemy import select, text

from metalmark.model import ApiKey, Conflict, Email, KeyKind, ResourceName, UserName, new_id
from metalmark.store import (
    Act,
    Connection,
    Holder,
    KeyRecord,
    Page,
    Store,
    create_key,
    create_project,
    create_user,
    ensure_signing_secrets,
    find_key,
    find_key_by_digest,
    hide_project,
    list_acts,
    list_keys,
    record_act,
    rename_key,
    revoke_key,
    revoke_keys,
)
from metalmark.store.selection import EVERYTHING, Selection
from metalmark.store.tables import user_keys

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 31, 9, 15, tzinfo=UTC)
ALL = Page(limit=100)


@pytest.fixture
async def user_id(store: Store) -> UUID:
    async def work(connection: Connection) -> UUID:
        user = await create_user(connection, name=UserName("Ada"), email=Email("ada@example.com"), now=NOW)
        return user.id

    return await store.write(work)


async def made(store: Store, owner: UUID, key: ApiKey, *, name: str = "ci", holder: Holder = Holder.USER) -> KeyRecord:
    async def work(connection: Connection) -> KeyRecord:
        return await create_key(
            connection,
            holder,
            owner_id=owner,
            key=key,
            name=ResourceName(name),
            now=NOW,
            expires=NOW + timedelta(days=1),
            creator_id=None,
        )

    return await store.write(work)


async def test_a_key_is_found_by_its_hash_and_its_text_is_nowhere(store: Store, user_id: UUID) -> None:
    key = ApiKey.new(KeyKind.USER)
    record = await made(store, user_id, key)
    async with store.read() as connection:
        held = await find_key_by_digest(connection, Holder.USER, key.digest)
        assert held is not None
        assert held.key == record
        assert await find_key_by_digest(connection, Holder.PROJECT, key.digest) is None
        assert await find_key_by_digest(connection, Holder.USER, key.digest.upper()) is None
        row = (await connection.execute(select(user_keys))).one()
    assert key.text not in repr(row)
    assert key.text.removeprefix(KeyKind.USER.value) not in repr(row)


async def test_a_key_is_valid_until_its_last_moment(store: Store, user_id: UUID) -> None:
    record = await made(store, user_id, ApiKey.new(KeyKind.USER))
    assert record.valid_at(record.expires - timedelta(microseconds=1))
    assert not record.valid_at(record.expires)


async def test_a_revoked_key_is_never_valid_and_stays_listed(store: Store, user_id: UUID) -> None:
    record = await made(store, user_id, ApiKey.new(KeyKind.USER))
    other = await made(store, user_id, ApiKey.new(KeyKind.USER), name="other")

    async def work(connection: Connection) -> KeyRecord | None:
        return await revoke_key(connection, Holder.USER, owner_id=user_id, key_id=record.id, now=NOW)

    revoked = await store.write(work)
    assert revoked is not None
    assert not revoked.valid_at(NOW)
    with pytest.raises(Conflict):
        await store.write(work)
    async with store.read() as connection:
        active, _ = await list_keys(connection, Holder.USER, page=ALL, owner_id=user_id)
        gone, _ = await list_keys(connection, Holder.USER, page=ALL, owner_id=user_id, revoked=True)
    assert (active, gone) == ((other,), (revoked,))
    count = await store.write(lambda connection: revoke_keys(connection, Holder.USER, owner_id=user_id, now=NOW))
    assert count == 1


async def test_a_key_is_changed_by_its_owner_only(store: Store, user_id: UUID) -> None:
    record = await made(store, user_id, ApiKey.new(KeyKind.USER))
    stranger = new_id()

    async def work(connection: Connection) -> None:
        assert await find_key(connection, Holder.USER, owner_id=stranger, key_id=record.id) is None
        for change in (
            rename_key(connection, Holder.USER, owner_id=stranger, key_id=record.id, name=ResourceName("x"), now=NOW),
            revoke_key(connection, Holder.USER, owner_id=stranger, key_id=record.id, now=NOW),
        ):
            assert await change is None
        renamed = await rename_key(
            connection, Holder.USER, owner_id=user_id, key_id=record.id, name=ResourceName("new"), now=NOW
        )
        assert renamed is not None
        assert (renamed.name, renamed.expires) == ("new", record.expires)

    await store.write(work)


async def test_lists_are_by_name_and_find_by_name_text_and_identifier(store: Store, user_id: UUID) -> None:
    records = {name: await made(store, user_id, ApiKey.new(KeyKind.USER), name=name) for name in ("x", "wx", "w")}
    async with store.read() as connection:

        async def names(wanted: Selection = EVERYTHING, only_id: UUID | None = None) -> list[str]:
            found, _ = await list_keys(
                connection, Holder.USER, page=ALL, owner_id=user_id, only_id=only_id, wanted=wanted
            )
            return [str(key.name) for key in found]

        assert await names() == ["w", "wx", "x"]
        assert await names(Selection(descending=True)) == ["x", "wx", "w"]
        assert await names(Selection(name="w")) == ["w"]
        assert await names(Selection(search="X")) == ["wx", "x"]
        assert await names(Selection(search=str(records["wx"].id))) == ["wx"]
        assert await names(only_id=records["x"].id) == ["x"]


async def test_the_key_of_a_deleted_project_opens_nothing(store: Store, user_id: UUID) -> None:
    key = ApiKey.new(KeyKind.PROJECT)

    async def work(connection: Connection) -> UUID:
        project = await create_project(connection, organization_id=user_id, name=ResourceName("P"), now=NOW)
        return project.id

    project_id = await store.write(work)
    await made(store, project_id, key, holder=Holder.PROJECT)
    async with store.read() as connection:
        assert await find_key_by_digest(connection, Holder.PROJECT, key.digest) is not None
    await store.write(lambda connection: hide_project(connection, project_id=project_id, now=NOW))
    async with store.read() as connection:
        assert await find_key_by_digest(connection, Holder.PROJECT, key.digest) is None


async def test_processes_that_start_together_sign_with_one_key(store: Store) -> None:
    found: list[tuple[bytes, ...]] = []

    async def start() -> None:
        found.append(await store.write(lambda connection: ensure_signing_secrets(connection, now=NOW)))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(start)
    assert len(set(found)) == 1
    assert [len(secret) for secret in found[0]] == [32]


async def test_an_older_signing_key_is_still_believed_but_signs_no_more(store: Store) -> None:
    (old,) = await store.write(lambda connection: ensure_signing_secrets(connection, now=NOW))

    async def retire(connection: Connection) -> None:
        await connection.execute(text("UPDATE signing_secrets SET retired = 1"))
        await connection.execute(
            text("INSERT INTO signing_secrets SELECT :id, purpose, :secret, created - 5, NULL FROM signing_secrets"),
            {"id": new_id() if store.engine_name == "postgresql" else new_id().bytes, "secret": b"n" * 32},
        )

    await store.write(retire)
    secrets = await store.write(lambda connection: ensure_signing_secrets(connection, now=NOW))
    assert secrets == (b"n" * 32, old)


async def test_the_audit_log_has_the_latest_first_and_forgets_nothing(store: Store, user_id: UUID) -> None:
    subject = new_id()

    async def act(connection: Connection, number: int, now: datetime) -> None:
        details = {"number": number, "slug": "é\x00"}
        await record_act(
            connection,
            Act(
                actor_kind="user",
                actor_id=user_id,
                action="thing.update",
                subject_kind="thing",
                subject_id=subject if number else new_id(),
                details=details,
            ),
            now=now,
        )

    for number in range(3):
        await store.write(lambda connection, n=number: act(connection, n, NOW + timedelta(seconds=n)))
    async with store.read() as connection:
        acts, total = await list_acts(connection, page=ALL, subject_id=subject)
        assert (total, [record.act.details["number"] for record in acts]) == (2, [2, 1])
        assert acts[0].act.details["slug"] == "é\x00"
        assert (await list_acts(connection, page=Page(limit=1), actor_id=user_id))[1] == 3
