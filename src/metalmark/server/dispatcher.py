"""Dispatch: pending jobs to the runners that wait for them, without polling.

Whoever waits tries a claim at once, and then sleeps until told that there may be a job. A notice about a pending job
becomes a token for its spec, and a token wakes one waiting runner, not all of them:

* A runner that was woken by a token and claims a job of that spec has used it up.
* One that claims a job of another spec, or goes away, hands the token on.
* One that finds nothing drops it: what one runner cannot claim of a spec, none can. Public runners are the exception,
  as they see fewer jobs; theirs goes to one that sees all. So are those that serve the spec no more, or are not
  welcome any more.

Every process does this for the runners that wait in it; the claim itself decides between processes.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from uuid import UUID

import anyio
import anyio.lowlevel
import structlog
from anyio.abc import TaskStatus

from metalmark.model import Capabilities, StoreUnavailable, shortcomings
from metalmark.server.claim_batches import ClaimBatches
from metalmark.store import (
    Claimant,
    ClaimedJob,
    ClaimRules,
    Connection,
    LeaseHolder,
    NoClaim,
    Notice,
    NoticeKind,
    SpecRecord,
    Store,
    list_runner_specs,
    pending_specs,
    return_claim,
)
from metalmark.system import Clock

_CONTENDED_S = 0.02
_STORE_AWAY_S = 0.5
_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class _Waiter:
    """A runner that waits for a job."""

    runner: UUID
    capabilities: Capabilities
    wanted: frozenset[UUID] | None
    key_digest: str | None = None
    specs: frozenset[UUID] = frozenset()
    """What it can serve now: its own specs, as far as they fit and its probes proved what they ask for."""
    tokens: Counter[UUID] = field(default_factory=Counter)
    """Pending jobs that it was told of and did not look for yet, by spec."""
    look: bool = True
    """Whether to try a claim."""
    stale: bool = True
    """Whether its specs have to be read again."""
    busy: bool = False
    wake: anyio.Event = field(default_factory=anyio.Event)

    def rouse(self) -> None:
        self.look = True
        self.wake.set()


class Dispatcher:
    """Gives each pending job to one waiting runner, in this process or another of the same store.

    Args:
        store: Where the jobs are.
        clock: Where it reads the time.
        rules: Who gets which job.
        claimed: Told of every claim.
    """

    def __init__(
        self, store: Store, clock: Clock, rules: ClaimRules, *, claimed: Callable[[ClaimedJob], None] | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules
        self._claimed = claimed
        self._by_spec: defaultdict[UUID, dict[_Waiter, None]] = defaultdict(dict)
        self._waiters: dict[_Waiter, None] = {}
        self._served: dict[UUID, tuple[SpecRecord, ...]] = {}
        self._changes = 0
        self._batches = ClaimBatches(store, clock, rules)

    @property
    def waiting_count(self) -> int:
        """How many runners wait in this process."""
        return len(self._waiters)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Listen to the store's notices until the store closes; started once, before any runner waits."""
        kinds = [NoticeKind.JOB_PENDING, NoticeKind.RUNNER_CHANGED, NoticeKind.SPEC_CHANGED]
        if self._rules.limits_concurrency:
            # A job that ends makes room for others, which nobody announces a second time.
            kinds.append(NoticeKind.JOB_CHANGED)
        with self._store.notices.subscribe(kinds) as notices:
            task_status.started()
            async for notice in notices:
                try:
                    await self._heed(notice)
                except Exception as error:  # noqa: BLE001 - who waits must hear of the next one
                    _log.error("notice not heeded", kind=str(notice.kind), exc_info=error)
                    # Whom it was for is not known; whoever waits finds out.
                    self._rouse(list(self._waiters))

    async def _heed(self, notice: Notice) -> None:
        if notice.kind is NoticeKind.JOB_PENDING and notice.subject is not None:
            self._give(notice.subject)
        elif notice.kind is NoticeKind.JOB_CHANGED:
            await self._give_all_pending()
        elif notice.kind is NoticeKind.RUNNER_CHANGED and notice.subject is not None:
            self._changes += 1
            self._served.pop(notice.subject, None)
            self._rouse([waiter for waiter in self._waiters if waiter.runner == notice.subject])
        elif notice.kind is NoticeKind.SPEC_CHANGED and notice.subject is not None:
            # There may be any number of jobs for it, so that one token is not enough.
            for waiter in list(self._by_spec.get(notice.subject, ())):
                waiter.rouse()
        elif notice.kind is NoticeKind.MISSED:
            self._changes += 1
            self._served.clear()
            self._rouse(list(self._waiters))

    def _rouse(self, waiters: list[_Waiter]) -> None:
        for waiter in waiters:
            waiter.stale = True
            waiter.rouse()

    async def _give_all_pending(self) -> None:
        if not self._waiters:
            return
        try:
            async with self._store.read() as connection:
                specs = await pending_specs(connection)
        except StoreUnavailable:
            # Nobody knows which; whoever waits finds out.
            self._rouse(list(self._waiters))
            return
        for spec in specs:
            self._give(spec)

    def _give(self, spec: UUID, *, beside: _Waiter | None = None, to_public: bool = False) -> None:
        """Hand a token to one runner that can use it: one that sleeps, else one whose claim may have come too early.

        Args:
            spec: What the token is for.
            beside: One that found nothing, and is not asked again.
            to_public: Whether public runners are asked beside another; where a public one found nothing, only one that
                sees more jobs than it is asked next.
        """
        chosen = None
        for waiter in self._by_spec.get(spec, ()):
            if waiter is beside or (beside is not None and waiter.capabilities.public and not to_public):
                continue
            chosen = waiter
            if not waiter.busy and not waiter.look:
                break
        if chosen is not None:
            chosen.tokens[spec] += 1
            chosen.rouse()

    async def wait_for_job(
        self,
        *,
        runner: UUID,
        capabilities: Capabilities,
        specs: Collection[UUID] | None = None,
        key_digest: str | None = None,
        deadline_s: float,
    ) -> ClaimedJob | None:
        """Claim a job for a runner, at once or as soon as there is one.

        A canceled wait leaves no job claimed that the caller does not know of: a claim that was under way when the
        caller was canceled goes back to the queue.

        Args:
            runner: The runner that will hold the lease.
            capabilities: What its probes proved; `public_runner` for one that says nothing.
            specs: Those of its specs that fit beside what it already does; None stands for all of them.
            key_digest: Of the key that it came with: once that is its own no more, it gets no job. None: not asked.
            deadline_s: Seconds on the clock that never steps, after which no further claim is tried. One claim is tried
                even when it is past.

        Returns:
            The job, its lease running, or None when there was none until the deadline.
        """
        wanted = None if specs is None else frozenset(specs)
        waiter = _Waiter(runner=runner, capabilities=capabilities, wanted=wanted, key_digest=key_digest)
        self._waiters[waiter] = None
        try:
            while True:
                job = await self._look(waiter)
                if job is not None:
                    return job
                if not await self._woken(waiter, deadline_s):
                    return None
        finally:
            self._forget(waiter)

    def _forget(self, waiter: _Waiter) -> None:
        del self._waiters[waiter]
        self._file(waiter, frozenset())
        for spec in waiter.tokens.elements():
            self._give(spec)

    def _file(self, waiter: _Waiter, specs: frozenset[UUID]) -> None:
        for spec in waiter.specs - specs:
            del self._by_spec[spec][waiter]
            if not self._by_spec[spec]:
                del self._by_spec[spec]
        for spec in specs - waiter.specs:
            self._by_spec[spec][waiter] = None
        waiter.specs = specs

    async def _woken(self, waiter: _Waiter, deadline_s: float) -> bool:
        """Sleep until there may be a job; False when the deadline came first."""
        left_s = deadline_s - self._clock.monotonic_s()
        if left_s <= 0 or waiter.look:
            # What it was told of and has no time to look for goes to others.
            return left_s > 0
        async with anyio.create_task_group() as tasks:

            async def sleep_on() -> None:
                await self._clock.sleep_s(left_s)
                tasks.cancel_scope.cancel()

            if left_s < math.inf:
                tasks.start_soon(sleep_on)
            await waiter.wake.wait()
            tasks.cancel_scope.cancel()
        return waiter.look

    async def _look(self, waiter: _Waiter) -> ClaimedJob | None:
        """Try one claim; what cannot be found out now is tried again later."""
        waiter.busy, waiter.look, waiter.wake = True, False, anyio.Event()
        tokens, waiter.tokens = waiter.tokens, Counter()
        try:
            found = await self._claim(waiter)
        except StoreUnavailable as error:
            _log.warning("claim failed", runner=str(waiter.runner), error=str(error))
            waiter.tokens += tokens
            await self._clock.sleep_s(_STORE_AWAY_S)
            waiter.look = True
            return None
        except BaseException:
            waiter.tokens += tokens
            raise
        finally:
            waiter.busy = False
        if isinstance(found, ClaimedJob):
            if tokens[found.spec.id]:
                tokens[found.spec.id] -= 1
            # Handed on when the waiter is forgotten, which is next.
            waiter.tokens += tokens
            if self._claimed is not None:
                self._claimed(found)
            return found
        if found is NoClaim.CONTENDED:
            waiter.tokens += tokens
            await self._clock.sleep_s(random.uniform(0, _CONTENDED_S))  # noqa: S311 - keeps claims apart, hides nothing
            waiter.look = True
        elif found is NoClaim.UNFIT:
            # Others may be fit. What changed comes as a notice too, and then it looks again.
            for spec in tokens.elements():
                self._give(spec, beside=waiter, to_public=True)
        elif waiter.capabilities.public:
            for spec in tokens.elements():
                self._give(spec, beside=waiter)
        return None

    async def _claim(self, waiter: _Waiter) -> ClaimedJob | NoClaim:
        if waiter.stale:
            await self._learn(waiter)
        if not waiter.specs:
            return NoClaim.NOTHING
        claimant = Claimant(
            runner=waiter.runner,
            specs=waiter.specs,
            public=waiter.capabilities.public,
            key_digest=waiter.key_digest,
        )

        with anyio.CancelScope(shield=True):
            found = await self._batches.claim(claimant)
        try:
            # Whoever was canceled meanwhile would never learn of the job.
            await anyio.lowlevel.checkpoint_if_cancelled()
        except anyio.get_cancelled_exc_class():
            if isinstance(found, ClaimedJob):
                with anyio.CancelScope(shield=True):
                    await self._give_back(found)
            raise
        return found

    async def _give_back(self, claimed: ClaimedJob) -> None:
        holder = LeaseHolder(runner=claimed.runner, lease=claimed.lease)

        async def work(connection: Connection) -> None:
            await return_claim(connection, claimed.job, holder=holder, now=self._clock.now())

        try:
            await self._store.write(work)
        except StoreUnavailable as error:
            _log.warning("claim not returned; its lease will end", job=str(claimed.job), error=str(error))

    async def _learn(self, waiter: _Waiter) -> None:
        """Read which specs a runner serves, and keep those that it can."""
        waiter.stale = False
        served = self._served.get(waiter.runner)
        if served is None:
            changes = self._changes
            try:
                async with self._store.read() as connection:
                    served = await list_runner_specs(connection, runner_id=waiter.runner)
            except BaseException:
                waiter.stale = True
                raise
            if changes == self._changes:
                self._served[waiter.runner] = served
        able = {spec.id for spec in served if not shortcomings(waiter.capabilities, spec.demand)}
        self._file(waiter, frozenset(able if waiter.wanted is None else able & waiter.wanted))
