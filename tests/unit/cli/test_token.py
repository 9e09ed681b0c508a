from __future__ import annotations

import pytest
from tests.unit.cli.scripted_server import ScriptedServer


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("list u", ("GET", "/users/u/tokens", {}, None)),
        ("create u --name n --ttl 60", ("POST", "/users/u/tokens", {}, {"name": "n", "ttl": 60})),
        ("view u t", ("GET", "/users/u/tokens/t", {}, None)),
        ("update u t --name n", ("PATCH", "/users/u/tokens/t", {}, {"name": "n"})),
        ("rm u t", ("DELETE", "/users/u/tokens/t", {}, None)),
    ],
)  # fmt: skip
def test_request_of_each_command(server: ScriptedServer, words: str, asked: object) -> None:
    server.run("token", *words.split())
    assert server.asked == [asked]
