from __future__ import annotations

import pytest
from tests.unit.cli.scripted_server import ScriptedServer

from metalmark.model import InputError


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("list u --revoked --name n", ("GET", "/users/u/keys", {"name": "n", "revoked": "true"}, None)),
        ("view u k", ("GET", "/users/u/keys/k", {}, None)),
        ("update u k --name n", ("PATCH", "/users/u/keys/k", {}, {"name": "n"})),
        ("revoke u k", ("DELETE", "/users/u/keys/k", {}, None)),
        ("rm u k", ("DELETE", "/users/u/keys/k", {}, None)),
    ],
)  # fmt: skip
def test_request_of_each_command(server: ScriptedServer, words: str, asked: object) -> None:
    server.run("key", *words.split())
    assert server.asked == [asked]


@pytest.mark.parametrize(("ttl", "seconds"), [("1", 1), ("30d", 2592000), ("4294967295", 2**32 - 1)])
def test_new_key_has_a_lifetime(server: ScriptedServer, ttl: str, seconds: int) -> None:
    server.answer({"uuid": "u", "key": "bencher_user_x"}, status=201)
    out, _ = server.run("key", "create", "u", "--name", "ci", "--ttl", ttl)
    assert server.asked == [("POST", "/users/u/keys", {}, {"name": "ci", "ttl": seconds})]
    assert "bencher_user_x" in out


@pytest.mark.parametrize("ttl", ["0", "4294967296", "9" * 40, "soon", "-1", "0.2s"])
def test_lifetime_out_of_bounds_is_wrong_usage(server: ScriptedServer, ttl: str) -> None:
    with pytest.raises(InputError, match="--ttl"):
        server.run("key", "create", "u", "--name", "ci", f"--ttl={ttl}")
    assert server.requests == []
