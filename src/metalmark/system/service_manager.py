"""Messages to the service manager that started this process (systemd's ``sd_notify``, without its library)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from metalmark.system.clock import sleep_s

_PETS_A_PERIOD = 3


def notify_manager(environment: Mapping[str, str], *lines: str) -> bool:
    """Tell the manager something (``READY=1``, ``STOPPING=1``, ``STATUS=…``); nothing where there is none.

    Args:
        environment: This process's own; ``NOTIFY_SOCKET`` of it is read.
        lines: Assignments, as sd_notify(3) has them.

    Returns:
        Whether a manager was told.
    """
    place = environment.get("NOTIFY_SOCKET", "")
    if not place.startswith(("/", "@")):
        return False
    address = "\0" + place[1:] if place.startswith("@") else place
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        # A manager that takes nothing is no reason for a daemon to stand still.
        channel.settimeout(0)
        channel.sendto("\n".join(lines).encode(), address)
        return True
    return False


def watchdog_period_s(environment: Mapping[str, str], *, pid: int | None = None) -> float | None:
    """Return how often the manager wants a sign of life; None when it does not, or not of this process."""
    if environment.get("WATCHDOG_PID", str(pid or os.getpid())) != str(pid or os.getpid()):
        return None
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdecimal() and int(text) else None


async def keep_manager_content(environment: Mapping[str, str]) -> None:
    """Give the manager's watchdog its signs of life until canceled; returns at once when it wants none.

    They come from the event loop: a daemon whose loop stands still is what a watchdog is for.
    """
    period_s = watchdog_period_s(environment)
    while period_s is not None:
        notify_manager(environment, "WATCHDOG=1")
        await sleep_s(period_s / _PETS_A_PERIOD)


def replace_process(program: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Go on as another program, under the same process id.

    Args:
        program: What to execute.
        arguments: Without the program's own name.
        environment: The whole of it.

    Raises:
        OSError: It cannot be executed; this program goes on.
    """
    os.execve(program, [str(program), *arguments], dict(environment))  # noqa: S606  # no shell is wanted
