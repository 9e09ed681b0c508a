"""``runner up`` and ``server up`` whose standard error nobody reads: they serve, and they end."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from tests.integration.cli.conftest import CommandLine

METALMARK = str(Path(sys.executable).with_name("metalmark"))
WITHIN_S = 60
STOP_OUTPUT = b"\x13"


@contextmanager
def process(words: list[str], home: Path, stderr: int) -> Iterator[subprocess.Popen[bytes]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("METALMARK_", "BENCHER_"))}
    started = subprocess.Popen(
        [METALMARK, *words],
        env={**kept, "METALMARK_HOME": str(home), "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )
    os.close(stderr)
    try:
        yield started
    finally:
        started.kill()
        started.wait(WITHIN_S)


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def ends(started: subprocess.Popen[bytes]) -> int:
    began = time.monotonic()
    started.send_signal(signal.SIGTERM)
    code = started.wait(WITHIN_S)
    assert time.monotonic() - began < 20
    return code


def test_runner_on_a_stopped_terminal_stays_connected_and_ends(command_line: CommandLine, tmp_path: Path) -> None:
    name = "mute"
    key = tmp_path / "runner-key"
    key.write_text(command_line.json("runner", "create", "--name", name)["key"])
    key.chmod(0o600)
    ours, theirs = pty.openpty()
    words = ["runner", "up", "--host", command_line.server.url, "--runner", name, "--key-file", str(key)]

    def seen() -> str:
        return str(command_line.json("runner", "view", name)["last_heartbeat"])

    try:
        with process(words, tmp_path / "runner", theirs) as runner:
            assert os.read(ours, 1)
            os.write(ours, STOP_OUTPUT)
            until(lambda: seen() != "None")
            before = seen()
            until(lambda: seen() != before)
            assert ends(runner) == 0
    finally:
        os.close(ours)


def test_server_whose_log_nobody_reads_answers_and_ends(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    try:
        with process(["-vv", "server", "up", "--bind", "127.0.0.1:0"], tmp_path, theirs) as server:
            seen = b""
            while b"serving http" not in seen:
                seen += os.read(ours, 4096)
            port = seen.partition(b"serving http://localhost:")[2].partition(b"/")[0].decode()
            # Each request is a line of about 300 bytes, and the pipe takes 65536.
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
                for _ in range(500):
                    assert client.get("/v0/users?search=" + "x" * 1000).status_code == 401
            assert ends(server) == 0
    finally:
        os.close(ours)
