"""Claims of runners that can serve the same specs, gathered into one statement while another is under way.

The first to ask carries out the claim for all who ask before its turn comes. With nobody else there it has its turn at
once, so that gathering costs nobody time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import anyio

from metalmark.store import (
    Claimant,
    ClaimedJob,
    ClaimRules,
    Connection,
    Isolation,
    NoClaim,
    Store,
    claim_jobs,
)
from metalmark.system import Clock

_TOGETHER = 32
_AT_ONCE = 4
_Key: TypeAlias = tuple[frozenset[object], bool, bool]


@dataclass(eq=False)
class _Batch:
    """Claims that are carried out together."""

    claimants: list[Claimant] = field(default_factory=list)
    found: list[ClaimedJob | NoClaim] = field(default_factory=list)
    error: Exception | None = None
    done: anyio.Event = field(default_factory=anyio.Event)


class ClaimBatches:
    """Carries out claims.

    Args:
        store: Where the jobs are.
        clock: Where it reads the time.
        rules: Who gets which job.
    """

    def __init__(self, store: Store, clock: Clock, rules: ClaimRules) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules
        self._turns = anyio.Semaphore(_AT_ONCE)
        self._under_way: dict[_Key, anyio.Lock] = {}
        self._open: dict[_Key, _Batch] = {}

    async def claim(self, claimant: Claimant) -> ClaimedJob | NoClaim:
        """Claim a job for a runner. Not to be canceled: others may be waiting for what this one does.

        Returns:
            The job; or why there is none, where ``CONTENDED`` says that looking again is worth it.

        Raises:
            StoreUnavailable: The store cannot take it now; nothing was claimed, as far as anybody can know.
        """
        key: _Key = (claimant.specs, claimant.public, claimant.key_digest is None)
        batch = self._open.get(key)
        if batch is not None and len(batch.claimants) < _TOGETHER and not self._rules.limits_concurrency:
            place = len(batch.claimants)
            batch.claimants.append(claimant)
            await batch.done.wait()
        else:
            place, batch = 0, _Batch(claimants=[claimant])
            await self._lead(key, batch)
        if batch.error is not None:
            raise batch.error
        found = batch.found[place]
        if found is NoClaim.ALONE:
            async with self._turns:
                (found,) = await self._carry_out(_Batch(claimants=[claimant]))
        return found

    async def _lead(self, key: _Key, batch: _Batch) -> None:
        self._open[key] = batch
        lock = self._under_way.setdefault(key, anyio.Lock())
        try:
            async with lock, self._turns:
                if self._open.get(key) is batch:
                    del self._open[key]
                batch.found = await self._carry_out(batch)
        except Exception as error:  # noqa: BLE001 - each who waits is told, and raises it as its own
            batch.error = error
        finally:
            batch.done.set()
            if lock.statistics().tasks_waiting == 0 and not lock.locked():
                self._under_way.pop(key, None)

    async def _carry_out(self, batch: _Batch) -> list[ClaimedJob | NoClaim]:
        runners = [claimant.runner for claimant in batch.claimants]
        keys = {claimant.key_digest for claimant in batch.claimants if claimant.key_digest is not None}

        async def work(connection: Connection) -> list[ClaimedJob | NoClaim]:
            first, now = batch.claimants[0], self._clock.now()
            return await claim_jobs(connection, runners, first, self._rules, now=now, keys=keys)

        return await self._store.write(work, isolation=Isolation.READ_COMMITTED)
