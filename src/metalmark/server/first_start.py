"""The first start of a server: an administrator, and the key to sign in with."""

from __future__ import annotations

from datetime import timedelta

from metalmark.model import ApiKey, Email, KeyKind, ResourceName, UserName
from metalmark.store import Connection, Holder, Store, any_user, create_key, create_user
from metalmark.system import Clock

ADMIN_EMAIL = Email("admin@localhost.localdomain")
"""Nobody's address: the operator changes it, or makes accounts for people and leaves this one alone."""
KEY_TTL_S = 4_294_967_295
"""How long a key is good for that was given no end: 136 years."""


async def ensure_admin(store: Store, clock: Clock) -> ApiKey | None:
    """Make an administrator with a key when a server has no user at all.

    Returns:
        The key, whose text is nowhere else; None when there are users already.
    """

    async def work(connection: Connection) -> ApiKey | None:
        if await any_user(connection):
            return None
        now = clock.now()
        user = await create_user(connection, name=UserName("Admin"), email=ADMIN_EMAIL, now=now, admin=True)
        key = ApiKey.new(KeyKind.USER)
        await create_key(
            connection,
            Holder.USER,
            owner_id=user.id,
            key=key,
            name=ResourceName("first start"),
            now=now,
            expires=now + timedelta(seconds=KEY_TTL_S),
        )
        return key

    return await store.write(work)
