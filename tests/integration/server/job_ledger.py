"""What the database says happened to jobs, read without any of the code that let it happen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from sqlalchemy import text

from metalmark.store import Store

PENDING, CLAIMED, RUNNING, COMPLETED, PROCESSED, FAILED, CANCELED = range(7)
LEGAL = {
    "claim": {(PENDING, CLAIMED)},
    "start": {(CLAIMED, RUNNING)},
    "complete": {(CLAIMED, COMPLETED), (RUNNING, COMPLETED), (FAILED, COMPLETED)},
    "fail": {(CLAIMED, FAILED), (RUNNING, FAILED)},
    "runner_cancel": {(CLAIMED, CANCELED), (RUNNING, CANCELED)},
    "requeue": {(CLAIMED, PENDING), (RUNNING, PENDING)},
    "lease_expire": {(CLAIMED, FAILED), (RUNNING, FAILED)},
    "limit_expire": {(CLAIMED, CANCELED), (RUNNING, CANCELED)},
    "cancel": {(PENDING, CANCELED), (CLAIMED, CANCELED), (RUNNING, CANCELED)},
    "pending_expire": {(PENDING, CANCELED)},
    "process": {(COMPLETED, PROCESSED)},
    "process_fail": {(COMPLETED, FAILED)},
}
"""From where to where each event may take a job, written down from the documents and not from the program."""
ENDS = {"complete", "fail", "runner_cancel", "lease_expire", "limit_expire"}

Change: TypeAlias = tuple[str, int, int, int]
"""Event, status before, status after, number of the lease."""


async def check_ledger(store: Store) -> int:
    """Check the events of all jobs, and return how many events there are."""
    async with store.read() as connection:
        rows = await connection.execute(
            text("SELECT job_id, event, status_before, status_after, lease FROM job_events ORDER BY job_id, lease, id")
        )
        histories: defaultdict[object, list[Change]] = defaultdict(list)
        for job, event, before, after, lease in rows:
            histories[job].append((event, before, after, lease))
        now = {row.id: row.status for row in await connection.execute(text("SELECT id, status FROM jobs"))}
    check_histories(histories, now)
    return sum(map(len, histories.values()))


def check_histories(histories: Mapping[object, Sequence[Change]], now: Mapping[object, int]) -> None:
    """Check what happened to each job, in order, against what its row says now."""
    for job, history in histories.items():
        status, lease = PENDING, 0
        for event, before, after, number in history:
            assert before == status, f"{job}: {event} began in {before}, and the job was in {status}"
            assert (before, after) in LEGAL[event], f"{job}: {event} took it from {before} to {after}"
            lease += event == "claim"
            assert number == lease, f"{job}: {event} by lease {number}, and {lease} is the last"
            status = after
        assert now[job] == status, f"{job} is in {now[job]}, and its events end in {status}"
        events = [event for event, *_ in history]
        assert events.count("process") <= 1
        # A completion that was read and failed may be followed by another; apart from that there is one.
        assert events.count("complete") <= 1 + events.count("process_fail")
        leases = [number for event, _, _, number in history if event in ENDS - {"complete"}]
        assert len(leases) == len(set(leases)), f"{job}: a lease ended twice"
    assert all(status == PENDING for job, status in now.items() if job not in histories)
