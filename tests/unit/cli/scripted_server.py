"""A server that answers commands in this process: no socket, and every request is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer.main

from metalmark import client
from metalmark.cli.application import app
from metalmark.client import INTERFACE_VERSION, open_session

KEY = "bencher_user_0123456789abcdefghijABCDEFGHIJ"
Asked = tuple[str, str, dict[str, str], Any]


DOCUMENT = Path(__file__).parents[3] / "docs/reference/openapi.json"


@cache
def operations() -> list[tuple[str, re.Pattern[str], set[str], dict[str, Any]]]:
    """Method, path, names of parameters and schema of the body of each operation in the interface's description."""
    document = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    found = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            parameters = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
            content = operation.get("requestBody", {}).get("content", {})
            schema = content.get("application/json", {}).get("schema", {})
            schema = document["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], schema)
            found.append((method.upper(), re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), parameters, schema))
    return found


def check_against_document(request: httpx.Request) -> None:
    """Fail for a request that the interface's description does not know, or knows without one of its fields."""
    path = request.url.raw_path.decode().partition("?")[0]
    matching = [each for each in operations() if each[0] == request.method and each[1].fullmatch(path)]
    assert matching, f"the interface has no {request.method} {path}"
    # A literal path may look like one with a name in it.
    known = set().union(*(parameters for _, _, parameters, _ in matching))
    assert set(request.url.params) <= known, f"{request.method} {path} takes {known}"
    if request.content:
        fields = set().union(*(schema.get("properties", {}) for _, _, _, schema in matching))
        assert set(json.loads(request.content)) <= fields, f"the body of {request.method} {path} has {fields}"


@dataclass
class ScriptedServer:
    """Answers each request with the next reply, or an empty object; the version is always answered."""

    capsys: pytest.CaptureFixture[str]
    replies: list[httpx.Response] = field(default_factory=list)
    requests: list[httpx.Request] = field(default_factory=list)
    version: str = INTERFACE_VERSION

    def answer(self, value: Any, *, status: int = 200, total: int | None = None) -> None:
        """Add a reply."""
        headers = {} if total is None else {"x-total-count": str(total)}
        self.replies.append(httpx.Response(status, json=value, headers=headers))

    def handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v0/server/version":
            return httpx.Response(200, json={"version": self.version, "metalmark": "0"})
        self.requests.append(request)
        check_against_document(request)
        return self.replies.pop(0) if self.replies else httpx.Response(200, json={})

    @property
    def asked(self) -> list[Asked]:
        """Method, path below /v0, query and JSON body of each request but those for the version."""
        return [
            (
                each.method,
                each.url.raw_path.decode().partition("?")[0].removeprefix("/v0"),
                dict(each.url.params),
                json.loads(each.content) if each.content else None,
            )
            for each in self.requests
        ]

    def run(self, *words: str) -> tuple[str, str]:
        """Run a command and return what it wrote to standard output and to standard error."""
        typer.main.get_command(app)(args=list(words), prog_name="metalmark", standalone_mode=False)
        written = self.capsys.readouterr()
        return written.out, written.err


def install(monkeypatch: pytest.MonkeyPatch, handle: Callable[[httpx.Request], httpx.Response]) -> None:
    """Let sessions of this test reach a function instead of the network, with a key of a user."""

    async def no_wait(seconds: float) -> None:
        del seconds

    transport = httpx.MockTransport(handle)
    monkeypatch.setattr(client, "open_session", partial(open_session, transport=transport, sleep=no_wait))
    for name in ("HOST", "API_KEY", "API_KEY_FILE", "API_TOKEN"):
        monkeypatch.delenv(f"METALMARK_{name}", raising=False)
        monkeypatch.delenv(f"BENCHER_{name}", raising=False)
    monkeypatch.setenv("METALMARK_API_KEY", KEY)
