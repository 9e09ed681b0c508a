"""``runner up`` as a process: its way in, its way out, and what it refuses."""

from __future__ import annotations

import json
import os
import pty
import time
from collections.abc import Iterator
from signal import SIGTERM
from typing import Any

import pytest

from metalmark.testing.leftover_listing import Listing, list_leftovers
from metalmark.testing.rig import Rig, standing_rig
from metalmark.testing.runner_process import RunnerProcess

pytestmark = [pytest.mark.needs_root]
STOP_OUTPUT = b"\x13"


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and cgroups")
    with standing_rig(tmp_path_factory.mktemp("rig")) as made:
        yield made


@pytest.fixture(scope="module")
def spec(rig: Rig) -> str:
    return rig.spec("box", "container")


def events(runner: RunnerProcess) -> list[dict[str, Any]]:
    """The lines of its log: each is an object."""
    return [json.loads(line) for line in runner.log().splitlines()]


def await_event(runner: RunnerProcess, event: str, *, seconds: float = 60) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for found in events(runner):
            if found["event"] == event:
                return found
        assert runner.alive, runner.log()
        time.sleep(0.05)
    raise AssertionError(runner.log())


def left_since(before: Listing, runner: RunnerProcess) -> dict[str, list[str]]:
    """Return what a runner left behind. Processes and cgroups say nothing of whose they are."""
    found = list_leftovers(runner.home) - before
    return {kind: names for kind, names in found.items() if kind not in ("processes", "cgroups")}


def test_sigterm_sees_the_job_through_and_takes_no_other(rig: Rig, spec: str) -> None:
    runner = rig.runner("drain", spec)
    before = list_leftovers(runner.home)
    runner.start()
    job = rig.submit(spec, "sh", "-c", "sleep 2; echo done")
    rig.wait_for(job, "running", phase="exec")
    runner.signal(SIGTERM)
    await_event(runner, "runner ends")
    other = rig.submit(spec, "true")
    assert runner.wait() == 0, runner.log()
    done = rig.job(job)
    assert (done["status"], done["output"]["results"][0]["stdout"]) == ("processed", "done\n")
    assert rig.job(other)["status"] == "pending"
    rig.cancel(other)
    assert left_since(before, runner) == {}


def test_a_stopped_terminal_costs_no_job_and_no_end(rig: Rig, spec: str) -> None:
    runner = rig.runner("mute", spec, environment={"TERM": "xterm"})
    ours, runner.errors = pty.openpty()
    try:
        runner.start()
        assert os.read(ours, 1)
        os.write(ours, STOP_OUTPUT)
        job = rig.submit(spec, "sh", "-c", "sleep 10; echo done")
        done = rig.wait_for(job)
        assert (done["status"], done["output"]["results"][0]["stdout"]) == ("processed", "done\n")
        began = time.monotonic()
        runner.signal(SIGTERM)
        assert runner.wait(seconds=20) == 0
        assert time.monotonic() - began < 15
    finally:
        os.close(ours)
        os.close(runner.errors)


@pytest.mark.parametrize("by", ["--drain-timeout", "a second signal"])
def test_job_that_goes_on_for_too_long_is_canceled(rig: Rig, spec: str, by: str) -> None:
    timed = by == "--drain-timeout"
    runner = rig.runner(f"cut {timed}", spec, options=["--drain-timeout", "0.5"] if timed else [])
    before = list_leftovers(runner.home)
    runner.start()
    job = rig.submit(spec, "sh", "-c", "echo begun; sleep 1000")
    rig.wait_for(job, "running", phase="exec")
    runner.signal(SIGTERM)
    if not timed:
        await_event(runner, "runner ends")
        runner.signal(SIGTERM)
    assert runner.wait(seconds=20) == 0, runner.log()
    done = rig.wait_for(job, seconds=5)
    assert done["status"] == "canceled"
    assert done["output"]["results"][0]["stdout"] == "begun\n"
    assert left_since(before, runner) == {}


def test_results_that_the_server_did_not_take_are_sent_after_the_next_start(rig: Rig, spec: str) -> None:
    runner = rig.runner("later", spec)
    runner.start()
    job = rig.submit(spec, "sh", "-c", "sleep 2; echo kept")
    rig.wait_for(job, "running", phase="exec")
    rig.server.kill()
    await_event(runner, "job ended")
    runner.kill()
    rig.server.start()
    assert rig.job(job)["status"] == "running"
    runner.start()
    done = rig.wait_for(job, seconds=60)
    assert (done["status"], done["output"]["results"][0]["stdout"]) == ("processed", "kept\n")
    assert runner.stop() == 0, runner.log()
    assert [path for path in (runner.home / "state/runner/results").rglob("*") if path.is_file()] != []
    assert {path.name for path in (runner.home / "state/runner/results").rglob("*") if path.is_file()} == {"in-use"}


def test_wrong_key_ends_it_with_a_code_of_its_own(rig: Rig, spec: str) -> None:
    runner = rig.runner("stranger", spec)
    runner.key = "bencher_runner_" + "0" * 30
    runner.start()
    assert runner.wait() == 77, runner.log()
    assert "hint:" in runner.log()


def test_second_process_of_a_runner_is_refused(rig: Rig, spec: str) -> None:
    first = rig.runner("twin", spec)
    first.start()
    await_event(first, "connected")
    second = RunnerProcess(home=first.home, url=first.url, runner=first.runner, key=first.key)
    second.start()
    try:
        assert second.wait() == 1
        assert "another process of this runner is at work" in second.log()
        assert first.alive
    finally:
        assert first.stop() == 0


def test_job_without_a_sandbox_needs_the_danger_flag(rig: Rig) -> None:
    spec = rig.spec("bare", None)
    careful = rig.runner("careful", spec)
    careful.start()
    await_event(careful, "connected")
    job = rig.submit(spec, "sh", "-c", "echo bare")
    time.sleep(0.5)
    assert rig.job(job)["status"] == "pending", "it is not given what it refuses"
    assert careful.stop() == 0
    daring = rig.runner("daring", spec, options=["--danger-allow-no-sandbox"])
    daring.start()
    done = rig.wait_for(job)
    assert (done["status"], done["output"]["host"]["sandbox"]) == ("processed", "none"), daring.log()
    assert daring.stop() == 0


def test_jobs_side_by_side_share_no_cpu(rig: Rig, spec: str) -> None:
    runner = rig.runner("wide", spec, options=["--slots", "2"])
    runner.start()
    jobs = [rig.submit(spec, "sh", "-c", "sleep 1") for _ in range(2)]
    done = [rig.wait_for(job) for job in jobs]
    assert {job["status"] for job in done} == {"processed"}
    # A daemon that kept what each job held would run out of descriptors one day.
    assert list((runner.home / "cache/images/leases").iterdir()) == []
    assert list((runner.home / "state/spool").glob("*/*.1")) == []
    spans = sorted((job["started"], job["completed"], tuple(job["output"]["host"]["cpus"])) for job in done)
    if os.cpu_count() == 2:
        # One CPU is for housekeeping, so that the second job waited for the first one's.
        assert spans[1][0] >= spans[0][1]
    else:
        assert not set(spans[0][2]) & set(spans[1][2])
    assert runner.stop() == 0
