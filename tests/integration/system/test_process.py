"""Processes, started for real."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import anyio
import pytest

from metalmark.model import InputError, NoPermission, PhaseTimeout, ToolMissing
from metalmark.system import Child, find_tool, identity_of, is_alive, monotonic_s, own_identity, run, spawn, start_ticks

pytestmark = pytest.mark.anyio

FOREVER = ["sleep", "600"]


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def gone(pid: int) -> bool:
    return start_ticks(pid) is None


async def until_gone(pid: int) -> None:
    with anyio.fail_after(20):
        while not gone(pid):
            await anyio.sleep(0.01)


async def test_run_gives_both_streams_and_the_exit_code() -> None:
    done = await run(["sh", "-c", "printf out; printf err >&2; exit 7"], timeout_s=20)
    assert (done.stdout, done.stderr, done.returncode) == (b"out", b"err", 7)


async def test_run_names_the_signal() -> None:
    done = await run(["sh", "-c", "kill -TERM $$"], timeout_s=20)
    assert done.returncode == -signal.SIGTERM


async def test_output_over_the_bound_is_read_and_dropped() -> None:
    done = await run(["sh", "-c", "head -c 300000 /dev/zero; echo end >&2"], timeout_s=20, max_output_bytes=1000)
    assert done.stdout == bytes(1000)
    assert done.stderr == b"end\n"


async def test_run_does_not_wait_for_a_descendant_that_holds_the_pipes() -> None:
    start = monotonic_s()
    done = await run(["sh", "-c", "setsid sleep 600 & echo $!"], timeout_s=100)
    assert monotonic_s() - start < 50
    pid = int(done.stdout)
    os.kill(pid, signal.SIGKILL)
    await until_gone(pid)


async def test_time_out_kills_what_the_process_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(PhaseTimeout, match=r"phase sh .* 0\.5 s") as caught:
        await run(["sh", "-c", f"echo why >&2; sleep 600 & echo $! >{note}; wait"], timeout_s=0.5)
    assert "why" in caught.value.hint
    await until_gone(int(note.read_text()))


async def test_cancelling_run_kills_and_leaks_no_descriptor(tmp_path: Path) -> None:
    before = open_descriptors()
    note = tmp_path / "pid"
    async with anyio.create_task_group() as tasks:

        async def work() -> None:
            await run(["sh", "-c", f"echo $$ >{note}; exec sleep 600"], timeout_s=100)

        tasks.start_soon(work)
        with anyio.fail_after(20):
            while not note.exists() or not note.read_text().strip():
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert gone(int(note.read_text()))
    assert open_descriptors() == before


async def test_failing_to_start_leaks_no_descriptor(tmp_path: Path) -> None:
    before = open_descriptors()
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    with pytest.raises(ToolMissing, match="no-such-tool-anywhere"):
        await run(["no-such-tool-anywhere"], timeout_s=5)
    with pytest.raises(ToolMissing, match="not/here"):
        await run([str(tmp_path / "not/here")], timeout_s=5)
    with pytest.raises(NoPermission, match="plain"):
        await run([str(plain)], timeout_s=5)
    with pytest.raises(InputError, match="not a folder"):
        await run(["true"], timeout_s=5, cwd=plain)
    assert open_descriptors() == before


async def test_several_tasks_wait_for_one_child() -> None:
    child = spawn(FOREVER)
    seen: list[int] = []

    async def watch() -> None:
        seen.append(await child.wait())

    try:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(watch)
            await anyio.sleep(0.05)
            child.signal(signal.SIGTERM)
    finally:
        child.close()
    assert seen == [-signal.SIGTERM] * 3


async def test_closing_wakes_who_waits() -> None:
    child = spawn(FOREVER)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child.wait)
            await anyio.sleep(0.05)
            child.close()
    assert child.returncode == -signal.SIGKILL


async def test_after_the_end_signal_wait_and_close_are_harmless() -> None:
    child = spawn(["true"])
    assert await child.wait() == 0
    child.signal(signal.SIGKILL)
    child.close()
    child.close()
    assert await child.wait() == 0
    assert child.returncode == 0


async def test_cancelled_wait_leaves_the_child_running() -> None:
    child = spawn(FOREVER)
    try:
        with anyio.move_on_after(0.05):
            await child.wait()
        assert child.returncode is None
        identity = identity_of(child.pid)
        assert identity is not None
        assert is_alive(identity)
    finally:
        child.close()
    assert not is_alive(identity)


async def test_only_named_descriptors_are_inherited() -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        done = await run(["sh", "-c", "ls /proc/self/fd | wc -l"], timeout_s=20)
        with_one = await run(["sh", "-c", "ls /proc/self/fd | wc -l"], timeout_s=20, pass_fds=(write,))
    finally:
        os.close(read)
        os.close(write)
    assert int(with_one.stdout) == int(done.stdout) + 1


async def test_a_missing_cgroup_stops_the_start(tmp_path: Path) -> None:
    with (tmp_path / "err").open("wb") as errors:
        child = spawn(["true"], cgroup_procs=[tmp_path / "none" / "cgroup.procs"], stderr=errors)
        try:
            assert await child.wait() == 125
        finally:
            child.close()


async def test_it_writes_itself_into_every_cgroup_before_it_starts(tmp_path: Path) -> None:
    groups = [tmp_path / "a b", tmp_path / "c"]
    child = spawn(["sh", "-c", f"cat '{groups[0]}' {groups[1]} >{tmp_path}/seen"], cgroup_procs=groups)
    try:
        assert await child.wait() == 0
    finally:
        child.close()
    assert (tmp_path / "seen").read_text() == "0\n0\n"


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    # The parent is a Python process of its own that is killed, so nothing of it can tidy up.
    program = (
        "import sys, time; from metalmark.system import spawn; c = spawn(['sleep', '600']);"
        " print(c.pid, flush=True); time.sleep(600)"
    )

    async def scene() -> None:
        read, write = os.pipe()
        parent: Child = spawn([sys.executable, "-c", program], stdout=write)
        os.close(write)
        try:
            await anyio.wait_readable(read)
            pid = int(os.read(read, 100))
            assert not gone(pid)
            parent.signal(signal.SIGKILL)
            await parent.wait()
            await until_gone(pid)
        finally:
            parent.close()
            os.close(read)

    anyio.run(scene)


def test_a_zombie_is_not_alive() -> None:
    child = spawn(["true"])
    try:
        identity = identity_of(child.pid)
        deadline = monotonic_s() + 20
        while start_ticks(child.pid) is not None:
            assert monotonic_s() < deadline
        assert Path(f"/proc/{child.pid}").exists()
        assert identity is None or not is_alive(identity)
    finally:
        child.close()


def test_own_identity_is_alive() -> None:
    assert is_alive(own_identity())


@pytest.mark.parametrize("path", ["", ":", ".", "bin:/nowhere"])
async def test_no_tool_is_taken_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    for folder in (tmp_path, tmp_path / "bin"):
        folder.mkdir(exist_ok=True)
        (folder / "a-strangers-tool").write_text("#!/bin/sh\n")
        (folder / "a-strangers-tool").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ToolMissing):
        find_tool("a-strangers-tool", path=path)
    assert find_tool("a-strangers-tool", path=f"{path}:{tmp_path}/bin") == f"{tmp_path}/bin/a-strangers-tool"
