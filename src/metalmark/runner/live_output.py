"""Forwards what a benchmark prints to the runner's own streams while it runs.

What is forwarded is read back from the spool, so a reader that stops reading holds up the forwarding and nothing else:
neither the benchmark nor its time-out waits for a terminal.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel

from metalmark.runner.output_spool import OutputSpool, StreamSpool

_CHUNK_BYTES = 4096
"""PIPE_BUF: a pipe that is writable takes this much without blocking."""
_GONE = frozenset((errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF))


@dataclass(kw_only=True)
class LiveOutput:
    """Where the two streams go. The same descriptor twice is fine, and so are two of one pipe."""

    stdout: int
    stderr: int
    within_line: bool = field(default=False, init=False)
    """What was last written to where standard error goes did not end its line."""

    async def forward(self, spool: OutputSpool) -> None:
        """Forward both streams up to their end."""
        turn = anyio.Lock()
        async with anyio.create_task_group() as tasks:
            if self._is_one_file():
                tasks.start_soon(_forward, spool.stdout, self.stdout, turn, self._note_end)
            else:
                tasks.start_soon(_forward, spool.stdout, self.stdout, anyio.Lock(), _ignore)
            tasks.start_soon(_forward, spool.stderr, self.stderr, turn, self._note_end)

    def _is_one_file(self) -> bool:
        return os.path.sameopenfile(self.stdout, self.stderr)

    def _note_end(self, last: bytes) -> None:
        self.within_line = last != b"\n"


def _ignore(last: bytes) -> None:
    del last


async def _forward(spool: StreamSpool, descriptor: int, turn: anyio.Lock, note_last: Callable[[bytes], None]) -> None:
    offset = 0
    blocks = not stat.S_ISREG(os.fstat(descriptor).st_mode)
    while data := await spool.read(offset, _CHUNK_BYTES if blocks else 16 * _CHUNK_BYTES):
        try:
            # Two streams into one pipe: what it was found to have room for must not be used up by the other.
            async with turn:
                if blocks:
                    await _writable(descriptor)
                written = os.write(descriptor, data)
            offset += written
            note_last(data[written - 1 : written])
        except BlockingIOError:
            continue
        except OSError as error:
            # Nobody reads any more (`| head`), or it has no room: the benchmark and its result go on without.
            if error.errno in _GONE:
                return
            raise


async def _writable(descriptor: int) -> None:
    try:
        await anyio.wait_writable(descriptor)
    except PermissionError:
        # epoll does not take devices such as /dev/null; they do not block either.
        await anyio.lowlevel.checkpoint()
