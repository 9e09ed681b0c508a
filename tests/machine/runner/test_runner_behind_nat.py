"""A server and a runner in two network namespaces, the runner behind a third one that translates addresses.

Nothing of the runner's network is reachable from the server's: the runner's own connection has to do for everything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from metalmark.testing.rig import Rig, standing_rig

pytestmark = [pytest.mark.needs_root]

SERVER = "10.231.7.1"
NAT_OUTSIDE, NAT_INSIDE, RUNNER = "10.231.7.2", "10.231.8.1", "10.231.8.2"
RELAY = """
import asyncio, sys
async def carry(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def main(port, unix):
    async def both(reader, writer):
        there = await asyncio.open_unix_connection(unix)
        await asyncio.gather(carry(reader, there[1]), carry(there[0], writer), return_exceptions=True)
    async with await asyncio.start_server(both, "127.0.0.1", port) as server:
        await server.serve_forever()
asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
"""


@dataclass(frozen=True, kw_only=True)
class Nat:
    """Two namespaces: the translating one and the runner's."""

    router: str
    inside: str

    @property
    def inwards(self) -> list[str]:
        """Words before a command by which it runs behind the router, and sees everything else as it is."""
        return ["nsenter", f"--net=/run/netns/{self.inside}"]

    def ip(self, *words: str) -> None:
        done(["ip", *words])

    def cut(self, *, down: bool) -> None:
        """Take the router's outer link away, or bring it back; nobody is told."""
        self.ip("-n", self.router, "link", "set", "out", "down" if down else "up")
        if not down:
            self.ip("-n", self.router, "route", "replace", "default", "via", SERVER)


def done(command: list[str]) -> None:
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"{command}: {found.stderr}"


@pytest.fixture
def nat() -> Iterator[Nat]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    iptables = shutil.which("iptables")
    if iptables is None:
        pytest.skip("iptables is not installed (apt-get install iptables)")
    mark = f"mm{os.getpid()}"
    made = Nat(router=f"{mark}r", inside=f"{mark}i")
    with ExitStack() as stack:
        for name in (made.router, made.inside):
            made.ip("netns", "add", name)
            stack.callback(made.ip, "netns", "del", name)
            made.ip("-n", name, "link", "set", "lo", "up")
        made.ip("link", "add", mark, "type", "veth", "peer", "name", "out", "netns", made.router)
        made.ip("addr", "add", f"{SERVER}/24", "dev", mark)
        made.ip("link", "set", mark, "up")
        made.ip("-n", made.router, "addr", "add", f"{NAT_OUTSIDE}/24", "dev", "out")
        made.ip("-n", made.router, "link", "set", "out", "up")
        made.ip("-n", made.router, "route", "add", "default", "via", SERVER)
        made.ip("-n", made.router, "link", "add", "in", "type", "veth", "peer", "name", "eth0", "netns", made.inside)
        made.ip("-n", made.router, "addr", "add", f"{NAT_INSIDE}/24", "dev", "in")
        made.ip("-n", made.router, "link", "set", "in", "up")
        made.ip("-n", made.inside, "addr", "add", f"{RUNNER}/24", "dev", "eth0")
        made.ip("-n", made.inside, "link", "set", "eth0", "up")
        made.ip("-n", made.inside, "route", "add", "default", "via", NAT_INSIDE)
        within = ["ip", "netns", "exec", made.router]
        done([*within, "sysctl", "-qw", "net.ipv4.ip_forward=1"])
        done([*within, iptables, "-t", "nat", "-A", "POSTROUTING", "-o", "out", "-j", "MASQUERADE"])
        done([*within, iptables, "-A", "FORWARD", "-i", "out", "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP"])
        yield made


@pytest.fixture
def rig(nat: Nat, tmp_path: Path) -> Iterator[Rig]:
    """A server that listens on the outer network."""
    assert nat.router
    with standing_rig(tmp_path, host=SERVER, jobs={"heartbeat_timeout_s": 30}) as made:
        yield made


def test_a_runner_behind_nat_serves_jobs_and_survives_its_network(rig: Rig, nat: Nat, guest_kernels: Path) -> None:
    specs = {sandbox: rig.spec(f"small {sandbox}", sandbox) for sandbox in ("container", "qemu")}
    options = ["--allow-emulation"]
    runner = rig.runner("rig", *specs.values(), prefix=nat.inwards, options=options, kernels=guest_kernels)
    before = runner.leftovers()
    with relayed(rig, nat):
        runner.start()
        done_job = rig.wait_for(rig.submit(specs["container"], "sh", "-c", "echo hello"))
        assert done_job["status"] == "processed", runner.log()
        assert done_job["output"]["results"][0]["stdout"] == "hello\n"
    assert f'"{RUNNER}"' not in rig.server.log(), "the server sees the router, not the runner"
    # From here on the image is in the cache, and there is no registry that the runner could reach.
    for spec in specs.values():
        survives(rig, nat, spec)
    job = rig.submit(specs["container"], "sleep", "100")
    rig.wait_for(job, "running", phase="exec")
    rig.cancel(job)
    assert rig.wait_for(job)["status"] == "canceled"
    assert runner.stop() == 0, runner.log()
    assert f'"client": "{NAT_OUTSIDE}"' in rig.server.log()
    assert runner.leftovers() - before == {}


def survives(rig: Rig, nat: Nat, spec: str) -> None:
    """Run a job whose runner has no network for a while."""
    job = rig.submit(spec, "sh", "-c", "echo one; sleep 6; echo two")
    with rig.follow(job) as followed:
        followed.wait_for("one")
        nat.cut(down=True)
        time.sleep(4)
        nat.cut(down=False)
        found = rig.wait_for(job)
    assert found["status"] == "processed", rig.runners[0].log()
    assert followed.text() == found["output"]["results"][0]["stdout"] == "one\ntwo\n"


@contextmanager
def relayed(rig: Rig, nat: Nat) -> Iterator[None]:
    """Have the registry, which without TLS is on loopback alone, at the same address inside the runner's namespace."""
    unix = rig.folder / "registry.socket"
    port = rig.registry.name.partition(":")[2]
    outside = RELAY.replace("open_unix_connection(unix)", "open_connection('127.0.0.1', port)")
    outside = outside.replace('start_server(both, "127.0.0.1", port)', "start_unix_server(both, unix)")
    relays = [subprocess.Popen([sys.executable, "-c", outside, port, str(unix)])]
    try:
        deadline = time.monotonic() + 20
        while not unix.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        relays.append(subprocess.Popen([*nat.inwards, sys.executable, "-c", RELAY, port, str(unix)]))
        yield
    finally:
        for relay in relays:
            relay.kill()
            relay.wait()
