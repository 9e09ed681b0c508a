"""Runs inside the virtual machine of `tests.machine.systemd_vm`: the service of a runner under a real systemd."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from tests.integration.server.channel.conftest import Rack, rack
from tests.integration.server.channel.test_updates import publish

from metalmark.runner import Installation
from metalmark.server import ServerContext, update_offers
from metalmark.store import RunnerProof
from metalmark.store.runners import find_proof
from metalmark.testing.public_runner import PublicRunner

UNIT = "metalmark-runner.service"
FILES = Path("/code/files")
_WITHIN_S = 500.0


def note(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def systemctl(*words: str) -> str:
    done = subprocess.run(["systemctl", "--no-pager", *words], check=False, capture_output=True, text=True, timeout=300)
    return (done.stdout + done.stderr).strip()


def shown(name: str) -> str:
    return systemctl("show", "--value", "--property", name, UNIT)


def metalmark(*words: str) -> str:
    command = [sys.executable, "-c", "from metalmark.cli.main import main; main()", *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr + journal()
    return done.stdout + done.stderr


def journal() -> str:
    done = subprocess.run(
        ["journalctl", "--no-pager", "-n", "60", "-o", "cat", "-u", UNIT], check=False, capture_output=True, text=True
    )
    return done.stdout


def proof(server: Rack, runner: object) -> RunnerProof | None:
    async def read(context: ServerContext) -> RunnerProof | None:
        async with context.store.read() as connection:
            return await find_proof(connection, runner_id=UUID(str(runner)))

    return server.call(read)


def until(what: str, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline, f"{what}: not in time\n{journal()}"
        time.sleep(0.5)
    note(f"{what}: {time.monotonic():.0f} s after boot")


def updates_itself(server: Rack, runner: PublicRunner) -> None:
    """Offer a good version, and then one that dies: the first stays, the second is taken back."""
    installation = Installation()
    process = shown("MainPID")
    publish(server, FILES / "good.tar")
    until("the good version is connected", lambda: getattr(proof(server, runner.runner), "version", "") == "7.0")
    until("the trial is over", lambda: not (installation.root / "trial").exists())
    assert (shown("MainPID"), shown("NRestarts"), shown("ActiveState")) == (process, "0", "active")
    good = installation.current()

    publish(server, FILES / "dead.tar")
    until("the dead version was tried", lambda: shown("NRestarts") == "1")
    until("the good version is back", lambda: installation.current() == good)
    until("and at work", lambda: "a version was taken back" in journal())
    assert shown("ActiveState") in ("active", "activating")
    until("and ready", lambda: shown("ActiveState") == "active")


def test_the_service_runs_updates_itself_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_offers, "LOOK_EVERY_S", 0.0)
    installation = Installation()
    os.environ.pop("METALMARK_HOME", None)
    database = f"sqlite:///{tmp_path}/server.db"
    with rack(tmp_path / "server", database, jobs={"heartbeat_timeout_s": 30}) as server:
        runner = server.runner()
        key = Path("/etc/metalmark/runner.key")
        key.parent.mkdir(mode=0o700)
        key.write_text(runner.key)
        key.chmod(0o600)
        words = (
            "install-service",
            "--host",
            server.server.url,
            "--runner",
            str(runner.runner),
            "--drain-timeout",
            "60",
        )

        metalmark("runner", *words, "--artifact", str(FILES / "first.tar"))
        assert shown("ActiveState") == "active"
        until("the first version is connected", lambda: proof(server, runner.runner) is not None)
        found = proof(server, runner.runner)
        assert found is not None
        assert found.version == "6.0"
        # A trial container ran under the unit's restrictions: loop devices, mounts, cgroups, a runtime.
        assert "container" in str(found.capabilities), (found.capabilities, journal())
        analysis = subprocess.run(
            ["systemd-analyze", "--no-pager", "security", UNIT], check=False, capture_output=True, text=True
        ).stdout
        score = re.search(r"Overall exposure level for \S+: ([0-9.]+)", analysis)
        assert score is not None
        note(f"systemd-analyze security: {score[1]}")
        # A service without any restriction has 9.6; what is missing to less is a filter of system calls.
        assert float(score[1]) < 9.0
        assert runner.key not in Path(f"/proc/{shown('MainPID')}/cmdline").read_text()
        assert runner.key.encode() not in Path(f"/proc/{shown('MainPID')}/environ").read_bytes()

        if (FILES / "good.tar").exists():
            updates_itself(server, runner)

        process = shown("MainPID")
        assert "was in place already" in metalmark("runner", *words)
        assert shown("MainPID") == process

        begun = time.monotonic()
        systemctl("stop", UNIT)
        assert time.monotonic() - begun < 60
        assert (shown("ActiveState"), shown("Result"), shown("ExecMainStatus")) == ("inactive", "success", "0"), (
            journal()
        )

        metalmark("runner", "uninstall-service")
        assert not installation.root.exists()
        assert not Path("/etc/systemd/system", UNIT).exists()
        assert "there is no service" in metalmark("runner", "uninstall-service")
        assert key.exists()
