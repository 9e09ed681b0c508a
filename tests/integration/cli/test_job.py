"""What becomes of jobs, by commands, while a stand-in of a runner does them."""

from __future__ import annotations

import json
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.integration.cli.conftest import CommandLine

from metalmark.model import RequestRefused
from metalmark.testing.public_runner import PublicRunner

DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def runner(command_line: CommandLine) -> PublicRunner:
    """A public runner with a spec of its own, called ``vm``."""
    specs = [spec["slug"] for spec in command_line.json("spec", "list", "--all")]
    if "vm" not in specs:
        hardware = "--os linux --architecture x86_64 --cpu 1 --memory 1GiB --disk 1GiB --sandbox firecracker"
        command_line.json("spec", "create", "--name", "VM", *hardware.split())
        command_line.json("runner", "create", "--name", "Rack")
        command_line.json("runner", "spec", "add", "rack", "--spec", "vm")
    key = command_line.json("runner", "key", "rack")
    return PublicRunner(url=command_line.server.url, runner="rack", key=key["key"], poll_timeout_s=20)


def submit(command_line: CommandLine, project: str) -> str:
    """Submit a job and return its UUID."""
    image = f"localhost:{urlsplit(command_line.server.url).port}/app@{DIGEST}"
    run = {
        "project": project, "branch": "main", "testbed": "vm", "start_time": "2026-01-31T10:00:00Z",
        "end_time": "2026-01-31T10:00:01Z", "results": [], "job": {"image": image, "spec": "vm"},
    }  # fmt: skip
    with command_line.server.client() as client:
        answer = client.post("/v0/run", json=run)
    assert answer.status_code == 201, answer.text
    job: str = answer.json()["job"]
    return job


@pytest.fixture
def project(command_line: CommandLine) -> str:
    """A project, the same for all tests of the module."""
    if not command_line.json("org", "list", "--search", "jobs inc"):
        command_line.json("organization", "create", "--name", "Jobs Inc")
        command_line.json("project", "create", "jobs-inc", "--name", "Jobs")
    return "jobs"


def test_job_is_followed_to_its_end(command_line: CommandLine, runner: PublicRunner, project: str) -> None:
    job = submit(command_line, project)
    out, _ = command_line.run("job", "view", project, job)
    assert "pending because" in out
    results: list[dict[str, Any]] = [{"exit_code": 0, "stdout": "hello\n", "stderr": "warm-up\n"}]

    def work() -> None:
        runner.take()
        runner.complete(job, results)
        runner.disconnect()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        out, err = command_line.run("job", "logs", project, job, "--follow")
    finally:
        worker.join(30)
    assert out == "hello\n"
    assert err.startswith("warm-up\n") or "\nwarm-up\n" in err
    assert err.splitlines()[-1] in ("the job is completed", "the job is processed")
    events = [json.loads(line) for line in command_line.run("job", "logs", project, job, "--json")[0].splitlines()]
    assert events[-1]["event"] == "end"
    found = command_line.json("job", "view", project, job)
    assert found["status"] == "processed"
    assert found["output"]["results"] == results
    out, _ = command_line.run("job", "view", project, job)
    assert "iteration 1" in out
    assert "hello" not in out
    [listed] = command_line.json("job", "list", project, "--status", "processed")
    assert listed["uuid"] == job
    with pytest.raises(RequestRefused) as caught:
        command_line.run("job", "cancel", project, job)
    assert caught.value.status == 409
    [report] = command_line.json("report", "list", project, "--branch", "main", "--start-time", "2026-01-31")
    assert (report["job"], report["testbed"]["slug"]) == (job, "vm")
    assert command_line.json("report", "view", project, report["uuid"])["uuid"] == report["uuid"]
    assert command_line.json("report", "list", project, "--end-time", "2026-01-30") == []


def test_pending_job_is_canceled_and_done_once_more(
    command_line: CommandLine, runner: PublicRunner, project: str
) -> None:
    job = submit(command_line, project)
    with pytest.raises(RequestRefused) as caught:
        command_line.run("job", "retry", project, job)
    assert caught.value.status == 409
    assert command_line.json("job", "cancel", project, job)["status"] == "canceled"
    again = command_line.json("job", "retry", project, job)
    assert (again["retry_of"], again["status"]) == (job, "pending")
    assert command_line.json("job", "cancel", project, again["uuid"])["status"] == "canceled"
    assert command_line.json("job", "cancel", project, job)["status"] == "canceled"


def test_job_of_nobody(command_line: CommandLine, project: str) -> None:
    for words in (("view",), ("logs",), ("cancel",), ("retry",)):
        with pytest.raises(RequestRefused) as caught:
            command_line.run("job", *words, project, "01900000-0000-7000-8000-000000000000")
        assert caught.value.status == 404
