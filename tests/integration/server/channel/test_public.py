"""The channel of public runners, state by state, in raw frames."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update
from tests.integration.server.channel.conftest import Rack

from metalmark.model import EndReason, JobEvent, JobStatus
from metalmark.store.tables import jobs
from metalmark.testing.public_runner import PublicRunner
from metalmark.testing.raw_channel import BINARY, CLOSE, PING, PONG, TEXT, HandshakeRefused, RawChannel, raw_channel

RESULTS = [{"exit_code": 0, "stdout": "{}"}, {"exit_code": 0, "output": {"/out\u0000x": "ü"}}]


@pytest.fixture
def held(racks: Rack) -> Iterator[tuple[PublicRunner, str]]:
    """A runner with a running job."""
    spec = racks.own_spec()
    runner = racks.runner(spec=spec)
    job = racks.submit(spec)
    assert runner.take()["uuid"] == job
    yield runner, job
    runner.disconnect()


def opened(runner: PublicRunner) -> RawChannel:
    return runner.channel or runner.connect()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer bencher_runner_" + "0" * 30}, 401),
        ({"Authorization": "Bearer bencher_user_" + "0" * 30}, 401),
        ({"Authorization": "Bearer a.b.c"}, 401),
        ({"Authorization": "Basic YTpi"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Sec-WebSocket-Version": "12"}, None),
        ({"Sec-WebSocket-Key": ""}, 400),
        ({"Sec-WebSocket-Key": "short"}, 400),
    ],
)
def test_whoever_does_not_get_in_is_told_by_a_status(racks: Rack, headers: dict[str, str], status: int | None) -> None:
    runner = racks.runner()
    given = {"Authorization": f"Bearer {runner.key}", **headers}
    with pytest.raises(HandshakeRefused) as caught:
        RawChannel(racks.server.url, f"/v0/runners/{runner.runner}/channel", given)
    # 426 names the version that would do; the reference answers 400.
    assert caught.value.status == status if status else caught.value.status in (400, 426)
    if status == 401:
        body = json.loads(caught.value.body)
        assert set(body) == {"request_id", "message"} and body["request_id"] == caught.value.headers["x-request-id"]
        assert runner.key not in caught.value.body.decode()


def test_a_key_opens_only_the_channel_of_its_runner_by_both_of_its_names(racks: Rack) -> None:
    one, other = racks.runner(), racks.runner()
    with pytest.raises(HandshakeRefused) as caught, raw_channel(racks.server.url, other.runner, one.key):
        pass
    assert caught.value.status == 401
    with pytest.raises(HandshakeRefused) as caught, raw_channel(racks.server.url, "not%20an%20id!", one.key):
        pass
    assert caught.value.status == 400
    with racks.server.client() as client:
        slug = client.get(f"/v0/runners/{one.runner}").json()["slug"]
        with raw_channel(racks.server.url, slug, one.key), raw_channel(racks.server.url, one.runner, one.key):
            assert client.patch(f"/v0/runners/{slug}", json={"archived": True}).status_code == 200
        with pytest.raises(HandshakeRefused) as caught, raw_channel(racks.server.url, slug, one.key):
            pass
        assert caught.value.status == 401, "an archived runner gets no new channel"


def test_no_extension_and_no_sub_protocol_is_agreed_on(racks: Rack) -> None:
    runner = racks.runner()
    asked = {"Sec-WebSocket-Extensions": "permessage-deflate"}
    with raw_channel(racks.server.url, runner.runner, runner.key, **asked) as channel:
        assert "sec-websocket-extensions" not in channel.headers
        assert "sec-websocket-protocol" not in channel.headers


def test_a_job_goes_its_whole_way(racks: Rack) -> None:
    spec = racks.own_spec()
    runner = racks.runner(spec=spec)
    job = racks.submit(spec)
    claimed = runner.ready()
    assert set(claimed) == {"event", "uuid", "spec", "config", "oci_token", "timeout", "created"}
    assert (claimed["uuid"], claimed["timeout"], claimed["config"]["timeout"]) == (job, 60, 60)
    assert claimed["spec"]["uuid"] == str(spec) and claimed["spec"]["archived"] is None
    assert claimed["oci_token"].count(".") == 2
    assert racks.status(job) == "claimed"
    assert runner.running() == {"event": "ack", "job": job}
    assert racks.status(job) == "running"
    assert runner.running() == {"event": "ack", "job": job}, "a repeated running is a sign of life"
    assert runner.heartbeat() == {"event": "ack", "job": job}
    opened(runner).say(event="ready")
    assert opened(runner).hear() == {"event": "ack", "job": job}, "ready while executing is acknowledged"
    assert runner.complete(job, RESULTS) == {"event": "ack", "job": job}
    assert racks.status(job) == "processed", "the results are read before the acknowledgement"
    assert racks.output(job) == {"results": RESULTS}
    assert runner.ready() == {"event": "no_job"}


def test_a_failure_keeps_its_results(racks: Rack, held: tuple[PublicRunner, str]) -> None:
    runner, job = held
    results = [{"exit_code": 2, "stderr": "boom"}]
    assert runner.fail(job, results, "exit code 2\u0000") == {"event": "ack", "job": job}
    assert racks.status(job) == "failed"
    assert racks.output(job) == {"results": results, "error": "exit code 2\u0000"}
    assert racks.job(job).error == "exit code 2\ufffd"


def test_a_job_that_waits_is_handed_over_at_once(racks: Rack) -> None:
    spec = racks.own_spec()
    runner = racks.runner(spec=spec, poll_timeout_s=30)
    answers: list[dict[str, object]] = []
    waiting = threading.Thread(target=lambda: answers.append(runner.ready()))
    waiting.start()
    time.sleep(0.3)
    job = racks.submit(spec)
    waiting.join(10)
    assert [answer["uuid"] for answer in answers] == [job]


@pytest.mark.parametrize("terminal", ["completed", "failed", "canceled"])
def test_a_result_is_taken_over_a_later_connection(racks: Rack, held: tuple[PublicRunner, str], terminal: str) -> None:
    runner, job = held
    runner.disconnect()
    assert racks.status(job) == "running", "a lost connection ends no job"
    runner.connect()
    opened(runner).say(event="running")
    opened(runner).say(event="heartbeat")
    assert opened(runner).is_silent(0.3), "a job cannot be resumed"
    about = {"results": RESULTS, "error": "e"} if terminal != "canceled" else {}
    opened(runner).say(event=terminal, job=job.upper(), **about)
    assert opened(runner).hear() == {"event": "ack", "job": job}
    assert racks.status(job) == {"completed": "processed"}.get(terminal, terminal)
    opened(runner).say(event=terminal, job=job, **about)
    assert opened(runner).hear() == {"event": "ack", "job": job}, "told twice is no fault"
    assert runner.ready() == {"event": "no_job"}


LATE = {
    # message: what becomes of a job in each state; None is an invalid transition, after which the channel closes.
    "completed": {
        # The reference drops the connection, and with it the results of a job whose ``running`` was lost.
        "claimed": "processed",
        "running": "processed",
        "completed": "completed",
        "processed": "processed",
        "failed": "processed",
        "canceled": "canceled",
    },
    "failed": {
        "claimed": "failed",
        "running": "failed",
        "completed": "completed",
        "processed": "processed",
        "failed": "failed",
        "canceled": "canceled",
    },
    "canceled": {
        "claimed": "canceled",
        "running": "canceled",
        "completed": None,
        "processed": None,
        "failed": None,
        "canceled": "canceled",
    },
}


@pytest.mark.parametrize("message", LATE)
def test_late_results_follow_the_table(racks: Rack, message: str) -> None:
    spec = racks.own_spec()
    runner = racks.runner(spec=spec)
    for status, becomes in LATE[message].items():
        job = racks.submit(spec)
        assert runner.ready()["uuid"] == job
        runner.disconnect()
        racks.force(job, JobStatus(status))
        channel = runner.connect()
        channel.say(event=message, job=job, results=RESULTS, error="late")
        if becomes is None:
            closed = channel.closed()
            assert closed.close_code == 1002, "the reference drops the connection; here it is told why"
            runner.disconnect()
            assert racks.status(job) == status
        else:
            assert channel.hear() == {"event": "ack", "job": job}, status
            assert racks.status(job) == becomes, status
        racks.force(job, JobStatus.CANCELED)


def test_an_unknown_or_foreign_job_is_acknowledged_and_nothing_else(
    racks: Rack, held: tuple[PublicRunner, str]
) -> None:
    _, job = held
    stranger = racks.runner()
    for named in (job, "0197c3d4-0000-7000-8000-000000000001"):
        assert stranger.complete(named, RESULTS) == {"event": "ack", "job": named}
    assert racks.status(job) == "running"
    assert racks.output(job) is None


def test_a_result_of_another_job_does_not_touch_the_one_at_hand(racks: Rack, held: tuple[PublicRunner, str]) -> None:
    runner, job = held
    other = "0197c3d4-0000-7000-8000-000000000001"
    opened(runner).say(event="failed", job=other, results=[], error="e")
    assert opened(runner).hear() == {"event": "ack", "job": other}
    assert racks.status(job) == "running"
    assert runner.heartbeat() == {"event": "ack", "job": job}


@pytest.mark.parametrize("message", ["running", "heartbeat"])
def test_a_canceled_job_is_told_with_the_next_message(
    racks: Rack, held: tuple[PublicRunner, str], message: str
) -> None:
    runner, job = held
    racks.move(job, JobEvent.CANCEL)
    deadline = time.monotonic() + 30
    while (answer := (runner.heartbeat if message == "heartbeat" else runner.running)())["event"] == "ack":
        assert time.monotonic() < deadline
    assert answer == {"event": "cancel"}
    assert runner.fail(job, [], "canceled") == {"event": "ack", "job": job}
    assert racks.status(job) == "canceled"
    assert runner.ready() == {"event": "no_job"}


def test_nonsense_ends_an_idle_channel_and_is_ignored_while_a_job_runs(
    racks: Rack, held: tuple[PublicRunner, str]
) -> None:
    runner, job = held
    channel = opened(runner)
    for text in ("{", '{"event":"nap"}', '{"event":"ready","poll_timeout":0}', '{"event":"completed","results":[]}'):
        channel.send_text(text)
    channel.send_frame(BINARY, b"\x00\xff")
    channel.send_frame(PONG, b"unasked")
    channel.send_frame(PING, b"are you there")
    pong = channel.frame()
    assert (pong.opcode, pong.payload) == (PONG, b"are you there")
    assert runner.heartbeat() == {"event": "ack", "job": job}
    for text in ("{", '{"event":"ready","poll_timeout":901}', '{"event":"completed","job":"x","results":[]}'):
        idle = racks.runner()
        opened(idle).send_frame(BINARY, b"ignored")
        opened(idle).send_text(text)
        assert opened(idle).closed().close_code == 1002


def test_fragments_make_one_message_and_a_ping_may_come_between(racks: Rack) -> None:
    runner = racks.runner()
    channel = opened(runner)
    channel.send_frame(TEXT, b'{"event":"ready",', final=False)
    channel.send_frame(PING, b"p")
    channel.send_frame(0, b'"poll_timeout":1}')
    assert channel.frame().opcode == PONG
    assert channel.hear() == {"event": "no_job"}


def test_frames_that_break_the_protocol_are_answered_with_a_close_frame(racks: Rack) -> None:
    for code, send in (
        (1002, lambda channel: channel.send_frame(TEXT, b"{}", masked=False)),
        (1002, lambda channel: channel.send_frame(0x3, b"")),
        (1002, lambda channel: channel.send_frame(0, b"no beginning")),
        (1002, lambda channel: channel.send_frame(PING, b"x" * 126)),
        (1007, lambda channel: channel.send_frame(TEXT, b"\xff\xfe")),
        (1009, lambda channel: [channel.send_frame(TEXT if n == 0 else 0, b"", final=False) for n in range(16_400)]),
    ):
        with raw_channel(racks.server.url, (runner := racks.runner()).runner, runner.key) as channel:
            with suppress(ConnectionError):
                send(channel)
            assert channel.closed().close_code == code


def test_a_message_over_the_bound_is_refused_with_a_close_frame_and_the_job_goes_on(
    racks: Rack, held: tuple[PublicRunner, str]
) -> None:
    runner, job = held
    channel = opened(runner)
    head = b"\x81\xff" + (3 * 1024 * 1024).to_bytes(8, "big") + b"\0\0\0\0"
    channel.socket.sendall(head)
    assert channel.closed().close_code == 1009
    runner.disconnect()
    assert racks.status(job) == "running"
    text = "x" * (1024 * 1024)
    assert runner.complete(job, [{"exit_code": 0, "stdout": text}]) == {"event": "ack", "job": job}
    assert racks.output(job)["results"][0]["stdout"] == text


def test_a_close_of_the_runner_is_answered(racks: Rack) -> None:
    channel = opened(racks.runner())
    channel.send_frame(CLOSE, (1000).to_bytes(2, "big") + b"bye")
    assert channel.closed().close_code == 1000


def test_a_second_connection_leaves_a_first_that_answers_and_ends_one_that_does_not(
    racks: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metalmark.server.channels.PONG_WITHIN_S", 4.0)
    runner = racks.runner(poll_timeout_s=30)
    with (
        raw_channel(racks.server.url, runner.runner, runner.key) as first,
        raw_channel(racks.server.url, runner.runner, runner.key) as second,
    ):
        ping = first.frame()
        assert ping.opcode == PING
        first.send_frame(PONG, ping.payload)
        assert first.is_silent(0.3)
        # The third one makes the server ask both; only the second is silent.
        with raw_channel(racks.server.url, runner.runner, runner.key) as third:
            first.send_frame(PONG, first.frame().payload)
            closed = second.closed(within_s=30)
            assert closed.close_code == 4409
            third.say(event="ready", poll_timeout=1)
            assert third.hear() == {"event": "no_job"}
        first.say(event="ready", poll_timeout=1)
        assert first.hear() == {"event": "no_job"}


def test_one_job_goes_to_one_of_two_connections(racks: Rack) -> None:
    spec = racks.own_spec()
    runner = racks.runner(spec=spec)
    job = racks.submit(spec)
    with (
        raw_channel(racks.server.url, runner.runner, runner.key) as first,
        raw_channel(racks.server.url, runner.runner, runner.key) as second,
    ):
        for channel in (first, second):
            channel.say(event="ready", poll_timeout=1)
        answers = [first.hear(), second.hear()]
        assert sorted(answer["event"] for answer in answers) == ["job", "no_job"]
        holder, idle = (first, second) if answers[0]["event"] == "job" else (second, first)
        holder.say(event="running")
        assert holder.hear()["event"] == "ack"
        idle.say(event="completed", job=job, results=[])
        assert idle.hear() == {"event": "ack", "job": job}
        assert racks.status(job) == "processed"


def test_a_job_whose_runner_left_while_it_waited_stays_pending(racks: Rack) -> None:
    spec = racks.own_spec()
    runner = racks.runner(spec=spec, poll_timeout_s=60)
    opened(runner).say(event="ready", poll_timeout=60)
    time.sleep(0.2)
    runner.disconnect()
    time.sleep(0.3)
    job = racks.submit(spec)
    assert racks.runner(spec=spec).ready()["uuid"] == job


def test_silence_while_idle_ends_the_channel_unless_there_are_pings(hasty: Rack) -> None:
    runner = hasty.runner()
    channel = opened(runner)
    started = time.monotonic()
    for _ in range(4):
        time.sleep(0.5)
        channel.send_frame(PING, b"")
        assert channel.frame().opcode == PONG
    closed = channel.closed(within_s=30)
    assert (closed.close_code, closed.close_reason) == (1000, '"heartbeat_timeout"')
    assert time.monotonic() - started > 2.5


def test_silence_while_executing_fails_the_job_and_a_late_result_overturns_that(hasty: Rack) -> None:
    spec = hasty.own_spec()
    runner = hasty.runner(spec=spec)
    job = hasty.submit(spec)
    runner.take()
    closed = opened(runner).closed(within_s=30)
    assert (closed.close_code, closed.close_reason) == (1000, '"heartbeat_timeout"')
    deadline = time.monotonic() + 30
    while hasty.status(job) != "failed":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    runner.disconnect()
    assert runner.complete(job, RESULTS) == {"event": "ack", "job": job}
    assert hasty.status(job) == "processed"


def test_silence_beyond_the_limit_of_a_job_is_told_as_such(hasty: Rack) -> None:
    spec = hasty.own_spec()
    runner = hasty.runner(spec=spec)
    job = hasty.submit(spec)
    runner.take()

    async def at_its_limit(context: Any) -> None:
        past = context.clock.now() - timedelta(seconds=1)
        await context.store.write(
            lambda connection: connection.execute(update(jobs).where(jobs.c.id == UUID(job)).values(limit_expires=past))
        )

    hasty.call(at_its_limit)
    closed = opened(runner).closed(within_s=30)
    assert (closed.close_code, closed.close_reason) == (1000, '"job_timeout_exceeded"')
    assert hasty.job(job).end_reason is EndReason.JOB_TIMEOUT_EXCEEDED


def test_a_stop_of_the_server_says_goodbye_and_leaves_the_job(hasty: Rack) -> None:
    spec = hasty.own_spec()
    busy, idle, waiting = hasty.runner(spec=spec), hasty.runner(), hasty.runner(poll_timeout_s=60)
    hasty.submit(spec)
    busy.take()
    opened(idle)
    opened(waiting).say(event="ready", poll_timeout=60)
    hasty.server.portal.call(_set, hasty.server.context.stopping)
    for runner in (busy, idle, waiting):
        closed = opened(runner).closed(within_s=30)
        assert (closed.close_code, closed.close_reason) == (1001, "server shutting down")
    with pytest.raises(HandshakeRefused) as caught:
        hasty.runner().connect()
    assert caught.value.status == 503
    assert caught.value.headers["retry-after"] == "1"


async def _set(event: object) -> None:
    event.set()  # type: ignore[attr-defined]  # of the server's loop
