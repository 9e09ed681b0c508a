"""A runner whose disk is full while it keeps a job's output or its end: one right end, and the next job is served."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from metalmark.testing.rig import Rig, standing_rig
from metalmark.testing.runner_process import RunnerProcess

pytestmark = [pytest.mark.needs_root]

DISK_BYTES = 8 * 1024 * 1024
MUCH = ("sh", "-c", "yes 0123456789abcdef | head -c 2000000; echo; echo the last line")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and cgroups")
    with standing_rig(tmp_path, jobs={"heartbeat_timeout_s": 30}) as made:
        yield made


@pytest.fixture
def spec(rig: Rig) -> str:
    return rig.spec("small", "container")


@pytest.fixture
def runner(rig: Rig, spec: str) -> Iterator[RunnerProcess]:
    """A runner whose state is on a small disk."""
    made = rig.runner("rig", spec)
    state = made.home / "state"
    state.mkdir(mode=0o700, parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "none", state], check=True)
    try:
        made.start()
        done = rig.wait_for(rig.submit(spec, "true"))
        assert done["status"] == "processed", made.log()
        yield made
    finally:
        made.end()
        subprocess.run(["umount", state], check=True)


def fill(state: Path, *, leave_bytes: int) -> Path:
    """Take up all the room but so much."""
    filler = state / "filler"
    free = os.statvfs(state)
    with filler.open("wb") as stream:
        stream.write(b"\0" * max(0, free.f_bavail * free.f_bsize - leave_bytes))
    return filler


@pytest.mark.parametrize("leave_bytes", [0, 256 * 1024, 3 * 1024 * 1024], ids=["nothing", "the reserve", "the output"])
def test_a_full_disk_ends_a_job_once_and_the_next_is_served(
    rig: Rig, spec: str, runner: RunnerProcess, leave_bytes: int
) -> None:
    filler = fill(runner.home / "state", leave_bytes=leave_bytes)
    # Two megabytes of output: as it is kept while it comes, and as the document of the end, they need twice that.
    job = rig.submit(spec, *MUCH)
    done = rig.wait_for(job, seconds=60)
    assert done["status"] == "failed", runner.log()
    assert done["end_reason"] == "infrastructure", done["error"]
    assert "space" in done["error"].lower(), done["error"]
    filler.unlink()
    again = rig.wait_for(rig.submit(spec, *MUCH))
    assert again["status"] == "processed", runner.log()
    assert again["output"]["results"][0]["stdout"].endswith("\nthe last line\n")
    assert len(again["output"]["results"][0]["stdout"]) == 2_000_015
    runner.stop()
    assert [path.name for path in runner.home.glob("state/runner/results/*/*") if path.name != "in-use"] == []
    assert [path for path in runner.home.glob("state/spool/*/*") if path.name != "in-use"] == []
    assert list(runner.home.glob("run/boxes/*")) == []


def test_what_was_kept_before_the_disk_was_full_is_delivered(rig: Rig, spec: str, runner: RunnerProcess) -> None:
    job = rig.submit(spec, "sh", "-c", "echo kept; sleep 2")
    rig.wait_for(job, "running", phase="exec")
    # Small enough for the reserve: the end of a job in hand has its room already.
    fill(runner.home / "state", leave_bytes=0)
    rig.server.stop()
    rig.server.start()
    done = rig.wait_for(job, seconds=60)
    assert done["status"] in ("processed", "failed")
    if done["status"] == "failed":
        assert "space" in done["error"].lower(), done["error"]
    else:
        assert done["output"]["results"][0]["stdout"] == "kept\n"
