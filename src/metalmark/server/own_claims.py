"""The jobs that one of our own runners has room for, found one after the other while its connection lasts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from uuid import UUID

import anyio
import structlog

from metalmark.model import Capabilities, MetalmarkError, StoreUnavailable
from metalmark.server.job_desk import JobDesk
from metalmark.store import ClaimedJob
from metalmark.wire import Wanting

if TYPE_CHECKING:
    from metalmark.server.context import ServerContext

_ASK_AGAIN_S = 900.0
_PAUSE_S = 1.0
_log = structlog.get_logger(__name__)


class OwnClaims:
    """Claims jobs for the runner of one connection, never more than it wants.

    Args:
        context: The server's.
        runner: Whose jobs they will be.
        desk: Where a job that could not be handed over is given back.
        hand_over: Sends the runner a job that was claimed for it.
        key_digest: Of the key that opened the connection.
    """

    def __init__(
        self,
        context: ServerContext,
        runner: UUID,
        desk: JobDesk,
        hand_over: Callable[[ClaimedJob], Awaitable[None]],
        *,
        key_digest: str,
    ) -> None:
        self._context = context
        self._runner = runner
        self._desk = desk
        self._hand_over = hand_over
        self._key_digest = key_digest
        self._wanting: Wanting | None = None
        self._sent = 0
        self._unheard: dict[UUID, ClaimedJob] = {}
        self._claim = anyio.CancelScope()
        self._wants = anyio.Event()

    @property
    def sent(self) -> int:
        """How many jobs were claimed for the runner so far."""
        return self._sent

    def want(self, message: Wanting) -> None:
        """Find what the runner wants now, which is no longer what it wanted before."""
        before, self._wanting = self._wanting, message
        fits_no_more = message.slots <= self._sent - message.received
        if fits_no_more or before is None or message.specs != before.specs:
            # A claim that is under way would give its job back: not for the sake of a runner that has room still.
            self._claim.cancel()
        self._wants.set()

    def heard(self, job: UUID) -> None:
        """The runner spoke of a job: it has it."""
        self._unheard.pop(job, None)

    async def run(self, capabilities: Capabilities) -> None:
        """Find jobs until canceled; then give back those that the runner never spoke of.

        They were sent into a connection that was dead already, and the runner has most likely never heard of them. If
        it has after all, its lease number is of no use any more.

        Args:
            capabilities: What the runner proved.

        Raises:
            Gone: The connection is over, as ``hand_over`` has found.
        """
        try:
            await self._find_jobs(capabilities)
        finally:
            for claimed in self._unheard.values():
                await self._given_back(claimed)

    async def _find_jobs(self, capabilities: Capabilities) -> None:
        while True:
            wanting = self._wanting
            if wanting is None or wanting.slots <= self._sent - wanting.received:
                self._wants = anyio.Event()
                await self._wants.wait()
                continue
            try:
                await self._claim_one(wanting, capabilities)
            except StoreUnavailable as error:
                _log.warning("no claim", runner=str(self._runner), error=str(error))
                await self._context.clock.sleep_s(_PAUSE_S)

    async def _claim_one(self, wanting: Wanting, capabilities: Capabilities) -> None:
        claimed = None
        with anyio.CancelScope() as self._claim:
            claimed = await self._context.dispatcher.wait_for_job(
                runner=self._runner,
                capabilities=capabilities,
                specs=wanting.specs,
                key_digest=self._key_digest,
                deadline_s=self._context.clock.monotonic_s() + _ASK_AGAIN_S,
            )
        if claimed is None:
            return
        self._sent += 1
        self._unheard[claimed.job] = claimed
        await self._hand_over(claimed)

    async def _given_back(self, claimed: ClaimedJob) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await self._desk.give_back(claimed)
            except MetalmarkError as error:
                # Its lease runs out, and then it is dealt with like that of any runner that is lost.
                _log.warning("job not given back", job=str(claimed.job), error=str(error))
