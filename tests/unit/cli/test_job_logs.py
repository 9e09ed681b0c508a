from __future__ import annotations

import base64
import io
import json
from types import SimpleNamespace

import pytest

from metalmark.cli import job_logs, view
from metalmark.cli.job_logs import JobLog
from metalmark.client import ServerEvent
from metalmark.model import ProtocolError


class Stream(io.TextIOWrapper):
    """Standard output or error, with or without a terminal behind it."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def written(self) -> bytes:
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue()


def event(kind: str = "output", **fields: object) -> ServerEvent:
    return ServerEvent(kind=kind, data=json.dumps(fields), id="1-1")


def output(text: str | bytes, stream: str = "stdout", iteration: int = 1) -> ServerEvent:
    if isinstance(text, bytes):
        return event(iteration=iteration, stream=stream, base64=base64.b64encode(text).decode())
    return event(iteration=iteration, stream=stream, text=text)


@pytest.fixture(params=[False, True], ids=["pipe", "terminal"])
def streams(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Stream, Stream]:
    out, err = Stream(terminal=request.param), Stream(terminal=request.param)
    # Between a fixture and its test pytest puts its own streams into the real module.
    for module in (job_logs, view):
        monkeypatch.setattr(module, "sys", SimpleNamespace(stdout=out, stderr=err))
    return out, err


def test_output_goes_where_it_went(streams: tuple[Stream, Stream]) -> None:
    said: list[str] = []
    log = JobLog(as_json=False, say=said.append)
    pieces = [output("a\tb\n"), output("bad\n", "stderr"), output("c\n", iteration=2)]
    assert [log.take(piece) for piece in pieces] == [False] * 3
    assert log.take(event("end", status="processed")) is True
    assert (streams[0].written, streams[1].written) == (b"a\tb\nc\n", b"bad\n")
    assert said == ["iteration 2", "the job is processed"]


def test_bytes_stay_bytes_in_a_pipe_and_do_not_reach_a_terminal(streams: tuple[Stream, Stream]) -> None:
    def say(line: str) -> None:
        streams[1].buffer.write(f"{line}\n".encode())

    log = JobLog(as_json=False, say=say)
    raw = "é\x1b[2J\r\n".encode() + b"\xff"
    for piece in (raw[:1], raw[1:]):
        log.take(output(piece))
    if streams[0].isatty():
        assert streams[0].written.decode() == "é\\x1b[2J\n\ufffd"
    else:
        assert streams[0].written == raw


def test_json_is_an_event_a_line(streams: tuple[Stream, Stream]) -> None:
    log = JobLog(as_json=True, say=lambda line: None)
    log.take(output("a\n"))
    assert log.take(event("end", status="failed"))
    lines = [json.loads(line) for line in streams[0].written.splitlines()]
    assert lines == [
        {"event": "output", "iteration": 1, "stream": "stdout", "text": "a\n"},
        {"event": "end", "status": "failed"},
    ]


def test_what_else_happens_is_told(streams: tuple[Stream, Stream]) -> None:
    said: list[str] = []
    log = JobLog(as_json=False, say=said.append)
    for other in (event("phase", phase="exec", status="running"), event("restart", lease=2), event("newer")):
        assert log.take(other) is False
    assert said == ["phase exec", "the job has begun anew; what it printed before does not count"]
    assert streams[0].written == b""


@pytest.mark.parametrize("data", ["", "[]", "{", "{}", '{"base64": "!"}', '{"text": 1}'])
def test_what_is_no_output(data: str) -> None:
    with pytest.raises(ProtocolError):
        JobLog(as_json=False, say=lambda line: None).take(ServerEvent(kind="output", data=data, id=""))


def test_place_in_the_queue_and_phases_are_told_once() -> None:
    said: list[str] = []
    log = JobLog(as_json=False, say=said.append)
    waits = {"cause": "waiting", "text": "runners are busy"}
    for one in (
        event("pending", **waits, position=2),
        event("pending", **waits, position=None),
        event("phase", phase="pull", status="claimed"),
        event("phase", phase="pull", status="claimed"),
        event("phase", phase="exec", status="running"),
    ):
        log.take(one)
    assert said == [
        "pending, number 2 in the queue: runners are busy",
        "pending, runners are busy",
        "phase pull",
        "phase exec",
    ]
    assert log.status == "running"


def test_iteration_is_named_before_what_belongs_to_it(streams: tuple[Stream, Stream]) -> None:
    def say(line: str) -> None:
        streams[0].buffer.write(f"{line}\n".encode())

    log = JobLog(as_json=False, say=say)
    for one in (
        event("phase", phase="pull", iteration=0, status="claimed"),
        event("phase", phase="exec", iteration=1, status="running"),
        output("first\n"),
        event("phase", phase="exec", iteration=2, status="running"),
        output("second\n", iteration=2),
        output("third\n", iteration=3),
        event("phase", phase="exec", iteration=3, status="running"),
    ):
        log.take(one)
    told = ["phase pull", "phase exec", "first", "iteration 2", "phase exec", "second", "iteration 3", "third"]
    assert streams[0].written.decode().splitlines() == [*told, "phase exec"]


@pytest.mark.parametrize("streams", [True], indirect=True, ids=["terminal"])
def test_line_that_the_job_left_open_is_ended_before_ours(streams: tuple[Stream, Stream]) -> None:
    def say(line: str) -> None:
        streams[1].buffer.write(f"{line}\n".encode())

    log = JobLog(as_json=False, say=say)
    log.take(output("half"))
    log.take(event("end", status="processed"))
    log.close()
    assert (streams[0].written, streams[1].written) == (b"half", b"\nthe job is processed\n")
