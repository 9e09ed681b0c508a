"""Channels of runners that were archived, or whose key was replaced, on both engines and across servers."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import update
from tests.integration.server.channel.conftest import Rack, rack
from tests.integration.server.channel.test_own import connected, greeted

from metalmark.server import ServerContext
from metalmark.store import MISSED, Connection
from metalmark.store.tables import runners
from metalmark.testing.postgresql import Cluster
from metalmark.testing.public_runner import PublicRunner
from metalmark.testing.raw_channel import HandshakeRefused, RawChannel, raw_channel
from metalmark.testing.running_server import _started as started
from metalmark.testing.running_server import running_server

RESULTS = [{"exit_code": 0, "stdout": "{}"}]
DISMISSED = (4401, "the key of this runner is no longer good")
SILENT = (1000, '"heartbeat_timeout"')


def archive(rack: Rack, runner: PublicRunner, *, archived: bool = True) -> None:
    with rack.server.client() as client:
        assert client.patch(f"/v0/runners/{runner.runner}", json={"archived": archived}).status_code == 200


def rotate(rack: Rack, runner: PublicRunner) -> None:
    with rack.server.client() as client:
        runner.key = client.post(f"/v0/runners/{runner.runner}/key").json()["key"]


def why_closed(channel: RawChannel) -> tuple[int | None, str]:
    frame = channel.closed(within_s=30)
    return frame.close_code, frame.payload[2:].decode()


def test_an_archived_runner_is_sent_away_and_its_job_stays_under_its_lease(racks: Rack) -> None:
    spec = racks.own_spec()
    runner, bystander = racks.runner(spec=spec), racks.runner()
    job = racks.submit(spec)
    assert runner.take()["uuid"] == job
    assert runner.channel is not None
    other_channel = bystander.connect()
    with raw_channel(racks.server.url, runner.runner, runner.key) as idle:
        archive(racks, runner)
        assert why_closed(runner.channel) == DISMISSED
        assert why_closed(idle) == DISMISSED
    assert racks.status(job) == "running"
    assert other_channel.is_silent(0.2), "another runner's channel stays"
    with pytest.raises(HandshakeRefused):
        RawChannel(racks.server.url, f"/v0/runners/{runner.runner}/channel", {"Authorization": f"Bearer {runner.key}"})
    # Brought back in time, it may still deliver what it has.
    archive(racks, runner, archived=False)
    runner.disconnect()
    runner.connect()
    assert runner.complete(job, RESULTS) == {"event": "ack", "job": job}
    assert racks.status(job) == "processed"
    runner.disconnect()
    bystander.disconnect()


def test_a_replaced_key_ends_what_it_opened_and_the_new_one_goes_on(racks: Rack) -> None:
    spec = racks.own_spec()
    runner = racks.runner(spec=spec)
    job = racks.submit(spec)
    with greeted(racks, runner) as own:
        own.want(1)
        held = own.take()
        # Of a job that it never spoke of it is taken not to have heard, and the job goes back to the queue.
        assert own.tell(event="heartbeat", jobs=[held])["lost"] == []
        rotate(racks, runner)
        assert why_closed(own.channel) == DISMISSED
    assert racks.status(job) == "claimed"
    with connected(racks, runner) as again:
        assert again.hello(process="p2", holding=[held])["held"] == [held]
        assert again.tell(event="completed", results=RESULTS, **held)["event"] == "ack"
    assert racks.status(job) == "processed"


def test_a_job_of_a_dismissed_runner_ends_with_its_lease(hasty: Rack) -> None:
    spec = hasty.own_spec()
    runner = hasty.runner(spec=spec)
    job = hasty.submit(spec)
    with greeted(hasty, runner) as own:
        own.want(1)
        own.tell(event="running", **own.take())
        archive(hasty, runner)
        # It says nothing more: with so short a lease its silence may be noticed before it is dismissed.
        assert why_closed(own.channel) in (DISMISSED, SILENT)
    from tests.integration.server.channel.test_own import wait_for

    wait_for(hasty, job, "failed")


def test_other_changes_of_a_runner_end_no_channel(racks: Rack) -> None:
    spec = racks.own_spec()
    runner = racks.runner(spec=spec)
    with greeted(racks, runner) as own, racks.server.client() as client:
        assert client.patch(f"/v0/runners/{runner.runner}", json={"name": "another name"}).status_code == 200
        assert client.delete(f"/v0/runners/{runner.runner}/specs/{spec}").status_code == 204
        # A close frame would come before the answer; a ping may, as whoever connected a second ago is asked for life.
        time.sleep(0.3)
        assert own.want(0)["event"] == "ack"


def test_what_one_server_is_told_the_other_does(postgresql: Cluster, tmp_path: Path) -> None:
    storage = str(tmp_path / "blobs")
    with postgresql.database() as database, rack(tmp_path / "one", database, storage=storage) as one:
        # The second one finds the administrator made.
        started[tmp_path / "two"] = one.server.admin_key
        with running_server(tmp_path / "two", database=database, storage=storage) as other:
            runner = one.runner()
            elsewhere = Rack(other, one.floor, one.spec)
            with greeted(elsewhere, runner) as own:
                rotate(one, runner)
                assert why_closed(own.channel) == DISMISSED
            with greeted(elsewhere, runner) as own:
                archive(one, runner)
                assert why_closed(own.channel) == DISMISSED


def test_a_key_that_was_replaced_while_no_notice_came_through_is_found_later(racks: Rack) -> None:
    runner, other = racks.runner(), racks.runner()

    async def replace(context: ServerContext) -> None:
        async def work(connection: Connection) -> None:
            await connection.execute(
                update(runners).where(runners.c.id == UUID(str(runner.runner))).values(key_hash="x")
            )

        await context.store.write(work)

    async def miss(context: ServerContext) -> None:
        context.store.notices.deliver([MISSED])

    with greeted(racks, runner) as own, greeted(racks, other) as stays:
        racks.call(replace)
        assert own.channel.is_silent(0.2), "nobody told the server"
        racks.call(miss)
        assert why_closed(own.channel) == DISMISSED
        assert stays.channel.is_silent(0.2)
