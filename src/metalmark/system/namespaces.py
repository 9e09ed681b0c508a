"""Namespaces that are made in a thread of this process and held by descriptors.

Linux gives every thread its own namespaces. A thread that leaves the shared ones can mount, name and wire up what it
likes without another process, and without the rest of the program seeing any of it. What it made lives as long as a
descriptor or a process refers to it: when this program dies, however it dies, the kernel takes everything down.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import queue
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from enum import IntFlag
from pathlib import Path
from types import TracebackType
from typing import Self

from metalmark.model import NoPermission
from metalmark.system.blocking import T, in_thread
from metalmark.system.mounts import make_private

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_FS = 0x200
_CAP_SYS_ADMIN = 21
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_INTERFACE = struct.Struct("16sH22x")
_FILES = {"mnt": 0x20000, "uts": 0x4000000, "ipc": 0x8000000, "pid": 0x20000000, "net": 0x40000000}


class Namespace(IntFlag):
    """Kinds of namespaces, by their clone(2) flags."""

    MOUNT = 0x20000
    UTS = 0x4000000
    IPC = 0x8000000
    PID = 0x20000000
    """Applies to the children that the thread starts, the first of which becomes its process 1."""
    NETWORK = 0x40000000


def has_privilege(proc: Path = Path("/proc")) -> bool:
    """Whether this program may mount and make namespaces: it has CAP_SYS_ADMIN."""
    for line in (proc / "self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    return False


class NamespaceThread:
    """A thread with namespaces of its own, that carries out functions one after another.

    Args:
        kinds: Which namespaces it does not share with the rest of the program.

    Raises:
        NoPermission: The kernel refused new namespaces.
    """

    def __init__(self, kinds: Namespace) -> None:
        self._kinds = kinds
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._descriptors: dict[str, int] = {}
        # Not a pool's thread: one that has left the shared namespaces must never be given other work.
        self._thread = threading.Thread(target=self._work, name="metalmark-ns", daemon=True)
        self._thread.start()
        try:
            self.call(self._enter)
        except OSError as error:
            self.close()
            raise NoPermission(
                f"the kernel refuses new namespaces ({error.strerror})",
                why="a box has mounts, processes and a network of its own",
                hint="run as root, or with CAP_SYS_ADMIN",
            ) from error
        except BaseException:
            self.close()
            raise

    def _enter(self) -> None:
        if _LIBC.unshare(ctypes.c_int(self._kinds.value | _CLONE_FS)) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        if self._kinds & Namespace.MOUNT:
            make_private()
        for name, flag in _FILES.items():
            if self._kinds.value & flag and name != "pid":
                self._descriptors[name] = _open_high(f"/proc/thread-self/ns/{name}")

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    def call(self, function: Callable[[], T]) -> T:
        """Run a function in the thread, wait for it, and return what it returns or raise what it raises."""
        future: Future[T] = Future()

        def task() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - handed to the caller, who is in another thread
                future.set_exception(error)

        self._tasks.put(task)
        return future.result()

    async def run(self, function: Callable[[], T]) -> T:
        """Like `call`, without blocking the event loop."""
        return await in_thread(self.call, function)

    def descriptor(self, kind: Namespace) -> int:
        """The descriptor of one of its namespaces: open until `close`.

        Raises:
            KeyError: The thread shares that namespace with the program.
        """
        name = next(name for name, flag in _FILES.items() if flag == kind.value)
        return self._descriptors[name]

    def close(self) -> None:
        """End the thread and let go of the namespaces; safe to repeat."""
        if self._thread.is_alive():
            self._tasks.put(None)
            self._thread.join()
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open_high(path: str) -> int:
    # Above 9, where the redirections of a shell that inherits it cannot reach.
    low = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 10)
    finally:
        os.close(low)


def raise_loopback() -> None:
    """Switch on the interface ``lo`` of the calling thread's network namespace.

    Raises:
        OSError: The kernel refused.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        answer = fcntl.ioctl(handle, _SIOCGIFFLAGS, _INTERFACE.pack(b"lo", 0))
        flags: int = _INTERFACE.unpack(answer)[1]
        fcntl.ioctl(handle, _SIOCSIFFLAGS, _INTERFACE.pack(b"lo", flags | _IFF_UP))


def set_hostname(name: str) -> None:
    """Name the calling thread's UTS namespace.

    Raises:
        OSError: The kernel refused.
    """
    raw = name.encode()
    if _LIBC.sethostname(raw, len(raw)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
