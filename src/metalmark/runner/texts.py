"""The port to a connection that carries texts, whichever messages they are."""

from __future__ import annotations

from typing import Protocol


class Texts(Protocol):
    """A connection that carries texts (`metalmark.client.ChannelConnection`)."""

    async def send(self, text: str) -> None:
        """Send a text, or raise `ChannelLost`."""

    async def receive(self) -> str:
        """Return the next text, or raise `ChannelLost`."""
