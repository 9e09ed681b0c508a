from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer.main
from tests.unit.cli.scripted_server import ScriptedServer

from metalmark import client
from metalmark.cli import remote_run
from metalmark.cli.application import app

JOB = "01a1fbc0-05b7-763a-a08d-9b991c14ad2d"
REPORT = {"uuid": "01a1fbc0-05b7-763a-a08d-000000000000", "project": {"slug": "widgets"}, "job": JOB}
RAN = {"exit_code": 7, "stdout": "out\n", "stderr_base64": "ZXJyCg=="}


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited between looks at the job."""
    found: list[float] = []

    async def sleep_s(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(remote_run, "sleep_s", sleep_s)
    return found


@pytest.fixture(autouse=True)
def no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read_run_context(folder: Path, environment: Mapping[str, str], *, warn: object) -> dict[str, str]:
        return {}

    monkeypatch.setattr(client, "read_run_context", read_run_context)


def run(server: ScriptedServer, *words: str) -> tuple[int, str, str]:
    given = ["run", "--image", "widgets:1", "--project", "widgets", *words]
    code = typer.main.get_command(app)(args=given, prog_name="metalmark", standalone_mode=False)
    written = server.capsys.readouterr()
    return code, written.out, written.err


def stream(*events: tuple[str, dict[str, Any]]) -> httpx.Response:
    text = "".join(f"event: {kind}\ndata: {json.dumps(data)}\n\n" for kind, data in events)
    return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})


@pytest.mark.parametrize("status", [401, 404, 429])
def test_job_whose_output_cannot_be_followed_is_looked_at(
    server: ScriptedServer, pauses: list[float], status: int
) -> None:
    server.answer(REPORT, status=201)
    server.answer({"message": "no stream for you"}, status=status)
    server.answer({"status": "pending", "pending": {"cause": "waiting", "text": "runners are busy", "position": 3}})
    server.answer({"message": "slower"}, status=429)
    server.answer({"status": "running", "phase": "exec"})
    server.answer({"status": "running", "phase": "exec"})
    server.answer({"status": "failed", "output": {"results": [RAN], "error": "exit code 7"}})
    code, out, err = run(server)
    assert (code, out) == (7, "out\n")
    assert "number 3 in the queue: runners are busy" in err
    assert err.count("phase exec") == 1
    assert "err\n" in err
    assert "error: the job is failed: exit code 7" in err
    assert len(pauses) == 4


def test_terminal_obeys_nothing_that_a_job_printed(
    server: ScriptedServer, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    for stream_of_ours in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream_of_ours, "isatty", lambda: True)
    server.answer(REPORT, status=201)
    server.answer({"message": "no stream for you"}, status=404)
    evil = {"exit_code": 0, "stdout": "a\x1b[2J\n", "stderr": "b\x1b]0;title\x07\n"}
    server.answer({"status": "processed", "output": {"results": [evil]}})
    _, out, err = run(server)
    assert out == "a\\x1b[2J\n"
    assert "\x1b" not in err
    assert "b\\x1b]0;title\\x07\n" in err


def test_completed_job_is_waited_for_until_it_is_read(server: ScriptedServer, pauses: list[float]) -> None:
    server.answer(REPORT, status=201)
    server.replies.append(stream(("end", {"status": "completed", "phase": None})))
    server.answer({"status": "completed"})
    server.answer({"status": "processed", "output": {"results": [{"exit_code": 0}]}})
    assert run(server)[0] == 0
    assert len(pauses) == 1


def test_run_is_sent_again_under_the_same_key(server: ScriptedServer) -> None:
    server.answer({"message": "broken"}, status=500)
    server.answer(REPORT, status=201)
    code, out, _ = run(server, "--detach", "--json")
    assert (code or 0, json.loads(out)) == (0, REPORT)
    first, second = (body["idempotency_key"] for _, path, _, body in server.asked if path == "/run")
    assert first == second


def test_server_that_is_lost_is_told_with_how_to_find_the_job(server: ScriptedServer) -> None:
    server.answer(REPORT, status=201)
    for _ in range(3):
        server.answer({"message": "broken"}, status=500)
    code, _, err = run(server, "--attempts", "3")
    assert code == 125
    assert f"metalmark job logs --follow widgets {JOB}" in err


def test_answer_without_a_job_is_no_run(server: ScriptedServer) -> None:
    server.answer({"uuid": "x"}, status=201)
    code, out, err = run(server)
    assert (code, out) == (125, "")
    assert "names no job" in err


@pytest.mark.parametrize(("words", "code"), [((), 2), (("--ci-on-the-fly",), 0), (("--project", "widgets"), 0)])
def test_project_is_not_made_by_accident_in_ci(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int
) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.delenv("METALMARK_PROJECT", raising=False)
    server.answer(REPORT, status=201)
    given = ["run", "--detach", "--image", "registry.example/owner/app:1", *words]
    found = typer.main.get_command(app)(args=given, prog_name="metalmark", standalone_mode=False)
    assert (found or 0) == code
    assert len(server.asked) == (0 if code else 1)


def test_program_is_no_job_file(server: ScriptedServer) -> None:
    assert run(server, "./bench")[0] == 2
    assert server.asked == []
