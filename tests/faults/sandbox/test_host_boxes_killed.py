"""Whatever part of a container or none box is killed, the outcome is right and nothing stays."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from tests.machine.sandbox.host_boxes import (
    driver_of,
    image,
    left_here,
    list_here,
    need_host_boxes,
    remove_images,
    shell,
    started,
)

from metalmark.model import BoxLost, MetalmarkError, SandboxName, StableError
from metalmark.sandbox import Box
from metalmark.sandbox.leftovers import BoxRecord, SweepReport, sweep
from metalmark.system import BoxCgroup, CgroupLimits, folders, read_layout, run, spawn
from metalmark.wire import Exec

pytestmark = [pytest.mark.anyio, pytest.mark.needs_root]
RUNNER = Path(__file__).with_name("runner_process.py")
PHASES = ("record", "create", "start", "exec", "stop", "end")
SANDBOXES = (SandboxName.CONTAINER, SandboxName.NONE)


@pytest.fixture(scope="module", autouse=True)
def _images() -> object:
    yield
    remove_images()


@pytest.fixture
async def squashfs() -> Path:
    need_host_boxes()
    return await image("squashfs")


def _sweep(home: Path) -> SweepReport:
    return sweep(folders({"METALMARK_HOME": str(home)}))


def _start(sandbox: SandboxName, home: Path, squashfs: Path, *more: str, **env: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(RUNNER), sandbox, str(home), str(squashfs), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **env},
    )


def _go_to(runner: subprocess.Popen[bytes], wanted: str) -> None:
    assert runner.stdin is not None
    assert runner.stdout is not None
    for phase in PHASES:
        ready, _, _ = select.select([runner.stdout], [], [], 30)
        assert ready, f"phase {phase} was not reached"
        assert runner.stdout.readline().decode().strip() == phase
        if phase == wanted:
            return
        runner.stdin.write(b"\n")
        runner.stdin.flush()


def _kill(runner: subprocess.Popen[bytes]) -> None:
    runner.kill()
    runner.wait()
    assert runner.stdin is not None
    assert runner.stdout is not None
    runner.stdin.close()
    runner.stdout.close()


@pytest.mark.parametrize("sandbox", SANDBOXES)
@pytest.mark.parametrize("phase", PHASES)
async def test_runner_killed(sandbox: SandboxName, phase: str, tmp_path: Path, squashfs: Path) -> None:
    before = list_here(tmp_path)
    runner = _start(sandbox, tmp_path, squashfs)
    try:
        _go_to(runner, phase)
        alive = _sweep(tmp_path)
        assert alive.removed == (), "the box of a living owner is not touched"
        assert bool(alive.alive) == (phase != "end")
    finally:
        _kill(runner)
    report = _sweep(tmp_path)
    assert report.failed == ()
    assert bool(report.removed) == (phase != "end")
    assert await left_here(before, tmp_path) == {}
    assert _sweep(tmp_path).removed == (), "there is nothing to do a second time"


@pytest.mark.parametrize("sandbox", SANDBOXES)
async def test_runner_killed_in_the_middle_of_the_start(
    sandbox: SandboxName, tmp_path: Path, squashfs: Path, soak: bool
) -> None:
    before = list_here(tmp_path)
    for delay_ms in range(0, 70, 2) if soak else (3, 12, 25, 45):
        runner = _start(sandbox, tmp_path, squashfs, DIE_AFTER_MS=str(delay_ms))
        try:
            _go_to(runner, "create")
            assert runner.stdin is not None
            runner.stdin.write(b"\n")
            runner.stdin.flush()
            assert runner.wait(timeout=20) == -signal.SIGKILL
        finally:
            _kill(runner)
        assert _sweep(tmp_path).failed == ()
        assert await left_here(before, tmp_path) == {}, f"after {delay_ms} ms"


async def test_runner_killed_with_a_network(tmp_path: Path, squashfs: Path) -> None:
    if shutil.which("pasta") is None:
        pytest.skip("pasta is not installed (package passt)")
    before = list_here(tmp_path)
    runner = _start(SandboxName.CONTAINER, tmp_path, squashfs, "network")
    try:
        _go_to(runner, "exec")
    finally:
        _kill(runner)
    assert _sweep(tmp_path).failed == ()
    assert await left_here(before, tmp_path) == {}


def _kill_program(box: Box, name: bytes) -> None:
    found = 0
    for pid in box.cgroup.pids("agent"):  # type: ignore[attr-defined]
        with suppress(FileNotFoundError, ProcessLookupError):
            if name in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
                os.kill(pid, signal.SIGKILL)
                found += 1
    assert found, "the process to kill was not found"


@pytest.mark.parametrize("sandbox", SANDBOXES)
async def test_agent_killed(sandbox: SandboxName, tmp_path: Path) -> None:
    need_host_boxes()
    before = list_here(tmp_path)
    async with started(driver_of(sandbox, tmp_path), tmp_path) as box:
        execution = await box.exec(Exec(argv=("/bin/sleep", "77"), stream_bytes=64), lambda _stream, _data: None)
        _kill_program(box, b"metalmark-agent")
        with pytest.raises(BoxLost):
            await execution.wait()
        with pytest.raises(MetalmarkError):
            await shell(box, "true")
    assert await left_here(before, tmp_path) == {}


async def test_runtime_killed_is_not_the_end_of_the_command(tmp_path: Path) -> None:
    need_host_boxes()
    before = list_here(tmp_path)
    async with started(driver_of(SandboxName.CONTAINER, tmp_path), tmp_path) as box:
        _kill_program(box, b"runc")
        assert (await shell(box, "echo goes on")).stdout == "goes on\n"
    assert await left_here(before, tmp_path) == {}


async def test_a_sweep_undoes_what_only_a_record_tells_of(tmp_path: Path) -> None:
    """Mounts in the host's namespace, processes, cgroups and files outside: as another driver may have made them."""
    need_host_boxes()
    home = tmp_path / "home"
    outside = tmp_path / "a.sock"
    script = f"""
import os, subprocess
from metalmark.sandbox.leftovers import BoxRecord, Kind, note_process
from metalmark.system import BoxCgroup, CgroupLimits, MountFlag, folders, mount, read_layout
from pathlib import Path
context = BoxRecord.open(folders({{"METALMARK_HOME": {str(home)!r}}}), "swept-{os.getpid()}")
record = context.__enter__()
(record.workspace / "m").mkdir()
record.record(Kind.MOUNT, str(record.workspace / "m"))
mount("tmpfs", record.workspace / "m", "tmpfs")
record.record(Kind.FILE, {str(outside)!r})
open({str(outside)!r}, "w").close()
record.record(Kind.CGROUP, record.name)
group = BoxCgroup(read_layout(), record.name)
group.create(CgroupLimits(pids=9))
null = {{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}}
join = "; ".join(f"echo 0 >{{path}}" for path in group.procs_files("agent"))
subprocess.Popen(["/bin/sh", "-c", join + "; exec sleep 5151.{os.getpid()}"], start_new_session=True, **null)
note_process(record.workspace, subprocess.Popen(["sleep", "5152.{os.getpid()}"], **null).pid)
while not group.pids():
    pass
print("made", flush=True)
os.kill(os.getpid(), 9)
"""
    before = list_here(tmp_path)
    done = await run([sys.executable, "-c", script], timeout_s=30)
    assert done.stdout == b"made\n", done.error_text
    report = _sweep(home)
    assert report.failed == ()
    assert {item.kind for item in report.removed} >= {"mount", "file", "cgroup", "folder"}
    assert not outside.exists()
    assert await left_here(before, tmp_path) == {}
    assert _sleepers() == []


def _sleepers() -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if line.startswith(b"sleep\000515") and line.rstrip(b"\0").endswith(f".{os.getpid()}".encode()):
            found.append(folder.name)
    return found


async def test_two_boxes_cannot_have_one_name(tmp_path: Path) -> None:
    need_host_boxes()
    places = folders({"METALMARK_HOME": str(tmp_path)})
    group = BoxCgroup(read_layout(), f"twice-{os.getpid()}")
    group.create(CgroupLimits(pids=5))
    sleeper = spawn(["sleep", "60"])
    try:
        for file in group.procs_files("agent"):
            file.write_text(str(sleeper.pid))
        with pytest.raises(StableError, match="twice"):
            BoxCgroup(read_layout(), group.name).create(CgroupLimits(pids=5))
        assert sleeper.returncode is None, "the other box's processes go on"
        with BoxRecord.open(places, "same") as record:
            with pytest.raises(MetalmarkError, match="same"), BoxRecord.open(places, "same"):
                pass
            assert record.workspace.is_dir(), "the first one keeps its folder"
    finally:
        sleeper.close()
        assert group.remove()
