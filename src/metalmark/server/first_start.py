"""The first start of a server: an administrator, and the key to sign in with."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from metalmark.model import ApiKey, Email, KeyKind, ResourceName, UserName
from metalmark.store import Connection, Holder, Store, any_user, create_key, create_user
from metalmark.system import Clock, in_thread, published

ADMIN_EMAIL = Email("admin@localhost.localdomain")
"""Nobody's address: the operator changes it, or makes accounts for people and leaves this one alone."""
KEY_FILE = "admin-key"
"""Where the administrator's key is, in the server's folder."""
KEY_TTL_S = 4_294_967_295
"""How long a key is good for that was given no end: 136 years."""


async def ensure_admin(store: Store, clock: Clock, folder: Path) -> ApiKey | None:
    """Make an administrator with a key when a server has no user at all.

    Args:
        store: The server's.
        clock: Where the time is read.
        folder: The server's own; the key is put into a file there that only its owner can read.

    Returns:
        The key; None when there are users already.

    Raises:
        NoSpace: There is no space for the file.
    """
    async with store.read() as connection:
        if await any_user(connection):
            return None
    key = ApiKey.new(KeyKind.USER)
    path = folder / KEY_FILE
    # First the file: a key that is valid and that nobody has would lock everybody out.
    await in_thread(_keep, path, key)

    async def work(connection: Connection) -> bool:
        if await any_user(connection):
            return False
        now = clock.now()
        user = await create_user(connection, name=UserName("Admin"), email=ADMIN_EMAIL, now=now, admin=True)
        await create_key(
            connection,
            Holder.USER,
            owner_id=user.id,
            key=key,
            name=ResourceName("first start"),
            now=now,
            expires=now + timedelta(seconds=KEY_TTL_S),
        )
        return True

    # Another process of the same server may have come first.
    if await store.write(work):
        return key
    await in_thread(path.unlink)
    return None


def _keep(path: Path, key: ApiKey) -> None:
    with published(path) as stream:
        stream.write(key.text.encode("ascii") + b"\n")
