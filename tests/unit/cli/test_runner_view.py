from __future__ import annotations

import io
from pathlib import Path
from uuid import UUID

import pytest
from rich.console import Console
from tests.unit.runner.assignments import CAPABLE, assignment

from metalmark.cli.runner_view import RunnerView
from metalmark.model import ChannelLost, Phase
from metalmark.runner import JobsInHand, ProvedMachine
from metalmark.runner.end_file import EndKind, EndOfJob
from metalmark.runner.result_spool import ResultSpool

pytestmark = pytest.mark.anyio
JOB = UUID("0197c3d4-0000-7000-8000-000000000001")


def seen(view: RunnerView) -> str:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(view.render())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def test_view_shows_connection_jobs_and_ends(tmp_path: Path) -> None:
    spool = ResultSpool(tmp_path)
    jobs = JobsInHand(spool)
    view = RunnerView("http://server", "quiet-1")
    view.proved(ProvedMachine(capabilities=CAPABLE, found={}, why_not={}, drivers={}))
    assert "quiet-1 at http://server: connecting" in seen(view)
    view.started(jobs)
    view.connected("metalmark.1", "1.0")
    assert "connected (metalmark.1)" in seen(view)
    assert "sandboxes: qemu, container" in seen(view)
    assert "waiting for jobs" in seen(view)
    jobs.take(assignment(JOB))
    assert "waiting to start" in seen(view)
    job = jobs.holding()[0]
    job.enter(Phase.EXEC, 2)
    shown = seen(view)
    assert str(JOB) in shown
    assert "small" in shown
    assert "exec of iteration 2" in shown
    spool.begin(JOB, 1)
    job.ended(spool.keep(JOB, 1, EndOfJob(kind=EndKind.FAILED, error="exit\x1b[31m 3"), lambda sink: sink.write(b"{}")))
    assert "failed: being sent" in seen(view)
    await jobs.acknowledged(JOB, 1)
    shown = seen(view)
    assert "exit" in shown
    assert "\x1b" not in shown
    assert "waiting for jobs" in shown


async def test_view_says_why_there_is_no_connection(tmp_path: Path) -> None:
    view = RunnerView("http://server", "quiet-1")
    view.disconnected(ChannelLost("the server hung up"), 3.0)
    assert "not connected: the server hung up" in seen(view)
    view.started(JobsInHand(ResultSpool(tmp_path)))
    view.draining()
    assert "no more jobs are taken" in seen(view)
