"""Standard output and error of a command that waits for a reader, and hears signals meanwhile.

A terminal that was stopped, or a pipe that nobody reads, blocks whoever writes to it. So a thread writes, in the order
in which things were said, and the command waits where it can be canceled.
"""

from __future__ import annotations

import io
import os
import select
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Condition, Thread
from typing import BinaryIO, TextIO, cast

import anyio

from metalmark.cli.logs import set_up_logging, shown

_LIMIT_BYTES = 256 * 1024
_PIECE_BYTES = 4096
_END_S = 1.0


class OrderedOutput:
    """Takes what goes to some descriptors at once, and has a thread of its own write it.

    Nothing is dropped while somebody waits for `room` after each thing that is said: not more than the limit is kept
    then, and the last thing.

    Args:
        limit_bytes: Most that is kept for the readers.
    """

    def __init__(self, *, limit_bytes: int = _LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._held: deque[tuple[int, bytes]] = deque()
        self._held_bytes = 0
        self._readerless: set[int] = set()
        self._hurried = False
        self._closed = False
        self._changed = Condition()
        self._heard, self._told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        Thread(target=self._write_on, name="output", daemon=True).start()

    def take(self, descriptor: int, content: bytes) -> None:
        """Have bytes written after all that was taken before.

        Raises:
            BrokenPipeError: Nobody will read there any more.
        """
        with self._changed:
            if descriptor in self._readerless:
                self._readerless.discard(descriptor)
                raise BrokenPipeError
            if not content or (self._hurried and self._held_bytes + len(content) > self._limit_bytes):
                return
            self._held.append((descriptor, content))
            self._held_bytes += len(content)
            self._changed.notify_all()

    async def room(self) -> None:
        """Wait until the readers have most of what was said; not at all once they are waited for no more."""
        await self._until(self._limit_bytes)

    async def written(self) -> None:
        """Wait until all is written that was said; not at all once the readers are waited for no more."""
        await self._until(0)

    def hurry(self) -> None:
        """Wait for the readers no more: what they do not read in time is dropped from now on."""
        with self._changed:
            self._hurried = True
        self._wake()

    def drain(self, within_s: float) -> bool:
        """Wait, blocking, until all is written, and tell whether it was in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._held, within_s)

    def close(self) -> None:
        """Take no more; what was taken is written as long as it takes."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def _until(self, at_most: int) -> None:
        while True:
            with self._changed:
                if self._held_bytes <= at_most or self._hurried:
                    return
            await anyio.wait_readable(self._heard)
            with suppress(BlockingIOError):
                os.read(self._heard, _PIECE_BYTES)

    def _wake(self) -> None:
        # A pipe that is full says the same as one byte in it.
        with suppress(BlockingIOError):
            os.write(self._told, b"\0")

    def _write_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._held or self._closed)
                if not self._held:
                    break
                descriptor, content = self._held[0]
            is_read = _write_all(descriptor, content)
            with self._changed:
                self._held.popleft()
                self._held_bytes -= len(content)
                if not is_read:
                    self._readerless.add(descriptor)
                self._changed.notify_all()
            self._wake()
        os.close(self._told)
        os.close(self._heard)


def _write_all(descriptor: int, content: bytes) -> bool:
    """Write, and tell whether somebody may read there; what cannot be written otherwise, as on a full disk, is lost."""
    rest = memoryview(content)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest[:_PIECE_BYTES]) :]
        except BlockingIOError:
            # Whoever shares the terminal may have made it so.
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
        except BrokenPipeError:
            return False
        except OSError:
            return True
    return True


class _Stream(io.TextIOBase):
    """A stream whose text an `OrderedOutput` takes."""

    def __init__(self, output: OrderedOutput, replaced: TextIO) -> None:
        self._output = output
        self._descriptor = replaced.fileno()
        self._encoding = replaced.encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the base class has an attribute that cannot be set
        return self._encoding

    @property
    def buffer(self) -> BinaryIO:
        return cast("BinaryIO", _Bytes(self._output, self._descriptor))

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        self._output.take(self._descriptor, text.encode(self._encoding, "backslashreplace"))
        return len(text)


class _Bytes:
    """The same for bytes."""

    def __init__(self, output: OrderedOutput, descriptor: int) -> None:
        self._output = output
        self._descriptor = descriptor

    def write(self, content: bytes) -> int:
        self._output.take(self._descriptor, content)
        return len(content)


@contextmanager
def ordered_output() -> Iterator[OrderedOutput]:
    """Have everything that goes to standard output and error go through what is yielded, while the context lasts.

    At its end what is left gets a second to be written. Where that is not enough the streams stay as they are: what is
    said after that must not wait either.
    """
    output = OrderedOutput()
    before = sys.stdout, sys.stderr
    try:
        streams = [_Stream(output, stream) for stream in before]
    except (OSError, ValueError):
        # Something in this process takes what is written there.
        try:
            yield output
        finally:
            output.close()
        return
    for stream in before:
        stream.flush()
    sys.stdout, sys.stderr = streams
    set_up_logging(shown())
    try:
        yield output
    finally:
        if output.drain(_END_S):
            sys.stdout, sys.stderr = before
            set_up_logging(shown())
            output.close()
