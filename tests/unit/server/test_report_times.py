from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from metalmark.server.report_times import measured_times

NOW = datetime(2026, 1, 31, 9, 15, tzinfo=UTC)
STARTED = NOW - timedelta(seconds=90)


def job(started: datetime | None = STARTED, **config: object) -> Any:
    return SimpleNamespace(started=started, config=config)


def test_a_report_lasts_from_the_start_of_its_job_until_its_results_are_read() -> None:
    assert measured_times(job(), now=NOW) == (STARTED, NOW)
    assert measured_times(job(None), now=NOW) == (NOW, NOW)


def test_a_backdate_moves_both_ends() -> None:
    then = datetime(2020, 1, 1, tzinfo=UTC)
    shown = measured_times(job(backdate="2020-01-01T01:00:00+01:00"), now=NOW)
    assert shown == (then, then + timedelta(seconds=90))


@pytest.mark.parametrize("backdate", [None, 7, "soon"])
def test_a_backdate_that_is_none_counts_for_nothing(backdate: object) -> None:
    assert measured_times(job(backdate=backdate), now=NOW) == (STARTED, NOW)


def test_neither_a_clock_set_back_nor_the_end_of_time_is_a_fault() -> None:
    assert measured_times(job(NOW + timedelta(seconds=5)), now=NOW) == (NOW + timedelta(seconds=5),) * 2
    last = measured_times(job(backdate="9999-12-31T23:59:59Z"), now=NOW)
    assert last[0] == last[1] == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
