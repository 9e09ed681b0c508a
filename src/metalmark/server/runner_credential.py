"""Who a runner is: its key against the runner that the path names."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from metalmark.model import ApiKey, InputError, KeyKind, ResourceId, Unauthenticated
from metalmark.server.client_address import address_group
from metalmark.server.rate_limits import Limited
from metalmark.store import RunnerRecord, find_runner_by_key

if TYPE_CHECKING:
    from metalmark.server.context import ServerContext

_HINT = "send `Authorization: Bearer` with the key of this runner; `metalmark runner key` makes another"


async def runner_of(context: ServerContext, connection: HTTPConnection, identifier: ResourceId) -> RunnerRecord:
    """Return the runner whose key a request carries.

    Args:
        context: The server.
        connection: The request or handshake.
        identifier: The runner that its path names.

    Raises:
        Unauthenticated: There is no key, or it is not that of this runner, or the runner is archived. Which of them is
            not told.
        TooManyRequests: Too many bad keys came from this address.
        StoreUnavailable: The store cannot be asked.
    """
    key = _key_of(connection.headers.get("authorization", ""))
    runner = None
    if key is not None:
        async with context.store.read() as reading:
            runner = await find_runner_by_key(reading, key.digest)
    if runner is not None and _is_named(runner, identifier):
        return runner
    address = address_group(connection.scope["state"]["client_address"])
    context.limits.spend(Limited.SIGN_IN_ATTEMPTS, address)
    raise Unauthenticated("this is not the key of this runner", hint=_HINT)


def _key_of(header: str) -> ApiKey | None:
    scheme, _, credential = header.partition(" ")
    if scheme.lower() != "bearer":
        return None
    try:
        key = ApiKey.parse(credential.strip())
    except InputError:
        return None
    return key if key.kind is KeyKind.RUNNER else None


def _is_named(runner: RunnerRecord, identifier: ResourceId) -> bool:
    # Both are compared, so that the time does not tell which of a key's two names was tried.
    by_id = hmac.compare_digest(str(runner.id).encode(), str(identifier).encode())
    by_slug = hmac.compare_digest(str(runner.slug).encode(), str(identifier).encode())
    return by_id or by_slug
