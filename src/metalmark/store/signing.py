"""Keys that the server signs its own tokens with, shared by all its processes."""

from __future__ import annotations

import secrets
from datetime import datetime

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import NotFound, new_id
from metalmark.store.tables import signing_secrets

_PURPOSE = "tokens"
_SECRET_BYTES = 32
"""As many as the hash has: more would not be stronger (RFC 7518, 3.2)."""


async def ensure_signing_secrets(connection: AsyncConnection, *, now: datetime) -> tuple[bytes, ...]:
    """Return the keys, the one that signs first; make one where there is none."""
    query = select(signing_secrets.c.secret).where(signing_secrets.c.purpose == _PURPOSE)
    query = query.order_by(signing_secrets.c.retired.is_not(None), signing_secrets.c.created.desc())
    found = tuple((await connection.execute(query)).scalars())
    if found:
        return found
    secret = secrets.token_bytes(_SECRET_BYTES)
    await connection.execute(
        insert(signing_secrets).values(id=new_id(), purpose=_PURPOSE, secret=secret, created=now, retired=None)
    )
    return (secret,)


async def database_mark(connection: AsyncConnection) -> str:
    """Return what tells this database and its copies from all others, in lower-case hex; it is no secret.

    Raises:
        NotFound: No server has been started on it yet.
    """
    query = select(signing_secrets.c.id).where(signing_secrets.c.purpose == _PURPOSE)
    found = (await connection.execute(query.order_by(signing_secrets.c.created).limit(1))).scalar_one_or_none()
    if found is None:
        raise NotFound("signing secret", _PURPOSE)
    mark: str = found.hex
    return mark
