"""``metalmark run`` against a running server, with a stand-in of a runner that does the job."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer.main
from tests.integration.cli.conftest import CommandLine
from tests.integration.cli.test_job import DIGEST, project, runner

from metalmark.cli.application import app
from metalmark.cli.logs import Verbosity, set_up_logging
from metalmark.model import InputError
from metalmark.testing.public_runner import PublicRunner
from metalmark.testing.running_server import running_server

__all__ = ["project", "runner"]


def words(command_line: CommandLine, *more: str) -> tuple[str, ...]:
    image = f"localhost:{urlsplit(command_line.server.url).port}/app@{DIGEST}"
    return ("run", "--project", "jobs", "--spec", "vm", "--image", image, *more)


def ended(command_line: CommandLine, *given: str) -> tuple[int, str, str]:
    """Run a command that ends with a code of its own."""
    command_line.capsys.readouterr()
    code = typer.main.get_command(app)(args=list(given), prog_name="metalmark", standalone_mode=False)
    written = command_line.capsys.readouterr()
    return code or 0, written.out, written.err


@contextmanager
def doing(runner: PublicRunner, do: Callable[[dict[str, Any]], object]) -> Iterator[None]:
    """Let a runner take the next job and do something with it."""

    def work() -> None:
        do(runner.take())
        runner.disconnect()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        worker.join(60)


@pytest.mark.parametrize(
    ("results", "allowed", "code"),
    [
        ([{"exit_code": 0, "stdout": "hello\n", "stderr": "warm-up\n"}], False, 0),
        ([{"exit_code": 0}, {"exit_code": 7, "stdout": "half"}], False, 7),
        ([{"exit_code": 7}], True, 0),
    ],
)
def test_run_shows_the_output_and_ends_with_the_benchmarks_code(
    command_line: CommandLine,
    runner: PublicRunner,
    project: str,
    results: Sequence[dict[str, Any]],
    allowed: bool,
    code: int,
) -> None:
    def do(job: dict[str, Any]) -> None:
        assert job["config"]["cmd"] == ["--quick", "a b"]
        assert job["config"]["env"] == {"A": "1"}
        assert job["config"]["timeout"] == 120
        if any(result["exit_code"] for result in results) and not allowed:
            runner.fail(job["uuid"], results, "exit code 7")
        else:
            runner.complete(job["uuid"], results)

    more = ("--env", "A=1", "--job-timeout", "2m", *(["--allow-failure"] if allowed else []))
    with doing(runner, do):
        found, out, err = ended(command_line, *words(command_line, *more), "--", "--quick", "a b")
    assert found == code, err
    assert out == "".join(result.get("stdout", "") for result in results)
    for result in results:
        assert result.get("stderr", "") in err
    assert f"status   {'failed' if code else 'processed'}" in err
    assert err.count("exited") == len(results)


def test_detached_run_names_its_job(command_line: CommandLine, runner: PublicRunner, project: str) -> None:
    out, err = command_line.run(*words(command_line, "--detach"))
    job = out.split()[1]
    assert err.strip() == f"follow it with: metalmark job logs --follow jobs {job}"
    found = command_line.json("job", "view", "jobs", job)
    assert (found["status"], found["spec"]["slug"]) == ("pending", "vm")
    assert command_line.json("job", "cancel", "jobs", job)["status"] == "canceled"


def test_json_has_report_job_and_code_and_the_output_goes_elsewhere(
    command_line: CommandLine, runner: PublicRunner, project: str
) -> None:
    results = [{"exit_code": 3, "stdout": "told\n"}]
    with doing(runner, lambda job: runner.fail(job["uuid"], results, "exit code 3")):
        code, out, err = ended(command_line, *words(command_line, "--json"))
    document = json.loads(out)
    assert (code, document["exit_code"], document["job"]["status"]) == (3, 3, "failed")
    assert document["report"]["job"] == document["job"]["uuid"]
    assert "told\n" in err


def test_job_that_is_canceled_elsewhere_ends_the_run_with_130(
    command_line: CommandLine, runner: PublicRunner, project: str
) -> None:
    def do(job: dict[str, Any]) -> None:
        with command_line.server.client() as client:
            assert client.post(f"/v0/projects/jobs/jobs/{job['uuid']}/cancel").status_code == 200
        assert runner.heartbeat()["event"] == "cancel"
        runner.give_up(job["uuid"])

    with doing(runner, do):
        code, _, err = ended(command_line, *words(command_line))
    assert code == 130
    assert "status   canceled" in err


def test_run_of_nobody_is_refused_by_the_server(
    command_line: CommandLine, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("METALMARK_API_KEY_FILE")
    code, out, err = ended(command_line, *words(command_line))
    assert (code, out) == (125, "")
    assert "401" in err


def test_what_is_wrong_is_named_before_anything_is_submitted(
    command_line: CommandLine, runner: PublicRunner, project: str
) -> None:
    for wrong, told in (
        (("run", "--project", "jobs"), "--image"),
        (words(command_line, "--job-timeout", "soon"), "--job-timeout"),
        (words(command_line, "--env", "A"), "--env"),
        (("run", "--project", "jobs", "--image", "./layout"), "./layout"),
        (("run", "no-such.toml"), "no-such.toml"),
    ):
        code, out, err = ended(command_line, *wrong)
        assert (code, out) == (2, ""), wrong
        assert told in err
    with pytest.raises(InputError, match="named already"):
        command_line.run("run", "a.toml", "b.toml")


def test_key_of_the_project_runs_watches_and_cancels(
    command_line: CommandLine, runner: PublicRunner, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = command_line.json("project", "key", "create", "jobs", "--name", "ci")["key"]
    monkeypatch.delenv("METALMARK_API_KEY_FILE")
    monkeypatch.setenv("METALMARK_API_KEY", key)
    with doing(runner, lambda job: runner.complete(job["uuid"], [{"exit_code": 0, "stdout": "told\n"}])):
        code, out, _ = ended(command_line, *words(command_line))
    assert (code, out) == (0, "told\n")
    out, _ = command_line.run(*words(command_line, "--detach"))
    assert command_line.json("job", "cancel", "jobs", out.split()[1])["status"] == "canceled"


def test_job_file_is_submitted_with_what_flags_change(
    command_line: CommandLine, runner: PublicRunner, project: str
) -> None:
    image = words(command_line)[words(command_line).index("--image") + 1]
    file = command_line.folder / "job.toml"
    file.write_text(
        f"""
        project = "jobs"
        image = "{image}"
        spec = "vm"
        branch = "feature/x"
        command = ["--slow"]
        outputs = ["/r.json"]
        iterations = 2
        [env]
        A = "file"
        [thresholds.models.latency]
        test = "t_test"
        upper_boundary = 0.99
        [machine]
        memory = "1G"
        """
    )
    seen: list[dict[str, Any]] = []

    def do(job: dict[str, Any]) -> None:
        seen.append(job["config"])
        runner.complete(job["uuid"], [{"exit_code": 0}, {"exit_code": 0}])

    with doing(runner, do):
        code, _, err = ended(command_line, "run", str(file), "--env", "B=flag", "--json", "--", "--quick")
    assert code == 0, err
    [config] = seen
    assert (config["cmd"], config["env"], config["iter"]) == (["--quick"], {"A": "file", "B": "flag"}, 2)
    assert config["file_paths"] == ["/r.json"]
    assert "machine in the job file has no effect" in err
    [report] = command_line.json("report", "list", "jobs", "--branch", "feature/x")
    assert report["testbed"]["slug"] == "vm"


def test_run_of_nobody_is_watched_without_its_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up_logging(Verbosity.WARNING)
    with running_server(tmp_path / "server", settings={"auth": {"anonymous": True}}) as server:
        spec = {"name": "Open", "os": "linux", "architecture": "x86_64", "sandbox": "firecracker", "anonymous": True}
        with server.client() as client:
            made = client.post("/v0/specs", json={**spec, "cpu": 1, "memory": 2**30, "disk": 2**30})
            assert made.status_code == 201, made.text
            rack = client.post("/v0/runners", json={"name": "Rack"}).json()
            assert client.post("/v0/runners/rack/specs", json={"spec": made.json()["uuid"]}).status_code == 201
        for name in ("METALMARK_API_KEY_FILE", "METALMARK_API_KEY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("METALMARK_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("METALMARK_HOST", server.url)
        nobody = CommandLine(server=server, capsys=capsys, folder=tmp_path)
        runner = PublicRunner(url=server.url, runner="rack", key=rack["key"], poll_timeout_s=20)
        with doing(runner, lambda job: runner.complete(job["uuid"], [{"exit_code": 0, "stdout": "told\n"}])):
            given = ("--project", "open", "--image", f"a@{DIGEST}", "--spec", "open")
            code, out, err = ended(nobody, "run", *given)
        # What jobs print is for those who signed in; how they end is for everybody who may see the project.
        assert (code, out) == (0, ""), err
        assert "status   processed" in err
