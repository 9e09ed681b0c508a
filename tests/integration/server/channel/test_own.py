"""The sub-protocol of our own runners, over real sockets."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.integration.server.channel.conftest import Rack

from metalmark.model import Demand, JobEvent, JobStatus, StoreAway
from metalmark.server.job_desk import JobDesk
from metalmark.store import MISSED
from metalmark.testing.public_runner import PublicRunner
from metalmark.testing.raw_channel import BINARY, CLOSE, PING, TEXT, RawChannel
from metalmark.wire import FRAME_MAX_BYTES, LeasedJob, read_from_server

RESULTS = [{"exit_code": 0, "stdout": "{}"}]
CAPABLE = {"os": "linux", "architecture": "x86_64", "sandboxes": ["firecracker", "qemu", "none"]}


class OwnRunner:
    """What a runner of ours says, message by message."""

    def __init__(self, channel: RawChannel) -> None:
        self.channel = channel
        self.last = 0
        self.received = 0
        self.pushed: list[dict[str, Any]] = []

    def tell(self, **message: Any) -> dict[str, Any]:
        """Send a message and return its answer; what the server says by itself meanwhile is kept."""
        self.last += 1
        self.channel.say(id=self.last, **message)
        while True:
            heard = self.channel.hear()
            if "re" in heard:
                assert heard["re"] == self.last
                return heard
            self.pushed.append(heard)

    def hear(self, event: str) -> dict[str, Any]:
        """Return what the server says by itself."""
        heard = self.pushed.pop(0) if self.pushed else self.channel.hear()
        assert heard["event"] == event, heard
        return heard

    def hello(self, **fields: Any) -> dict[str, Any]:
        said = {"version": "1", "process": "p1", "boot": "b1", "capabilities": CAPABLE, **fields}
        return self.tell(event="hello", **said)

    def want(self, slots: int = 1, **fields: Any) -> dict[str, Any]:
        return self.tell(event="ready", slots=slots, received=self.received, **fields)

    def take(self) -> dict[str, Any]:
        """Return the job that the server sends, with the fields that name it in messages."""
        job = self.hear("job")
        assert isinstance(read_from_server(json.dumps(job)), LeasedJob)
        self.received += 1
        return {"job": job["job"], "lease": job["lease"]}


@contextmanager
def connected(rack: Rack, runner: PublicRunner) -> Iterator[OwnRunner]:
    headers = {"Authorization": f"Bearer {runner.key}", "Sec-WebSocket-Protocol": "other, metalmark.1"}
    with RawChannel(rack.server.url, f"/v0/runners/{runner.runner}/channel", headers) as channel:
        assert channel.headers["sec-websocket-protocol"] == "metalmark.1"
        yield OwnRunner(channel)


@contextmanager
def greeted(rack: Rack, runner: PublicRunner, **fields: Any) -> Iterator[OwnRunner]:
    with connected(rack, runner) as own:
        assert own.hello(**fields)["event"] == "welcome"
        yield own


def wait_for(rack: Rack, job: str, status: str, *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while rack.status(job) != status:
        assert time.monotonic() < deadline, rack.status(job)
        time.sleep(0.05)


def test_several_jobs_share_a_connection_and_each_goes_its_way(racks: Rack) -> None:
    spec = racks.own_spec()
    runner = racks.runner(spec=spec)
    jobs = [racks.submit(spec) for _ in range(3)]
    with greeted(racks, runner) as own:
        assert own.want(2) == {"event": "ack", "re": 2, "lost": []}
        first, second = own.take(), own.take()
        assert [first["job"], second["job"]] == jobs[:2]
        assert own.channel.is_silent(0.3), "two were wanted"
        assert own.tell(event="phase", phase="pull", **first)["event"] == "ack"
        assert racks.job(first["job"]).phase == "pull"
        assert racks.status(first["job"]) == "claimed"
        assert own.tell(event="running", **first)["event"] == "ack"
        assert racks.job(first["job"]).began is not None
        assert own.tell(event="running", **second)["event"] == "ack"
        assert own.tell(event="completed", results=RESULTS, **first)["event"] == "ack"
        assert own.tell(event="failed", error="boom", results=RESULTS, **second)["event"] == "ack"
        assert own.tell(event="failed", error="boom", results=RESULTS, **second)["event"] == "ack", "told twice"
        assert [racks.status(job) for job in jobs] == ["processed", "failed", "pending"]
        assert racks.output(second["job"]) == {"results": RESULTS, "error": "boom"}
        own.want(1)
        assert own.take()["job"] == jobs[2]
    assert own.pushed == []


def test_jobs_on_their_way_are_not_wanted_twice(racks: Rack) -> None:
    spec = racks.own_spec()
    runner = racks.runner(spec=spec)
    with greeted(racks, runner) as own:
        own.want(1)
        racks.submit(spec)
        racks.submit(spec)
        own.hear("job")
        # The runner says this before it has read the job.
        assert own.want(1)["event"] == "ack"
        assert own.channel.is_silent(0.3)
        own.received = 1
        own.want(1)
        own.take()
        own.received = 3
        assert own.want(1)["reason"] == "invalid", "more than were sent"


def test_a_runner_that_has_room_still_makes_no_claim_go_back(racks: Rack) -> None:
    spec = racks.own_spec()
    jobs = [racks.submit(spec) for _ in range(10)]
    with greeted(racks, racks.runner(spec=spec)) as own:
        own.want(4)
        for _ in jobs:
            # Said while the next job is being claimed.
            own.take()
            own.want(4)
    assert [racks.job(job).lease for job in jobs] == [1] * len(jobs), "each was claimed once"


def test_a_job_that_is_not_wanted_any_more_goes_to_another(racks: Rack) -> None:
    spec = racks.own_spec()
    with greeted(racks, racks.runner(spec=spec)) as own, greeted(racks, racks.runner(spec=spec)) as other:
        own.want(1)
        own.want(0)
        job = racks.submit(spec)
        other.want(1)
        assert other.take()["job"] == job
        assert own.channel.is_silent(0.2)


def test_only_specs_that_fit_now_and_that_the_probes_proved_are_offered(racks: Rack) -> None:
    big = Demand(os="linux", architecture="x86_64", sandbox="container", vcpus=1, memory_bytes=1, disk_bytes=1)
    spec, unproved = racks.own_spec(), racks.own_spec(demand=big)
    runner = racks.runner(spec=spec)
    with racks.server.client() as client:
        added = client.post(f"/v0/runners/{runner.runner}/specs", json={"spec": str(unproved)})
        assert added.status_code == 201
    with greeted(racks, runner) as own:
        racks.submit(unproved)
        racks.submit(spec)
        own.want(2, specs=[])
        assert own.channel.is_silent(0.3)
        own.want(2, specs=[str(spec), str(unproved)])
        own.take()
        assert own.channel.is_silent(0.3), "container was not proved"


def test_a_cancellation_reaches_the_runner_at_once(racks: Rack) -> None:
    spec = racks.own_spec()
    racks.submit(spec)
    with greeted(racks, racks.runner(spec=spec)) as own:
        own.want(1)
        held = own.take()
        own.tell(event="running", **held)
        racks.move(held["job"], JobEvent.CANCEL)
        # Without a sign of life of the runner, which would be told of it then.
        assert own.hear("cancel") == {"event": "cancel", **held}
        assert own.tell(event="heartbeat", jobs=[held])["lost"] == [held]
        assert own.tell(event="canceled", results=RESULTS, **held)["event"] == "ack"
    assert racks.status(held["job"]) == "canceled"


def test_after_notices_were_missed_a_runner_hears_of_each_of_its_jobs(racks: Rack) -> None:
    spec = racks.own_spec()
    racks.submit(spec)
    with greeted(racks, racks.runner(spec=spec)) as own:
        own.want(1)
        held = own.take()
        own.tell(event="running", **held)
        # As a cancellation whose notice never came.
        racks.force(held["job"], JobStatus.CANCELED)

        async def reconnected(context: Any) -> None:
            context.store.notices.deliver([MISSED])

        racks.call(reconnected)
        assert own.hear("cancel") == {"event": "cancel", **held}


def test_a_lost_connection_ends_no_job(racks: Rack) -> None:
    spec = racks.own_spec()
    runner = racks.runner(spec=spec)
    racks.submit(spec)
    with greeted(racks, runner) as own:
        own.want(1)
        held = own.take()
        own.tell(event="running", **held)
        own.channel.cut()
    stale = {"job": held["job"], "lease": held["lease"] + 1}
    with connected(racks, runner) as own:
        assert own.hello(holding=[held])["held"] == [held]
        assert own.tell(event="attach", **held)["event"] == "ack"
        assert own.tell(event="attach", **stale)["reason"] == "stale_lease"
        racks.move(held["job"], JobEvent.CANCEL)
        assert own.hear("cancel") == {"event": "cancel", **held}
        assert own.tell(event="attach", **held)["reason"] == "stale_lease"
    with connected(racks, runner) as own:
        assert own.hello(holding=[held])["held"] == []


@pytest.mark.parametrize("event", ["running", "phase", "completed", "failed", "canceled", "output", "attach"])
def test_a_stale_or_foreign_lease_changes_nothing(racks: Rack, event: str) -> None:
    spec = racks.own_spec()
    job = racks.submit(spec)
    about: dict[str, Any] = {
        "phase": {"phase": "exec"},
        "completed": {"results": RESULTS},
        "failed": {"error": "e"},
        "output": {"offset": 0, "chunks": [{"iteration": 0, "stream": "stdout", "data": "QQ=="}]},
    }.get(event, {})
    with greeted(racks, racks.runner(spec=spec)) as own, greeted(racks, racks.runner()) as stranger:
        own.want(1)
        held = own.take()
        before = racks.job(job)
        for sender, lease in ((own, held["lease"] + 1), (stranger, held["lease"])):
            answer = sender.tell(event=event, job=job, lease=lease, **about)
            assert answer["event"] == "refused" and answer["reason"] == "stale_lease"
        unknown = "0197c3d4-0000-7000-8000-000000000001"
        assert own.tell(event=event, job=unknown, lease=1, **about)["reason"] == "stale_lease"
        assert stranger.tell(event="heartbeat", jobs=[held])["lost"] == [held]
    assert racks.job(job) == before


def test_messages_that_are_replayed_change_nothing(racks: Rack) -> None:
    spec = racks.own_spec()
    runner, job = racks.runner(spec=spec), racks.submit(spec)
    chunks = [{"iteration": 0, "stream": "stdout", "data": base64.b64encode(b"once").decode()}]
    said: list[dict[str, Any]] = [
        {"event": "running"},
        {"event": "phase", "phase": "exec"},
        {"event": "output", "offset": 0, "chunks": chunks},
        {"event": "completed", "results": RESULTS},
    ]
    with greeted(racks, runner) as own, racks.server.client() as client:
        own.want(1)
        held = own.take()
        for message in said:
            assert own.tell(**message, **held)["event"] == "ack"
            if message["event"] != "completed":
                assert own.tell(**message, **held)["event"] == "ack"
        before, path = racks.job(job), f"/v0/projects/{racks.floor.project}/jobs/{job}"
        assert str(before.status) == "processed"
        shown = client.get(f"{path}/output").text
        assert shown.count("event: output") == 1
        others = [{"event": "failed", "error": "e"}, {"event": "canceled"}, {"event": "attach"}]
        for message in (*said, {"event": "completed", "results": [{"exit_code": 1}]}, *others):
            own.tell(**message, **held)
        assert own.tell(event="heartbeat", jobs=[held])["lost"] == [held]
        assert racks.job(job) == before
        assert client.get(f"{path}/output").text == shown
        assert racks.output(job) == {"results": RESULTS}
    with connected(racks, runner) as own:
        assert own.hello(holding=[held])["held"] == []
        own.tell(event="completed", results=RESULTS, **held)
        assert racks.job(job) == before


def test_a_fault_of_the_machine_puts_the_job_back_once_and_not_when_it_began(racks: Rack) -> None:
    spec = racks.own_spec()
    job = racks.submit(spec, retry_allowed=True)
    with greeted(racks, racks.runner(spec=spec)) as own:
        own.want(1)
        first = own.take()
        own.tell(event="phase", phase="pull", **first)
        fault = {"event": "failed", "error": "pull: connection reset", "infrastructure": True}
        assert own.tell(**fault, **first)["event"] == "ack"
        assert racks.status(job) == "pending"
        own.want(1)
        second = own.take()
        assert second == {"job": job, "lease": first["lease"] + 1}
        assert own.tell(**fault, **first)["reason"] == "stale_lease"
        assert own.tell(**fault, **second)["event"] == "ack"
        assert racks.status(job) == "failed", "once"


def test_the_same_process_replaces_its_connection_and_another_one_is_asked(racks: Rack) -> None:
    runner = racks.runner()
    with greeted(racks, runner) as first, connected(racks, runner) as second:
        assert first.channel.frame().opcode == PING, "any second connection makes the server ask"
        second.hello()
        assert first.channel.closed().close_code == 4409
        second.want(0)


def test_a_runner_that_breaks_the_protocol_is_told_and_cut(racks: Rack) -> None:
    for say, code in (
        (lambda own: own.channel.say(id=1, event="ready", slots=1, received=0), 1002),
        (lambda own: own.channel.send_text("{"), 1002),
        (lambda own: own.channel.say(id=1, event="hello"), 1002),
        (lambda own: own.channel.send_frame(BINARY, b"x"), 1002),
    ):
        with connected(racks, racks.runner()) as own:
            say(own)
            assert own.channel.closed().close_code == code
    with greeted(racks, racks.runner()) as own:
        assert own.hello()["reason"] == "invalid", "hello is said once"
        own.channel.send_frame(BINARY, b"x")
        assert own.hear("refused") == {
            "event": "refused",
            "re": None,
            "reason": "invalid",
            "message": "messages are text",
        }
        own.channel.say(id=9, event="nap")
        assert own.channel.closed().close_code == 1002
    with greeted(racks, racks.runner()) as own:
        own.channel.send_text(json.dumps({"event": "x" * FRAME_MAX_BYTES}))
        assert own.channel.closed().close_code == 1009


def test_the_first_message_is_bounded_before_it_is_read(hasty: Rack) -> None:
    with connected(hasty, hasty.runner()) as own:
        # Fin and text, masked, a length of eight bytes, the mask; of what it announces nothing was sent yet.
        own.channel.socket.sendall(b"\x81\xff" + (FRAME_MAX_BYTES + 1).to_bytes(8, "big") + bytes(4))
        assert own.channel.closed().close_code == 1009
    with connected(hasty, hasty.runner()) as own:
        own.channel.socket.sendall(b"\x81\xff" + FRAME_MAX_BYTES.to_bytes(8, "big") + bytes(4))
        assert own.channel.is_silent(0.3)


def test_results_that_were_uploaded_are_named_by_their_checksum(racks: Rack) -> None:
    spec = racks.own_spec()
    runner = racks.runner(spec=spec)
    job = racks.submit(spec)
    document = json.dumps({"results": RESULTS}).encode()
    checksum = hashlib.sha256(document).hexdigest()
    uploaded = {"checksum": checksum, "size_bytes": len(document)}
    with greeted(racks, runner) as own, racks.server.client(runner.key) as client:
        own.want(1)
        held = own.take()
        own.tell(event="running", **held)
        assert own.tell(event="completed", uploaded=uploaded, **held)["reason"] == "not_uploaded"
        query = {"lease": str(held["lease"]), "checksum": checksum, "size": str(len(document))}
        path = f"/v0/runners/{runner.runner}/jobs/{job}/output"
        assert client.put(path, params=query, content=document).json() == {"offset": len(document), "complete": True}
        assert own.tell(event="completed", **held)["reason"] == "invalid", "there are no results"
        assert own.tell(event="completed", uploaded=uploaded, **held)["event"] == "ack"
    assert racks.status(job) == "processed"
    assert racks.output(job) == {"results": RESULTS}
    assert racks.job(job).iteration_ends is None, "the runner did not say how they ended"
    assert racks.job(job).output_digest == f"sha256:{checksum}"


@pytest.mark.parametrize("event", ["completed", "failed"])
def test_how_iterations_ended_is_shown_without_the_output(racks: Rack, event: str) -> None:
    spec = racks.own_spec()
    runner = racks.runner(spec=spec)
    jobs = [racks.submit(spec) for _ in range(2)]
    code = 0 if event == "completed" else 3
    end = {"exit_code": code, "outcome": "exited", "wall_s": 1.5}
    large = json.dumps({"results": [{**end, "stdout": "x" * 3_000_000}]}).encode()
    checksum = hashlib.sha256(large).hexdigest()
    error = {"error": "exit code 3"} if code else {}
    ends = [{"iteration": 1, **end}]
    with greeted(racks, runner) as own, racks.server.client(runner.key) as client:
        own.want(2)
        held, small = own.take(), own.take()
        query = {"lease": str(held["lease"]), "checksum": checksum, "size": str(len(large))}
        path = f"/v0/runners/{runner.runner}/jobs/{held['job']}/output"
        assert client.put(path, params=query, content=large).json()["complete"] is True
        uploaded = {"checksum": checksum, "size_bytes": len(large)}
        assert own.tell(event=event, uploaded=uploaded, iterations=ends, **error, **held)["event"] == "ack"
        assert own.tell(event=event, results=[end], **error, **small)["event"] == "ack"
    wait_for(racks, held["job"], "failed" if code else "processed", seconds=120)
    with racks.server.client() as client, racks.server.client(None) as stranger:
        for job, who in ((held["job"], client), (small["job"], client), (small["job"], stranger)):
            view = who.get(f"/v0/projects/{racks.floor.project}/jobs/{job}").json()
            assert view["iterations"] == ends
            assert ("output" in view) == (job == small["job"] and who is client)
        listed = client.get(f"/v0/projects/{racks.floor.project}/jobs").json()
        assert {job["uuid"]: job["iterations"] for job in listed if job["uuid"] in jobs} == dict.fromkeys(jobs)


@pytest.mark.parametrize("right", [True, False])
def test_results_that_are_larger_than_a_message_are_read_too(racks: Rack, right: bool) -> None:
    spec = racks.own_spec()
    runner = racks.runner(spec=spec)
    job = racks.submit(spec)
    expected = "processed" if right else "failed"
    large = [{"exit_code": 0, "stdout": "x" * 3_000_000}]
    document = json.dumps({"results": large}).encode()
    document = document if right else document[:-1]
    checksum = hashlib.sha256(document).hexdigest()
    assert len(document) > racks.server.context.config.server.message_max_bytes
    with greeted(racks, runner) as own, racks.server.client(runner.key) as client:
        own.want(1)
        held = own.take()
        own.tell(event="running", **held)
        query = {"lease": str(held["lease"]), "checksum": checksum, "size": str(len(document))}
        path = f"/v0/runners/{runner.runner}/jobs/{job}/output"
        assert client.put(path, params=query, content=document).json()["complete"] is True
        uploaded = {"checksum": checksum, "size_bytes": len(document)}
        # Acknowledged when it is stored: reading it takes a process, which takes its time on a machine with much to do.
        assert own.tell(event="completed", uploaded=uploaded, **held)["event"] == "ack"
        assert racks.status(job) in ("completed", expected)
        assert own.tell(event="completed", uploaded=uploaded, **held)["event"] == "ack", "told twice"
    wait_for(racks, job, expected, seconds=120)
    assert racks.job(job).output_digest == f"sha256:{checksum}"
    with racks.server.client() as client:
        shown = client.get(f"/v0/projects/{racks.floor.project}/jobs/{job}/output")
        assert (shown.text.count("event: output"), shown.text.count("event: end")) == (0, 1)


def test_what_the_store_cannot_take_is_refused_and_the_connection_goes_on(
    racks: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StoreAway("the database is away", why="a test says so")

    with greeted(racks, racks.runner()) as own:
        with monkeypatch.context() as patched:
            patched.setattr(JobDesk, "heartbeat", away)
            answer = own.tell(event="heartbeat", jobs=[])
            assert (answer["event"], answer["reason"]) == ("refused", "busy")
        assert own.tell(event="heartbeat", jobs=[])["event"] == "ack"


def test_the_server_knows_what_the_runner_said_of_itself(racks: Rack) -> None:
    runner = racks.runner()
    with greeted(racks, runner, facts={"cpu": {"model": "x\u0000"}}), racks.server.client() as client:
        shown = client.get(f"/v0/runners/{runner.runner}").json()
        assert shown["last_heartbeat"] is not None
        assert shown["key_created"] >= shown["created"]
        said = {name: shown["proof"][name] for name in ("version", "protocol", "sandboxes", "cpu", "facts")}
        assert said == {
            "version": "1",
            "protocol": "metalmark.1",
            "sandboxes": sorted(CAPABLE["sandboxes"]),
            "cpu": None,
            "facts": {"cpu": {"model": "x\u0000"}},
        }
        assert all(listed["proof"] is None for listed in client.get("/v0/runners").json())
    with connected(racks, runner) as own:
        own.channel.say(
            id=1, event="hello", version="1", process="p", boot="b", capabilities=CAPABLE, facts={"a": "x" * 70000}
        )
        assert own.channel.closed().close_code == 1002


def test_a_silent_runner_loses_its_connection_and_its_job(hasty: Rack) -> None:
    spec = hasty.own_spec()
    job = hasty.submit(spec)
    with greeted(hasty, hasty.runner(spec=spec)) as own:
        own.want(1)
        own.tell(event="running", **own.take())
        told = [own.channel.frame(within_s=30)]
        while told[-1].opcode != CLOSE:
            told.append(own.channel.frame(within_s=30))
        # The timer of leases may be a moment before the channel's: then the runner is told to stop first.
        assert {json.loads(frame.payload)["event"] for frame in told if frame.opcode == TEXT} <= {"cancel"}
        assert (told[-1].close_code, told[-1].close_reason) == (1000, '"heartbeat_timeout"')
    wait_for(hasty, job, str(JobStatus.FAILED))


def test_live_output_keeps_every_byte(racks: Rack) -> None:
    spec = racks.own_spec()
    job = racks.submit(spec)
    with greeted(racks, racks.runner(spec=spec)) as own:
        own.want(1)
        held = own.take()
        data = base64.b64encode(b"\x00\xff\n").decode()
        chunks = [
            {"iteration": 0, "stream": "stdout", "data": data},
            {"iteration": 1, "stream": "stderr", "data": "QQ=="},
        ]
        assert own.tell(event="output", offset=0, chunks=chunks, **held)["event"] == "ack"
        assert own.tell(event="output", offset=0, chunks=chunks, **held)["event"] == "ack", "sent again after a break"
        far = {"offset": 33 * 1024 * 1024, "chunks": chunks}
        assert own.tell(event="output", **far, **held)["reason"] == "too_much_output"
    with racks.server.client() as client:
        stream = client.get(f"/v0/projects/{racks.floor.project}/jobs/{job}/output").text
    assert stream.count("event: output") == 2
    assert f'"base64":"{data}"' in stream and '"text":"A"' in stream


def test_a_job_that_a_runner_never_spoke_of_is_given_to_the_next_at_once(racks: Rack) -> None:
    """It went into a connection that was dead already; the lease, a minute here, is not waited for."""
    spec = racks.own_spec()
    job = racks.submit(spec)
    with connected(racks, racks.runner(spec=spec)) as first, connected(racks, racks.runner(spec=spec)) as second:
        first.hello()
        first.want(1)
        assert first.take()["lease"] == 1
        second.hello(process="p2")
        second.want(1)
        first.channel.cut()
        assert second.take() == {"job": job, "lease": 2}
        second.tell(event="heartbeat", jobs=[{"job": job, "lease": 2}])
        second.channel.cut()
    time.sleep(0.5)
    assert (racks.status(job), racks.job(job).lease, racks.job(job).retries) == ("claimed", 2, 0)
