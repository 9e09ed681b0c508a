from __future__ import annotations

import io

import pytest
from tests.unit.cli.scripted_server import ScriptedServer

from metalmark.model import InputError


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("signup a@x.org --i-agree", ("POST", "/auth/signup", {}, {"email": "a@x.org", "name": "a", "i_agree": True})),
        (
            "signup a@x.org --i-agree --name A --slug a --invite i --claim c --plan p",
            (
                "POST",
                "/auth/signup",
                {},
                {
                    "email": "a@x.org",
                    "name": "A",
                    "slug": "a",
                    "invite": "i",
                    "claim": "c",
                    "plan": "p",
                    "i_agree": True,
                },
            ),
        ),
        ("login a@x.org --invite i", ("POST", "/auth/login", {}, {"email": "a@x.org", "invite": "i"})),
        ("confirm a.b.c", ("POST", "/auth/confirm", {}, {"token": "a.b.c"})),
        ("accept a.b.c", ("POST", "/auth/accept", {}, {"invite": "a.b.c"})),
    ],
)
def test_request_of_each_command(server: ScriptedServer, words: str, asked: object) -> None:
    server.run("auth", *words.split())
    assert server.asked == [asked]


def test_token_may_come_from_standard_input(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a.b.c\n"))
    server.run("auth", "confirm", "-")
    assert server.asked == [("POST", "/auth/confirm", {}, {"token": "a.b.c"})]


def test_signing_up_needs_no_key_and_an_agreement(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METALMARK_API_KEY")
    with pytest.raises(InputError, match="--i-agree"):
        server.run("auth", "signup", "a@x.org")
    server.run("auth", "login", "a@x.org")
    assert "authorization" not in server.requests[0].headers
