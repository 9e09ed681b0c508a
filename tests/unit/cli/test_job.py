from __future__ import annotations

import json

import httpx
import pytest
from tests.unit.cli.scripted_server import ScriptedServer


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (
            "list p --status running --direction asc",
            ("GET", "/projects/p/jobs", {"status": "running", "direction": "asc"}, None),
        ),
        ("view p j", ("GET", "/projects/p/jobs/j", {}, None)),
        ("cancel p j", ("POST", "/projects/p/jobs/j/cancel", {}, None)),
        ("retry p j", ("POST", "/projects/p/jobs/j/retry", {}, None)),
    ],
)
def test_request_of_each_command(server: ScriptedServer, words: str, asked: object) -> None:
    server.run("job", *words.split())
    assert server.asked == [asked]


def test_job_is_shown_without_its_output_but_with_how_it_ended(server: ScriptedServer) -> None:
    server.answer(
        {
            "uuid": "j",
            "status": "failed",
            "spec": {"slug": "quiet-8", "uuid": "s"},
            "runner": None,
            "output": {
                "results": [{"exit_code": 0, "stdout": "a\nb"}, {"exit_code": 2, "output": {"/x": "y"}}],
                "error": "exit code 2",
            },
        }
    )
    out, _ = server.run("job", "view", "p", "j")
    assert [line.split(maxsplit=1) for line in out.splitlines()] == [
        ["uuid", "j"],
        ["status", "failed"],
        ["spec", "quiet-8"],
        ["runner", "–"],
        ["iteration", "1  exit code 0"],
        ["iteration", "2  exit code 2, 1 files"],
        ["error", "exit code 2"],
    ]


def test_fault_of_a_job_is_shown_once(server: ScriptedServer) -> None:
    server.answer({"uuid": "j", "error": "exit code 2", "output": {"results": [], "error": "exit code 2"}})
    out, _ = server.run("job", "view", "p", "j")
    assert [line.split(maxsplit=1) for line in out.splitlines()] == [["uuid", "j"], ["error", "exit code 2"]]


def test_how_iterations_ended_is_shown_without_their_output(server: ScriptedServer) -> None:
    ends = [{"iteration": 1, "exit_code": 0}, {"iteration": 12, "exit_code": 3}]
    server.answer({"uuid": "j", "status": "failed", "iterations": ends})
    out, _ = server.run("job", "view", "p", "j")
    assert [line.split(maxsplit=2) for line in out.splitlines()[2:]] == [
        ["iteration", "1", "exit code 0"],
        ["iteration", "12", "exit code 3"],
    ]


def test_logs_are_followed_to_the_end_of_the_job(server: ScriptedServer) -> None:
    events = 'event: output\ndata: {"iteration": 0, "stream": "stdout", "text": "hello\\n"}\n\n'
    end = 'event: end\ndata: {"status": "processed"}\n\n'
    for text in (events, end, events + end):
        server.replies.append(httpx.Response(200, text=text, headers={"content-type": "text/event-stream"}))
    out, err = server.run("job", "logs", "p", "j", "--follow")
    assert out == "hello\n"
    assert err.splitlines()[-1] == "the job is processed"
    assert server.asked == [("GET", "/projects/p/jobs/j/output", {"follow": "true"}, None)] * 2
    out, _ = server.run("job", "logs", "p", "j", "--json")
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["output", "end"]
