"""What is the container's own: runtimes, capabilities, system calls, its view of cgroups, the network."""

from __future__ import annotations

import shutil
import socket
import threading
from pathlib import Path

import pytest
from tests.machine.sandbox.host_boxes import driver_of, left_here, list_here, need_host_boxes, shell, started

from metalmark.model import SandboxName, SandboxUnavailable
from metalmark.sandbox import Driver
from metalmark.system import CgroupVersion, read_layout

pytestmark = [pytest.mark.anyio, pytest.mark.needs_root]


@pytest.fixture
async def driver(tmp_path: Path) -> Driver:
    need_host_boxes()
    made = driver_of(SandboxName.CONTAINER, tmp_path)
    found = await made.probe()
    if not found.usable:
        pytest.skip(found.reason)
    return made


@pytest.mark.parametrize("runtime", ["runc", "crun"])
async def test_a_runtime_works_or_says_why_not(runtime: str, tmp_path: Path) -> None:
    need_host_boxes()
    if shutil.which(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    made = driver_of(SandboxName.CONTAINER, tmp_path, oci_runtime=runtime)
    before = list_here(tmp_path)
    found = await made.probe()
    if found.usable:
        async with started(made, tmp_path) as box:
            assert (await shell(box, "echo works")).stdout == "works\n"
            assert runtime in box.facts.details["runtime"]
    else:
        # crun refuses a host whose controllers are on version 1 beside a version 2 tree.
        assert (runtime, read_layout().version) == ("crun", CgroupVersion.HYBRID), found.reason
        assert "hybrid" in found.reason
        with pytest.raises(SandboxUnavailable, match="hybrid"):
            async with started(made, tmp_path):
                pass
    assert await left_here(before, tmp_path) == {}


async def test_a_runtime_that_is_none(tmp_path: Path) -> None:
    need_host_boxes()
    for runtime, text in (("/no/such/runtime", "does not exist"), ("/bin/false", "--version failed")):
        found = await driver_of(SandboxName.CONTAINER, tmp_path, oci_runtime=runtime).probe()
        assert not found.usable
        assert text in found.reason


async def test_capabilities_and_system_calls(driver: Driver, tmp_path: Path) -> None:
    async with started(driver, tmp_path) as box:
        ran = await shell(
            box, "grep -E '^(CapBnd|Seccomp):' /proc/self/status; mount -t tmpfs x /mnt; dmesg; hostname x"
        )
        bounding = int(ran.stdout.split()[1], 16)
        assert bounding == 0xA00425FB, "Docker's default set without CAP_MKNOD"
        assert ran.stdout.split()[3] == "2", "a seccomp filter is on"
        assert ran.stderr.count("ermitted") + ran.stderr.count("denied") >= 3
        unprivileged = await shell(box, "grep CapEff /proc/self/status", user="worker")
        assert int(unprivileged.stdout.split()[1], 16) == 0


async def test_the_box_sees_its_own_limits(driver: Driver, tmp_path: Path) -> None:
    async with started(driver, tmp_path) as box:
        ran = await shell(
            box,
            "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes 2>/dev/null; cat /proc/self/cgroup",
        )
        assert ran.stdout.split()[0] == str(64 * 1024 * 1024)
        assert "metalmark" not in ran.stdout, "paths of the host are not shown"
        folder = "/sys/fs/cgroup" if read_layout().unified else "/sys/fs/cgroup/memory"
        assert "Read-only" in (await shell(box, f"mkdir {folder}/mine")).stderr


async def test_network_by_pasta_reaches_out_but_not_the_loopback(driver: Driver, tmp_path: Path) -> None:
    if shutil.which("pasta") is None:
        pytest.skip("pasta is not installed (package passt)")
    outside = _outside_address()
    if outside is None:
        pytest.skip("this machine has no route out")
    before = list_here(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        reached = threading.Event()
        threading.Thread(target=_accept, args=(listener, reached), daemon=True).start()
        async with started(driver, tmp_path, network=True) as box:
            ran = await shell(box, "ip -o -4 addr; ip route; cat /etc/resolv.conf")
            assert outside in ran.stdout, "the box has the host's address on an interface of its own"
            gateway = ran.stdout.split("default via ")[1].split()[0]
            for address in ("127.0.0.1", gateway, outside, "169.254.1.1", "10.0.2.2"):
                await shell(box, f"nc -w 1 {address} {port} </dev/null")
            assert not reached.is_set(), "a port of the host's loopback was reached"
    assert await left_here(before, tmp_path) == {}


def _accept(listener: socket.socket, reached: threading.Event) -> None:
    try:
        listener.accept()
    except OSError:
        return
    reached.set()


def _outside_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.123", 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])
