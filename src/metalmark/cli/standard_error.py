"""Standard error of a command that serves others: a reader who has stopped reading must not stop the command."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Thread

import structlog

from metalmark.cli.logs import set_up_logging, shown

_LIMIT_BYTES = 256 * 1024
_PIECE_BYTES = 4096
_END_S = 1.0


class UnblockedStream(io.TextIOBase):
    """Takes text at once, and has a thread of its own write it.

    What comes while the limit is reached is dropped, until all that was taken has been written: then the log tells how
    many lines are missing. What cannot be written, as on a full disk, is dropped too.

    Args:
        descriptor: Where the text goes; it stays the caller's.
        encoding: Of the text there; what it cannot express is escaped.
        limit_bytes: Most that is kept for a reader.
    """

    def __init__(self, descriptor: int, *, encoding: str = "utf-8", limit_bytes: int = _LIMIT_BYTES) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._limit_bytes = limit_bytes
        self._held = bytearray()
        self._dropped_lines = 0
        self._dropping = False
        self._telling = False
        self._changed = Condition()
        Thread(target=self._write_on, name="standard-error", daemon=True).start()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the base class has an attribute that cannot be set
        """Of the text where it goes."""
        return self._encoding

    def fileno(self) -> int:
        """Return where the text goes."""
        return self._descriptor

    def isatty(self) -> bool:
        """Tell whether it goes to a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def write(self, text: str, /) -> int:
        """Take all of a text, or drop all of it."""
        content = text.encode(self._encoding, "backslashreplace")
        with self._changed:
            if self._dropping or len(self._held) + len(content) > self._limit_bytes:
                self._dropping = bool(self._held)
                self._dropped_lines += content.count(b"\n")
            else:
                self._held += content
            self._changed.notify_all()
        return len(text)

    def drain(self, within_s: float) -> bool:
        """Wait until all that was taken is written, and tell whether it was in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._held and not self._telling, within_s)

    def _write_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._held)
                piece = bytes(self._held[:_PIECE_BYTES])
            count = self._write_piece(piece)
            dropped = self._note(count)
            if dropped:
                # Through the log, so that it has the shape of every other line.
                structlog.get_logger(__name__).warning("lines dropped: standard error was not read", lines=dropped)
            with self._changed:
                self._telling = False
                self._changed.notify_all()

    def _note(self, count: int) -> int:
        """Take note that so many bytes were written, and return how many lines are to be told as dropped."""
        with self._changed:
            if not count:
                self._dropped_lines += self._held.count(b"\n")
                self._held.clear()
            del self._held[:count]
            self._dropping = self._dropping and bool(self._held)
            # Nobody would see it where nothing can be written.
            if not count or self._held:
                return 0
            dropped, self._dropped_lines = self._dropped_lines, 0
            self._telling = True
            return dropped

    def _write_piece(self, piece: bytes) -> int:
        while True:
            try:
                return os.write(self._descriptor, piece)
            except BlockingIOError:
                # Whoever shares the terminal may have made it so.
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
            except OSError:
                return 0


@contextmanager
def unblocked_stderr() -> Iterator[None]:
    """Have everything that goes to standard error go there by a thread, for as long as the context lasts.

    At its end what is left gets a second to be written. Where that is not enough the stream stays: what is said after
    that must not wait either.
    """
    blocking = sys.stderr
    try:
        descriptor = blocking.fileno()
    except (OSError, ValueError):
        # Something in this process takes what is written there.
        yield
        return
    stream = UnblockedStream(descriptor, encoding=blocking.encoding)
    blocking.flush()
    sys.stderr = stream
    set_up_logging(shown())
    try:
        yield
    finally:
        if stream.drain(_END_S):
            sys.stderr = blocking
            set_up_logging(shown())
