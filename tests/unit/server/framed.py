"""A small application with the rules of the real one around it, called without a socket."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter

from metalmark.server.application import frame
from metalmark.server.config import ServerConfig
from metalmark.server.metrics import Metrics
from metalmark.testing.fake_clock import FakeClock


@dataclass(kw_only=True)
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def document(self) -> Any:
        return json.loads(self.body)


class Framed:
    def __init__(self, router: APIRouter, config: ServerConfig | None = None) -> None:
        self.metrics = Metrics()
        self.clock = FakeClock()
        self.application = frame([router], config or ServerConfig(), self.clock, self.metrics)

    async def call(
        self,
        method: str,
        target: str,
        *,
        body: bytes | list[bytes] = b"",
        headers: Mapping[str, str] | None = None,
        client: str = "192.0.2.1",
        scheme: str = "http",
    ) -> Answer:
        path, _, query = target.partition("?")
        pieces = body if isinstance(body, list) else [body]
        messages = [
            {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1}
            for number, piece in enumerate(pieces)
        ]
        answer = Answer()

        async def receive() -> Any:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                answer.body += message.get("body", b"")

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": scheme,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
            "client": (client, 1234),
            "server": ("localhost", 6610),
        }
        await self.application(scope, receive, send)
        return answer
