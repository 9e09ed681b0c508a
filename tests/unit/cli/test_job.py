from __future__ import annotations

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
        ["iteration", "0  exit code 0"],
        ["iteration", "1  exit code 2, 1 files"],
        ["error", "exit code 2"],
    ]
