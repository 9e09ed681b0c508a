"""The public messages of the runner channel, as its specification writes them."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import ProtocolError
from metalmark.wire import (
    Ack,
    CancelJob,
    IterationOutput,
    JobCanceled,
    JobCompleted,
    JobFailed,
    JobMessage,
    NoJob,
    RunnerHeartbeat,
    RunnerReady,
    RunnerRunning,
    UpdateOffer,
    channel_text,
    read_runner_message,
    read_server_message,
)

JOB = UUID("0197c3d4-0000-7000-8000-000000000001")
SPEC = {
    "uuid": "0197b200-0000-7000-8000-000000000001",
    "name": "Small VM",
    "slug": "small-vm",
    "os": "linux",
    "architecture": "x86_64",
    "sandbox": "firecracker",
    "cpu": 2,
    "memory": 4294967296,
    "disk": 10737418240,
    "network": False,
    "anonymous": False,
    "fallback": None,
    "created": "2026-01-31T10:05:00Z",
    "modified": "2026-01-31T10:05:00Z",
    "archived": None,
}
CLAIMED = {
    "event": "job",
    "uuid": str(JOB),
    "spec": SPEC,
    "config": {
        "registry": "http://localhost:6610/",
        "project": "0197d0d0-0000-7000-8000-0000000000aa",
        "digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "timeout": 240,
        "image": "adder:v3",
        "cmd": ["bench"],
        "iter": 3,
    },
    "oci_token": "a.b.c",
    "timeout": 240,
    "created": "2026-01-31T10:10:00Z",
}


def test_messages_of_a_runner_are_read() -> None:
    ready = read_runner_message(
        '{"event":"ready","poll_timeout":55,"runner":{"os":"linux","arch":"x86_64","version":"0.6.12"}}'
    )
    assert isinstance(ready, RunnerReady) and ready.poll_timeout_s == 55
    assert ready.runner is not None and (ready.runner.version, ready.runner.channel) == ("0.6.12", None)
    assert read_runner_message('{"event":"running"}') == RunnerRunning()
    assert read_runner_message('{"event":"heartbeat","surplus":[1]}') == RunnerHeartbeat()
    completed = read_runner_message(
        f'{{"event":"completed","job":"{JOB}","results":[{{"exit_code":0,"stdout":"x"}},'
        '{"exit_code":-1,"output":{"/out/bmf.json":"{}"}}]}'
    )
    assert completed == JobCompleted(
        job=JOB,
        results=(
            IterationOutput(exit_code=0, stdout="x"),
            IterationOutput(exit_code=-1, output={"/out/bmf.json": "{}"}),
        ),
    )
    failed = read_runner_message(f'{{"event":"failed","job":"{JOB}","results":[],"error":"exit code 2"}}')
    assert failed == JobFailed(job=JOB, results=(), error="exit code 2")
    assert read_runner_message(f'{{"event":"canceled","job":"{JOB}"}}') == JobCanceled(job=JOB)


@pytest.mark.parametrize("timeout", ["null", None])
def test_a_poll_timeout_that_is_missing_is_thirty_seconds(timeout: str | None) -> None:
    text = '{"event":"ready"}' if timeout is None else '{"event":"ready","poll_timeout":null,"runner":null}'
    message = read_runner_message(text)
    assert isinstance(message, RunnerReady) and message.poll_timeout_s == 30


@pytest.mark.parametrize(
    "spelling",
    [
        "0197c3d4000070008000000000000001",
        "{0197c3d4-0000-7000-8000-000000000001}",
        "urn:uuid:0197C3D4-0000-7000-8000-000000000001",
    ],
)
def test_a_job_may_be_spelled_as_any_uuid(spelling: str) -> None:
    assert read_runner_message(json.dumps({"event": "canceled", "job": spelling})) == JobCanceled(job=JOB)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"ready"',
        '{"event":"Ready"}',
        '{"event":"job"}',
        '{"poll_timeout":5}',
        '{"event":"ready","poll_timeout":0}',
        '{"event":"ready","poll_timeout":901}',
        '{"event":"ready","poll_timeout":2.0}',
        '{"event":"ready","poll_timeout":"5"}',
        '{"event":"ready","poll_timeout":true}',
        '{"event":"ready","runner":{"os":"Linux","arch":"x86_64","version":"1"}}',
        '{"event":"ready","runner":{"os":"linux","arch":"amd64","version":"1"}}',
        '{"event":"ready","runner":{"os":"linux","arch":"x86_64"}}',
        '{"event":"ready","runner":{"os":"linux","arch":"x86_64","version":"1","channel":"beta"}}',
        '{"event":"ready","runner":{"os":"linux","arch":"x86_64","version":"1","checksum":"AB"}}',
        f'{{"event":"completed","job":"{JOB}"}}',
        '{"event":"completed","job":"nonsense","results":[]}',
        f'{{"event":"completed","job":"{JOB}","results":[{{}}]}}',
        f'{{"event":"completed","job":"{JOB}","results":[{{"exit_code":2147483648}}]}}',
        f'{{"event":"completed","job":"{JOB}","results":[{{"exit_code":0,"stdout":1}}]}}',
        f'{{"event":"completed","job":"{JOB}","results":[{{"exit_code":0,"output":{{"a":1}}}}]}}',
        f'{{"event":"failed","job":"{JOB}","results":[]}}',
        '{"event":"canceled"}',
    ],
)
def test_what_is_no_message_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        read_runner_message(text)


def test_an_error_never_repeats_what_was_sent() -> None:
    for text in (
        '{"event":"s3cret"}',
        '{"event":"canceled","job":"s3cret"}',
        '{"event":"ready","poll_timeout":"s3cret"}',
    ):
        with pytest.raises(ProtocolError) as caught:
            read_runner_message(text)
        assert "s3cret" not in str(caught.value)


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_no_text_breaks_the_reader(text: str | bytes) -> None:
    try:
        read_runner_message(text)
    except ProtocolError:
        return


results = st.lists(
    st.builds(
        IterationOutput,
        exit_code=st.integers(-(2**31), 2**31 - 1),
        stdout=st.none() | st.text(),
        stderr=st.none() | st.text(),
        output=st.none() | st.dictionaries(st.text(), st.text(), max_size=3),
    ),
    max_size=3,
).map(tuple)


@given(results, st.text())
def test_results_come_back_as_they_were(ran: tuple[IterationOutput, ...], error: str) -> None:
    message = JobFailed(job=JOB, results=ran, error=error)
    assert read_runner_message(channel_text(message)) == message


def test_what_an_iteration_lacks_is_left_out() -> None:
    text = channel_text(JobCompleted(job=JOB, results=(IterationOutput(exit_code=0),)))
    assert json.loads(text) == {"event": "completed", "job": str(JOB), "results": [{"exit_code": 0}]}


def test_messages_of_the_server_are_written_as_specified() -> None:
    def plain(message: Any) -> Any:
        return json.loads(channel_text(message))

    assert plain(NoJob()) == {"event": "no_job"}
    assert plain(Ack()) == {"event": "ack"}
    assert plain(Ack(job=JOB)) == {"event": "ack", "job": str(JOB)}
    assert plain(CancelJob()) == {"event": "cancel"}
    offer = {"event": "update", "version": "0.6.12", "url": "https://example.org/r", "checksum": "b3" * 32}
    assert plain(UpdateOffer(version="0.6.12", url="https://example.org/r", checksum="b3" * 32)) == offer
    job = read_server_message(json.dumps(CLAIMED))
    assert isinstance(job, JobMessage)
    assert plain(job) == CLAIMED, "a null of the spec stays, a null of the configuration is left out"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cmd", ["x"] * 65),
        ("entrypoint", ["x"] * 65),
        ("env", {str(n): "" for n in range(256)}),
        ("file_paths", ["x"] * 256),
        ("timeout", 0),
        ("timeout", 2**31),
        ("iter", -1),
        ("iter", 2**32),
        ("digest", "sha256:" + "A" * 64),
        ("digest", "sha512:" + "a" * 64),
        ("average", "mode"),
        ("fold", "sum"),
        ("build_time", 1),
        ("registry", "localhost"),
    ],
)
def test_a_job_out_of_bounds_is_refused(field: str, value: object) -> None:
    config = {**CLAIMED["config"], field: value}  # type: ignore[dict-item]  # the example's inner object
    with pytest.raises(ProtocolError):
        read_server_message(json.dumps({**CLAIMED, "config": config}))
