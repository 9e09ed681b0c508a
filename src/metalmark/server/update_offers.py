"""Offers of an update: which runner is to be told of which published version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from metalmark.model import StoreUnavailable
from metalmark.store import PublishedUpdate, UpdateAudience, find_update
from metalmark.wire import NewVersion, RunnerHello, RunnerMetadata, UpdateOffer

if TYPE_CHECKING:
    from metalmark.server.context import ServerContext

LOOK_EVERY_S = 30.0
"""How often one connection looks for what was published since."""
_log = structlog.get_logger(__name__)


def is_news(update: PublishedUpdate, hello: RunnerHello) -> bool:
    """Whether a runner of ours has another version than was published for it."""
    if hello.checksum is not None:
        return hello.checksum != update.checksum
    # It does not update itself, but it can say that there is something else.
    return hello.version != update.version


def is_news_for_public(update: PublishedUpdate, said: RunnerMetadata) -> bool:
    """Whether a public runner has another version than was published for its channel."""
    if update.channel == "canary":
        return said.checksum is not None and said.checksum != update.checksum
    return said.version != update.version


class OwnOffers:
    """What one connection of a runner of ours is offered: each version once."""

    def __init__(self, context: ServerContext, hello: RunnerHello) -> None:
        self._context = context
        self._hello = hello
        self._told: str | None = None
        self._next_s = context.clock.monotonic_s()

    async def due(self) -> NewVersion | None:
        """Return the version that the runner is to be told of now, if there is one."""
        now_s = self._context.clock.monotonic_s()
        if now_s < self._next_s:
            return None
        self._next_s = now_s + LOOK_EVERY_S
        update = await _published(
            self._context, UpdateAudience.METALMARK, self._hello.capabilities.architecture, "stable"
        )
        if update is None or update.checksum == self._told or not is_news(update, self._hello):
            return None
        self._told = update.checksum
        return NewVersion(version=update.version, url=_url(self._context, update), checksum=update.checksum)


async def offer_for_public(context: ServerContext, said: RunnerMetadata | None) -> UpdateOffer | None:
    """Return what a public runner is to be told in answer to ``ready``, if anything.

    Args:
        context: The server's.
        said: What the runner says of itself; None: it wants no offers.
    """
    if said is None or said.os != "linux":
        return None
    update = await _published(context, UpdateAudience.PUBLIC, said.arch, said.channel or "stable")
    if update is None or not is_news_for_public(update, said):
        return None
    version = "canary" if update.channel == "canary" else update.version
    return UpdateOffer(version=version, url=_url(context, update), checksum=update.checksum)


async def _published(
    context: ServerContext, audience: UpdateAudience, architecture: str, channel: str
) -> PublishedUpdate | None:
    try:
        async with context.store.read() as connection:
            return await find_update(connection, audience=audience, architecture=architecture, channel=channel)
    except StoreUnavailable as error:
        # Jobs matter more, and it is looked at again.
        _log.warning("updates not looked at", error=str(error))
        return None


def _url(context: ServerContext, update: PublishedUpdate) -> str:
    return f"{context.config.url}v0/updates/{update.checksum}"
