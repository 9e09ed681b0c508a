"""How the WebSocket library opens a runner's channel: it follows nobody, for the key is meant for one server."""

from __future__ import annotations

from websockets.asyncio.client import connect


class Opening(connect):
    """One attempt to connect. Redirections are errors like any other status."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the error as it is."""
        return exc
