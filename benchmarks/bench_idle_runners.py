"""Memory and CPU of a server while runners are connected and wait for jobs, by their number.

Each runner is a real WebSocket that said ``ready``; they live in another process. The floor is the same server without
any. CPU is that of the server's process in percent of one core, over ten seconds in which nothing happens.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from metalmark.system import monotonic_s
from metalmark.testing.server_process import UNLIMITED, ServerProcess

CLIENTS = """
import sys, time
from metalmark.testing.raw_channel import RawChannel
channels = []
for line in sys.stdin:
    runner, key = line.split()
    channel = RawChannel(sys.argv[1], f"/v0/runners/{runner}/channel", {"Authorization": f"Bearer {key}"})
    channel.say(event="ready", poll_timeout=900)
    channels.append(channel)
print("connected", flush=True)
time.sleep(600)
"""


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def make_runners(server: ServerProcess, count: int) -> list[tuple[str, str]]:
    """Make runners and return identifier and key of each."""
    headers = {"Authorization": f"Bearer {server.admin_key()}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=60) as client:
        answers = [client.post("/v0/runners", json={"name": f"idle {count}-{number}"}) for number in range(count)]
    made = [answer.raise_for_status().json() for answer in answers]
    return [(runner["uuid"], runner["key"]) for runner in made]


def measure(server: ServerProcess, count: int, seconds: float, floor_mib: float) -> float:
    """Print what a number of idle runners costs, and return the resident memory."""
    runners = make_runners(server, count)
    clients = None
    if runners:
        clients = subprocess.Popen(
            [sys.executable, "-c", CLIENTS, server.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert clients.stdin is not None and clients.stdout is not None
        began_s = monotonic_s()
        clients.stdin.write("".join(f"{runner} {key}\n" for runner, key in runners))
        clients.stdin.close()
        clients.stdout.readline()
        print(f"{count:>5} runners  connected in {monotonic_s() - began_s:6.2f} s")
        # What follows a connection, such as noting that the runner was seen, is not idleness.
        time.sleep(2)
    before = cpu_s(server.pid)
    time.sleep(seconds)
    used = (cpu_s(server.pid) - before) / seconds * 100
    memory = resident_mib(server.pid)
    each = f"{(memory - floor_mib) * 1024 / count:6.1f} KiB each" if count else ""
    print(f"{count:>5} runners  {memory:7.1f} MiB  {used:5.2f} % CPU  {each}")
    if clients is not None:
        clients.kill()
        clients.wait()
        assert clients.stdout is not None
        clients.stdout.close()
    return memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds, to keep it alive")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, most), most))
    with tempfile.TemporaryDirectory() as folder:
        server = ServerProcess(folder=Path(folder), settings={"limits": UNLIMITED})
        server.start()
        try:
            seconds = 2.0 if options.quick else 10.0
            floor_mib = measure(server, 0, seconds, 0.0)
            for count in (20,) if options.quick else (100, 1000):
                measure(server, count, seconds, floor_mib)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
