"""A database without space, seen from outside: 503, nothing half-stored, and all is well once there is some."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event, func, select, text
from tests.integration.server.channel.conftest import Rack, rack

from metalmark.server import ServerContext
from metalmark.store import Connection
from metalmark.store.tables import metadata

DIGEST = "sha256:" + "0a" * 32
LARGE = {f"V{number}": "x" * 10_000 for number in range(40)}
"""What no page of the database that is left has room for."""


@pytest.fixture
def server(tmp_path: Path, database_url: str) -> Iterator[Rack]:
    """A server whose administrator has an organization, which projects that a run names are made in."""
    with rack(tmp_path / "server", database_url) as made:
        with made.server.client() as client:
            assert client.post("/v0/organizations", json={"name": "Acme"}).status_code == 201
        yield made


@contextmanager
def full(made: Rack) -> Iterator[None]:
    """Leave the database no space; on PostgreSQL where reports are stored, with the error of a full disk."""
    if made.server.context.store.engine_name == "sqlite":
        with _few_pages(made):
            yield
        return
    say = "BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END"
    _carry_out(
        made,
        f"CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS $$ {say} $$",
        "CREATE TRIGGER no_space BEFORE INSERT ON reports FOR EACH ROW EXECUTE FUNCTION no_space()",
    )
    try:
        yield
    finally:
        _carry_out(made, "DROP TRIGGER no_space ON reports", "DROP FUNCTION no_space()")


@contextmanager
def _few_pages(made: Rack) -> Iterator[None]:
    most = 0

    def limited(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA max_page_count = {most}")
        cursor.close()

    async def limit(context: ServerContext) -> Any:
        async def work(connection: Connection) -> Any:
            nonlocal most
            most = (await connection.execute(text("PRAGMA page_count"))).scalar_one()
            await connection.execute(text(f"PRAGMA max_page_count = {most}"))
            return connection.engine.sync_engine

        return await context.store.write(work)

    # The writer may connect anew after an error.
    engine = made.call(limit)
    event.listen(engine, "connect", limited)
    try:
        yield
    finally:
        event.remove(engine, "connect", limited)
        _carry_out(made, "PRAGMA max_page_count = 1073741823")


def _carry_out(made: Rack, *statements: str) -> None:
    async def act(context: ServerContext) -> None:
        async def work(connection: Connection) -> None:
            for statement in statements:
                await connection.execute(text(statement))

        await context.store.write(work)

    made.call(act)


def stored(made: Rack) -> dict[str, int]:
    """How many rows each table has, and how many blobs there are."""

    async def count(context: ServerContext) -> dict[str, int]:
        async with context.store.read() as connection:
            counts = {
                name: int((await connection.execute(select(func.count()).select_from(table))).scalar_one())
                for name, table in metadata.tables.items()
            }
        return {
            **counts,
            "blobs": len(await context.blobs.below("results")) + len(await context.blobs.below("outputs")),
        }

    return made.call(count)


def run(made: Rack, **fields: object) -> httpx.Response:
    body: dict[str, object] = {
        "start_time": "2026-03-01T10:00:00Z",
        "end_time": "2026-03-01T10:00:42Z",
        "context": {"bencher.dev/v0/repo/name": "Widgets"},
        "branch": "a-new-one",
        "results": [],
        **fields,
    }
    with made.server.client() as client:
        return client.post("/v0/run", json=body)


def test_a_run_that_finds_no_space_leaves_nothing_and_can_be_sent_again(server: Rack) -> None:
    before = stored(server)
    job = {"image": f"adder@{DIGEST}", "spec": str(server.spec), "env": LARGE}
    with full(server):
        refused = run(server, job=job)
        assert refused.status_code == 503, refused.text
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["request_id"] == refused.headers["x-request-id"]
        assert stored(server) == before
        with server.server.client() as client:
            # Who reads does not notice.
            assert client.get("/v0/specs").status_code == 200
    again = run(server, job=job)
    assert again.status_code == 201, again.text
    after = stored(server)
    assert [after[name] - before[name] for name in ("projects", "reports", "jobs", "blobs")] == [1, 1, 1, 0]


def test_results_that_find_no_space_for_their_report_do_not_stay(server: Rack) -> None:
    assert run(server).status_code == 201
    before, taken = stored(server), 0
    with full(server):
        # A page that is begun has room for a few more.
        while (answer := run(server, results=["{}"], branch="another")).status_code == 201:
            taken += 1
            assert taken < 500
        assert answer.status_code == 503, answer.text
        after = stored(server)
    assert [after[name] - before[name] for name in ("reports", "blobs")] == [taken, taken]
