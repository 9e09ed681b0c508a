from __future__ import annotations

import pytest
from tests.unit.cli.scripted_server import ScriptedServer


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("list", ("GET", "/users", {}, None)),
        ("view u", ("GET", "/users/u", {}, None)),
        (
            "update u --admin true --locked false --email a@x.org",
            ("PATCH", "/users/u", {}, {"email": "a@x.org", "admin": True, "locked": False}),
        ),
        ("sign-out u", ("DELETE", "/users/u/sessions", {}, None)),
        ("key list u", ("GET", "/users/u/keys", {}, None)),
        ("key update u k --name n", ("PATCH", "/users/u/keys/k", {}, {"name": "n"})),
    ],
)
def test_request_of_each_command(server: ScriptedServer, words: str, asked: object) -> None:
    server.run("user", *words.split())
    assert server.asked == [asked]
