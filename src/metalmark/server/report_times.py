"""When the benchmark of a report ran, once its job has."""

from __future__ import annotations

from datetime import datetime, timedelta

from metalmark.model import InputError
from metalmark.store import JobRecord
from metalmark.wire import parse_date_time


def measured_times(job: JobRecord, *, now: datetime) -> tuple[datetime, datetime]:
    """Return the start and end that the report of a job gets.

    Args:
        job: One whose results are read.
        now: When they are.

    Returns:
        From the job's start until now; of the same length, but from its backdate, where it has one.
    """
    started = job.started or now
    taken = max(now - started, timedelta())
    start = _backdate(job) or started
    try:
        return start, start + taken
    except OverflowError:
        # A backdate at the end of the calendar.
        return start, start


def _backdate(job: JobRecord) -> datetime | None:
    said = job.config.get("backdate")
    try:
        return parse_date_time(said) if isinstance(said, str) else None
    except InputError:
        return None
