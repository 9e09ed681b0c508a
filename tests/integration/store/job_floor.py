"""A project, specs and runners in a store, and jobs for them: what tests and benchmarks of dispatch stand on."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import insert

from metalmark.model import Demand, new_id
from metalmark.store import (
    Connection,
    JobRecord,
    NewJob,
    Store,
    add_runner_spec,
    create_runner,
    create_spec,
    insert_job,
)
from metalmark.store.tables import branches, heads, organizations, projects, reports, testbeds, versions

DEMAND = Demand(os="linux", architecture="x86_64", sandbox="firecracker", vcpus=1, memory_bytes=2**29, disk_bytes=2**30)


@dataclass(kw_only=True)
class Floor:
    """Identifiers of what was made."""

    store: Store
    now: datetime
    organization: UUID = field(default_factory=new_id)
    project: UUID = field(default_factory=new_id)
    head: UUID = field(default_factory=new_id)
    version: UUID = field(default_factory=new_id)
    testbed: UUID = field(default_factory=new_id)
    branch: UUID = field(default_factory=new_id)

    async def lay(self) -> None:
        """Make the project and what reports refer to."""
        await self.store.write(self._lay)

    async def _lay(self, connection: Connection) -> None:
        times = {"created": self.now, "modified": self.now}
        name = str(self.project)
        rows = (
            (organizations, {"id": self.organization, "name": name, "slug": name, **times}),
            (
                projects,
                {
                    "id": self.project,
                    "organization_id": self.organization,
                    "name": name,
                    "slug": name,
                    "visibility": "public",
                    **times,
                },
            ),
            (branches, {"id": self.branch, "project_id": self.project, "name": "main", "slug": "main", **times}),
            (heads, {"id": self.head, "branch_id": self.branch, "created": self.now}),
            (versions, {"id": self.version, "project_id": self.project, "number": 0}),
            (testbeds, {"id": self.testbed, "project_id": self.project, "name": "rack", "slug": "rack", **times}),
        )
        for table, values in rows:
            await connection.execute(insert(table).values(values))

    async def spec(self, name: str = "small", *, demand: Demand = DEMAND, anonymous: bool = False) -> UUID:
        """Make a spec."""
        from metalmark.model import ResourceName

        async def work(connection: Connection) -> UUID:
            made = await create_spec(
                connection, name=ResourceName(name), demand=demand, now=self.now, anonymous=anonymous
            )
            return made.id

        return await self.store.write(work)

    async def runner(self, *specs: UUID, name: str = "rack") -> UUID:
        """Make a runner that serves some specs."""
        from metalmark.model import ResourceName, Slug

        async def work(connection: Connection) -> UUID:
            slug = Slug(f"{name}-{new_id().hex}")
            made = await create_runner(
                connection, name=ResourceName(name), key_digest=new_id().hex, now=self.now, slug=slug
            )
            for spec in specs:
                await add_runner_spec(connection, runner_id=made.id, spec_id=spec, now=self.now)
            return made.id

        return await self.store.write(work)

    async def job(self, spec: UUID, *, now: datetime | None = None, **values: object) -> JobRecord:
        """Submit a job."""

        async def work(connection: Connection) -> JobRecord:
            return await self.submit(connection, spec, now=now or self.now, **values)

        return await self.store.write(work)

    async def submit(self, connection: Connection, spec: UUID, *, now: datetime, **values: object) -> JobRecord:
        """Submit a job in a write that is under way."""
        report = new_id()
        await connection.execute(insert(reports).values(self.report_values(report, now)))
        fields: dict[str, object] = {
            "report": report,
            "project": self.project,
            "organization": self.organization,
            "spec": spec,
            "source": "127.0.0.1",
            "anonymous": False,
            "own_image": True,
            "config": {"digest": "sha256:" + "0" * 64, "timeout": 60},
            "timeout_s": 60,
            "pending_expires": now + timedelta(days=7),
        }
        return await insert_job(connection, NewJob(**{**fields, **values}), now=now)  # type: ignore[arg-type]

    def report_values(self, report: UUID, now: datetime) -> dict[str, object]:
        """Return the row of an empty report."""
        return {
            "id": report,
            "project_id": self.project,
            "head_id": self.head,
            "version_id": self.version,
            "testbed_id": self.testbed,
            "adapter": "json",
            "start_time": now,
            "end_time": now,
            "created": now,
        }
