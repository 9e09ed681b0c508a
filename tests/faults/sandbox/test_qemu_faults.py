"""Virtual machines that are killed, stuck, or misbehave: the right error each time, and nothing left behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import pytest
from tests.machine.sandbox.host_boxes import left_here, list_here, shell
from tests.machine.sandbox.vm_boxes import Started, made, need_qemu, qemu_driver, started

from metalmark.model import MIB, BoxLost, MetalmarkError, NoSpace, PhaseTimeout
from metalmark.system import monotonic_s, run, sleep_s
from metalmark.wire import Ending

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("qemu_machine")]


@pytest.fixture
def qemu_machine() -> None:
    """A machine that can boot virtual machines."""
    need_qemu()


async def vmm_of(one: Started) -> int:
    """Wait for QEMU, and return its process id."""
    while one.box._process is None or one.box._process.child is None:
        await sleep_s(0.002)
    return one.vmm_pid


@pytest.mark.parametrize("after_s", [0.0, 0.15, 1.0], ids=["spawn", "kernel", "later"])
async def test_vmm_killed_while_it_boots(home_with_kernel: Path, after_s: float) -> None:
    before = list_here(home_with_kernel)
    found: list[MetalmarkError] = []
    async with made(qemu_driver(home_with_kernel)) as one, anyio.create_task_group() as tasks:

        async def start() -> None:
            try:
                await one.box.start()
            except MetalmarkError as error:
                found.append(error)

        tasks.start_soon(start)
        pid = await vmm_of(one)
        await sleep_s(after_s)
        if one.box.phases:
            pytest.skip(f"under KVM it has booted before {after_s} s")
        os.kill(pid, signal.SIGKILL)
    assert [type(error) for error in found] == [BoxLost]
    assert "signal 9" in str(found[0]) or "connection to QEMU" in str(found[0])
    assert await left_here(before, home_with_kernel) == {}


async def test_vmm_killed_under_a_command(home_with_kernel: Path) -> None:
    before = list_here(home_with_kernel)
    async with started(qemu_driver(home_with_kernel)) as one, anyio.create_task_group() as tasks:

        async def kill() -> None:
            await sleep_s(0.3)
            os.kill(one.vmm_pid, signal.SIGKILL)

        tasks.start_soon(kill)
        with pytest.raises(BoxLost, match="signal 9"):
            await shell(one.box, "sleep 60")
    assert await left_here(before, home_with_kernel) == {}


@pytest.mark.parametrize("script", ["echo c >/proc/sysrq-trigger", "reboot -f"], ids=["panic", "power-off"])
async def test_guest_that_ends_by_itself(home_with_kernel: Path, script: str) -> None:
    async with started(qemu_driver(home_with_kernel)) as one:
        found = None
        try:
            found = await shell(one.box, f"{script}; sleep 20")
        except BoxLost as error:
            assert "switched itself off" in str(error)
        else:
            # The box may refuse: then the command says so, and goes on.
            assert found.stderr or found.exited.ending is not Ending.EXITED


async def test_vmm_that_is_stuck_while_it_boots(home_with_kernel: Path) -> None:
    before = list_here(home_with_kernel)
    async with made(qemu_driver(home_with_kernel), boot_timeout_s=3.0) as one, anyio.create_task_group() as tasks:

        async def stick() -> None:
            os.kill(await vmm_of(one), signal.SIGSTOP)

        tasks.start_soon(stick)
        began_s = monotonic_s()
        with pytest.raises(PhaseTimeout):
            await one.box.start()
        assert monotonic_s() - began_s < 15
    assert await left_here(before, home_with_kernel) == {}


async def test_vmm_that_is_stuck_is_ended_all_the_same(home_with_kernel: Path) -> None:
    before = list_here(home_with_kernel)
    async with started(qemu_driver(home_with_kernel)) as one:
        os.kill(one.vmm_pid, signal.SIGSTOP)
        began_s = monotonic_s()
        await one.box.stop()
        assert monotonic_s() - began_s < 15
    assert await left_here(before, home_with_kernel) == {}


async def test_host_disk_that_is_full_ends_the_box_with_no_space(home_with_kernel: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = await run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(disk)], timeout_s=10)
    assert mounted.returncode == 0, mounted.error_text
    try:
        async with started(qemu_driver(home_with_kernel), disk_folder=disk, resources={"disk_bytes": 48 * MIB}) as one:
            with (disk / "hog").open("wb") as hog:
                hog.write(b"x" * 54 * MIB)
            with pytest.raises(NoSpace, match="host"):
                await shell(one.box, "dd if=/dev/zero of=/root/x bs=1M count=30 conv=fsync; sleep 20")
    finally:
        await run(["umount", str(disk)], timeout_s=10)


async def test_misbehaving_commands_leave_the_box_usable(home_with_kernel: Path) -> None:
    async with started(qemu_driver(home_with_kernel), resources={"disk_bytes": 24 * MIB, "pids": 48}) as one:
        full = await shell(one.box, "dd if=/dev/zero of=/root/x bs=1M count=64; echo code=$?; rm -f /root/x")
        assert "code=1" in full.stdout
        assert "No space left" in full.stderr
        forks = await shell(one.box, "f() { f | f & }; f; sleep 1; exit 5", limit_s=60)
        assert forks.exited.code == 5
        hog = await shell(one.box, "x=a; while :; do x=$x$x; done", limit_s=60)
        assert hog.exited.ending is Ending.OUT_OF_MEMORY
        flood = await shell(one.box, "head -c 8388608 /dev/zero", limit_s=60)
        assert flood.exited.stdout_bytes == 8 * MIB
        assert len(flood.stdout) == 1 * MIB
        assert (await shell(one.box, "echo fine")).stdout == "fine\n"
