"""A service manager's end of the conversation: a datagram socket, in the file system or abstract."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import anyio
import pytest

from metalmark.system import keep_manager_content, notify_manager


def listening(address: str) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    channel.bind(address)
    channel.settimeout(10)
    return channel


def test_the_manager_gets_the_lines_as_one_message(tmp_path: Path) -> None:
    with listening(str(tmp_path / "notify")) as manager:
        assert notify_manager({"NOTIFY_SOCKET": str(tmp_path / "notify")}, "READY=1", "STATUS=at work")
        assert manager.recv(4096) == b"READY=1\nSTATUS=at work"


def test_an_abstract_socket_is_reached_too() -> None:
    name = f"metalmark-{uuid.uuid4()}"
    with listening(f"\0{name}") as manager:
        assert notify_manager({"NOTIFY_SOCKET": f"@{name}"}, "STOPPING=1")
        assert manager.recv(4096) == b"STOPPING=1"


def test_a_manager_that_does_not_read_stops_nobody(tmp_path: Path) -> None:
    with listening(str(tmp_path / "notify")):
        told = [notify_manager({"NOTIFY_SOCKET": str(tmp_path / "notify")}, "x" * 1000) for _ in range(3000)]
    assert told[0]
    assert not told[-1]


@pytest.mark.anyio
async def test_the_watchdog_hears_more_often_than_it_asks(tmp_path: Path) -> None:
    environment = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "300000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    with listening(str(tmp_path / "notify")) as manager:
        manager.setblocking(False)
        heard = 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_manager_content, environment)
            with anyio.fail_after(20):
                while heard < 4:
                    await anyio.wait_readable(manager)
                    assert manager.recv(100) == b"WATCHDOG=1"
                    heard += 1
            tasks.cancel_scope.cancel()


def test_a_process_that_is_replaced_keeps_its_id_and_its_arguments() -> None:
    code = (
        "import os, pathlib, sys\n"
        "from metalmark.system import replace_process\n"
        "sys.stdout.write(f'{os.getpid()}\\n'); sys.stdout.flush()\n"
        "words = ['-c', 'echo $$; echo \"$1\"; echo $ONLY', 'sh', 'a b']\n"
        "replace_process(pathlib.Path('/bin/sh'), words, {'ONLY': 'x'})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    before, after, argument, variable = done.stdout.splitlines()
    assert (before, argument, variable) == (after, "a b", "x")
