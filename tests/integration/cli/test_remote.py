"""Commands that ask a server, as processes: codes, streams, signals, what is imported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.cli.conftest import CommandLine

from metalmark.cli.application import run_application
from metalmark.testing.running_server import RunningServer

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PROGRAM = "import sys; from metalmark.cli.main import main; sys.argv[0] = 'metalmark'; main()"


@pytest.fixture
def environment(running: RunningServer, tmp_path: Path) -> dict[str, str]:
    """An environment with the server and its administrator's key, as systemd hands it over."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "metalmark-api-key").write_text(f"{running.admin_key}\n")
    (credentials / "metalmark-api-key").chmod(0o400)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("METALMARK_", "BENCHER_"))}
    return {
        **kept,
        "METALMARK_HOME": str(tmp_path / "home"),
        "BENCHER_HOST": running.url,
        "CREDENTIALS_DIRECTORY": str(credentials),
        "COLUMNS": "80",
    }


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    def run(*words: str, code: str = PROGRAM, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *words],
            capture_output=True, text=True, timeout=60, check=False, env={**environment, **more},
        )  # fmt: skip

    return run


def test_public_names_and_a_systemd_credential_are_enough(run: Run) -> None:
    done = run("user", "list", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert [user["admin"] for user in json.loads(done.stdout)] == [True]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("runner", "view", "nobody"), 1, "with 404"),
        (("runner", "view"), 2, "RUNNER"),
        (("runner", "view", "x", "--host", "nothing"), 2, "--host"),
        (("runner", "view", "x", "--key", "k3y"), 2, "--key"),
        (("runner", "view", "x", "--host", "http://127.0.0.1:1", "--attempts", "2"), 1, "after 2 attempts"),
        (("runner", "view", "x", "--ca-file", "/nonexistent", "--host", "https://127.0.0.1:1"), 2, "/nonexistent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_failure_has_its_code_and_says_why_on_stderr(
    command_line: CommandLine, words: tuple[str, ...], code: int, told: str
) -> None:
    command_line.capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        run_application(words)
    written = command_line.capsys.readouterr()
    assert (caught.value.code, written.out) == (code, "")
    assert told in written.err
    assert "k3y" not in written.err


def test_nothing_of_the_server_is_imported(run: Run) -> None:
    code = """
import sys
from metalmark.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {'fastapi', 'starlette', 'uvicorn', 'sqlalchemy', 'alembic', 'obstore', 'joserfc'}
own = ('metalmark.server', 'metalmark.store', 'metalmark.sandbox', 'metalmark.host')
print(sorted(name for name in sys.modules if name.split('.')[0] in heavy or name.startswith(own)))
"""
    done = run("server", "version", "--strict", code=code)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr


def test_reader_that_stops_reading_is_no_failure(environment: dict[str, str]) -> None:
    command = f'"{sys.executable}" -c "{PROGRAM}" server spec; echo $? >&2'
    done = subprocess.run(
        ["bash", "-c", f"({command}) | head -c 1"],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("{", "0\n")


def test_interrupted_command_ends_at_once_with_its_code(environment: dict[str, str]) -> None:
    words = ("runner", "list", "--host", "http://127.0.0.1:1", "--retry-after", "60", "--max-retry-after", "60")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stderr is not None
        assert "the next in 60 s" in process.stderr.readline()
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert time.monotonic() - start < 20


def test_completion_knows_groups_commands_and_values(run: Run) -> None:
    def completed(words: str) -> list[str]:
        asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_METALMARK_COMPLETE": "complete_bash"}
        return run(**asked).stdout.split()

    assert {"list", "create", "run", "spec"} <= set(completed("metalmark runner "))
    assert completed("metalmark runner list --sort ") == ["name", "created"]
