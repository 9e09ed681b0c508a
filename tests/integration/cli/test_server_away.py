"""Commands while their server goes away and comes back."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from tests.integration.cli.conftest import CommandLine
from tests.integration.cli.test_job import submit

from metalmark.cli.logs import Verbosity, set_up_logging
from metalmark.testing.public_runner import PublicRunner
from metalmark.testing.running_server import RunningServer, running_server

Start = Callable[[], AbstractContextManager[RunningServer]]
PATIENT = ("--attempts", "60", "--max-retry-after", "1")


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a server in the same folder and on the same port each time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return lambda: running_server(tmp_path / "server", settings={"server": {"bind": f"127.0.0.1:{port}"}})


@pytest.fixture
def command_line(
    start: Start, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    """A command line for a server that has run once and is down."""
    set_up_logging(Verbosity.WARNING)
    with start() as server:
        monkeypatch.setenv("METALMARK_HOST", server.url)
        monkeypatch.setenv("METALMARK_API_KEY", server.admin_key)
        monkeypatch.setenv("METALMARK_HOME", str(tmp_path / "home"))
        return CommandLine(server=server, capsys=capsys, folder=tmp_path)


def test_command_waits_for_a_server_that_starts(command_line: CommandLine, start: Start) -> None:
    end = threading.Event()

    def serve() -> None:
        with start():
            end.wait(60)

    starting = threading.Timer(1, serve)
    starting.start()
    try:
        out, err = command_line.run("runner", "create", "--name", "n", "--json", *PATIENT)
        assert "cannot be reached" in err
        assert [runner["uuid"] for runner in command_line.json("runner", "list")] == [json.loads(out)["uuid"]]
    finally:
        end.set()
        starting.join(60)


def test_output_is_followed_across_a_restart(command_line: CommandLine, start: Start) -> None:
    hardware = "--os linux --architecture x86_64 --cpu 1 --memory 1GiB --disk 1GiB --sandbox firecracker"
    with start() as server:
        command_line.server = server
        command_line.json("organization", "create", "--name", "Away")
        command_line.json("project", "create", "away", "--name", "Away")
        command_line.json("spec", "create", "--name", "VM", *hardware.split())
        key = command_line.json("runner", "create", "--name", "Rack")["key"]
        command_line.json("runner", "spec", "add", "rack", "--spec", "vm")
        job = submit(command_line, "away")
        runner = PublicRunner(url=server.url, runner="rack", key=key, poll_timeout_s=20)
        runner.take()
        runner.disconnect()
    restarted = threading.Event()

    def serve() -> None:
        with start():
            restarted.wait(2)
        with start():
            runner.complete(job, [{"exit_code": 0, "stdout": "after all\n"}])
            runner.disconnect()
            restarted.wait(60)

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        out, err = command_line.run("job", "logs", "away", job, "--follow", *PATIENT)
    finally:
        restarted.set()
        serving.join(60)
    assert out == "after all\n"
    assert "going on in" in err or "cannot be reached" in err
