"""Registries side by side for the benchmarks: ours on both engines, and Debian's docker-registry, and a client of them.

The client is as little as can be, so that what is measured is the registries: requests over one kept connection, bodies
out of memory, answers counted and thrown away. It speaks as docker and skopeo do: HEAD, POST, PATCH and PUT of a blob.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx
from figures import Figures

from metalmark.model import MIB
from metalmark.testing.postgresql import find_postgresql, running_postgresql
from metalmark.testing.server_process import UNLIMITED, ServerProcess, Settings, free_port

PEER = "docker-registry"
_START_S = 30
_TOKEN_S = 120.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LOCATION = re.compile(rb"\r\nlocation: *([^\r]+)", re.IGNORECASE)
_DROPPED = bytearray(4 * MIB)


def arguments(description: str | None) -> argparse.Namespace:
    """Read the options that these benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="seconds, to keep it alive")
    parser.add_argument("--rounds", type=int, metavar="N", help="measure so often")
    parser.add_argument("--only", action="append", metavar="NAME", help="of the registries, those whose name has this")
    return parser.parse_args()


@dataclass(frozen=True)
class Content:
    """Bytes that are sent: a few of their own, then a block again and again."""

    own: bytes
    block: memoryview
    size_bytes: int

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield them in pieces."""
        yield self.own
        left = self.size_bytes - len(self.own)
        while left > 0:
            yield self.block[:left]
            left -= len(self.block)

    @property
    def digest(self) -> str:
        """Their digest; takes as long as hashing them does."""
        hasher = hashlib.sha256()
        for piece in self.pieces():
            hasher.update(piece)
        return f"sha256:{hasher.hexdigest()}"


class Contents:
    """Gives contents that no registry has seen."""

    def __init__(self) -> None:
        self._block = memoryview(os.urandom(16 * MIB))

    def new(self, size_bytes: int) -> Content:
        """Return one."""
        return Content(os.urandom(min(16, size_bytes)), self._block, size_bytes)


@dataclass
class Registry:
    """A registry that serves."""

    name: str
    port: int
    pid: int
    repository: str
    key: str | None = None
    """A key of ours; the peer is open to all."""
    _token: tuple[str, float] = field(default=("", float("-inf")))

    def authorization(self) -> str:
        """Return a header, of a token as clients use it."""
        if self.key is None:
            return ""
        token, since = self._token
        if time.monotonic() - since > _TOKEN_S:
            basic = base64.b64encode(f"bench:{self.key}".encode()).decode()
            scope = f"repository:{self.repository}:pull,push,delete"
            answer = httpx.get(
                f"http://127.0.0.1:{self.port}/v0/auth/oci/token",
                params={"scope": scope},
                headers={"authorization": f"Basic {basic}"},
                trust_env=False,
            )
            token = answer.raise_for_status().json()["token"]
            self._token = (token, time.monotonic())
        return f"Authorization: Bearer {token}\r\n"

    def memory_bytes(self, name: str) -> int:
        """Return a figure of its process: ``VmRSS``, or ``VmHWM`` since `forget_peak`."""
        found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) * 1024 if found else 0

    def cpu_s(self) -> float:
        """Return the seconds of a processor that its process has used; the database's are not among them."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        """Begin to look for the largest memory anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


class Line:
    """One connection to a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._socket = socket.create_connection(("127.0.0.1", registry.port), timeout=300)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        content: Content | bytes | None = None,
        kind: str = "application/octet-stream",
        accept: str = "*/*",
        expect: int,
    ) -> bytes:
        """Send a request, take its whole answer, and return the head of it."""
        size = content.size_bytes if isinstance(content, Content) else len(content or b"")
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\n{self._registry.authorization()}"
        if method not in ("GET", "HEAD"):
            head += f"Content-Length: {size}\r\nContent-Type: {kind}\r\n"
        if isinstance(content, Content) and size > MIB:
            self._socket.sendall(head.encode() + b"\r\n")
            for piece in content.pieces():
                self._socket.sendall(piece)
        else:
            body = b"".join(content.pieces()) if isinstance(content, Content) else content or b""
            self._socket.sendall(head.encode() + b"\r\n" + body)
        return self._answer(method, expect)

    def _answer(self, method: str, expect: int) -> bytes:
        received = b""
        while b"\r\n\r\n" not in received:
            piece = self._socket.recv(65536)
            if not piece:
                raise SystemExit(f"{self._registry.name} has closed the connection: {received!r}")
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        left = (int(length[1]) if length and method != "HEAD" else 0) - len(body)
        while left > 0:
            count = self._socket.recv_into(_DROPPED, min(left, len(_DROPPED)))
            left -= count
            body += bytes(_DROPPED[:count]) if expect >= 400 else b""
        if int(head[9:12]) != expect:
            raise SystemExit(f"{self._registry.name}: {method}: {head.decode()}\n{body.decode(errors='replace')[:500]}")
        return head

    def push(self, content: Content, digest: str, *, asked: bool = True) -> None:
        """Push a blob as docker does."""
        repository = self._registry.repository
        if asked:
            self.ask("HEAD", f"/v2/{repository}/blobs/{digest}", expect=404)
        location = _location(self.ask("POST", f"/v2/{repository}/blobs/uploads/", expect=202))
        location = _location(self.ask("PATCH", location, content=content, expect=202))
        self.ask("PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", expect=201)

    def pull(self, digest: str) -> None:
        """Pull a blob."""
        self.ask("GET", f"/v2/{self._registry.repository}/blobs/{digest}", expect=200)


def _location(head: bytes) -> str:
    found = _LOCATION.search(head)
    assert found is not None
    return re.sub(r"^https?://[^/]+", "", found[1].decode())


def in_parallel(registry: Registry, lines: int, work: Sequence[Callable[[Line], None]]) -> None:
    """Share works out to some connections."""

    def carry_out(number: int) -> None:
        with Line(registry) as line:
            for one in work[number::lines]:
                one(line)

    with ThreadPoolExecutor(lines) as pool:
        list(pool.map(carry_out, range(lines)))


class Beside:
    """Seconds of several registries for the same things, taken in turns."""

    def __init__(self, figures: Figures, registries: Sequence[Registry]) -> None:
        self._figures = figures
        self._registries = registries
        self._seconds: dict[tuple[str, str], list[float]] = {}
        self._cpu: dict[tuple[str, str], float] = {}
        self._count: dict[str, tuple[float, str]] = {}

    def turn(self, number: int) -> Iterator[Registry]:
        """Yield the registries; of every second turn in the other order."""
        yield from self._registries if number % 2 == 0 else tuple(reversed(self._registries))

    def time(self, registry: Registry, name: str, work: Callable[[], None], count: float, unit: str) -> None:
        """Carry something out, and note what that took, of how many units."""
        registry.authorization()
        cpu_s, began_s = registry.cpu_s(), time.monotonic()
        work()
        self._seconds.setdefault((name, registry.name), []).append(time.monotonic() - began_s)
        self._cpu[name, registry.name] = self._cpu.get((name, registry.name), 0) + registry.cpu_s() - cpu_s
        self._count[name] = (count, unit)

    def tell(self) -> None:
        """Print and keep the rates: medians, and how much longer than the peer it took."""
        for (name, registry), seconds in self._seconds.items():
            count, unit = self._count[name]
            peer = self._seconds.get((name, PEER))
            # Turn by turn: what else the machine does then is the same for both.
            pairs = list(zip(seconds, peer, strict=True)) if peer else []
            ratio = round(statistics.median(own / other for own, other in pairs), 2) if pairs else None
            self._figures.row(
                registry,
                name,
                n=len(seconds),
                median=round(count / statistics.median(seconds), 1),
                least=round(count / max(seconds), 1),
                largest=round(count / min(seconds), 1),
                unit=unit,
                time_by_peers=ratio,
                cpu_ms_each=round(self._cpu[name, registry] * 1e3 / len(seconds) / count, 2),
            )


@contextmanager
def standing_registries(options: argparse.Namespace) -> Iterator[list[Registry]]:
    """Start the registries, each with a folder of its own on one disk."""
    if shutil.which(PEER) is None:
        print(f"skipped: {PEER} is not installed (scripts/packages/test)")
        sys.exit(0)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="metalmark-bench-")))
        wanted = [name for name in ("SQLite", "PostgreSQL", PEER) if _is_wanted(name, options.only)]
        found = []
        for name in wanted:
            if name == PEER:
                found.append(stack.enter_context(_peer(folder / name)))
            elif name == "SQLite":
                found.append(stack.enter_context(_ours(folder / name, name, {})))
            elif find_postgresql() is None:
                print("without PostgreSQL, which is not installed")
            else:
                cluster = stack.enter_context(running_postgresql(fsync="on", synchronous_commit="on"))
                database = stack.enter_context(cluster.database())
                found.append(stack.enter_context(_ours(folder / name, name, {"database": database})))
        yield found


def _is_wanted(name: str, only: Sequence[str] | None) -> bool:
    return not only or any(part.lower() in name.lower() for part in only)


@contextmanager
def _ours(folder: Path, engine: str, settings: Settings) -> Iterator[Registry]:
    server = ServerProcess(folder=folder, settings={**settings, "limits": UNLIMITED})
    try:
        server.start()
        key = server.admin_key()
        with httpx.Client(
            base_url=server.url, headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=30
        ) as client:
            organization = client.post("/v0/organizations", json={"name": "Bench"}).raise_for_status().json()["slug"]
            body = {"name": "bench"}
            project = client.post(f"/v0/organizations/{organization}/projects", json=body).raise_for_status().json()
        yield Registry(f"metalmark, {engine}", server.port, server.pid, f"{project['slug']}/app", key)
    finally:
        if server.alive:
            server.stop()


@contextmanager
def _peer(folder: Path) -> Iterator[Registry]:
    folder.mkdir()
    port = free_port()
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    path = folder / "config.yml"
    path.write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([PEER, "serve", str(path)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _START_S
        while not _listens(port):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield Registry(PEER, port, process.pid, "bench/app")
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
