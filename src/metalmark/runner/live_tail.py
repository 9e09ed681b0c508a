"""The latest of what a job printed, by absolute byte offset, until the server has it."""

from __future__ import annotations

from dataclasses import dataclass

from metalmark.wire import OutputChunk


@dataclass(frozen=True, kw_only=True)
class LiveSection:
    """Consecutive output: ``offset`` is that of its first byte among all that the job printed, both streams counted."""

    offset: int
    size_bytes: int
    chunks: tuple[OutputChunk, ...]


class LiveTail:
    """A bounded buffer of live output. Never blocks its writer: beyond the bound the oldest is dropped."""

    @property
    def end_offset(self) -> int:
        """How many bytes the job printed so far."""
        raise NotImplementedError

    def read(self, offset: int) -> LiveSection | None:
        """Return what follows an offset, as much as one message takes; None when there is nothing (yet).

        Begins later than asked when what is between was dropped.
        """
        raise NotImplementedError

    def forget(self, offset: int) -> None:
        """Everything before this offset was acknowledged."""
        raise NotImplementedError

    def close(self) -> None:
        """The server takes no more of it: drop everything, and what comes from now on."""
        raise NotImplementedError
