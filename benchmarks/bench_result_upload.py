"""Results to the server in MB/s: over the channel as the public runner sends them, and uploaded as our own does.

Each from the first byte to the acknowledgement, when the output is checked, stored, synced and read; what a runner does
before the first byte, hashing and connecting, is not counted. Of each size the median of some uploads. The floor is the
same bytes hashed, written to a file beside the database and synced. Server and runner are two threads of one process
here, so that they share one interpreter's CPU.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import structlog

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.integration.store.job_floor import Floor

from metalmark.model import MIB, ApiKey, KeyKind
from metalmark.server import ServerContext
from metalmark.store import Connection, rotate_runner_key
from metalmark.system import monotonic_s
from metalmark.testing.public_runner import PublicRunner
from metalmark.testing.raw_channel import RawChannel
from metalmark.testing.running_server import RunningServer, running_server


def report(what: str, size: int, times: int, measure: Callable[[], float]) -> None:
    """Print a series' point: the median of the seconds that it takes."""
    elapsed_s = statistics.median(measure() for _ in range(times))
    print(f"{what:<18} {size / MIB:6.1f} MiB {size / 1e6 / elapsed_s:8.1f} MB/s {elapsed_s * 1000:8.0f} ms")


def floor(folder: Path, document: bytes) -> float:
    """Hash, write and sync the same bytes, and return how many seconds that takes."""
    began_s = monotonic_s()
    hashlib.sha256(document).hexdigest()
    with (folder / "floor").open("wb") as stream:
        stream.write(document)
        stream.flush()
        os.fsync(stream.fileno())
    return monotonic_s() - began_s


class Rack:
    """A server with a project and a runner."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.key = ApiKey.new(KeyKind.RUNNER)

        async def lay(context: ServerContext) -> tuple[Floor, UUID, UUID]:
            made = Floor(store=context.store, now=datetime.now(UTC))
            await made.lay()
            spec = await made.spec()
            runner = await made.runner(spec)

            async def work(connection: Connection) -> None:
                await rotate_runner_key(connection, runner_id=runner, key_digest=self.key.digest, now=made.now)

            await context.store.write(work)
            return made, spec, runner

        self.floor, self.spec, self.runner = server.call(lay)

    def submit(self) -> None:
        """Submit a job."""
        config = {
            "registry": "http://localhost:6610/",
            "project": str(self.floor.project),
            "digest": "sha256:" + "0" * 64,
            "timeout": 60,
        }

        async def make(context: ServerContext) -> None:
            await self.floor.job(self.spec, now=context.clock.now(), config=config)

        self.server.call(make)

    def over_the_channel(self, size: int) -> float:
        """Deliver a job's results in one message, and return how many seconds that takes."""
        self.submit()
        runner = PublicRunner(self.server.url, self.runner, self.key.text, ack_within_s=60)
        job = runner.take()["uuid"]
        results = [{"exit_code": 0, "stdout": "x" * size}]
        began_s = monotonic_s()
        assert runner.complete(job, results) is not None
        took_s = monotonic_s() - began_s
        runner.disconnect()
        return took_s

    def uploaded(self, size: int) -> float:
        """Upload a job's output and say that the job ended, and return how many seconds that takes."""
        self.submit()
        headers = {"Authorization": f"Bearer {self.key.text}", "Sec-WebSocket-Protocol": "metalmark.1"}
        path = f"/v0/runners/{self.runner}"
        document = json.dumps({"results": [{"exit_code": 0, "stdout": "x" * size}]}).encode()
        checksum = hashlib.sha256(document).hexdigest()
        with (
            RawChannel(self.server.url, f"{path}/channel", headers, timeout_s=60) as channel,
            self.server.client(self.key.text) as client,
        ):
            assert client.get("/healthz").status_code == 200
            can = {"os": "linux", "architecture": "x86_64", "sandboxes": ["firecracker"]}
            channel.say(event="hello", id=0, version="0", process="p", boot="b", capabilities=can)
            channel.hear()
            channel.say(event="ready", id=1, slots=1, received=0)
            heard = [channel.hear(), channel.hear()]
            job = next(message for message in heard if message["event"] == "job")
            held = {"job": job["job"], "lease": job["lease"]}
            began_s = monotonic_s()
            query = {"lease": held["lease"], "checksum": checksum, "size": len(document)}
            answer = client.put(f"{path}/jobs/{held['job']}/output", params=query, content=document)
            assert answer.status_code == 200, answer.text
            channel.say(event="completed", id=2, uploaded={"checksum": checksum, "size_bytes": len(document)}, **held)
            assert channel.hear()["event"] == "ack"
            return monotonic_s() - began_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds, to keep it alive")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with tempfile.TemporaryDirectory() as name, running_server(Path(name) / "server") as server:
        rack = Rack(server)
        for size_mib in (1, 4) if options.quick else (1, 8, 32, 60):
            size, times = size_mib * MIB, 3 if options.quick else 7
            document = b"x" * size
            report("floor: hash, sync", size, times, lambda document=document: floor(Path(name), document))
            report("channel, completed", size, times, lambda size=size: rack.over_the_channel(size))
            report("PUT, then message", size, times, lambda size=size: rack.uploaded(size))


if __name__ == "__main__":
    main()
