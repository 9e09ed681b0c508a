"""Two servers on one database: a runner at one of them, and everybody else at the other."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.server.channel.conftest import Rack, rack
from tests.integration.server.channel.test_output import events
from tests.integration.server.channel.test_own import greeted

from metalmark.model import JobEvent
from metalmark.testing.postgresql import Cluster
from metalmark.testing.raw_channel import PING, PONG, raw_channel
from metalmark.testing.running_server import RunningServer, running_server
from metalmark.testing.running_server import _started as started


@pytest.fixture
def pair(postgresql: Cluster, tmp_path: Path) -> Iterator[tuple[Rack, RunningServer]]:
    storage = str(tmp_path / "blobs")
    with postgresql.database() as database, rack(tmp_path / "one", database, storage=storage) as one:
        # The second one finds the administrator made.
        started[tmp_path / "two"] = one.server.admin_key
        with running_server(tmp_path / "two", database=database, storage=storage) as other:
            yield one, other


def test_a_job_crosses_from_one_to_the_other(pair: tuple[Rack, RunningServer], monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = pair
    elsewhere = Rack(other, one.floor, one.spec)
    monkeypatch.setattr("metalmark.server.channels._SETTLED_S", 0.0)
    monkeypatch.setattr("metalmark.server.channels.PONG_WITHIN_S", 1.0)
    spec = one.own_spec()
    runner = one.runner(spec=spec)
    with greeted(elsewhere, runner) as own:
        own.want(1)
        # Submitted at one, given to a runner that waits at the other.
        job = one.submit(spec)
        held = own.take()
        assert held["job"] == job
        own.tell(event="running", **held)
        chunk = {"iteration": 0, "stream": "stdout", "data": base64.b64encode(b"live").decode()}
        path = f"/v0/projects/{one.floor.project}/jobs/{job}/output"
        with one.server.client() as client, client.stream("GET", path, params={"follow": "true"}) as response:
            stream = events(response)
            assert next(stream)["event"] == "phase"
            own.tell(event="output", offset=0, chunks=[chunk], **held)
            assert json.loads(next(stream)["data"])["text"] == "live"
            one.move(job, JobEvent.CANCEL)
            assert own.hear("cancel") == {"event": "cancel", **held}
            assert next(stream)["event"] == "end"
        # The same runner at the other server: the first connection is asked, and then closed for its silence.
        with raw_channel(one.server.url, runner.runner, runner.key) as second:
            assert own.channel.frame(within_s=30).opcode == PING
            assert own.channel.closed(within_s=30).close_code == 4409
            second.send_frame(PONG, b"")
