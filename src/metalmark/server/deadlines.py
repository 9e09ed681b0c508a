"""Deadlines: the one timer of a server process.

What is due when is in the store alone, so that every process can act on it and none has to remember. The timer sleeps
until the earliest deadline, does what is due, and looks again; a change may bring an earlier one. At start it is what
it will be ever after.

Deadlines are times of day, as several machines have to agree on them, and times of day can be set. The timer notices
when its clock was, as a monotonic clock goes with it, and then lets leases begin anew and limits move along.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

import anyio
import structlog
from anyio.abc import TaskStatus

from metalmark.model import Effect, JobLimits, JobStatus, StoreUnavailable
from metalmark.server.pulse import Pulse
from metalmark.store import (
    Connection,
    JobRecord,
    Moved,
    NoticeKind,
    Store,
    due_jobs,
    expire_job,
    extend_limits,
    next_job_deadline,
    renew_leases,
    unread_jobs,
)
from metalmark.system import Clock

_STEP_S = 1.0
_TICK_S = 1.0
"""It sleeps no longer at a time than the shortest lease lasts, so that a new deadline needs to wake nobody."""
_UNREAD_S = 30.0
_RETRY_S = 0.5
_SHARED_LOOK_S = 4.0
_LOOK_S = 60.0
_AFTER_FAULT_S = 5.0
T = TypeVar("T")
_log = structlog.get_logger(__name__)


class Deadlines:
    """Ends leases, jobs over their limit, and jobs that waited too long.

    Args:
        store: Where the jobs are.
        clock: Where it reads the time.
        limits: How long a lease lasts, above all.
        read_results: Reads the results of a completed job, when the process that took them did not come to it.
        moved: Told of each state that a deadline has brought a job to.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        limits: JobLimits,
        *,
        read_results: Callable[[JobRecord], Awaitable[object]] | None = None,
        moved: Callable[[JobStatus], None] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits
        self._read_results = read_results
        self._moved = moved
        self._unread_s = 0.0
        self._unreadable: set[UUID] = set()
        self._wakes_s = math.inf
        self._offset = self._read_offset()
        self._pulse = Pulse(clock)

    def _read_offset(self) -> timedelta:
        """Return how far the time of day is from the clock that never steps."""
        return timedelta(seconds=self._clock.now().timestamp() - self._clock.monotonic_s())

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Do what is due, until the store closes or the caller cancels."""
        kinds = [NoticeKind.JOB_PENDING, NoticeKind.JOB_CHANGED]
        with self._store.notices.subscribe(kinds) as notices:
            # While this server was away no runner could reach it: that silence was not the runners'.
            await self._until_done(self._renew)
            async with anyio.create_task_group() as tasks:
                await tasks.start(self._pulse.run)
                tasks.start_soon(self._keep_time)
                task_status.started()
                async for _ in notices:
                    self.expect_lease()
                tasks.cancel_scope.cancel()

    def expect_lease(self) -> None:
        """There may be a new deadline, none sooner than a lease from now."""
        self._wake_by(self._clock.monotonic_s() + min(self._limits.heartbeat_timeout_s, self._limits.max_pending_s))

    def _wake_by(self, monotonic_s: float) -> None:
        self._wakes_s = min(self._wakes_s, monotonic_s)

    async def _keep_time(self) -> None:
        while True:
            self._wakes_s = math.inf
            try:
                await self._heed_clock()
                left_s = await self._until_done(self._do_what_is_due)
            except Exception as error:  # noqa: BLE001 - without the timer no lease would ever end
                _log.error("deadlines not kept; trying again", exc_info=error)
                left_s = _AFTER_FAULT_S
            if self._store.engine_name == "postgresql":
                # A claim of another process is told to nobody, for the sake of its speed.
                left_s = min(left_s, _SHARED_LOOK_S)
            # Not later than what was expected while it looked.
            self._wake_by(self._clock.monotonic_s() + left_s)
            await self._sleep()

    async def _sleep(self) -> None:
        """Sleep until `_wakes_s`, which others may bring forward meanwhile."""
        while (left_s := self._wakes_s - self._clock.monotonic_s()) > 0:
            await self._clock.sleep_s(min(left_s, _TICK_S))

    async def _until_done(self, step: Callable[[], Awaitable[T]]) -> T:
        """Carry out a step; while the store cannot, try again."""
        while True:
            try:
                return await step()
            except StoreUnavailable as error:
                _log.warning("deadlines wait for the database", error=str(error))
                await self._clock.sleep_s(_RETRY_S)

    async def _heed_clock(self) -> None:
        """Make good for a clock that was set since this was last called."""
        offset = self._read_offset()
        step = offset - self._offset
        if abs(step.total_seconds()) < _STEP_S:
            # Slow adjustment is no step, and must not add up to one.
            self._offset = offset
            return
        _log.warning("the clock was set", by_s=step.total_seconds())

        async def make_good() -> None:
            await self._renew()
            if step > timedelta():
                await self._store.write(lambda connection: extend_limits(connection, by=step))

        await self._until_done(make_good)
        self._offset = offset

    async def _renew(self) -> None:
        lease_s = self._limits.heartbeat_timeout_s
        await self._store.write(lambda connection: renew_leases(connection, now=self._clock.now(), lease_s=lease_s))

    async def _do_what_is_due(self) -> float:
        """Do what is due, and return how many seconds there are until something is again."""
        stuck: set[UUID] = set()
        while True:
            await self._pulse.hear()
            now = self._clock.now()
            async with self._store.read() as connection:
                due = set(await due_jobs(connection, now=now)) - stuck
                following = await next_job_deadline(connection)
            if not due:
                break
            for job in sorted(due):
                try:
                    await self._expire(job)
                except StoreUnavailable:
                    raise
                except Exception as error:  # noqa: BLE001 - the other jobs' deadlines count as well
                    _log.error("job not moved by its deadline", job=str(job), exc_info=error)
                    stuck.add(job)
        await self._read_what_was_left(now)
        if stuck:
            return _AFTER_FAULT_S
        if following is None:
            return _LOOK_S
        return min(_LOOK_S, (following - self._clock.now()).total_seconds())

    async def _read_what_was_left(self, now: datetime) -> None:
        """Have results read that nobody has read for a while: at the start any, as nobody is at it then."""
        if self._read_results is None:
            return
        async with self._store.read() as connection:
            left = await unread_jobs(connection, completed_by=now - timedelta(seconds=self._unread_s))
        # Another process may have died over them. No job is open for longer than a lease for that.
        self._unread_s = min(_UNREAD_S, self._limits.heartbeat_timeout_s)
        for job in left:
            if job.id in self._unreadable:
                continue
            try:
                await self._read_results(job)
            except StoreUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - one job's results do not keep the timer from the others
                # Left to the next start: perhaps of a version that can.
                self._unreadable.add(job.id)
                _log.error("results cannot be read", job=str(job.id), exc_info=error)

    async def _expire(self, job: UUID) -> None:
        async def work(connection: Connection) -> Moved | None:
            now = self._clock.now()
            # Read before it is asked for: a stop from here on makes nothing due that was not.
            return None if self._pulse.is_deaf() else await expire_job(connection, job, now=now)

        moved = await self._store.write(work)
        if moved is not None and moved.effect is Effect.MOVE:
            if self._moved is not None:
                self._moved(moved.job.status)
            _log.info(
                "job moved by its deadline",
                job=str(job),
                status=str(moved.job.status),
                reason=None if moved.job.end_reason is None else str(moved.job.end_reason),
            )
