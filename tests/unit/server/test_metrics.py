from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from metalmark.model import JobStatus
from metalmark.server.metrics import Metrics


def test_what_happens_is_counted() -> None:
    metrics = Metrics()
    metrics.job_claimed(0.02)
    metrics.job_moved("running")
    metrics.channel_opened()
    text = metrics.exposition({"pending": 2}).decode()
    assert 'metalmark_claim_seconds_bucket{le="0.025"} 1.0' in text
    assert 'metalmark_claim_seconds_bucket{le="0.01"} 0.0' in text
    assert 'metalmark_job_transitions_total{status="running"} 1.0' in text
    assert "metalmark_runner_connections 1.0" in text
    assert 'metalmark_jobs{status="pending"} 2.0' in text


def test_every_state_is_there_from_the_start() -> None:
    text = Metrics().exposition({}).decode()
    for status in JobStatus:
        assert f'metalmark_job_transitions_total{{status="{status.value}"}} 0.0' in text


def test_an_invented_method_is_no_series_of_its_own() -> None:
    metrics = Metrics()
    for number in range(5):
        metrics.count_request(method=f"M{number}", route="none", status=405, took_s=0.1)
    assert 'metalmark_requests_total{method="other",route="none",status="405"} 5.0' in metrics.exposition({}).decode()


@pytest.mark.anyio
async def test_the_last_channel_is_waited_for() -> None:
    metrics = Metrics()
    metrics.channel_opened()
    metrics.channel_opened()
    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(30):
            tasks.start_soon(metrics.no_channels)
            await anyio.lowlevel.checkpoint()
            metrics.channel_closed()
            metrics.channel_closed()
    await metrics.no_channels()
