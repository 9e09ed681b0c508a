"""Servers with a project, a spec and runners whose channels are talked to over real sockets, on both engines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest
from tests.integration.store.job_floor import Floor

from metalmark.model import ApiKey, JobStatus, KeyKind
from metalmark.server import ServerContext
from metalmark.server.job_desk import JobDesk
from metalmark.store import Connection, JobRecord, find_job, rotate_runner_key
from metalmark.store.job_moves import move_job
from metalmark.testing.postgresql import Cluster
from metalmark.testing.public_runner import PublicRunner
from metalmark.testing.running_server import RunningServer, running_server

T = TypeVar("T")
_RUNNERS: list[PublicRunner] = []


@dataclass
class Rack:
    """A server with a project and what tests of channels do to it."""

    server: RunningServer
    floor: Floor
    spec: UUID

    def call(self, function: Callable[[ServerContext], Awaitable[T]]) -> T:
        return self.server.call(function)

    def runner(self, *, poll_timeout_s: int = 1, spec: UUID | None = None) -> PublicRunner:
        """Make a runner with a spec of its own, so that tests do not take each other's jobs."""
        key = ApiKey.new(KeyKind.RUNNER)

        async def make(context: ServerContext) -> UUID:
            made = await self.floor.runner(*([spec] if spec else []))
            now = context.clock.now()

            async def work(connection: Connection) -> None:
                await rotate_runner_key(connection, runner_id=made, key_digest=key.digest, now=now)

            await context.store.write(work)
            return made

        made = PublicRunner(self.server.url, self.call(make), key.text, poll_timeout_s=poll_timeout_s)
        _RUNNERS.append(made)
        return made

    def own_spec(self, **values: Any) -> UUID:
        """Make a spec."""

        async def make(context: ServerContext) -> UUID:
            return await self.floor.spec(f"spec {uuid4().hex[:8]}", **values)

        return self.call(make)

    def submit(self, spec: UUID, **values: Any) -> str:
        """Submit a job for a spec and return its identifier."""
        config = {
            "registry": "http://localhost:6610/",
            "project": str(self.floor.project),
            "digest": "sha256:" + "0" * 64,
            "timeout": 60,
            "image": "adder:v3",
        }

        async def make(context: ServerContext) -> UUID:
            job = await self.floor.job(spec, now=context.clock.now(), **{"config": config, **values})
            return job.id

        return str(self.call(make))

    def job(self, job: str) -> JobRecord:
        """Return a job as it is stored."""

        async def read(context: ServerContext) -> JobRecord | None:
            return await JobDesk(context).read(UUID(job))

        found = self.call(read)
        assert found is not None
        return found

    def status(self, job: str) -> str:
        return str(self.job(job).status)

    def output(self, job: str) -> Any:
        """Return the stored final output of a job as JSON, or None."""
        import json

        async def read(context: ServerContext) -> Any:
            found = await JobDesk(context).read(UUID(job))
            if found is None or found.output_key is None:
                return None
            return json.loads(await context.blobs.get(found.output_key))

        return self.call(read)

    def move(self, job: str, event: Any) -> None:
        """Let an event of the server happen to a job, a cancellation for instance."""

        async def act(context: ServerContext) -> None:
            now = context.clock.now()

            async def work(connection: Connection) -> None:
                await move_job(connection, UUID(job), event, now=now)

            await context.store.write(work)

        self.call(act)

    def force(self, job: str, status: JobStatus) -> None:
        """Put a job into a state, whatever it was in."""
        from sqlalchemy import update

        from metalmark.store.tables import jobs

        async def act(context: ServerContext) -> None:
            async def work(connection: Connection) -> None:
                await connection.execute(update(jobs).where(jobs.c.id == UUID(job)).values(status=status.code))
                assert await find_job(connection, UUID(job)) is not None

            await context.store.write(work)

        self.call(act)


@contextmanager
def rack(folder: Path, database: str, *, storage: str | None = None, **settings: Any) -> Iterator[Rack]:
    with running_server(folder, database=database, storage=storage, settings=settings) as server:

        async def lay(context: ServerContext) -> tuple[Floor, UUID]:
            floor = Floor(store=context.store, now=datetime.now(UTC))
            await floor.lay()
            return floor, await floor.spec("shared")

        floor, spec = server.call(lay)
        try:
            yield Rack(server, floor, spec)
        finally:
            _hang_up()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def channel_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a database that the tests of channels share, once of each engine."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('channel')}/server.db"
        return
    cluster: Cluster = request.getfixturevalue("postgresql")
    with cluster.database() as url:
        yield url


@pytest.fixture(scope="session")
def racks(channel_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    """A server with leases longer than any test."""
    bounds: dict[str, Any] = {"server": {"message_max_bytes": 2 * 1024 * 1024}, "jobs": {"heartbeat_timeout_s": 60}}
    with rack(tmp_path_factory.mktemp("patient"), channel_database, **bounds) as made:
        yield made


@pytest.fixture
def hasty(database_url: str, tmp_path: Path) -> Iterator[Rack]:
    """A server of this test alone, with leases of a second."""
    with rack(tmp_path / "hasty", database_url, jobs={"heartbeat_timeout_s": 1, "grace_s": 1}) as made:
        yield made


@pytest.fixture(autouse=True)
def _hung_up() -> Iterator[None]:
    """No test leaves a connection open."""
    yield
    _hang_up()


def _hang_up() -> None:
    while _RUNNERS:
        _RUNNERS.pop().disconnect()
