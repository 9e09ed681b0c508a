"""The life of a job: its states, what may happen to it, and what then becomes of it.

One table, without I/O, that the store, the channel and the tests share::

    pending ──claim──▶ claimed ──start──▶ running ──complete──▶ completed ──process──▶ processed
       ▲                 │  │               │  │                 ▲    │
       └────requeue──────┘──┼───────────────┘  │        complete │    │ process_fail
                            └──fail, lease_expire──▶ failed ─────┘◀───┘
    pending, claimed, running ──cancel──▶ canceled ◀──runner_cancel, limit_expire── claimed, running
    pending ──pending_expire──▶ canceled

A result outranks the fear that its runner is gone: ``complete`` turns a failed job into a completed one, and a claimed
one whose start was never heard of. Nothing else leaves a final state. ``requeue`` exists for faults of the
infrastructure before the benchmark began; it gives the job back, and takes the lease from whoever held it.

The table knows states only. Who may send an event is the store's matter: events of a runner count when the runner and
the lease number are the job's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType


class JobStatus(StrEnum):
    """Where a job is in its life. The names are those of the wire."""

    PENDING = "pending"
    CLAIMED = "claimed"
    RUNNING = "running"
    COMPLETED = "completed"
    """The runner's results are stored, and not yet read."""
    PROCESSED = "processed"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def code(self) -> int:
        """The number that stands for the state in the database."""
        return _CODES[self]

    @property
    def is_active(self) -> bool:
        """Whether a runner holds the job under a lease."""
        return self in ACTIVE

    @property
    def has_run(self) -> bool:
        """Whether the runner's part is over."""
        return self not in ACTIVE and self is not JobStatus.PENDING

    @property
    def is_final(self) -> bool:
        """Whether the job ends here, unless a late result turns a failure."""
        return self in FINAL


_CODES = {status: code for code, status in enumerate(JobStatus)}
_STATUSES = tuple(JobStatus)

ACTIVE = frozenset({JobStatus.CLAIMED, JobStatus.RUNNING})
"""States in which a runner holds a lease."""
FINAL = frozenset({JobStatus.PROCESSED, JobStatus.FAILED, JobStatus.CANCELED})
"""States in which a job ends."""


def status_of(code: int) -> JobStatus:
    """Return the state that a number of the database stands for.

    Raises:
        ValueError: No state has that number.
    """
    if not 0 <= code < len(_STATUSES):
        raise ValueError(f"no job state has the number {code}")
    return _STATUSES[code]


class JobEvent(StrEnum):
    """What may happen to a job."""

    CLAIM = "claim"
    """A dispatcher gives the job to a runner, with a new lease number."""
    START = "start"
    """The runner says that it works on the job."""
    HEARTBEAT = "heartbeat"
    """The runner says that it still does."""
    COMPLETE = "complete"
    """The runner delivers results."""
    FAIL = "fail"
    """The runner says that the benchmark failed, or that it could not be run."""
    RUNNER_CANCEL = "runner_cancel"
    """The runner says that it gave the job up."""
    REQUEUE = "requeue"
    """A fault of the infrastructure before the benchmark began, and the job may be tried again."""
    LEASE_EXPIRE = "lease_expire"
    """The holder was silent for longer than its lease."""
    LIMIT_EXPIRE = "limit_expire"
    """The job took longer than all its iterations may."""
    PENDING_EXPIRE = "pending_expire"
    """No runner took the job for as long as jobs may wait."""
    CANCEL = "cancel"
    """A user wants the job no more."""
    PROCESS = "process"
    """The results became a report."""
    PROCESS_FAIL = "process_fail"
    """The results are missing, or no report could be made of them."""


RUNNER_EVENTS = frozenset(
    {
        JobEvent.START,
        JobEvent.HEARTBEAT,
        JobEvent.COMPLETE,
        JobEvent.FAIL,
        JobEvent.RUNNER_CANCEL,
    }
)
"""Events that only the holder of the lease can cause."""


class Effect(StrEnum):
    """What an event does to a job in a given state."""

    MOVE = "move"
    """The job changes its state."""
    TOUCH = "touch"
    """The job stays as it is, and its lease is extended."""
    KEEP = "keep"
    """Nothing changes, and nothing is wrong: the event is late or told twice. A runner's message is acknowledged."""
    STOP = "stop"
    """Nothing changes, and the runner is told to stop: the job was canceled."""
    REFUSE = "refuse"
    """The event is not possible in this state: the caller is wrong, and is told so."""


class EndReason(StrEnum):
    """Why a job ended as it did, or went back to the queue."""

    COMPLETED = "completed"
    REPORTED_FAILURE = "reported_failure"
    """The runner said that the job failed."""
    CANCELED_BY_USER = "canceled_by_user"
    CANCELED_BY_RUNNER = "canceled_by_runner"
    HEARTBEAT_TIMEOUT = "heartbeat_timeout"
    """The runner was silent for longer than its lease."""
    JOB_TIMEOUT_EXCEEDED = "job_timeout_exceeded"
    PENDING_TOO_LONG = "pending_too_long"
    INFRASTRUCTURE = "infrastructure"
    """The runner met a fault that is not the benchmark's."""
    PROCESSING_FAILED = "processing_failed"
    OUTPUT_MISSING = "output_missing"


@dataclass(frozen=True, kw_only=True)
class Transition:
    """What an event does in a state, and the state after it."""

    effect: Effect
    target: JobStatus


_P, _C, _R = JobStatus.PENDING, JobStatus.CLAIMED, JobStatus.RUNNING
_D, _X, _F, _K = JobStatus.COMPLETED, JobStatus.PROCESSED, JobStatus.FAILED, JobStatus.CANCELED

_MOVES: Mapping[JobEvent, Mapping[JobStatus, JobStatus]] = {
    JobEvent.CLAIM: {_P: _C},
    JobEvent.START: {_C: _R},
    JobEvent.HEARTBEAT: {},
    # From claimed when the connection that carried ``running`` was lost: the results are there all the same.
    JobEvent.COMPLETE: {_C: _D, _R: _D, _F: _D},
    JobEvent.FAIL: {_C: _F, _R: _F},
    JobEvent.RUNNER_CANCEL: {_C: _K, _R: _K},
    JobEvent.REQUEUE: {_C: _P, _R: _P},
    JobEvent.LEASE_EXPIRE: {_C: _F, _R: _F},
    JobEvent.LIMIT_EXPIRE: {_C: _K, _R: _K},
    JobEvent.PENDING_EXPIRE: {_P: _K},
    JobEvent.CANCEL: {_P: _K, _C: _K, _R: _K},
    JobEvent.PROCESS: {_D: _X},
    JobEvent.PROCESS_FAIL: {_D: _F},
}

_OTHERS: Mapping[JobEvent, Mapping[JobStatus, Effect]] = {
    JobEvent.START: {_R: Effect.TOUCH, _D: Effect.KEEP, _X: Effect.KEEP, _F: Effect.KEEP, _K: Effect.STOP},
    JobEvent.HEARTBEAT: {
        _C: Effect.TOUCH,
        _R: Effect.TOUCH,
        _D: Effect.KEEP,
        _X: Effect.KEEP,
        # A failed job's runner is not stopped: its result is still wanted.
        _F: Effect.KEEP,
        _K: Effect.STOP,
    },
    JobEvent.COMPLETE: {_D: Effect.KEEP, _X: Effect.KEEP, _K: Effect.KEEP},
    JobEvent.FAIL: {_D: Effect.KEEP, _X: Effect.KEEP, _F: Effect.KEEP, _K: Effect.KEEP},
    JobEvent.RUNNER_CANCEL: {_K: Effect.KEEP},
    # The server's own events race with each other and with the runner; the loser has nothing left to do.
    JobEvent.REQUEUE: dict.fromkeys((_P, _D, _X, _F, _K), Effect.KEEP),
    JobEvent.LEASE_EXPIRE: dict.fromkeys((_P, _D, _X, _F, _K), Effect.KEEP),
    JobEvent.LIMIT_EXPIRE: dict.fromkeys((_P, _D, _X, _F, _K), Effect.KEEP),
    JobEvent.PENDING_EXPIRE: dict.fromkeys((_C, _R, _D, _X, _F, _K), Effect.KEEP),
    JobEvent.CANCEL: {_K: Effect.KEEP},
    JobEvent.PROCESS: {_X: Effect.KEEP},
    JobEvent.PROCESS_FAIL: {_X: Effect.KEEP, _F: Effect.KEEP},
}


def _entry(status: JobStatus, event: JobEvent) -> Transition:
    target = _MOVES[event].get(status)
    if target is not None:
        return Transition(effect=Effect.MOVE, target=target)
    return Transition(effect=_OTHERS.get(event, {}).get(status, Effect.REFUSE), target=status)


TRANSITIONS: Mapping[tuple[JobStatus, JobEvent], Transition] = MappingProxyType(
    {(status, event): _entry(status, event) for status in JobStatus for event in JobEvent}
)
"""What every event does in every state."""


def transition(status: JobStatus, event: JobEvent) -> Transition:
    """Return what an event does to a job in a state."""
    return TRANSITIONS[status, event]


def sources(event: JobEvent) -> frozenset[JobStatus]:
    """Return the states that an event moves a job out of: the filter of the update that carries it out."""
    return frozenset(_MOVES[event])


def touched(event: JobEvent) -> frozenset[JobStatus]:
    """Return the states in which an event changes no state and extends the lease."""
    return frozenset(status for status, effect in _OTHERS.get(event, {}).items() if effect is Effect.TOUCH)


@dataclass(frozen=True, kw_only=True)
class JobLimits:
    """How long a job may take, and how long a silent runner keeps it."""

    heartbeat_timeout_s: float = 90.0
    """A lease lasts this long after the holder's last sign of life."""
    grace_s: float = 60.0
    """Added to the time-out of every iteration."""
    start_allowance_s: float = 600.0
    """Added once, for pull and boot."""
    max_pending_s: float = 7 * 86400.0
    max_duration_s: float = 100 * 365 * 86400.0
    """No job's limit as a whole is longer, whatever its iterations come to; by default what a date can hold."""


def needed_s(limits: JobLimits, *, timeout_s: float, iterations: int) -> float:
    """Return how many seconds a job asks for that uses all of its iterations' time, within the server's bound or not.

    Args:
        limits: The server's configuration.
        timeout_s: Limit of one iteration.
        iterations: How many there are; none still takes its pull and boot.
    """
    return iterations * (timeout_s + limits.grace_s) + limits.start_allowance_s


def time_limit(limits: JobLimits, *, timeout_s: float, iterations: int) -> timedelta:
    """Return how long a claimed job may take in all, counted from its claim; the arguments are those of `needed_s`."""
    return timedelta(seconds=min(needed_s(limits, timeout_s=timeout_s, iterations=iterations), limits.max_duration_s))


def expiry_event(
    *, now: datetime, limit_expires: datetime | None, began: bool, retries_left: int
) -> tuple[JobEvent, EndReason]:
    """Return what becomes of a job whose lease ran out.

    Args:
        now: The time at which that was noticed.
        limit_expires: When the job as a whole was to be over.
        began: Whether the benchmark was executed, as far as the server knows.
        retries_left: How often the job may go back to the queue.
    """
    if limit_expires is not None and now >= limit_expires:
        return JobEvent.LIMIT_EXPIRE, EndReason.JOB_TIMEOUT_EXCEEDED
    if retries_left > 0 and not began:
        return JobEvent.REQUEUE, EndReason.HEARTBEAT_TIMEOUT
    return JobEvent.LEASE_EXPIRE, EndReason.HEARTBEAT_TIMEOUT
