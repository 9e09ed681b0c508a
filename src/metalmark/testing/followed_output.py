"""What a job prints, followed live from a server, with the time at which each piece came."""

from __future__ import annotations

import base64
import json
import threading
from types import TracebackType
from typing import Any, Self

import httpx

from metalmark.system import monotonic_s


class FollowedOutput:
    """A thread that reads ``…/output?follow=true`` until the job is over. Use as a context manager.

    Args:
        url: The server's.
        path: Of the job.
        key: A credential.
    """

    def __init__(self, url: str, path: str, key: str) -> None:
        self._url = url + path + "/output?follow=true"
        self._key = key
        self.events: list[tuple[float, str, dict[str, Any]]] = []
        """Each event: when it came on the monotonic clock, its kind, its document."""
        self._more = threading.Condition()
        self._done = False
        self._thread = threading.Thread(target=self._read, name="followed output", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join(30)

    def text(self, stream: str = "stdout") -> str:
        """Return all that came of one stream."""
        pieces = [
            base64.b64decode(event["base64"]) if "base64" in event else event["text"].encode()
            for _, kind, event in self.events
            if kind == "output" and event["stream"] == stream
        ]
        return b"".join(pieces).decode(errors="replace")

    def wait_for(self, text: str, *, seconds: float = 60) -> float:
        """Wait until a text is in what came, and return when that was on the monotonic clock.

        Raises:
            AssertionError: It is not in time.
        """
        deadline = monotonic_s() + seconds
        with self._more:
            while text not in self.text():
                left = deadline - monotonic_s()
                assert left > 0, f"{text!r} is not in {self.text()!r}"
                assert not self._done, f"{text!r} is not in {self.text()!r}, and that is all"
                self._more.wait(left)
            return self.events[-1][0]

    def _read(self) -> None:
        # A parser of its own: what the client understands is judged by something else than the client.
        kind = ""
        headers = {"authorization": f"Bearer {self._key}"}
        try:
            with (
                httpx.Client(timeout=httpx.Timeout(30, read=120), trust_env=False, verify=False) as client,  # noqa: S501 - plain HTTP on loopback
                client.stream("GET", self._url, headers=headers) as answer,
            ):
                answer.raise_for_status()
                for line in answer.iter_lines():
                    name, _, value = line.partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "data":
                        with self._more:
                            self.events.append((monotonic_s(), kind, json.loads(value)))
                            self._more.notify_all()
        except httpx.TransportError:
            # The server went away: what came is what there is.
            pass
        finally:
            with self._more:
                self._done = True
                self._more.notify_all()
