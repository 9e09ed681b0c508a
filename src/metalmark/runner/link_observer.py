"""Tells somebody how the connection to the server is getting on."""

from __future__ import annotations

from metalmark.model import MetalmarkError


class LinkObserver:
    """Sees the events of a link in their order, on the event loop; this one ignores them. Subclass what matters."""

    def connecting(self) -> None:
        """A connection is tried."""

    def connected(self, protocol: str, version: str) -> None:
        """The channel is open: ``metalmark.1`` and the server's version, or ``public`` and nothing."""

    def confirmed(self) -> None:
        """The server took the first ``ready`` of a connection."""

    def disconnected(self, error: MetalmarkError | None, wait_s: float) -> None:
        """The connection is over or could not be made; the next try is in so many seconds. None: left on purpose."""
