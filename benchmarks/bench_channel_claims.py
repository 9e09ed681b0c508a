"""Claims a second through the channel: jobs that runners are sent over their connections, on both engines.

The server is a process of its own, the runners are WebSockets of our own protocol in another. Each has room for four
jobs, and asks for the next when it was sent one, as if each were done in no time. The clock runs from their first word
that they want jobs to the last of all jobs. A claim by this way is chosen, leased, written to disk, given a pull token,
and sent; the floor is `bench_claims`, which claims at the store alone.

PostgreSQL keeps its promises here (fsync is on), as SQLite does. What is measured is in a folder of $TMPDIR.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import anyio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.integration.store.job_floor import Floor

from metalmark.model import ApiKey, KeyKind
from metalmark.store import Connection, Store, rotate_runner_key
from metalmark.system import monotonic_s
from metalmark.testing.postgresql import find_postgresql, running_postgresql
from metalmark.testing.raw_channel import RawChannel
from metalmark.testing.server_process import UNLIMITED, ServerProcess

CAPABLE = {"os": "linux", "architecture": "x86_64", "sandboxes": ["firecracker"]}
SLOTS = 4
CONFIG = {
    "registry": "http://localhost:6610/",
    "project": "00000000-0000-7000-8000-000000000000",
    "digest": "sha256:" + "0" * 64,
    "timeout": 60,
}


async def prepare(url: str, runners: int, count: int) -> list[tuple[UUID, str]]:
    """Make runners of one spec, and jobs for them, before there is a server."""
    async with await Store.open(url) as store:
        floor = Floor(store=store, now=datetime.now(UTC))
        await floor.lay()
        spec = await floor.spec(f"spec of {runners}")
        made = []
        for _ in range(runners):
            key = ApiKey.new(KeyKind.RUNNER)
            runner = await floor.runner(spec)

            async def give_key(connection: Connection, runner: UUID = runner, key: ApiKey = key) -> None:
                await rotate_runner_key(connection, runner_id=runner, key_digest=key.digest, now=floor.now)

            await store.write(give_key)
            made.append((runner, key.text))
        for start in range(0, count, 500):

            async def submit(connection: Connection, size: int = min(500, count - start)) -> None:
                for _ in range(size):
                    await floor.submit(connection, spec, now=floor.now, config=CONFIG)

            await store.write(submit)
    return made


class Tally:
    """How many jobs all runners together were sent, and when they had the last."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()
        self.jobs: set[str] = set()
        self.ended_s = 0.0
        self.done = threading.Event()

    def add(self, job: str) -> None:
        """Count a job."""
        with self._lock:
            assert job not in self.jobs, "given out twice"
            self.jobs.add(job)
            if len(self.jobs) == self._left:
                self.ended_s = monotonic_s()
                self.done.set()


def take_jobs(channel: RawChannel, start: threading.Barrier, tally: Tally) -> None:
    """Be a runner until there are no more jobs."""
    said = {"version": "1", "process": os.urandom(8).hex(), "boot": "b", "capabilities": CAPABLE}
    channel.say(event="hello", id=1, **said)
    assert channel.hear()["event"] == "welcome"
    start.wait()
    received, number = 0, 2
    channel.say(event="ready", id=number, slots=SLOTS, received=received)
    while not tally.done.is_set():
        try:
            heard = channel.hear(within_s=0.5)
        except TimeoutError:
            continue
        if heard["event"] == "job":
            received, number = received + 1, number + 1
            tally.add(heard["job"])
            channel.say(event="ready", id=number, slots=SLOTS, received=received)


def measure(url: str, folder: Path, runners: int, count: int) -> None:
    """Print the rate with a number of runners."""
    made = anyio.run(prepare, url, runners, count)
    server = ServerProcess(folder=folder, settings={"database": url, "limits": UNLIMITED})
    server.start()
    try:
        tally, start = Tally(count), threading.Barrier(runners + 1)
        with ExitStack() as stack:
            threads = []
            for runner, key in made:
                headers = {"Authorization": f"Bearer {key}", "Sec-WebSocket-Protocol": "metalmark.1"}
                channel = stack.enter_context(RawChannel(server.url, f"/v0/runners/{runner}/channel", headers))
                threads.append(threading.Thread(target=take_jobs, args=(channel, start, tally), daemon=True))
                threads[-1].start()
            start.wait(60)
            began_s = monotonic_s()
            assert tally.done.wait(120), f"{len(tally.jobs)} of {count}"
            for thread in threads:
                thread.join(10)
        engine = url.partition(":")[0]
        rate = count / (tally.ended_s - began_s)
        print(f"{f'{engine}: claims a second through the channel, {runners} runners':58} {rate:8.0f}   (n={count})")
    finally:
        server.stop()


@contextmanager
def databases(folder: str) -> Iterator[list[str]]:
    """Give the addresses of a database of each engine."""
    storage = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=False).stdout
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"storage {storage.strip()}, {os.cpu_count()} processors, load {load}")
    urls = [f"sqlite:///{folder}/bench.db"]
    if find_postgresql() is None:
        print("PostgreSQL is not installed: SQLite only")
        yield urls
        return
    settings = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "autovacuum": "on"}
    with running_postgresql(**settings) as cluster, cluster.database() as url:
        yield [*urls, url]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a size of seconds")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder, databases(folder) as urls:
        for url in urls:
            for runners in (4,) if quick else (8, 64):
                where = Path(folder) / f"{url.partition(':')[0]}-{runners}"
                measure(url, where, runners, 60 if quick else 1000)


if __name__ == "__main__":
    main()
