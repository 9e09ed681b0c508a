"""Notices: what a committed write tells everybody who waits for it, in this process and in others.

A notice is a hint to look, not a fact: it may come twice, and after a break in the connection to the database a
``MISSED`` one stands for all that may have been lost. Whoever gets it reads the store again.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

import anyio
from sqlalchemy.ext.asyncio import AsyncConnection

_BUFFER = 1024
_PENDING = "metalmark.notices"


class NoticeKind(StrEnum):
    """What changed."""

    JOB_PENDING = "job_pending"
    """A job waits for a runner. The subject is its spec."""
    JOB_CHANGED = "job_changed"
    """A job changed its state or its wishes (cancellation). The subject is the job."""
    JOB_OUTPUT = "job_output"
    """A running job printed something that is stored now. The subject is the job."""
    RUNNER_CHANGED = "runner_changed"
    """A runner was archived, got another key, other specs or other capabilities. The subject is the runner."""
    SPEC_CHANGED = "spec_changed"
    """A spec was taken back into use, or opened to more jobs. The subject is the spec."""
    UPDATE_PUBLISHED = "update_published"
    """There is another version for runners. No subject."""
    MISSED = "missed"
    """Any number of the others may have been lost. Every subscriber gets it, whatever it subscribed to."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something that a committed write changed."""

    kind: NoticeKind
    subject: UUID | None = None

    def text(self) -> str:
        """Return the notice as it goes through the database."""
        return f"{self.kind}:{self.subject or ''}"

    @classmethod
    def parse(cls, text: str) -> Notice | None:
        """Read a notice, or return None for one of another version of the program."""
        kind, _, subject = text.partition(":")
        try:
            return cls(kind=NoticeKind(kind), subject=UUID(subject) if subject else None)
        except ValueError:
            return None


MISSED = Notice(kind=NoticeKind.MISSED)


def announce(connection: AsyncConnection, notice: Notice) -> None:
    """Have a notice delivered when, and only when, the write that this is called in is committed."""
    notices: dict[Notice, None] = connection.info.setdefault(_PENDING, {})
    notices[notice] = None


def take_announced(connection: AsyncConnection) -> tuple[Notice, ...]:
    """Return what was announced on a connection since this was last called, each once, in order."""
    return tuple(connection.info.pop(_PENDING, ()))


class Subscription:
    """The notices of one subscriber, to be iterated over."""

    def __init__(self) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[Notice](math.inf)
        self._missed = False

    def __aiter__(self) -> AsyncIterator[Notice]:
        return self

    async def __anext__(self) -> Notice:
        try:
            return await self._receive.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    def take_waiting(self) -> list[Notice]:
        """Return what has come and was not read yet, without waiting."""
        found = []
        while True:
            try:
                found.append(self._receive.receive_nowait())
            except (anyio.WouldBlock, anyio.EndOfStream):
                return found

    def offer(self, notice: Notice) -> None:
        """Add a notice. A subscriber that reads too slowly loses some, and gets one that says so."""
        if self._receive.statistics().current_buffer_used < _BUFFER:
            self._send.send_nowait(notice)
            self._missed = False
        elif not self._missed:
            self._missed = True
            self._send.send_nowait(MISSED)

    def end(self) -> None:
        """End the iteration once everything that has come was read."""
        self._send.close()

    def close(self) -> None:
        """Free the subscription."""
        self._send.close()
        self._receive.close()


_Address = tuple[NoticeKind, UUID | None]


class Notices:
    """All subscribers of this process."""

    def __init__(self) -> None:
        self._subscribers: dict[_Address, dict[Subscription, None]] = defaultdict(dict)
        self._all: dict[Subscription, None] = {}
        self._ended = False

    @contextmanager
    def subscribe(self, kinds: Iterable[NoticeKind], *, subject: UUID | None = None) -> Iterator[Subscription]:
        """Give the notices of some kinds that are delivered from now on.

        Subscribe first and read the store then: what changes in between is told.

        Args:
            kinds: Which kinds; ``MISSED`` always comes too.
            subject: Only notices about this thing; None for those about any.
        """
        subscription = Subscription()
        addresses = {(kind, subject) for kind in kinds}
        self._all[subscription] = None
        for address in addresses:
            self._subscribers[address][subscription] = None
        if self._ended:
            subscription.end()
        try:
            yield subscription
        finally:
            del self._all[subscription]
            for address in addresses:
                del self._subscribers[address][subscription]
                if not self._subscribers[address]:
                    del self._subscribers[address]
            subscription.close()

    def deliver(self, notices: Iterable[Notice]) -> None:
        """Give notices to whoever subscribed to them."""
        for notice in notices:
            for subscription in self._receivers(notice):
                subscription.offer(notice)

    def _receivers(self, notice: Notice) -> list[Subscription]:
        if notice.kind is NoticeKind.MISSED:
            return list(self._all)
        found = dict(self._subscribers.get((notice.kind, None), {}))
        if notice.subject is not None:
            found |= self._subscribers.get((notice.kind, notice.subject), {})
        return list(found)

    def end(self) -> None:
        """End every subscription, those to come too: the store closes."""
        self._ended = True
        for subscription in self._all:
            subscription.end()
