"""Jobs that are stopped: by cancellation in each phase, by their time-out, and with their runner."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from metalmark.system import find_tool
from metalmark.testing.rig import Rig, standing_rig
from metalmark.testing.runner_process import RunnerProcess

pytestmark = [pytest.mark.needs_root]

SANDBOXES = ["container", "qemu"]
STUBBORN = "trap '' TERM INT; echo begun; while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and cgroups")
    with standing_rig(tmp_path_factory.mktemp("rig")) as made:
        yield made


@pytest.fixture(scope="module")
def specs(rig: Rig) -> dict[str, str]:
    return {sandbox: rig.spec(f"small {sandbox}", sandbox) for sandbox in SANDBOXES}


@pytest.fixture(scope="module")
def held_tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a runc that waits while there is a file ``hold`` beside it."""
    folder = tmp_path_factory.mktemp("tools")
    tool = folder / "runc"
    tool.write_text(f'#!/bin/sh\nwhile [ -e {folder}/hold ]; do /bin/sleep 0.05; done\nexec {find_tool("runc")} "$@"\n')
    tool.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def runner(rig: Rig, specs: dict[str, str], guest_kernels: Path, held_tools: Path) -> RunnerProcess:
    path = {"PATH": f"{held_tools}:{os.environ['PATH']}"}
    options = ["--allow-emulation"]
    made = rig.runner("rig", *specs.values(), options=options, environment=path, kernels=guest_kernels)
    made.start()
    # It tries its tools when it starts.
    rig.wait_for(rig.submit(specs["container"], "true"))
    return made


def boxes_of(runner: RunnerProcess) -> list[Path]:
    return [*runner.home.glob("run/boxes/*"), *runner.home.glob("cache/boxes/*")]


@pytest.mark.parametrize("phase", ["spawn", "exec"])
@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_canceled_job_leaves_an_empty_box(
    rig: Rig, specs: dict[str, str], runner: RunnerProcess, held_tools: Path, sandbox: str, phase: str
) -> None:
    hold = held_tools / "hold"
    if (sandbox, phase) == ("container", "spawn"):
        hold.touch()
    job = rig.submit(specs[sandbox], "sh", "-c", STUBBORN)
    rig.wait_for(job, "claimed", "running", phase=phase)
    rig.cancel(job)
    # What takes the box down is the same program.
    hold.unlink(missing_ok=True)
    canceled = time.monotonic()
    while boxes_of(runner):
        # A second is the aim, which benchmarks/bench_cancel.py measures; this only tells soon from never.
        assert time.monotonic() - canceled < 10, runner.log()[-4000:]
        time.sleep(0.01)
    assert rig.wait_for(job)["status"] == "canceled"
    assert rig.wait_for(rig.submit(specs["container"], "true"))["status"] == "processed", "the slot is free again"


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_time_out_ends_the_benchmark_when_it_is_over_and_keeps_what_it_printed(
    rig: Rig, specs: dict[str, str], runner: RunnerProcess, sandbox: str
) -> None:
    done = rig.wait_for(rig.submit(specs[sandbox], "sh", "-c", "echo begun; sleep 60", timeout=2))
    assert (done["status"], done["end_reason"]) == ("failed", "reported_failure"), runner.log()[-4000:]
    (result,) = done["output"]["results"]
    assert (result["outcome"], result["stdout"]) == ("timed_out", "begun\n")
    # How exactly is measured by benchmarks/bench_timeouts.py; it is never early.
    assert 2.0 <= result["wall_s"] < 12.0


def test_a_runner_on_its_way_out_finishes_its_job_and_takes_no_other(
    rig: Rig, specs: dict[str, str], runner: RunnerProcess
) -> None:
    job = rig.submit(specs["container"], "sh", "-c", "sleep 2; echo done")
    rig.wait_for(job, "running", phase="exec")
    runner.signal(signal.SIGTERM)
    later = rig.submit(specs["container"], "true")
    assert runner.wait(seconds=30) == 0, runner.log()[-4000:]
    done = rig.wait_for(job)
    assert (done["status"], done["output"]["results"][0]["stdout"]) == ("processed", "done\n")
    assert rig.job(later)["status"] == "pending"
    runner.start()
    assert rig.wait_for(later)["status"] == "processed"


def test_a_second_signal_cancels_the_job(rig: Rig, specs: dict[str, str], runner: RunnerProcess) -> None:
    job = rig.submit(specs["container"], "sh", "-c", STUBBORN)
    rig.wait_for(job, "running", phase="exec")
    runner.signal(signal.SIGTERM)
    time.sleep(0.3)
    assert runner.alive
    runner.signal(signal.SIGTERM)
    assert runner.wait(seconds=20) == 0, runner.log()[-4000:]
    done = rig.wait_for(job)
    # Nobody asked for it but the runner, so that it may be tried again.
    assert done["status"] in ("failed", "canceled"), done
    assert boxes_of(runner) == []
    runner.start()
