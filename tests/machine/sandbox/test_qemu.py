"""Boxes of QEMU, booted for real (emulated where there is no KVM)."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from tests.machine.ordinary_user import let_everybody_in
from tests.machine.sandbox.host_boxes import left_here, list_here, shell
from tests.machine.sandbox.vm_boxes import made, need_qemu, qemu_driver, started

from metalmark.model import MIB, BadBoot, BoxTooSmall, Phase, RootfsMode
from metalmark.sandbox import Accelerator, KvmState
from metalmark.sandbox.agent_binary import agent_binary
from metalmark.sandbox.vmm_user import FIRST_UID
from metalmark.system import find_tool, run, threads_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("qemu_machine")]


@pytest.fixture
def qemu_machine() -> None:
    """A machine that can boot virtual machines."""
    need_qemu()


async def test_box_is_as_it_was_asked_for(home_with_kernel: Path) -> None:
    driver = qemu_driver(home_with_kernel)
    availability = await driver.probe()
    assert availability.usable, availability.reason
    before = list_here(home_with_kernel)
    script = (
        "nproc; free -m | awk '/Mem:/{print $2}'; df -m / | awk 'END{print $2}'; hostname; id -u;"
        "cat /sys/devices/system/clocksource/clocksource0/current_clocksource; ls /sys/class/net; exit 7"
    )
    async with started(
        driver, resources={"vcpus": 2, "memory_bytes": 256 * MIB, "disk_bytes": 64 * MIB}, hostname="quiet"
    ) as one:
        found = await shell(one.box, script)
        cpus, memory, disk, host, user, clock, *interfaces = found.stdout.split()
        assert (cpus, host, user) == ("2", "quiet", "0")
        assert 150 <= int(memory) <= 256
        assert 40 <= int(disk) <= 64
        assert clock in ("tsc", "tsc-early", "kvm-clock")
        assert interfaces == ["lo"]
        assert found.exited.code == 7
        phases = {span.phase: span.duration_ns for span in one.box.phases}
        assert set(phases) == {Phase.SPAWN, Phase.KERNEL, Phase.AGENT}
        assert all(duration > 0 for duration in phases.values())
        await one.box.stop()
        facts = one.box.facts
        assert facts.accelerator is availability.accelerator
        assert facts.kernel.split("-")[0].count(".") == 2
        assert not [warning for warning in facts.warnings if "clock" in warning]
        if facts.accelerator is Accelerator.TCG:
            # One that is off by more is a bad boot; one that has measured nothing is not, and would be 0 here.
            assert 62.5e6 / 2 <= one.box.hello.timer_hz <= 62.5e6 * 2
    assert await left_here(before, home_with_kernel) == {}


async def test_ext4_root_is_written_to_directly(home_with_kernel: Path) -> None:
    async with started(qemu_driver(home_with_kernel), rootfs=RootfsMode.EXT4) as one:
        found = await shell(one.box, "awk '$2==\"/\"{print $3}' /proc/mounts; echo kept >/root/file && cat /root/file")
        assert found.stdout.split() == ["ext4", "kept"]


async def test_vcpu_threads_have_a_cpu_of_their_own(home_with_kernel: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    async with started(qemu_driver(home_with_kernel), cpus=(1,), helper_cpus=(0,)) as one:
        threads = await one.box._process.monitor.vcpu_threads()  # type: ignore[union-attr]
        assert [os.sched_getaffinity(thread) for thread in threads] == [{1}]
        # A write makes QEMU start threads for the disk; they inherit the helpers' CPUs.
        await shell(one.box, "dd if=/dev/zero of=/root/x bs=1M count=4 conv=fsync 2>/dev/null")
        others = [thread.tid for thread in threads_of(one.vmm_pid) if thread.tid not in threads]
        assert others
        assert all(os.sched_getaffinity(tid) == {0} for tid in others)


async def test_debug_boot_keeps_the_console(home_with_kernel: Path) -> None:
    async with started(qemu_driver(home_with_kernel), debug_boot=True) as one:
        assert "Linux version" in (one.spec.workspace / "console.log").read_text(errors="replace")


async def test_too_little_memory_is_told_before_a_boot(home_with_kernel: Path) -> None:
    with pytest.raises(BoxTooSmall, match="memory"):
        async with made(qemu_driver(home_with_kernel), resources={"memory_bytes": 48 * MIB}):
            pytest.fail("a box that cannot boot was made")


async def test_without_a_kernel_it_says_so_and_what_to_do(tmp_path: Path) -> None:
    found = await qemu_driver(tmp_path).probe()
    assert not found.usable
    assert "no guest kernel" in found.reason
    assert "metalmark host setup" in found.hint


async def test_device_that_is_no_kvm_falls_back_to_emulation(home_with_kernel: Path, tmp_path: Path) -> None:
    driver = qemu_driver(home_with_kernel, kvm_device=Path("/dev/null"))
    assert (await driver.kvm()).state is KvmState.EMULATED
    assert (await driver.probe()).accelerator is Accelerator.TCG


@contextmanager
def local_network() -> Iterator[str]:
    """An address of this machine that is not on its loopback."""
    name = f"mm{os.getpid() % 10000}"
    tool = find_tool("ip")
    assert os.system(f"{tool} link add {name}a type veth peer name {name}b") == 0
    try:
        os.system(
            f"{tool} addr add 198.51.100.1/30 dev {name}a; {tool} link set {name}a up; {tool} link set {name}b up"
        )
        yield "198.51.100.1"
    finally:
        os.system(f"{tool} link del {name}a")


async def test_a_guest_with_a_false_timer_is_a_bad_boot(
    home_with_kernel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = qemu_driver(home_with_kernel)
    if (await driver.probe()).accelerator is not Accelerator.TCG:
        pytest.skip("KVM works here: a guest has no timer that it must measure")
    monkeypatch.setattr("metalmark.sandbox.guest_clock._TIMER_HZ", 1_000)
    async with made(driver) as one:
        with pytest.raises(BadBoot, match="times as fast as it is"):
            await one.box.start()


async def test_qemu_of_root_is_a_stranger_without_privilege(home_with_kernel: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: an ordinary user's QEMU is that user")
    async with started(qemu_driver(home_with_kernel)) as one:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{one.vmm_pid}/status").read_text().splitlines())
        assert {int(word) for word in status["Uid"].split()} == {int(one.box.facts.details["user"])}
        assert int(status["Uid"].split()[0]) >= FIRST_UID
        assert status["Groups"].split() == []
        assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")} == {0}
        assert status["NoNewPrivs"].strip() == "1"


async def test_network_reaches_out_and_not_the_hosts_loopback(home_with_kernel: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: an interface of its own")
    if shutil.which("passt") is None:
        pytest.skip("passt is not installed")
    with local_network() as address, socket.create_server((address, 0)) as open_to_all:
        with socket.create_server(("127.0.0.1", 0)) as loopback:
            outside, inside = open_to_all.getsockname()[1], loopback.getsockname()[1]
            for server in (open_to_all, loopback):
                server.setblocking(False)
            async with started(qemu_driver(home_with_kernel), network=True) as one:
                script = f"timeout 4 nc -w 3 {address} {outside} </dev/null;"
                for host in ("10.0.2.2", "127.0.0.1"):
                    script += f"timeout 4 nc -w 2 {host} {inside} </dev/null;"
                async with anyio.create_task_group() as tasks:

                    async def answer() -> None:
                        await anyio.wait_readable(open_to_all)
                        connection, _ = open_to_all.accept()
                        connection.sendall(b"hello from outside\n")
                        connection.close()

                    tasks.start_soon(answer)
                    found = await shell(one.box, script)
                    tasks.cancel_scope.cancel()
                assert "hello from outside" in found.stdout
            with pytest.raises(BlockingIOError):
                loopback.accept()


_AS_A_USER = """
import anyio, sys
from pathlib import Path
from metalmark.model import Resources, RootfsMode, MIB
from metalmark.sandbox import BoxSpec, DriverSettings
from metalmark.sandbox.leftovers import BoxRecord
from metalmark.sandbox.qemu import QemuDriver
from metalmark.system import folders
from metalmark.wire import Exec

async def main():
    settings = DriverSettings(folders=folders({"METALMARK_HOME": sys.argv[1]}), agent=Path(sys.argv[3]))
    with BoxRecord.open(settings.folders, "user-box") as record:
        spec = BoxSpec(name=record.name, root=Path(sys.argv[2]), rootfs=RootfsMode.OVERLAY, workspace=record.workspace,
                       disk_folder=record.disk, resources=Resources(memory_bytes=192 * MIB, disk_bytes=32 * MIB))
        async with QemuDriver(settings).create(spec) as box:
            await box.start()
            request = Exec(argv=("/bin/sh", "-c", "echo from a box"), stream_bytes=1000)
            command = await box.exec(request, lambda stream, data: sys.stdout.write(data.decode()))
            print("code", (await command.wait()).code)
anyio.run(main)
"""


async def test_ordinary_user_needs_no_privilege(home_with_kernel: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    usable = [path for path in (sys.executable, "/usr/bin/python3") if await _usable(path)]
    if not usable:
        pytest.skip("no Python of this version that an ordinary user may run")
    from tests.machine.sandbox.host_boxes import image

    root = shutil.copy(await image("squashfs"), tmp_path / "root.sqfs")
    agent = shutil.copy(agent_binary("x86_64"), tmp_path / "agent")
    home = tmp_path / "user"
    shutil.copytree((home_with_kernel / "state/kernels").resolve(), home / "state/kernels")
    for path in (home, *home.rglob("*"), root, agent):
        os.chown(path, 65534, 65534)
    (home / "run").mkdir()
    os.chown(home / "run", 65534, 65534)
    let_everybody_in(tmp_path)
    paths = os.pathsep.join(path for path in sys.path if path)
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", f"PYTHONPATH={paths}", usable[0]]
    done = await run([*argv, "-c", _AS_A_USER, str(home), str(root), str(agent)], timeout_s=120, cwd=Path("/"))
    assert (done.stdout.decode(), done.returncode) == ("from a box\ncode 0\n", 0), done.error_text
    assert not list((home / "run/boxes").iterdir())


async def _usable(python: str) -> bool:
    check = f"import sys, pydantic, anyio; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    paths = os.pathsep.join(path for path in sys.path if path)
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", f"PYTHONPATH={paths}", python]
    return (await run([*argv, "-c", check], timeout_s=30, cwd=Path("/"))).returncode == 0
