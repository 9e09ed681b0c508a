"""What container and none do alike: commands, limits, accounting, clean-up. Each test runs on both."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from tests.machine.sandbox.host_boxes import driver_of, left_here, list_here, need_host_boxes, shell, started

from metalmark.model import GIB, MIB, BoxTooSmall, NoSpace, PhaseTimeout, RootfsMode, SandboxName
from metalmark.sandbox import Driver
from metalmark.system import monotonic_s
from metalmark.wire import Ending, Exec, Get

pytestmark = [pytest.mark.anyio, pytest.mark.needs_root]


@pytest.fixture(params=[SandboxName.CONTAINER, SandboxName.NONE], ids=str)
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Driver:
    need_host_boxes()
    made = driver_of(request.param, tmp_path)
    found = await made.probe()
    if not found.usable:
        pytest.skip(f"{request.param}: {found.reason}")
    return made


async def test_a_command_runs_with_the_image_alone(driver: Driver, tmp_path: Path) -> None:
    before = list_here(tmp_path)
    async with started(driver, tmp_path, hostname="bench-7") as box:
        ran = await shell(box, "hostname; cat /etc/hosts; ls /; exit 3")
        assert ran.exited.ending is Ending.EXITED
        assert ran.exited.code == 3
        assert ran.stdout.startswith("bench-7\n127.0.0.1")
        assert "work\n" in ran.stdout
        assert box.facts.sandbox is driver.name
        assert [span.phase for span in box.phases] == ["spawn", "kernel", "agent"]
        assert not [text for text in box.facts.warnings if "limit" in text]
        seen = await shell(
            box, "ls /root /home /lib* /usr 2>/dev/null; cat /proc/1/mountinfo | wc -l; ls -d /proc/[0-9]* | wc -l"
        )
        assert int(seen.stdout.split()[-1]) < 20, "the host's processes are seen"
    assert await left_here(before, tmp_path) == {}


async def test_users_are_the_images_and_numbers_are_the_same_outside(driver: Driver, tmp_path: Path) -> None:
    async with started(driver, tmp_path) as box:
        named = await shell(box, "id -u; id -g; id -G; touch /tmp/mine; stat -c %u /tmp/mine", user="worker")
        assert named.stdout.split() == ["1234", "1234", "1234", "4321", "1234"]
        numbered = await shell(box, "id -u; id -g", user="77:88")
        assert numbered.stdout.split() == ["77", "88"]
        # The process as the host sees it: no user namespace maps it.
        execution = await box.exec(
            Exec(argv=("/bin/sleep", "30.77"), user="worker", stream_bytes=1024), lambda _stream, _data: None
        )
        for _ in range(200):
            owners = [Path(f"/proc/{pid}").stat().st_uid for pid in _pids_of("sleep\x0030.77")]
            if owners == [1234]:
                break
            await shell(box, "sleep 0.02")
        assert owners == [1234]
        await execution.signal(9)
        assert (await execution.wait()).code == 9


def _pids_of(line: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if line in (folder / "cmdline").read_text():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


async def test_memory_limit_ends_the_whole_command(driver: Driver, tmp_path: Path) -> None:
    async with started(driver, tmp_path) as box:
        # Two bystanders in the same command; the kernel of a version 1 host would spare them.
        ran = await shell(
            box, "sleep 60 & sleep 60 & dd if=/dev/zero of=/dev/null bs=120M count=1; wait; echo survived"
        )
        assert ran.exited.ending is Ending.OUT_OF_MEMORY
        assert "survived" not in ran.stdout
        again = await shell(box, "echo fine")
        assert (again.exited.ending, again.stdout) == (Ending.EXITED, "fine\n"), "the next command starts afresh"


async def test_processes_are_limited(driver: Driver, tmp_path: Path) -> None:
    async with started(driver, tmp_path, resources={"pids": 16}) as box:
        ran = await shell(box, "i=0; while [ $i -lt 40 ]; do sleep 20 & i=$((i+1)); done; echo all")
        assert "fork" in ran.stderr
        assert "all" not in ran.stdout
        assert 8 <= ran.exited.left_killed <= 16


async def test_disk_is_limited(driver: Driver, tmp_path: Path) -> None:
    async with started(driver, tmp_path, resources={"disk_bytes": 16 * MIB}) as box:
        ran = await shell(
            box, "dd if=/dev/zero of=/big bs=64k count=400; sync; rm /big; echo room >/small && cat /small"
        )
        assert "No space left" in ran.stderr
        assert ran.stdout == "room\n"
        total = await shell(box, "df -k / | tail -1 | awk '{print $2}'")
        assert 8 * 1024 < int(total.stdout) <= 16 * 1024


async def test_cpus_are_bound(driver: Driver, tmp_path: Path) -> None:
    last = max(os.sched_getaffinity(0))
    async with started(driver, tmp_path, cpus=(last,)) as box:
        ran = await shell(box, "nproc; grep Cpus_allowed_list /proc/self/status")
        assert ran.stdout.split() == ["1", "Cpus_allowed_list:", str(last)]


async def test_without_cpus_time_is_limited(driver: Driver, tmp_path: Path) -> None:
    async with started(driver, tmp_path, cpus=()) as box:
        ran = await shell(box, "for i in 1 2 3; do timeout -s KILL 1 sh -c 'while :; do :; done' & done; wait")
        used_s = (ran.exited.user_us + ran.exited.system_us) / 1e6
        elapsed_s = (ran.exited.ended_ns - ran.exited.started_ns) / 1e9
        assert used_s < elapsed_s * 1.15 + 0.1, "one vCPU is one second a second"


async def test_time_and_memory_are_accounted_by_command(driver: Driver, tmp_path: Path) -> None:
    async with started(driver, tmp_path) as box:
        busy = await shell(box, "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
        idle = await shell(box, "true")
        busy_us = busy.exited.user_us + busy.exited.system_us
        idle_us = idle.exited.user_us + idle.exited.system_us
        assert busy_us > 20_000
        assert idle_us < busy_us / 2
        big = await shell(box, "dd if=/dev/zero of=/dev/null bs=20M count=1")
        assert 20 * MIB < big.exited.memory_peak_bytes < 64 * MIB


async def test_descendants_and_those_that_ignore_signals_end(driver: Driver, tmp_path: Path) -> None:
    before = list_here(tmp_path)
    async with started(driver, tmp_path) as box:
        ran = await shell(box, "(trap '' TERM INT HUP; setsid sh -c 'sleep 987' & sleep 988) & echo left")
        assert ran.stdout == "left\n"
        assert ran.exited.left_killed >= 1
        await box.exec(
            Exec(argv=("/bin/sh", "-c", "trap '' TERM INT; while :; do sleep 989; done"), stream_bytes=64),
            lambda _stream, _data: None,
        )
        began_s = monotonic_s()
    assert monotonic_s() - began_s < 8
    assert await left_here(before, tmp_path) == {}


async def test_a_fork_bomb_ends_with_its_box(driver: Driver, tmp_path: Path) -> None:
    before = list_here(tmp_path)
    async with started(driver, tmp_path, resources={"pids": 40}) as box:
        await box.exec(
            Exec(argv=("/bin/sh", "-c", "b() { b | b & }; while :; do b 2>/dev/null; done"), stream_bytes=64),
            lambda _stream, _data: None,
        )
        await shell(box, "sleep 0.2 2>/dev/null")
        began_s = monotonic_s()
    assert monotonic_s() - began_s < 10
    assert await left_here(before, tmp_path) == {}


async def test_a_writable_ext4_root(driver: Driver, tmp_path: Path) -> None:
    async with started(driver, tmp_path, rootfs=RootfsMode.EXT4) as box:
        ran = await shell(box, "echo x >/work/file && cat /work/file && grep ' / ' /proc/mounts")
        assert ran.stdout.startswith("x\n")
        assert " ext4 rw" in ran.stdout


async def test_files_go_in_and_out(driver: Driver, tmp_path: Path) -> None:
    source = tmp_path / "in.tar"
    with tarfile.open(source, "w") as tar:
        entry = tarfile.TarInfo("hello.txt")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"hello"))
    async with started(driver, tmp_path) as box:
        await box.copy_in("/work", source)
        assert (await shell(box, "cat /work/hello.txt")).stdout == "hello"
        data = bytearray()
        await box.copy_out(Get(patterns=("/work/*.txt",), max_bytes=MIB, max_files=9), data.extend)
        with tarfile.open(fileobj=io.BytesIO(bytes(data))) as tar:
            assert [member.name for member in tar.getmembers()] == ["work/hello.txt"]


async def test_no_network_unless_asked_for(driver: Driver, tmp_path: Path) -> None:
    async with started(driver, tmp_path) as box:
        ran = await shell(box, "ip -o link | cut -d: -f2; ip route; ping -c1 -W1 127.0.0.1 >/dev/null && echo loopback")
        assert ran.stdout.split() == ["lo", "loopback"]


@pytest.mark.parametrize(
    ("resources", "error"), [({"disk_bytes": 1 * MIB}, BoxTooSmall), ({"disk_bytes": 10**6 * GIB}, NoSpace)]
)
async def test_disks_that_cannot_be_leave_nothing(
    driver: Driver, tmp_path: Path, resources: dict[str, int], error: type[Exception]
) -> None:
    before = list_here(tmp_path)
    with pytest.raises(error):
        async with started(driver, tmp_path, resources=resources):
            pass
    assert await left_here(before, tmp_path) == {}


async def test_a_start_that_takes_too_long_leaves_nothing(driver: Driver, tmp_path: Path) -> None:
    before = list_here(tmp_path)
    with pytest.raises(PhaseTimeout):
        async with started(driver, tmp_path, boot_timeout_s=0.01):
            pass
    assert await left_here(before, tmp_path) == {}


async def test_etc_links_of_the_image_lead_nowhere(driver: Driver, tmp_path: Path) -> None:
    async with started(driver, tmp_path) as box:
        ran = await shell(
            box, "dd if=/dev/zero of=/etc/hosts bs=64k count=10; mknod /evil b 7 0 && cat /evil; echo end"
        )
        assert "No space" in ran.stderr, "what covers a file of /etc has a small disk of its own"
        assert "evil" in ran.stderr, "a device node of the image's does not open"
