"""``metalmark server up`` as a process: its first start, its log, its end."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

METALMARK = str(Path(sys.executable).with_name("metalmark"))
DEADLINE_S = 60


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("METALMARK_", "BENCHER_"))}
    return {**kept, "METALMARK_HOME": str(home)}


@contextmanager
def server_up(home: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """Run the command; yield the process, its address, and the lines of its log until it served."""
    process = subprocess.Popen(
        [METALMARK, "server", "up", "--bind", "127.0.0.1:0", *words],
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line)
            if match := re.match(r"serving http://localhost:(\d+)/", line):
                yield process, f"http://127.0.0.1:{match[1]}", lines
                break
        else:
            pytest.fail("the server ended: " + "".join(lines))
    finally:
        if process.poll() is None:
            process.terminate()
        lines.extend(process.stdout)
        process.stdout.close()
        process.wait(timeout=DEADLINE_S)


def test_a_server_starts_alone_serves_logs_and_stops(tmp_path: Path) -> None:
    # Of the umask that services usually have, in a folder that others may look into.
    storage = tmp_path / "storage"
    storage.mkdir()
    storage.chmod(0o755)
    with server_up(tmp_path, "--storage", str(storage)) as (process, url, lines):
        key_file = tmp_path / "state/server/admin-key"
        while httpx.get(f"{url}/readyz", trust_env=False).status_code != 200:
            pass
        key = key_file.read_text().strip()
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
        asked = httpx.get(f"{url}/v0/users?search=secret-word", headers={"Authorization": f"Bearer {key}"})
        assert asked.status_code == 200
        run = {"start_time": "2026-03-01T10:00:00Z", "end_time": "2026-03-01T10:00:42Z", "results": ["{}"]}
        run |= {"project": "mine", "context": {}}
        ran = httpx.post(f"{url}/v0/run", json=run, headers={"Authorization": f"Bearer {key}"}, trust_env=False)
        assert ran.status_code == 201
        kept = [path for path in storage.rglob("*") if path.is_file()]
        assert kept
        assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
        second = subprocess.run(
            [METALMARK, "server", "up", "--bind", "127.0.0.1:0"],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert second.returncode == 1
        assert "runs in" in second.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=DEADLINE_S) == 0
    log = "".join(lines)
    assert str(key_file) in log
    assert "bencher_user_" not in log
    assert "secret-word" not in log
    logged = [json.loads(line) for line in lines if line.startswith("{")]
    line = next(entry for entry in logged if entry.get("path") == "/v0/users")
    assert (line["status"], line["request_id"]) == (200, asked.headers["x-request-id"])


def test_errors_of_the_configuration_are_told_before_anything_is_made(tmp_path: Path) -> None:
    done = subprocess.run(
        [METALMARK, "server", "up", "--bind", "nowhere", "--storage", "ftp://x"],
        env={**environment(tmp_path), "METALMARK_AUTH_SIGNUP": "maybe"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 1
    for word in ("3 errors", "server.bind (--bind)", "storage (--storage)", "auth.signup (METALMARK_AUTH_SIGNUP)"):
        assert word in done.stderr
    assert not (tmp_path / "state").exists()
    assert "Traceback" not in done.stderr
