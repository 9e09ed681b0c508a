# ruff: noqa: TID251 - a test without an event loop waits for what other processes do
"""A whole installation on loopback: server processes, a registry with an image, runner processes, and jobs for them."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx

from metalmark.model import GIB, MIB
from metalmark.testing.busybox_root import busybox_tree
from metalmark.testing.followed_output import FollowedOutput
from metalmark.testing.images import FakeImage, FakeLayer
from metalmark.testing.registry import StandInRegistry
from metalmark.testing.runner_process import RunnerProcess
from metalmark.testing.server_process import UNLIMITED, ServerProcess, Settings

FINAL = frozenset(("processed", "failed", "canceled"))
ARCHITECTURE = os.uname().machine


@dataclass(kw_only=True)
class Rig:
    """What is there, and what tests do to it over HTTP."""

    folder: Path
    servers: list[ServerProcess]
    registry: StandInRegistry
    image: str
    """A busybox, as the server's configuration allows it."""
    busybox: FakeImage
    """The same."""
    key: str = ""
    """The administrator's."""
    project: str = ""
    runners: list[RunnerProcess] = field(default_factory=list)

    @property
    def server(self) -> ServerProcess:
        """The first of the servers."""
        return self.servers[0]

    def call(self, method: str, path: str, body: object = None, *, at: int = 0) -> Any:  # noqa: ANN401 - any JSON
        """Send a request to a server, and return the document that it answers with.

        Raises:
            AssertionError: The answer is no success.
        """
        headers = {"authorization": f"Bearer {self.key}"}
        # To verify nothing spares the reading of all authorities, which takes longer than most requests.
        with httpx.Client(timeout=30, trust_env=False, verify=False) as client:  # noqa: S501 - plain HTTP
            answer = client.request(method, self.servers[at].url + path, json=body, headers=headers)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def spec(
        self,
        name: str,
        sandbox: str | None,
        *,
        vcpus: int = 1,
        memory_bytes: int = 256 * MIB,
        disk_bytes: int = GIB // 8,
        network: bool = False,
    ) -> str:
        """Make a spec, and return its UUID."""
        hardware = {"cpu": vcpus, "memory": memory_bytes, "disk": disk_bytes, "network": network}
        body = {"name": name, "os": "linux", "architecture": ARCHITECTURE, **hardware}
        if sandbox is not None:
            body["sandbox"] = sandbox
        made: str = self.call("POST", "/v0/specs", body)["uuid"]
        return made

    def runner(
        self,
        name: str,
        *specs: str,
        url: str | None = None,
        options: Sequence[str] = (),
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        kernels: Path | None = None,
    ) -> RunnerProcess:
        """Register a runner of some specs. It is not started, and stopped with the rig.

        Args:
            name: Of the runner, and of its home.
            specs: UUIDs.
            url: Where it finds the server; directly by default.
            options: More words of its command line.
            prefix: Words before the command.
            environment: More variables.
            kernels: A folder of guest kernels for its microVMs.
        """
        made = self.call("POST", "/v0/runners", {"name": name})
        for spec in specs:
            self.call("POST", f"/v0/runners/{made['uuid']}/specs", {"spec": spec})
        home = self.folder / name
        if kernels is not None:
            (home / "state").mkdir(mode=0o700, parents=True)
            (home / "state/kernels").symlink_to(kernels)
        runner = RunnerProcess(
            home=home,
            url=url or self.server.url,
            runner=made["uuid"],
            key=made["key"],
            options=options,
            prefix=prefix,
            environment=environment or {},
        )
        self.runners.append(runner)
        return runner

    def submit(self, spec: str, *command: str, **fields: object) -> str:
        """Submit a job that runs a command in the image, and return its UUID."""
        body = {
            "project": self.project,
            "start_time": "2026-01-01T00:00:00Z",
            "end_time": "2026-01-01T00:00:00Z",
            "results": [],
            "job": {"image": self.image, "spec": spec, "timeout": 300, "cmd": list(command), **fields},
        }
        made: str = self.call("POST", "/v0/run", body)["job"]
        return made

    def job(self, job: str, *, at: int = 0) -> dict[str, Any]:
        """Return a job with its output."""
        found: dict[str, Any] = self.call("GET", f"/v0/projects/{self.project}/jobs/{job}", at=at)
        return found

    def cancel(self, job: str) -> None:
        """Cancel a job."""
        self.call("POST", f"/v0/projects/{self.project}/jobs/{job}/cancel")

    def follow(self, job: str, *, at: int = 0) -> FollowedOutput:
        """Follow the output of a job, from one of the servers."""
        return FollowedOutput(self.servers[at].url, f"/v0/projects/{self.project}/jobs/{job}", self.key)

    def wait_for(self, job: str, *statuses: str, seconds: float = 60, phase: str | None = None) -> dict[str, Any]:
        """Wait until a job is in one of some states (by default over), in a phase if one is named, and return it.

        Raises:
            AssertionError: It is not in time; the text has the logs of the runners.
        """
        wanted = frozenset(statuses) or FINAL
        deadline = time.monotonic() + seconds
        while True:
            found = self.job(job)
            for runner in self.runners:
                runner.note_boxes()
            if found["status"] in wanted and (phase is None or found["phase"] == phase):
                return found
            if time.monotonic() > deadline or (found["status"] in FINAL and not wanted & FINAL):
                logs = "\n".join(runner.log()[-3000:] for runner in self.runners)
                raise AssertionError(f"{json.dumps(found, indent=1)[:2000]}\n{logs}")
            time.sleep(0.02)


@contextmanager
def standing_rig(
    folder: Path,
    *,
    database: str | None = None,
    servers: int = 1,
    jobs: Settings | None = None,
    host: str = "127.0.0.1",
    tls: Settings | None = None,
    ca_file: Path | None = None,
) -> Iterator[Rig]:
    """Start servers and a registry; with the context all ends, the runners too.

    Args:
        folder: Where all files go.
        database: URL of the database; an SQLite file in the folder by default.
        servers: How many processes share it.
        jobs: The section ``jobs`` of their configuration.
        host: Address that they listen on, and that runners find them at.
        tls: The section ``tls`` of their configuration, for https.
        ca_file: Authority of that certificate.
    """
    with ExitStack() as stack:
        registry = stack.enter_context(StandInRegistry())
        settings: Settings = {
            "database": database or f"sqlite:///{folder}/server.db",
            "storage": str(folder / "storage"),
            "jobs": jobs or {},
            "limits": UNLIMITED,
            "registry": {"allowed": [registry.name]},
            "tls": tls or {},
            # Each process has another port, and takes what the others sign.
            "auth": {"issuer": "http://rig.example/"},
        }
        busybox = busybox_image(folder / "image")
        image = f"{registry.name}/busybox@{registry.push(busybox)}"
        rig = Rig(folder=folder, servers=[], registry=registry, image=image, busybox=busybox)
        stack.callback(_stop_all, rig)
        for number in range(servers):
            server = ServerProcess(folder=folder, settings=settings, name=f"server{number}", host=host, ca_file=ca_file)
            rig.servers.append(server)
            server.start()
        rig.key = rig.server.admin_key()
        organization = rig.call("POST", "/v0/organizations", {"name": "Rig"})["slug"]
        rig.project = rig.call("POST", f"/v0/organizations/{organization}/projects", {"name": "Rig"})["slug"]
        yield rig


def busybox_image(workspace: Path) -> FakeImage:
    """Return an image of one layer with Debian's static busybox, its applets, and a user ``worker``.

    Raises:
        FileNotFoundError: busybox-static is not installed.
    """
    tree = anyio.run(partial(busybox_tree, workspace / "tree"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(tree.rglob("*")):
            archive.add(path, path.relative_to(tree).as_posix(), recursive=False)
    return FakeImage(
        layers=[FakeLayer.plain(buffer.getvalue())],
        config={"Cmd": ["/bin/true"], "Env": ["PATH=/bin"]},
        architecture={"x86_64": "amd64", "aarch64": "arm64"}[ARCHITECTURE],
    )


def _stop_all(rig: Rig) -> None:
    for runner in rig.runners:
        runner.end()
    for server in rig.servers:
        if server.alive:
            server.stop()
